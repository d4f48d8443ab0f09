"""Rates and binary pairs: Wilson, Clopper-Pearson, exact McNemar, Newcombe's paired difference."""

import math

import numpy as np
from scipy import special, stats

from evals.statistics.intervals import (
    Floats,
    Interval,
    Ints,
    TestResult,
    cluster_sums,
    unseen_share,
)


def wilson_bounds(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Give Wilson's score interval of a rate; (0, 1) when n is 0.

    Source: Wilson 1927; recommended by Brown, Cai and DasGupta 2001.
    """
    if n <= 0:
        return 0.0, 1.0
    z = float(special.ndtri(1 - (1 - confidence) / 2))
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes <= 0 else max(0.0, centre - half)
    high = 1.0 if successes >= n else min(1.0, centre + half)
    return low, high


def clopper_pearson_bounds(successes: float, n: float, alpha: float) -> tuple[float, float]:
    """Give two one-sided bounds of a rate, each wrong with probability at most `alpha`.

    `successes` and `n` need not be whole, so that an effective sample size can be used.
    """
    if n <= 0:
        return 0.0, 1.0
    low = 0.0 if successes <= 0 else float(special.betaincinv(successes, n - successes + 1, alpha))
    high = (
        1.0
        if successes >= n
        else float(special.betaincinv(successes + 1, n - successes, 1 - alpha))
    )
    return low, high


def effective_n(values: Floats, clusters: Ints, alpha: float = 0.05) -> float:
    """Give the number of independent values that would be as informative about the rate.

    Equal to n without clusters. When all values are equal the spread between clusters is unknown
    and the number of clusters is given. A few deviating values say hardly more about that spread,
    so two clusters of average size count beside those seen, one all right and one all wrong: the
    number grows from that of the clusters by what the deviating values show, without a jump.

    Source: Korn and Graubard 1998, design effect with a correction for few clusters; the two
    clusters beside as the two values of each kind of Agresti and Coull 1998.
    """
    n = len(values)
    n_clusters = len(cluster_sums(values, clusters)[0]) if n else 0
    if n_clusters in (n, 0):
        return float(n)
    p = float(values.mean())
    if n_clusters == 1 or p in (0.0, 1.0):
        return float(n_clusters)
    p, variance = _steadied(values, clusters)
    quantile = 1 - alpha / 2
    few = float(special.stdtrit(n - 1, quantile) / special.stdtrit(n_clusters - 1, quantile)) ** 2
    return min(float(n), max(1.0, p * (1 - p) / variance * few))


def _steadied(values: Floats, clusters: Ints) -> tuple[float, float]:
    """Rate and its cluster-robust variance with one cluster all right and one all wrong beside."""
    sums, sizes = cluster_sums(values, clusters)
    usual = len(values) / len(sums)
    sums, weights = np.append(sums, [usual, 0.0]), np.append(sizes, [usual, usual])
    p = float(sums.sum() / weights.sum())
    influences = (sums - p * weights) * (len(sums) / weights.sum())
    return p, float(influences.var(ddof=1)) / len(sums)


def rate_interval(values: Floats, clusters: Ints, confidence: float = 0.95) -> Interval:
    """Give Wilson's interval of a rate (values 0 or 1), on the effective sample size."""
    n = len(values)
    if n == 0:
        return Interval(None, None, None, 0, 0, confidence, "none", "nothing could be scored")
    n_clusters = len(np.unique(clusters))
    size = effective_n(values, clusters, 1 - confidence)
    p = float(values.mean())
    low, high = wilson_bounds(p * size, size, confidence)
    note = "" if size == n else f"effective n = {size:.1f}"
    return Interval(p, min(low, p), max(high, p), n, n_clusters, confidence, "wilson", note)


def rate_bounds(values: Floats, clusters: Ints, alpha: float) -> tuple[float, float]:
    """Give one-sided exact bounds of a rate on the effective sample size, each at `alpha`.

    Nothing is judged more sharply than clusters without a single deviating value would be.
    """
    if len(values) == 0:
        return 0.0, 1.0
    size = effective_n(values, clusters, alpha)
    low, high = clopper_pearson_bounds(float(values.mean()) * size, size, alpha)
    spotless = unseen_share(len(np.unique(clusters)), alpha)
    return min(low, 1.0 - spotless), max(high, spotless)


def mcnemar_exact(only_a: int, only_b: int) -> TestResult:
    """Test two arms on the same questions: counts that only one of them got right.

    Two-sided exact binomial on the discordant pairs. Source: McNemar 1947.
    """
    discordant = only_a + only_b
    if discordant == 0:
        return TestResult(1.0, "mcnemar exact", "the arms never disagree")
    p = 2 * float(stats.binom.cdf(min(only_a, only_b), discordant, 0.5))
    return TestResult(min(1.0, p), "mcnemar exact")


def newcombe_paired(
    both: int, only_a: int, only_b: int, neither: int, confidence: float = 0.95
) -> Interval:
    """Give the interval of rate(b) - rate(a) for independent pairs.

    Source: Newcombe 1998, Statistics in Medicine 17:2635, method 10 (square-and-add of Wilson
    intervals with a corrected correlation).
    """
    n = both + only_a + only_b + neither
    if n == 0:
        return Interval(None, None, None, 0, 0, confidence, "none", "nothing could be scored")
    p_b, p_a = (both + only_b) / n, (both + only_a) / n
    low_b, high_b = wilson_bounds(both + only_b, n, confidence)
    low_a, high_a = wilson_bounds(both + only_a, n, confidence)
    phi = _newcombe_phi(both, only_b, only_a, neither)
    below, above = (p_b - low_b, high_a - p_a), (p_a - low_a, high_b - p_b)
    low = (p_b - p_a) - _square_and_add(*below, phi)
    high = (p_b - p_a) + _square_and_add(*above, phi)
    return Interval(p_b - p_a, max(-1.0, low), min(1.0, high), n, n, confidence, "newcombe paired")


def _square_and_add(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(0.0, first**2 - 2 * phi * first * second + second**2))


def _newcombe_phi(a: int, b: int, c: int, d: int) -> float:
    n = a + b + c + d
    product = (a + b) * (c + d) * (a + c) * (b + d)
    if product == 0:
        return 0.0
    difference = a * d - b * c
    if difference > n / 2:
        return (difference - n / 2) / math.sqrt(product)
    return 0.0 if difference >= 0 else difference / math.sqrt(product)
