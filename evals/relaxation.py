"""What would change a decision: other limits, another margin."""

from dataclasses import dataclass, replace

from evals.decision_spec import Constraint, DecisionSpec
from evals.evidence import (
    ConstraintVerdict,
    Evidence,
    constraint_verdicts,
    gather_evidence,
    latency_limit_that_passes,
)
from evals.rules import Status, settle
from evals.scoring import ScoreTable


@dataclass(frozen=True, slots=True)
class Relaxation:
    """The smallest change of limits that would admit an arm."""

    arm: str
    changes: tuple[tuple[Constraint, float], ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class Variation:
    """What the outcome would be under a changed rule."""

    change: str
    status: Status
    choice: str | None


def smallest_relaxation(
    table: ScoreTable, evidence: Evidence, spec: DecisionSpec
) -> Relaxation | None:
    """Find the arm that needs the least change of limits to be shown to keep them all.

    Fewest limits changed, then the smallest change relative to the limit, then the cheaper arm.
    None if an arm fails for another reason than a limit, or no limit would do.
    """
    options = []
    failures = evidence.failed or (0,) * len(evidence.arms)
    for rank, (arm, unscored) in enumerate(zip(evidence.arms, evidence.unscored, strict=True)):
        if unscored + failures[rank] > spec.max_unscored * evidence.samples:
            continue
        binding = [v for v in evidence.verdicts_of(arm) if v.verdict != "pass"]
        limits = [_limit_that_passes(table, verdict, spec.slack) for verdict in binding]
        changes = [(v.constraint, x) for v, x in zip(binding, limits, strict=True) if x is not None]
        if len(changes) == len(binding):
            size = sum(abs(x - c.limit) / max(abs(c.limit), 0.01) for c, x in changes)
            options.append((len(changes), size, rank, arm, tuple(changes)))
    if not options:
        return None
    _, _, _, arm, best = min(options)
    parts = " and ".join(f'the limit "{c.label}" is changed to {x:.3g}' for c, x in best)
    return Relaxation(arm, best, f"{arm} would be admitted if {parts}.")


def _limit_that_passes(table: ScoreTable, verdict: ConstraintVerdict, slack: float) -> float | None:
    if verdict.estimate is None:
        return None
    if verdict.constraint.quantile is not None:
        return latency_limit_that_passes(table, verdict, slack)
    if verdict.constraint.sense == "at_most":
        return min(1.0, max(verdict.constraint.limit, verdict.high - slack))
    return max(0.0, min(verdict.constraint.limit, verdict.low + slack))


def sensitivity(
    table: ScoreTable, evidence: Evidence, spec: DecisionSpec, look: int = 1
) -> tuple[Variation, ...]:
    """Decide again with other rules: margin, limits, and how alpha is shared between the arms.

    The margin is doubled and halved, each limit moved 10 % up and down, each given effort 20 %.
    """
    variations = []
    for label, factor in (("doubled", 2.0), ("halved", 0.5)):
        changed = replace(spec, margin=min(0.99, spec.margin * factor))
        variations.append(_vary(f"margin {label} to {changed.margin:g}", evidence, changed))
    for i, constraint in enumerate(spec.constraints):
        for factor in (1.1, 0.9):
            limit = constraint.limit * factor
            limit = limit if constraint.quantile is not None else min(1.0, limit)
            other = replace(constraint, limit=limit)
            rest = (*spec.constraints[:i], other, *spec.constraints[i + 1 :])
            changed = replace(spec, constraints=rest)
            verdicts = constraint_verdicts(table, evidence.arms, changed, look, evidence.registered)
            variations.append(_vary(other.label, replace(evidence, verdicts=verdicts), changed))
    without = tuple(set(table.candidates) - set(evidence.registered))
    dropped = tuple(set(evidence.registered) - set(evidence.arms))
    for i, (arm, share) in enumerate(spec.effort):
        for factor in (1.2, 0.8):
            moved = (*spec.effort[:i], (arm, min(1.0, share * factor)), *spec.effort[i + 1 :])
            changed = replace(spec, effort=moved)
            shared = gather_evidence(table, changed, look=look, without=without, dropped=dropped)
            variations.append(_vary(f"effort for {arm} x {factor:g}", shared, changed))
    return tuple(variations)


def _vary(change: str, evidence: Evidence, spec: DecisionSpec) -> Variation:
    outcome = settle(evidence, spec)
    return Variation(change, outcome.status, outcome.choice)
