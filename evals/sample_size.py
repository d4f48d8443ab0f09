"""How many more questions an undecided comparison needs, if the arms stay as measured.

A plan (`evals.planning`) asks for more, because it assumes that the arms are as close as the
margin.
"""

from dataclasses import dataclass
from math import ceil, log, log1p

from scipy import stats

from evals.decision_spec import DecisionSpec
from evals.evidence import ConstraintVerdict, Evidence
from evals.statistics.power import n_needed

_NO_GAP = 1e-9  # what rounding leaves of an estimate that is exactly at its limit


@dataclass(frozen=True, slots=True)
class MoreNeeded:
    """Further questions, and answers when every survivor answers each of them.

    They count only in new groups, of the size of those asked: more questions about the same
    documents tell less.
    """

    samples: int
    answers: int


def more_needed(
    evidence: Evidence, spec: DecisionSpec, survivors: tuple[str, ...]
) -> MoreNeeded | None:
    """Estimate the shortest way to a decision; None when more questions alone will hardly do.

    For each survivor: the questions until its limits are shown to hold and every other survivor
    is shown to be no more than the margin better, or worse; the smallest of these.
    """
    totals = [total for arm in survivors if (total := _total(evidence, spec, survivors, arm))]
    if not totals:
        return None
    by_clusters = ceil(spec.min_clusters * evidence.samples / max(1, evidence.clusters))
    missing = max(1, min(totals) - evidence.samples, by_clusters - evidence.samples)
    more = ceil(missing / (1 - spec.confirm_share))  # some of them will be held back
    return MoreNeeded(more, more * len(survivors))


def _total(
    evidence: Evidence, spec: DecisionSpec, survivors: tuple[str, ...], arm: str
) -> int | None:
    needs: list[int | None] = [1]
    for verdict in evidence.verdicts_of(arm):
        if verdict.verdict != "pass":
            needs.append(_for_constraint(verdict, evidence.samples, spec))
    for other in survivors:
        if other != arm:
            needs.append(_for_pair(evidence, spec, arm, other))
    known = [need for need in needs if need is not None]
    return max(known) if len(known) == len(needs) else None


def _for_pair(evidence: Evidence, spec: DecisionSpec, arm: str, other: str) -> int | None:
    pair = evidence.pair(arm, other)
    if pair.clusters == 0:
        return None
    gain = pair.estimated_gain(arm)
    alpha, power = pair.alpha, spec.power
    ways = [
        max(clusters, ceil(log(alpha / 2) / log1p(-min(gap, 0.999))))
        for gap in (gain, gain + spec.margin)  # shown better, or shown not worse than the margin
        if gap > _NO_GAP and (clusters := n_needed(pair.sd, gap, alpha=alpha, power=power))
    ]
    return ceil(min(ways) * evidence.samples / pair.clusters) if ways else None


def _for_constraint(verdict: ConstraintVerdict, samples: int, spec: DecisionSpec) -> int | None:
    constraint = verdict.constraint
    if verdict.estimate is None:
        return None
    upper = constraint.sense == "at_most"
    limit = constraint.limit if constraint.quantile is None else 1 - constraint.quantile
    gap = limit + spec.slack - verdict.estimate if upper else verdict.estimate - limit + spec.slack
    if gap <= _NO_GAP:
        return None
    z = float(stats.norm.ppf(1 - verdict.alpha) + stats.norm.ppf(spec.power))
    needed = z * z * verdict.estimate * (1 - verdict.estimate) / gap**2
    needed = max(needed, log(verdict.alpha) / log1p(-min(gap, 0.999)))
    per_effective = verdict.n / max(1.0, verdict.n_effective)
    return ceil(needed * per_effective * samples / verdict.n)
