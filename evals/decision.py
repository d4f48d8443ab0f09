"""Which arm to serve, by rules fixed before the data; every outcome can be explained and replayed.

An arm is dropped when it is shown to break a limit, or when an arm that is shown to keep all
limits is shown to be better. What is left decides the status.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.canonical import canonical_json, jsonable
from evals.decision_spec import DecisionSpec, parse_spec
from evals.errors import DecisionError
from evals.evaluation import Evaluation, IntervalSettings, evaluate
from evals.evidence import Evidence, gather_evidence
from evals.explanation import headline, reasons, warnings
from evals.outputs import Output
from evals.relaxation import Relaxation, Variation, sensitivity, smallest_relaxation
from evals.rules import Rejection, Status, default_arm, settle
from evals.sample_size import MoreNeeded, more_needed
from evals.samples import Sample
from evals.scoring import Style

SCHEMA_VERSION = 1


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
        sensitivity: outcomes under a doubled and halved margin and each limit 10 % up and down.
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
    inputs: Inputs

    def to_json(self) -> str:
        """Write the record, byte for byte the same for the same decision."""
        return canonical_json({"schema_version": SCHEMA_VERSION, **jsonable(self)})


@dataclass(frozen=True, slots=True)
class Replay:
    """The decision made again, and where it differs from the record."""

    identical: bool
    differences: tuple[str, ...]
    decision: Decision


def decide(evaluation: Evaluation, spec: DecisionSpec, *, look: int = 1) -> Decision:
    """Apply the rules of `spec` to an evaluation.

    With probability 1 - alpha (fixed arms, exchangeable clusters) the best arm that keeps the
    limits is not dropped, and a WINNER or CHEAPEST keeps them up to the slack and is within the
    margin of the best. No random numbers are used.

    Args:
        evaluation: scores of every arm on the same samples.
        spec: rules registered before the data.
        look: which of `spec.looks` planned looks this is, from 1.

    Raises:
        DecisionError: if the spec does not fit the evaluation.
    """
    if spec.primary != evaluation.primary:
        raise DecisionError(
            f"the spec decides by {spec.primary}, the evaluation was made for {evaluation.primary}"
        )
    if not 1 <= look <= spec.looks:
        raise DecisionError(f"look {look} is not one of the {spec.looks} planned")
    table = evaluation.table
    evidence = gather_evidence(table, spec)
    outcome = settle(evidence, spec)
    undecided = outcome.status == "UNDECIDED"
    more = more_needed(evidence, spec, outcome.survivors) if undecided else None
    relaxation = None
    if outcome.status == "INFEASIBLE":
        relaxation = smallest_relaxation(table, evidence, spec)
    default = default_arm(evidence, spec, outcome) if undecided else None
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
        headline=headline(evidence, spec, outcome, more, default),
        reason=reasons(evidence, spec, outcome, relaxation),
        warnings=warnings(evaluation, evidence, spec, outcome),
        sensitivity=sensitivity(table, evidence, spec),
        spec=spec,
        spec_digest=spec.digest,
        look=look,
        inputs=Inputs(
            evaluation.samples_digest,
            evaluation.outputs_digest,
            tuple(sorted(table.baselines)),
            evaluation.k,
            evaluation.style,
            evaluation.settings,
        ),
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
        spec, look = parse_spec(recorded["spec"]), recorded["look"]
        settings = IntervalSettings(**inputs["settings"])
        evaluated = {"baselines": inputs["baselines"], "k": inputs["k"]}
        style = inputs["style"] if style is None else style
    except (ValueError, KeyError, TypeError) as error:
        raise DecisionError(f"the decision record cannot be read: {error}") from error
    if version != SCHEMA_VERSION:
        raise DecisionError(f"decision records of version {version} cannot be replayed")
    evaluation = evaluate(
        samples, outputs, primary=spec.primary, style=style, settings=settings, **evaluated
    )
    decision = decide(evaluation, spec, look=look)
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
