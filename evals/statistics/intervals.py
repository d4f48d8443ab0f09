"""The shape of every interval and test result, and the way clusters enter a mean.

Clusters are integers, one per value. The mean of the values is always the mean over values; its
uncertainty always comes from the spread between clusters.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

FEWEST_CLUSTERS = 10  # below so many independent groups nothing is claimed

_SAME_MEAN = 1e-12  # rounding of means that are equal


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its two-sided interval.

    Attributes:
        estimate: None when nothing could be scored.
        low: None when no lower bound can be given; `note` then says why. Likewise `high`.
        n: scored values; `clusters`: independent groups among them.
    """

    estimate: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int
    confidence: float
    method: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class TestResult:
    """A p-value and where it comes from; p is 1 when there is no evidence to test."""

    __test__ = False  # pytest would otherwise collect the name

    p: float
    method: str
    note: str = ""


def cluster_sums(values: Floats, clusters: Ints) -> tuple[Floats, Ints]:
    """Give the sum and the size of every cluster, both of shape (C,)."""
    index = np.unique(clusters, return_inverse=True)[1]
    sums = np.bincount(index, weights=values).astype(np.float64)
    return sums, np.bincount(index).astype(np.int64)


def cluster_means(values: Floats, clusters: Ints) -> Floats:
    """Give the mean of every cluster, shape (C,)."""
    sums, sizes = cluster_sums(values, clusters)
    return sums / sizes


def cluster_totals(values: Floats, clusters: Ints) -> Floats:
    """Give cluster sums scaled so that their plain mean is the mean of the values, shape (C,).

    With clusters of equal size these are the cluster means.
    """
    sums, _ = cluster_sums(values, clusters)
    return np.asarray(sums * (len(sums) / len(values)), dtype=np.float64)


def cluster_influences(values: Floats, clusters: Ints) -> Floats:
    """Give one number per cluster, shape (C,), that carries the mean and its uncertainty.

    Their mean is the mean of the values; their sample variance over C is the cluster-robust (CR1)
    variance of that mean. With clusters of equal size these are the cluster means.
    """
    sums, sizes = cluster_sums(values, clusters)
    mean = float(values.mean())
    return np.asarray(mean + (sums - mean * sizes) * (len(sums) / len(values)), dtype=np.float64)


def unseen_share(clusters: int, alpha: float) -> float:
    """Give the largest share of clusters that could still be hidden after `clusters` without one.

    With probability 1 - alpha at most: 1 - alpha^(1/C), the "rule of three" without rounding.
    """
    return float(1.0 - alpha ** (1.0 / clusters)) if clusters > 0 else 1.0


def degenerate(
    values: Floats, clusters: Ints, confidence: float, support: tuple[float, float]
) -> Interval | None:
    """Give the interval of values without spread between clusters, or None when there is spread.

    Equal values, or clusters with equal means, are no proof of certainty: the bounds allow for
    the share of clusters that may differ without having been seen, at the far end of `support`.
    """
    n = len(values)
    if n == 0:
        return Interval(None, None, None, 0, 0, confidence, "none", "nothing could be scored")
    n_clusters = len(np.unique(clusters))
    mean = float(values.mean())
    if n_clusters < 2:
        note = "one cluster: its spread is unknown, so no interval can be given"
        return Interval(mean, None, None, n, n_clusters, confidence, "none", note)
    if float(np.ptp(cluster_influences(values, clusters))) > _SAME_MEAN:
        return None
    share = unseen_share(n_clusters, (1.0 - confidence) / 2)
    low = mean - share * (mean - support[0])
    high = mean + share * (support[1] - mean)
    same = "values" if float(np.ptp(values)) == 0.0 else "clusters"
    note = f"all {same} are equal: bounds allow for clusters not seen"
    return Interval(mean, low, high, n, n_clusters, confidence, "unseen share", note)
