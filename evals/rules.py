"""The rules of elimination: from bounds to dropped arms, survivors and a status. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evals.decision_spec import DecisionSpec
from evals.evidence import Evidence
from evals.sentences import dominated_sentence, unscored_sentence, verdict_sentence

Status = Literal["WINNER", "CHEAPEST", "UNDECIDED", "INFEASIBLE", "ASSUMED"]


@dataclass(frozen=True, slots=True)
class Rejection:
    """An arm that was dropped, the kind of failing bound, and the bound in a sentence."""

    arm: str
    kind: Literal["gate", "unscored", "constraint", "dominated"]
    sentence: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the rules say; `certified` are the survivors shown to keep every limit."""

    status: Status
    choice: str | None
    survivors: tuple[str, ...]
    certified: tuple[str, ...]
    rejected: tuple[Rejection, ...]


def settle(evidence: Evidence, spec: DecisionSpec) -> Outcome:
    """Apply the rules to bounds.

    Arms that break a limit go first and eliminate nobody. Among the others an arm goes when one
    that is shown to keep every limit is shown to be better. One certified survivor is the WINNER;
    if every survivor is shown to be less than the margin better than a certified arm, the
    cheapest such arm is taken.
    """
    rejected = _infeasible(evidence, spec)
    dropped = {rejection.arm for rejection in rejected}
    alive = tuple(arm for arm in evidence.arms if arm not in dropped)
    certified = tuple(
        arm for arm in alive if all(v.verdict == "pass" for v in evidence.verdicts_of(arm))
    )
    if not alive:
        return Outcome("INFEASIBLE", None, (), (), rejected)
    if evidence.clusters < spec.min_clusters:
        return Outcome("UNDECIDED", None, alive, certified, rejected)
    dominated = _dominated(evidence, spec, alive, certified)
    rejected += dominated
    dropped = {rejection.arm for rejection in dominated}
    alive = tuple(arm for arm in alive if arm not in dropped)
    certified = tuple(arm for arm in certified if arm in alive)
    if len(alive) == 1 and certified:
        return Outcome("WINNER", alive[0], alive, certified, rejected)
    for arm in certified:  # cheapest first
        if all(
            evidence.pair(arm, other).gain(other)[1] < spec.margin
            for other in alive
            if other != arm
        ):
            return Outcome("CHEAPEST", arm, alive, certified, rejected)
    return Outcome("UNDECIDED", None, alive, certified, rejected)


def _infeasible(evidence: Evidence, spec: DecisionSpec) -> tuple[Rejection, ...]:
    rejected = []
    failures = evidence.failed or (0,) * len(evidence.arms)
    for arm, unscored, failed in zip(evidence.arms, evidence.unscored, failures, strict=True):
        failing = [v for v in evidence.verdicts_of(arm) if v.verdict == "fail"]
        if unscored + failed > spec.max_unscored * evidence.samples:
            text = unscored_sentence(arm, (unscored, failed), evidence.samples, spec.max_unscored)
            rejected.append(Rejection(arm, "unscored", text))
        elif failing:
            text = " ".join(verdict_sentence(verdict, spec.slack) for verdict in failing)
            rejected.append(Rejection(arm, "constraint", text))
    return tuple(rejected)


def _dominated(
    evidence: Evidence, spec: DecisionSpec, alive: Sequence[str], certified: Sequence[str]
) -> tuple[Rejection, ...]:
    rejected = []
    for arm in alive:
        better = [
            (evidence.pair(arm, other).gain(other)[0], other)
            for other in certified
            if other != arm and evidence.pair(arm, other).gain(other)[0] > 0
        ]
        if better:
            by = max(better, key=lambda item: item[0])[1]
            text = dominated_sentence(arm, by, evidence.pair(arm, by), spec.primary)
            rejected.append(Rejection(arm, "dominated", text))
    return tuple(rejected)


def default_arm(evidence: Evidence, spec: DecisionSpec, outcome: Outcome) -> str:
    """Give the cheapest survivor whose mean is within the margin of the best one."""
    pool = outcome.certified or outcome.survivors
    means = {arm: evidence.mean(arm) or 0.0 for arm in pool}
    best = max(means.values())
    return next(arm for arm in pool if means[arm] >= best - spec.margin)
