"""Which arms no other arm beats in both quality and latency, and how sure that is."""

from collections.abc import Mapping

import numpy as np

from evals.scoring import LATENCY, ScoreTable
from evals.statistics.clustered import ClusterBootstrap
from evals.statistics.intervals import Floats, Ints


def pareto_membership(
    table: ScoreTable, metric: str, *, resamples: int = 500, seed: int = 0
) -> dict[str, float]:
    """Give for each candidate the share of cluster resamples in which no other dominates it.

    Dominated: another arm is at least as good in mean quality and in p95 latency, and better in
    one. Arms without a score or a latency are left out.
    """
    bootstrap = ClusterBootstrap(resamples, seed)
    index = np.unique(table.clusters, return_inverse=True)[1]
    counts = np.concatenate(bootstrap.counts(int(index.max()) + 1)).astype(np.float64)
    quality: dict[str, Floats] = {}
    latency: dict[str, Floats] = {}
    for arm in table.candidates:
        if len(table.scored(arm, metric)[0]) and len(table.scored(arm, LATENCY)[0]):
            quality[arm] = _weighted_means(table.values[arm][metric], index, counts)
            latency[arm] = _weighted_p95(table.values[arm][LATENCY], index, counts)
    shares = {}
    for arm in quality:
        free = np.ones(resamples, dtype=bool)
        for other in quality:
            if other == arm:
                continue
            no_worse = (quality[other] >= quality[arm]) & (latency[other] <= latency[arm])
            better = (quality[other] > quality[arm]) | (latency[other] < latency[arm])
            free &= ~(no_worse & better)
        shares[arm] = float(free.mean())
    return shares


def pareto_front(points: Mapping[str, tuple[float, float]]) -> frozenset[str]:
    """Give the names that no other dominates; a point is (quality, latency)."""
    return frozenset(
        name
        for name, (quality, latency) in points.items()
        if not any(
            (q >= quality and t <= latency) and (q > quality or t < latency)
            for other, (q, t) in points.items()
            if other != name
        )
    )


def _weighted_means(column: Floats, index: Ints, counts: Floats) -> Floats:
    scored = ~np.isnan(column)
    n_clusters = counts.shape[1]
    sums = np.bincount(index[scored], weights=column[scored], minlength=n_clusters)
    sizes = np.bincount(index[scored], minlength=n_clusters)
    total = counts @ sizes
    # A resample without a scored sample says nothing; it gets the lowest quality.
    return np.asarray((counts @ sums) / np.maximum(total, 1), dtype=np.float64)


def _weighted_p95(column: Floats, index: Ints, counts: Floats) -> Floats:
    scored = np.flatnonzero(~np.isnan(column))
    order = scored[np.argsort(column[scored], kind="stable")]
    weights = np.cumsum(counts[:, index[order]], axis=1)
    position = (weights < 0.95 * weights[:, -1:]).sum(axis=1)
    return np.asarray(column[order][np.minimum(position, len(order) - 1)], dtype=np.float64)
