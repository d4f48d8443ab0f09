"""Which arm to serve, by rules fixed before the data; every outcome can be explained and replayed.

Gates rule arms out by what is known of them. Of the others an arm is dropped when it is shown to
break a limit, or when an arm that is shown to keep all limits is shown to be better. What is left
decides the status. Without any measurement the advice for similar use cases is assumed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evals.canonical import canonical_json, jsonable
from evals.confirmation import Confirmation, confirm, split_table
from evals.decision_spec import DecisionSpec, as_recorded, parse_spec
from evals.errors import DecisionError
from evals.evaluation import Evaluation, IntervalSettings, evaluate
from evals.evidence import Evidence, gather_evidence
from evals.explanation import (
    expiry,
    exploratory_reasons,
    headline,
    prior_sentence,
    reasons,
    warnings,
)
from evals.gates import CHANGES, CaseFacts, GateFailure, check_gates, gate_relaxation
from evals.outputs import Output
from evals.prior import Prior, seed_prior
from evals.relaxation import Relaxation, Variation, sensitivity, smallest_relaxation
from evals.rules import Outcome, Rejection, Status, default_arm, settle
from evals.sample_size import MoreNeeded, more_needed
from evals.samples import Sample
from evals.scoring import ScoreTable, Style

SCHEMA_VERSION = 3


@dataclass(frozen=True, slots=True)
class Inputs:
    """What has to be given again to replay a decision."""

    samples_digest: str
    outputs_digest: str
    baselines: tuple[str, ...]
    k: int
    style: str | None
    settings: IntervalSettings


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome and everything that led to it.

    Attributes:
        choice: the arm to serve; None when UNDECIDED or INFEASIBLE.
        default: the arm to serve meanwhile when UNDECIDED, cheapest of those that look best.
        survivors: arms that were not dropped; `certified`: those shown to keep every limit.
        more: questions still needed when UNDECIDED; None when more of them will hardly help.
        headline: the decision in one sentence; `reason`: the steps to it.
        sensitivity: outcomes under a doubled and halved margin, each limit 10 % up and down and
            each effort 20 %.
        gates: what ruled arms out before any statistics.
        confirmation: the effect of the chosen arm on questions held back.
        prior: the advice for similar use cases; `agrees_with_prior` is None without a choice.
        expiry: what makes the decision due again.
        earlier: arms that earlier looks of this decision had dropped.
        exploratory: why its error rate is not what `spec` promises; empty for one whose rules
            were fixed before the data and whose looks were planned.
        inputs: None when nothing was measured (ASSUMED).
    """

    status: Status
    choice: str | None
    default: str | None
    survivors: tuple[str, ...]
    certified: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    evidence: Evidence
    more: MoreNeeded | None
    relaxation: Relaxation | None
    headline: str
    reason: tuple[str, ...]
    warnings: tuple[str, ...]
    sensitivity: tuple[Variation, ...]
    spec: DecisionSpec
    spec_digest: str
    look: int
    inputs: Inputs | None
    gates: tuple[GateFailure, ...] = ()
    confirmation: Confirmation | None = None
    prior: Prior | None = None
    agrees_with_prior: bool | None = None
    expiry: tuple[str, ...] = ()
    earlier: tuple[Rejection, ...] = ()
    exploratory: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Write the record, byte for byte the same for the same decision."""
        return canonical_json({"schema_version": SCHEMA_VERSION, **jsonable(self)})


@dataclass(frozen=True, slots=True)
class Replay:
    """The decision made again, and where it differs from the record."""

    identical: bool
    differences: tuple[str, ...]
    decision: Decision


def decide(
    evaluation: Evaluation,
    spec: DecisionSpec,
    *,
    look: int = 1,
    earlier: Sequence[Rejection] = (),
    exploratory: Sequence[str] = (),
) -> Decision:
    """Apply the rules of `spec` to an evaluation.

    With probability 1 - alpha (fixed arms, exchangeable clusters) the best arm that keeps the
    limits is not dropped, and a WINNER or CHEAPEST keeps them up to the slack and is within the
    margin of the best. No random numbers are used.

    Args:
        evaluation: scores of every arm on the same samples.
        spec: rules registered before the data.
        look: which of `spec.looks` planned looks this is, from 1.
        earlier: the arms that earlier looks have dropped, with their reasons; they need not have
            answered the newer questions.
        exploratory: why the promised error rate does not hold, such as an unplanned look.

    Raises:
        DecisionError: if the spec does not fit the evaluation.
    """
    spec = as_recorded(spec)
    if spec.primary != evaluation.primary:
        raise DecisionError(
            f"the spec decides by {spec.primary}, the evaluation was made for {evaluation.primary}"
        )
    if not 1 <= look <= spec.looks:
        raise DecisionError(f"look {look} is not one of the {spec.looks} planned")
    gates = check_gates(spec.case, evaluation.table.candidates) if spec.case else ()
    gated = {failure.arm for failure in gates}
    gone = {rejection.arm for rejection in earlier} - gated
    table, held = split_table(evaluation.table, spec.confirm_share)
    evidence = gather_evidence(table, spec, look=look, without=gated, dropped=gone)
    outcome = _with_gates(settle(evidence, spec), gates, earlier)
    undecided = outcome.status == "UNDECIDED"
    more = more_needed(evidence, spec, outcome.survivors) if undecided else None
    relaxation = None
    if outcome.status == "INFEASIBLE":
        relaxation = _relaxation(table, evidence, spec, gates)
    default = default_arm(evidence, spec, outcome) if undecided else None
    confirmation = confirm(held, evidence, spec, outcome) if held else None
    prior = seed_prior(spec.case, spec.cost_order) if spec.case else None
    closing: tuple[str, ...] = (confirmation.sentence,) if confirmation else ()
    if prior is not None:
        closing += (prior_sentence(prior, outcome.choice),)
    return Decision(
        status=outcome.status,
        choice=outcome.choice,
        default=default,
        survivors=outcome.survivors,
        certified=outcome.certified,
        rejected=outcome.rejected,
        evidence=evidence,
        more=more,
        relaxation=relaxation,
        headline=("Exploratory. " if exploratory else "")
        + headline(evidence, spec, outcome, more, default),
        reason=(
            *exploratory_reasons(exploratory),
            *reasons(evidence, spec, outcome, relaxation),
            *closing,
        ),
        warnings=warnings(evaluation, evidence, spec, outcome),
        sensitivity=sensitivity(table, evidence, spec, look) if evidence.arms else (),
        spec=spec,
        spec_digest=spec.digest,
        look=look,
        inputs=_inputs(evaluation),
        gates=gates,
        confirmation=confirmation,
        prior=prior,
        agrees_with_prior=_agrees(prior, outcome.choice),
        expiry=expiry(spec),
        earlier=tuple(earlier),
        exploratory=tuple(exploratory),
    )


def assume(spec: DecisionSpec) -> Decision:
    """Decide without any measurement: the advice for similar use cases, marked as an assumption.

    Raises:
        DecisionError: if the spec holds no facts about the use case.
    """
    spec = as_recorded(spec)
    case = spec.case
    if case is None:
        raise DecisionError(
            "nothing was measured and the spec says nothing about the use case: "
            "measure, or give `case` with at least its task"
        )
    gates = check_gates(case, spec.cost_order)
    prior = seed_prior(case, spec.cost_order)
    gated = tuple(dict.fromkeys(failure.arm for failure in gates))
    arms = tuple(arm for arm in spec.cost_order if arm not in gated)
    nothing: tuple[float | None, ...] = (None,) * len(arms)
    evidence = Evidence(arms, nothing, (0,) * len(arms), 0, 0, (), ())
    status: Status = "INFEASIBLE" if prior is None else "ASSUMED"
    outcome = _with_gates(Outcome(status, prior.default if prior else None, arms, (), ()), gates)
    relaxation = _gate_relaxation(gates) if prior is None else None
    reason = tuple(rejection.sentence for rejection in outcome.rejected)
    reason += (relaxation.sentence,) if relaxation else ()
    if prior is not None:
        order = ", then ".join(prior.build_order)
        reason += (*prior.reasons, f"Build and measure in this order: {order}.")
    return Decision(
        status=status,
        choice=outcome.choice,
        default=outcome.choice,
        survivors=arms,
        certified=(),
        rejected=outcome.rejected,
        evidence=evidence,
        more=None,
        relaxation=relaxation,
        headline=headline(evidence, spec, outcome, None, None),
        reason=reason,
        warnings=("Nothing has been measured. This is advice, not evidence.",),
        sensitivity=_other_cases(spec, case),
        spec=spec,
        spec_digest=spec.digest,
        look=1,
        inputs=None,
        gates=gates,
        prior=prior,
        agrees_with_prior=_agrees(prior, outcome.choice),
        expiry=("Any measurement replaces it.", *expiry(spec)),
    )


def _other_cases(spec: DecisionSpec, case: CaseFacts) -> tuple[Variation, ...]:
    """What would be assumed if the answers changed at another pace."""
    found = []
    for pace in CHANGES:
        if pace != case.changes:
            prior = seed_prior(replace(case, changes=pace), spec.cost_order)
            choice = prior.default if prior else None
            status: Status = "ASSUMED" if prior else "INFEASIBLE"
            found.append(Variation(f"pace of change {pace}", status, choice))
    return tuple(found)


def _with_gates(
    outcome: Outcome, gates: tuple[GateFailure, ...], earlier: Sequence[Rejection] = ()
) -> Outcome:
    rejected = tuple(Rejection(gate.arm, "gate", gate.sentence) for gate in gates)
    return replace(outcome, rejected=(*rejected, *earlier, *outcome.rejected))


def _relaxation(
    table: ScoreTable, evidence: Evidence, spec: DecisionSpec, gates: tuple[GateFailure, ...]
) -> Relaxation | None:
    found = smallest_relaxation(table, evidence, spec)
    return found or (_gate_relaxation(gates) if gates else None)


def _gate_relaxation(gates: tuple[GateFailure, ...]) -> Relaxation:
    arm, sentence = gate_relaxation(gates)
    return Relaxation(arm, (), sentence)


def _agrees(prior: Prior | None, choice: str | None) -> bool | None:
    return None if prior is None or choice is None else prior.default == choice


def _inputs(evaluation: Evaluation) -> Inputs:
    return Inputs(
        evaluation.samples_digest,
        evaluation.outputs_digest,
        tuple(sorted(evaluation.table.baselines)),
        evaluation.k,
        evaluation.style,
        evaluation.settings,
    )


def replay(
    record: str | Mapping[str, Any],
    samples: Sequence[Sample],
    outputs: Iterable[Output],
    *,
    style: Style | None = None,
) -> Replay:
    """Make a recorded decision again from the stored samples and outputs, and compare.

    `style` is needed only if the house style was a callable, which no record can hold.

    Raises:
        DecisionError: if the record cannot be read.
    """
    try:
        recorded = json.loads(record) if isinstance(record, str) else dict(record)
        version, inputs = recorded["schema_version"], recorded["inputs"]
        if version != SCHEMA_VERSION:
            raise DecisionError(
                f"this decision was recorded by another version of the rules (records of version "
                f"{version}; this one replays {SCHEMA_VERSION}): decide again on its evaluation"
            )
        spec, look = parse_spec(recorded["spec"]), recorded["look"]
        earlier = tuple(Rejection(**item) for item in recorded["earlier"])
        exploratory = tuple(recorded["exploratory"])
        settings = IntervalSettings(**inputs["settings"]) if inputs else None
        evaluated = {"baselines": inputs["baselines"], "k": inputs["k"]} if inputs else {}
        style = inputs["style"] if inputs and style is None else style
    except (ValueError, KeyError, TypeError) as error:
        raise DecisionError(f"the decision record cannot be read: {error}") from error
    if inputs is None:
        decision = assume(spec)
    else:
        evaluation = evaluate(
            samples, outputs, primary=spec.primary, style=style, settings=settings, **evaluated
        )
        decision = decide(evaluation, spec, look=look, earlier=earlier, exploratory=exploratory)
    again = json.loads(decision.to_json())
    differences = tuple(
        f"{key}: recorded {_short(recorded.get(key))}, now {_short(again.get(key))}"
        for key in sorted(set(again) | set(recorded))
        if again.get(key) != recorded.get(key)
    )
    return Replay(not differences, differences, decision)


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 200 else f"{text[:200]}…"
