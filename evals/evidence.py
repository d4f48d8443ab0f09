"""The bounds a decision rests on: one per arm and constraint, one per pair of arms.

Half of a look's alpha goes to the constraints and half to the pairs, each shared by the effort
given to the arms (weighted Bonferroni), so that all bounds of all looks hold together with
probability 1 - alpha.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from evals.decision_spec import Constraint, DecisionSpec
from evals.errors import DecisionError
from evals.metrics.score import METRICS
from evals.scoring import LATENCY, ScoreTable
from evals.statistics.clustered import paired_bounds
from evals.statistics.intervals import Floats, Ints, Mask, cluster_influences
from evals.statistics.rates import effective_n, rate_bounds

Verdict = Literal["pass", "fail", "not shown"]


@dataclass(frozen=True, slots=True)
class ConstraintVerdict:
    """Whether an arm keeps a limit, by one-sided bounds at `alpha` each.

    For latency the three numbers are the share of answers over the limit. `n_effective` counts
    independent values.
    """

    arm: str
    constraint: Constraint
    verdict: Verdict
    estimate: float | None
    low: float
    high: float
    n: int
    n_effective: float
    alpha: float


@dataclass(frozen=True, slots=True)
class PairBound:
    """Bounds of quality(b) - quality(a), two-sided at `alpha`; a is the cheaper arm.

    Attributes:
        sd: standard deviation between clusters, for sample sizes.
    """

    a: str
    b: str
    estimate: float | None
    low: float
    high: float
    n: int
    clusters: int
    sd: float
    alpha: float
    note: str

    def gain(self, arm: str) -> tuple[float, float]:
        """Give the bounds of how much better `arm` is than the other one of the pair."""
        return (self.low, self.high) if arm == self.b else (-self.high, -self.low)

    def estimated_gain(self, arm: str) -> float:
        """Give the estimate of how much better `arm` is, 0 when nothing is known."""
        estimate = self.estimate or 0.0
        return estimate if arm == self.b else -estimate


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything the rules of a decision look at. Arms are sorted cheapest first.

    Attributes:
        unscored: answers that are missing or that the metric cannot judge, by arm.
        failed: answers that failed, by arm; they count as the worst score and as too slow.
        registered: the arms that share alpha: those compared now and those dropped by earlier
            looks.
    """

    arms: tuple[str, ...]
    means: tuple[float | None, ...]
    unscored: tuple[int, ...]
    samples: int
    clusters: int
    verdicts: tuple[ConstraintVerdict, ...]
    pairs: tuple[PairBound, ...]
    registered: tuple[str, ...] = ()
    failed: tuple[int, ...] = ()

    def pair(self, x: str, y: str) -> PairBound:
        """Give the bound of two arms, whichever is named first."""
        return next(pair for pair in self.pairs if {pair.a, pair.b} == {x, y})

    def mean(self, arm: str) -> float | None:
        """Give the mean primary score of an arm."""
        return self.means[self.arms.index(arm)]

    def verdicts_of(self, arm: str) -> tuple[ConstraintVerdict, ...]:
        """Give the verdicts of one arm."""
        return tuple(verdict for verdict in self.verdicts if verdict.arm == arm)


def gather_evidence(
    table: ScoreTable,
    spec: DecisionSpec,
    *,
    look: int = 1,
    without: Collection[str] = (),
    dropped: Collection[str] = (),
) -> Evidence:
    """Compute all bounds of a score table under a spec.

    Args:
        table: scores of every arm.
        spec: the rules.
        look: which of the planned looks, from 1; it spends its own part of alpha.
        without: candidates that a gate has ruled out; they take no part.
        dropped: candidates that an earlier look has dropped; they take no part either but keep
            their share of alpha, for what the data decided must not free any.

    Raises:
        DecisionError: if there is no candidate, or one that the cost order does not name.
    """
    arms = tuple(arm for arm in spec.cost_order if arm in table.candidates)
    strangers = [arm for arm in table.candidates if arm not in arms]
    if strangers:
        raise DecisionError(
            f"arm {strangers[0]!r} is not in the cost order {', '.join(spec.cost_order)}"
        )
    if not arms:
        raise DecisionError("there is no arm to choose from, only baselines")
    registered = tuple(
        arm
        for arm in spec.cost_order
        if arm not in without and (arm in table.candidates or arm in dropped)
    )
    arms = tuple(arm for arm in registered if arm not in dropped)
    columns = [table.scored(arm, spec.primary)[0] for arm in arms]
    judged = _judged(table, spec.primary)
    return Evidence(
        arms=arms,
        means=tuple(float(column.mean()) if len(column) else None for column in columns),
        unscored=tuple(int(judged.sum()) - len(column) for column in columns),
        samples=int(judged.sum()),
        clusters=len(np.unique(table.clusters[judged])),
        verdicts=constraint_verdicts(table, arms, spec, look, registered),
        pairs=_pair_bounds(table, arms, spec, look, registered),
        registered=registered,
        failed=tuple(_failures(table, arm, judged) for arm in arms),
    )


def _failures(table: ScoreTable, arm: str, judged: Mask) -> int:
    """Answers to judged samples of which at least one repeat failed."""
    rate = table.values[arm].get("error_rate")
    return 0 if rate is None else int((judged & (rate > 0)).sum())


def _judged(table: ScoreTable, metric: str) -> Mask:
    """Samples that the metric is about: not those on which every arm answered and none has a score.

    Whether an answer is in JSON says nothing about a question whose answer is none.
    """
    columns = [table.values[arm] for arm in table.arms]
    scored = np.array([~np.isnan(column[metric]) for column in columns]).any(axis=0)
    failed = [column["error_rate"] for column in columns if "error_rate" in column]
    fine = [rate == 0.0 for rate in failed] or [np.zeros(len(table.sample_ids), dtype=bool)]
    return np.asarray(scored | ~np.array(fine).any(axis=0), dtype=np.bool_)


def constraint_verdicts(
    table: ScoreTable,
    arms: tuple[str, ...],
    spec: DecisionSpec,
    look: int = 1,
    registered: tuple[str, ...] = (),
) -> tuple[ConstraintVerdict, ...]:
    """Judge every arm by every constraint; alpha is shared by the registered arms."""
    if not spec.constraints or not arms:
        return ()
    sharing = registered or arms
    share = dict(zip(sharing, spec.effort_of(sharing), strict=True))
    alpha = spec.alpha_at(look) / (2 if len(sharing) > 1 else 1) / len(spec.constraints)
    return tuple(
        judge(table, arm, constraint, spec.slack, alpha * share[arm])
        for arm in arms
        for constraint in spec.constraints
    )


def judge(
    table: ScoreTable, arm: str, constraint: Constraint, slack: float, alpha: float
) -> ConstraintVerdict:
    """Judge one arm by one constraint: fail beyond the limit, pass within limit and slack.

    Every latency counts as independent, as in the percentiles of the report: it hangs on the
    machine and the length of the answer, not on which document is asked about.
    """
    values, clusters = table.scored(arm, constraint.metric)
    limit = constraint.limit
    bounds: Callable[[Floats, Ints, float], tuple[float, float]] = rate_bounds
    if constraint.quantile is not None:
        values, limit = (values > constraint.limit).astype(np.float64), 1 - constraint.quantile
        clusters = np.arange(len(values))
    elif METRICS[constraint.metric].kind == "graded":
        bounds = _graded_bounds
    if len(values) == 0:
        return ConstraintVerdict(arm, constraint, "not shown", None, 0.0, 1.0, 0, 0.0, alpha)
    low, high = bounds(values, clusters, alpha)
    if constraint.sense == "at_most":
        failed, passed = low > limit, high <= limit + slack
    else:
        failed, passed = high < limit, low >= limit - slack
    verdict: Verdict = "fail" if failed else "pass" if passed else "not shown"
    size = effective_n(values, clusters, alpha)
    return ConstraintVerdict(
        arm, constraint, verdict, float(values.mean()), low, high, len(values), size, alpha
    )


def _graded_bounds(values: Floats, clusters: Ints, alpha: float) -> tuple[float, float]:
    interval = paired_bounds(values, clusters, 2 * alpha, support=(0.0, 1.0))
    return (
        0.0 if interval.low is None else interval.low,
        1.0 if interval.high is None else interval.high,
    )


def _pair_bounds(
    table: ScoreTable,
    arms: tuple[str, ...],
    spec: DecisionSpec,
    look: int,
    registered: tuple[str, ...],
) -> tuple[PairBound, ...]:
    if len(arms) < 2:
        return ()
    alpha = spec.alpha_at(look) / (2 if spec.constraints else 1)
    share = dict(zip(registered, spec.effort_of(registered), strict=True))
    total = sum(share[a] * share[b] for a, b in combinations(registered, 2))
    return tuple(
        pair_bound(table, a, b, spec.primary, alpha * share[a] * share[b] / total)
        for a, b in combinations(arms, 2)
    )


def pair_bound(table: ScoreTable, a: str, b: str, metric: str, alpha: float) -> PairBound:
    """Bound quality(b) - quality(a) on the samples both were scored on, two-sided at `alpha`."""
    first, second, clusters = table.paired(a, b, metric)
    interval = paired_bounds(second - first, clusters, alpha)
    if interval.estimate is None or interval.low is None or interval.high is None:
        return PairBound(
            a,
            b,
            interval.estimate,
            -1.0,
            1.0,
            interval.n,
            interval.clusters,
            0.0,
            alpha,
            interval.note,
        )
    sd = float(cluster_influences(second - first, clusters).std(ddof=1))
    return PairBound(
        a,
        b,
        interval.estimate,
        interval.low,
        interval.high,
        interval.n,
        interval.clusters,
        sd,
        alpha,
        interval.note,
    )


def latency_limit_that_passes(
    table: ScoreTable, verdict: ConstraintVerdict, slack: float
) -> float | None:
    """Give the smallest measured latency that would pass as the limit, None if there is none."""
    values = table.scored(verdict.arm, LATENCY)[0]
    allowed = 1 - (verdict.constraint.quantile or 0.0) + slack
    ordered = np.unique(values)
    low, high = 0, len(ordered)
    while low < high:  # the share over the limit falls as the limit rises
        middle = (low + high) // 2
        over = (values > ordered[middle]).astype(np.float64)
        if rate_bounds(over, np.arange(len(over)), verdict.alpha)[1] <= allowed:
            high = middle
        else:
            low = middle + 1
    # Upwards to a microsecond: what a record rounds down would no longer pass.
    found = low < len(ordered) and np.isfinite(ordered[low])
    return float(np.ceil(ordered[low] * 1e6) / 1e6) if found else None
