"""Means and differences of clustered scores: t, bootstrap, sign flips and equivalence."""

from collections import OrderedDict
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from evals.statistics.intervals import (
    Floats,
    Interval,
    Ints,
    TestResult,
    cluster_influences,
    cluster_sums,
    cluster_totals,
    degenerate,
    unseen_share,
)

Small = NDArray[np.uint8]

_EXACT_CLUSTERS = 14  # 2^14 sign patterns are enumerated; beyond that they are drawn
_FEW_CLUSTERS = 20
_FEW_DISCORDANT = 10
_TIE = 1e-12
_SAME_SUM = 1e-9  # sums of many scores in another order differ by rounding
_PART = 1 << 19  # cluster draws made at a time; as floats they fit a processor's cache
_HELD = 1 << 28  # bytes of cluster draws kept for the next column


def cluster_t(
    values: Floats,
    clusters: Ints,
    confidence: float = 0.95,
    support: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Give the mean with a t interval from the spread between clusters, C - 1 degrees of freedom.

    Values that are all equal get the bounds of `degenerate` within `support`.
    """
    flat = degenerate(values, clusters, confidence, support)
    if flat is not None:
        return flat
    influences = cluster_influences(values, clusters)
    n_clusters = len(influences)
    se = float(influences.std(ddof=1)) / n_clusters**0.5
    half = float(special.stdtrit(n_clusters - 1, 1 - (1 - confidence) / 2)) * se
    mean = float(values.mean())
    return Interval(
        mean, mean - half, mean + half, len(values), n_clusters, confidence, "cluster t"
    )


class ClusterBootstrap:
    """Resamples clusters with replacement; the same draws for every set of C clusters.

    Shared draws make results independent of the order in which arms and metrics are asked for.
    """

    def __init__(self, resamples: int = 2000, seed: int = 0) -> None:
        self.resamples = resamples
        self.seed = seed
        self._counts: OrderedDict[int, tuple[Small, ...]] = OrderedDict()

    def counts(self, n_clusters: int) -> tuple[Small, ...]:
        """Give how often each cluster is drawn, in parts of shape (some resamples, C)."""
        if n_clusters not in self._counts:
            rng = np.random.default_rng((self.seed, n_clusters))
            rows = max(1, _PART // n_clusters)
            self._counts[n_clusters] = tuple(
                _draw_counts(rng, min(rows, self.resamples - start), n_clusters)
                for start in range(0, self.resamples, rows)
            )
            # Held as small integers: resamples x C bytes each.
            while len(self._counts) > 1 and sum(map(_bytes, self._counts.values())) > _HELD:
                self._counts.popitem(last=False)
        self._counts.move_to_end(n_clusters)
        return self._counts[n_clusters]

    def means(self, values: Floats, clusters: Ints) -> Floats:
        """Give the mean of the values in every resample, shape (resamples,)."""
        return self.table_means(values[:, None], clusters)[:, 0]

    def table_means(self, columns: Floats, clusters: Ints) -> Floats:
        """Give the means of several columns at once, shape (resamples, k).

        Args:
            columns: shape (n, k); NaN where there is no score.
            clusters: shape (n,).
        """
        index = np.unique(clusters, return_inverse=True)[1]
        n_clusters = int(index.max()) + 1
        scored = ~np.isnan(columns)
        filled = np.where(scored, columns, 0.0)
        parts = [np.bincount(index, weights=c, minlength=n_clusters) for c in filled.T]
        # Columns without gaps share one column of sizes.
        sizes = scored[:, :1] if bool(scored.all()) else scored
        parts += [np.bincount(index, weights=c, minlength=n_clusters) for c in sizes.T]
        sums = np.stack(parts, axis=1)
        drawn = np.concatenate([part.astype(np.float64) @ sums for part in self.counts(n_clusters)])
        k = columns.shape[1]
        return np.asarray(drawn[:, :k] / drawn[:, k:], dtype=np.float64)

    def interval(
        self,
        values: Floats,
        clusters: Ints,
        confidence: float = 0.95,
        *,
        support: tuple[float, float] = (0.0, 1.0),
        method: str = "bca",
    ) -> Interval:
        """Give the mean with a bootstrap interval; `method` is "bca" or "percentile".

        Paired differences are values too: pass `b - a` and support (-1, 1).

        Source: Efron 1987 for BCa; the acceleration comes from leaving out one cluster at a time.
        """
        flat = degenerate(values, clusters, confidence, support)
        if flat is not None:
            return flat
        return self._from_draws(self.means(values, clusters), values, clusters, confidence, method)

    def intervals(
        self,
        columns: Floats,
        clusters: Ints,
        confidence: float = 0.95,
        *,
        support: tuple[float, float] = (0.0, 1.0),
    ) -> tuple[Interval, ...]:
        """Give the BCa interval of every column from one set of draws; much faster than one by one.

        Args:
            columns: shape (n, k); NaN where there is no score.
            clusters: shape (n,).
            confidence: of each interval.
            support: the range of the values.
        """
        draws = self.table_means(columns, clusters)
        found = []
        for column, drawn in zip(columns.T, draws.T, strict=True):
            kept = ~np.isnan(column)
            values, groups = column[kept], clusters[kept]
            flat = degenerate(values, groups, confidence, support)
            drawn = drawn[~np.isnan(drawn)]
            made = flat or self._from_draws(drawn, values, groups, confidence, "bca")
            found.append(made)
        return tuple(found)

    def _from_draws(
        self, draws: Floats, values: Floats, clusters: Ints, confidence: float, method: str
    ) -> Interval:
        sums, sizes = cluster_sums(values, clusters)
        mean = float(values.mean())
        tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
        if method == "bca":
            tails = _bca_tails(draws, mean, sums, sizes, tails)
        low, high = (float(q) for q in np.quantile(draws, tails))
        n_clusters = len(sums)
        low, high = min(low, mean), max(high, mean)
        name = f"cluster bootstrap {method}"
        return Interval(mean, low, high, len(values), n_clusters, confidence, name)


def _draw_counts(rng: np.random.Generator, rows: int, n_clusters: int) -> Small:
    drawn = rng.integers(0, n_clusters, size=(rows, n_clusters), dtype=np.int32)
    counts = np.empty((rows, n_clusters), dtype=np.uint8)
    for row, picks in zip(counts, drawn, strict=True):
        row[:] = np.minimum(np.bincount(picks, minlength=n_clusters), 255)
    return counts


def _bytes(parts: tuple[Small, ...]) -> int:
    return sum(part.nbytes for part in parts)


def _bca_tails(draws: Floats, mean: float, sums: Floats, sizes: Ints, tails: Floats) -> Floats:
    below = float((draws < mean - _TIE).mean() + 0.5 * (np.abs(draws - mean) <= _TIE).mean())
    edge = 0.5 / len(draws)
    bias = float(stats.norm.ppf(min(max(below, edge), 1 - edge)))
    left_out = (sums.sum() - sums) / (sizes.sum() - sizes)
    spread = left_out.mean() - left_out
    scale = 6 * float((spread**2).sum()) ** 1.5
    acceleration = float((spread**3).sum()) / scale if scale > 0 else 0.0
    z = bias + stats.norm.ppf(tails)
    return np.asarray(stats.norm.cdf(bias + z / (1 - acceleration * z)), dtype=np.float64)


def sign_flip_test(
    values: Floats, *, draws: int = 10_000, seed: int = 0, alternative: str = "two-sided"
) -> TestResult:
    """Test whether independent values, one per cluster, are symmetric about 0.

    All sign patterns are enumerated up to 14 clusters that differ from 0, drawn above.
    `alternative` is "two-sided" or "greater". No cluster that differs gives p = 1.
    """
    nonzero = values[np.abs(values) > _TIE]
    if len(nonzero) == 0:
        return TestResult(1.0, "sign flip exact", "no cluster differs")
    if len(nonzero) <= _EXACT_CLUSTERS:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(nonzero))))
        extreme = _extreme(signs @ nonzero, nonzero, alternative)
        return TestResult(extreme / len(signs), "sign flip exact")
    return _drawn_flips(nonzero[:, None], draws, seed, alternative)[0]


def sign_flip_tests(
    table: Floats, *, draws: int = 10_000, seed: int = 0, alternative: str = "two-sided"
) -> tuple[TestResult, ...]:
    """Do `sign_flip_test` for every column of (clusters, k), with the same flips for all.

    Much faster than one by one with many clusters; columns with few clusters that differ are
    enumerated as there.
    """
    differ = (np.abs(table) > _TIE).sum(axis=0)
    many = np.flatnonzero(differ > _EXACT_CLUSTERS)
    drawn = _drawn_flips(table[:, many], draws, seed, alternative) if len(many) else ()
    found = dict(zip(many.tolist(), drawn, strict=True))
    return tuple(
        found[j] if j in found else sign_flip_test(table[:, j], alternative=alternative)
        for j in range(table.shape[1])
    )


def _drawn_flips(table: Floats, draws: int, seed: int, alternative: str) -> tuple[TestResult, ...]:
    rng = np.random.default_rng(seed)
    rows, totals = len(table), table.sum(axis=0)
    extreme, step = np.zeros(table.shape[1], dtype=np.int64), max(1, _PART // rows)
    for start in range(0, draws, step):
        count = min(step, draws - start)
        packed = np.frombuffer(rng.bytes(count * (rows // 8 + 1)), dtype=np.uint8)
        bits = np.unpackbits(packed.reshape(count, -1), axis=1)[:, :rows]
        sums = 2.0 * (bits.astype(np.float64) @ table) - totals
        if alternative == "greater":
            extreme += (sums >= totals - _SAME_SUM).sum(axis=0)
        else:
            extreme += (np.abs(sums) >= np.abs(totals) - _SAME_SUM).sum(axis=0)
    name = f"sign flip, {draws} draws"
    return tuple(TestResult((1 + int(e)) / (1 + draws), name) for e in extreme)


def _extreme(sums: Floats, values: Floats, alternative: str) -> int:
    observed = float(values.sum())
    if alternative == "greater":
        return int((sums >= observed - _SAME_SUM).sum())
    return int((np.abs(sums) >= abs(observed) - _SAME_SUM).sum())


def paired_bounds(
    differences: Floats, clusters: Ints, alpha: float, support: tuple[float, float] = (-1.0, 1.0)
) -> Interval:
    """Give the two-sided interval at 1 - alpha that decisions use; it needs no random draws.

    A t interval over clusters, made safer in two places: while fewer than 10 clusters differ at
    all, its half width is at least the share of clusters not yet seen to differ; with fewer than
    20 clusters a bound that excludes 0 must be confirmed by the exact sign-flip test.
    """
    result = cluster_t(differences, clusters, 1 - alpha, support)
    if result.estimate is None or result.low is None or result.high is None:
        return result
    totals = cluster_totals(differences, clusters)
    low, high, notes = result.low, result.high, [result.note] if result.note else []
    if int((np.abs(totals) > _TIE).sum()) < _FEW_DISCORDANT:
        floor = unseen_share(result.clusters, alpha / 2)
        low, high = min(low, result.estimate - floor), max(high, result.estimate + floor)
        notes.append("few clusters differ: width is at least the share not seen")
    if result.clusters < _FEW_CLUSTERS and not low <= 0 <= high:
        flipped = totals if low > 0 else -totals
        if sign_flip_test(flipped, alternative="greater").p > alpha / 2:
            low, high = min(low, 0.0), max(high, 0.0)
            notes.append("few clusters: the exact sign-flip test does not exclude 0")
    low, high = max(low, support[0]), min(high, support[1])
    return Interval(
        result.estimate,
        low,
        high,
        result.n,
        result.clusters,
        1 - alpha,
        result.method,
        "; ".join(notes),
    )


def cluster_t_test(differences: Floats, clusters: Ints) -> TestResult:
    """Test whether the mean difference is 0; two-sided t over clusters, p = 1 without spread."""
    n_clusters = len(np.unique(clusters)) if len(differences) else 0
    if n_clusters < 2:
        return TestResult(1.0, "cluster t", "fewer than two clusters")
    influences = cluster_influences(differences, clusters)
    se = float(influences.std(ddof=1)) / n_clusters**0.5
    if se <= _TIE:
        return TestResult(1.0, "cluster t", "no spread between clusters")
    return TestResult(
        2 * float(stats.t.sf(abs(float(differences.mean())) / se, n_clusters - 1)), "cluster t"
    )


def tost(differences: Floats, clusters: Ints, margin: float) -> TestResult:
    """Test equivalence: a small p says that the mean difference lies within +-margin.

    Two one-sided t tests over clusters; p is the larger. Source: Schuirmann 1987.

    Raises:
        ValueError: if the margin is not positive.
    """
    if margin <= 0:
        raise ValueError(f"the margin must be positive, got {margin}")
    n_clusters = len(np.unique(clusters)) if len(differences) else 0
    if n_clusters < 2:
        return TestResult(1.0, "tost", "fewer than two clusters")
    mean = float(differences.mean())
    influences = cluster_influences(differences, clusters)
    se = float(influences.std(ddof=1)) / n_clusters**0.5
    if se <= _TIE:
        # No spread seen: what may hide among unseen clusters takes the place of the standard error.
        room = margin - abs(mean)
        p = (1 - room) ** n_clusters if 0 < room < 1 else float(room <= 0)
        return TestResult(p, "tost", "no spread between clusters")
    above = float(stats.t.sf((mean + margin) / se, n_clusters - 1))
    below = float(stats.t.cdf((mean - margin) / se, n_clusters - 1))
    return TestResult(max(above, below), "tost")
