"""Arms against one another on the same questions: paired differences and slices by tag."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np

from evals.metrics.score import find_metric
from evals.samples import Sample
from evals.scoring import ScoreTable
from evals.statistics.clustered import (
    ClusterBootstrap,
    cluster_t,
    cluster_t_test,
    paired_bounds,
    sign_flip_test,
)
from evals.statistics.intervals import (
    FEWEST_CLUSTERS,
    Floats,
    Interval,
    Ints,
    TestResult,
    cluster_influences,
    cluster_totals,
)
from evals.statistics.multiplicity import benjamini_hochberg, holm
from evals.statistics.power import mde
from evals.statistics.rates import mcnemar_exact, newcombe_paired

_FEW_CLUSTERS = 30  # below, BCa intervals are too short


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much better `b` is than `a` on the questions both were scored on.

    Attributes:
        difference: mean of b - a and its interval, not adjusted for the number of pairs.
        p_holm: p adjusted over the pairs of the same kind and metric: candidates with one another,
            or candidates with baselines.
        mde: smallest difference this many clusters would probably show (power .8) when all pairs
            of its kind are judged together; None when it cannot be known.
        a_better, b_better: questions on which that arm scored higher.
    """

    a: str
    b: str
    metric: str
    difference: Interval
    p: float
    p_holm: float
    test: str
    mde: float | None
    a_better: int
    b_better: int

    def shown_better(self, level: float, min_clusters: int = FEWEST_CLUSTERS) -> str | None:
        """Give the arm that is shown to be better, None if neither is.

        The adjusted p must be below `level`, the interval must exclude 0 and there must be at
        least `min_clusters` independent groups.
        """
        found = self.difference
        few = found.clusters < min_clusters
        if few or self.p_holm >= level or found.low is None or found.high is None:
            return None
        return self.b if found.low > 0 else self.a if found.high < 0 else None


@dataclass(frozen=True, slots=True)
class SliceScore:
    """One arm on the questions with one tag; exploratory.

    Attributes:
        versus: the arm it is compared with, None for that arm itself.
        p, q: None as well where the tag has too few independent groups for a claim; q is the false
            discovery rate over all slice comparisons that have a p.
    """

    tag: str
    arm: str
    score: Interval
    versus: str | None = None
    difference: Interval | None = None
    p: float | None = None
    q: float | None = None


def paired_differences(
    table: ScoreTable,
    metrics: Sequence[str],
    *,
    bootstrap: ClusterBootstrap,
    confidence: float = 0.95,
) -> tuple[PairedDifference, ...]:
    """Compare the candidates with one another and with baselines, by every metric.

    The two kinds of pairs are adjusted apart (Holm), so that a question nobody decides on takes
    nothing from one that matters; baselines are not compared with one another. Pairs without a
    common score are left out.

    Independent rates: Newcombe's interval and the exact McNemar test. Graded scores and clustered
    rates: BCa over clusters, below 30 clusters the t interval that decisions use, and sign flips
    of clusters.
    """
    results: list[PairedDifference] = []
    families = (
        tuple(combinations(table.candidates, 2)),
        tuple((a, b) for a in table.candidates for b in table.arms if b in table.baselines),
    )
    for metric, family in product(metrics, families):
        pairs = [
            found
            for pair in family
            if (found := _compare(table, pair, metric, bootstrap, confidence)) is not None
        ]
        adjusted = holm([pair.p for pair in pairs])
        for pair, p_holm in zip(pairs, adjusted, strict=True):
            smallest = _mde(table, pair, (1 - confidence) / len(pairs))
            results.append(replace(pair, p_holm=p_holm, mde=smallest))
    return tuple(results)


def _compare(
    table: ScoreTable,
    pair: tuple[str, str],
    metric: str,
    bootstrap: ClusterBootstrap,
    confidence: float,
) -> PairedDifference | None:
    first, second, clusters = table.paired(*pair, metric)
    if len(first) == 0:
        return None
    a_better, b_better = int((first > second).sum()), int((second > first).sum())
    independent = len(np.unique(clusters)) == len(clusters)
    binary = bool(np.isin(first, (0.0, 1.0)).all() and np.isin(second, (0.0, 1.0)).all())
    if find_metric(metric).kind == "rate" and independent and binary:
        both, neither = int((first * second).sum()), int(((1 - first) * (1 - second)).sum())
        interval = newcombe_paired(both, a_better, b_better, neither, confidence)
        test = mcnemar_exact(a_better, b_better)
    else:
        interval, test = _clustered(second - first, clusters, bootstrap, confidence)
    return PairedDifference(
        *pair, metric, interval, test.p, test.p, test.method, None, a_better, b_better
    )


def _clustered(
    differences: Floats, clusters: Ints, bootstrap: ClusterBootstrap, confidence: float
) -> tuple[Interval, TestResult]:
    totals = cluster_totals(differences, clusters)
    if len(totals) < _FEW_CLUSTERS:
        interval = paired_bounds(differences, clusters, 1 - confidence)
    else:
        interval = bootstrap.interval(differences, clusters, confidence, support=(-1.0, 1.0))
    return interval, sign_flip_test(totals, seed=bootstrap.seed)


def _mde(table: ScoreTable, pair: PairedDifference, alpha: float) -> float | None:
    first, second, clusters = table.paired(pair.a, pair.b, pair.metric)
    influences = cluster_influences(second - first, clusters)
    if len(influences) < 2 or float(np.ptp(influences)) == 0.0:
        return None
    return mde(float(influences.std(ddof=1)), len(influences), alpha=alpha)


def slice_scores(
    table: ScoreTable, samples: Sequence[Sample], metric: str, confidence: float = 0.95
) -> tuple[SliceScore, ...]:
    """Score every arm on every tag, and compare each with the cheapest candidate.

    q-values go over all comparisons of all tags (Benjamini-Hochberg). A tag with fewer than
    `FEWEST_CLUSTERS` independent groups gets its scores but no test.
    """
    tags = sorted({tag for sample in samples for tag in sample.tags})
    reference = table.candidates[0] if table.candidates else table.arms[0]
    rows: list[SliceScore] = []
    for tag in tags:
        mask = np.array([tag in sample.tags for sample in samples])
        for arm in table.arms:
            score = cluster_t(*table.scored(arm, metric, mask), confidence)
            row = SliceScore(tag, arm, _within(score, 0.0, 1.0))
            first, second, clusters = table.paired(reference, arm, metric, mask)
            if arm != reference and len(first):
                change = cluster_t(second - first, clusters, confidence, (-1.0, 1.0))
                enough = change.clusters >= FEWEST_CLUSTERS
                p = cluster_t_test(second - first, clusters).p if enough else None
                row = replace(row, versus=reference, difference=_within(change, -1.0, 1.0), p=p)
            rows.append(row)
    q_values = iter(benjamini_hochberg([row.p for row in rows if row.p is not None]))
    return tuple(row if row.p is None else replace(row, q=next(q_values)) for row in rows)


def _within(interval: Interval, low: float, high: float) -> Interval:
    if interval.low is None or interval.high is None:
        return interval
    return replace(interval, low=max(low, interval.low), high=min(high, interval.high))
