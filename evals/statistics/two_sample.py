"""Whether two sets of questions come from the same source: kernel distance and topic shares."""

import numpy as np
from scipy import stats
from scipy.cluster.vq import kmeans2, vq

from evals.statistics.intervals import Floats, Ints, TestResult


def mmd_test(
    before: Floats, after: Floats, *, permutations: int = 500, seed: int = 0, most: int = 400
) -> TestResult:
    """Test whether two sets of embeddings differ; any kind of difference counts.

    Squared maximum mean discrepancy with a Gaussian kernel of median width; p by permutation,
    which is exact for independent questions. Larger sets are cut to `most` at random, seeded.

    Source: Gretton et al. 2012, A kernel two-sample test, JMLR 13.

    Args:
        before: shape (n, d).
        after: shape (m, d).
        permutations: draws; p is at least 1 / (permutations + 1).
        seed: of cut and permutations.
        most: rows of each side that enter.

    Raises:
        ValueError: on fewer than 10 rows on a side or different widths.
    """
    rng = np.random.default_rng(seed)
    sides = [_cut(np.asarray(side, dtype=np.float64), most, rng) for side in (before, after)]
    if min(len(side) for side in sides) < 10:
        raise ValueError(f"each side needs 10 rows, got {len(before)} and {len(after)}")
    if sides[0].shape[1] != sides[1].shape[1]:
        raise ValueError(f"widths differ: {sides[0].shape[1]} and {sides[1].shape[1]}")
    n, m = len(sides[0]), len(sides[1])
    rows = np.concatenate(sides)
    squares = (rows**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * rows @ rows.T, 0.0)
    middle = float(np.median(distances[np.triu_indices(n + m, 1)]))
    kernel = np.exp(-distances / middle) if middle > 0 else np.ones_like(distances)
    np.fill_diagonal(kernel, 0.0)
    sign = np.zeros((permutations + 1, n + m))
    for i in range(permutations + 1):
        order = np.arange(n + m) if i == 0 else rng.permutation(n + m)
        sign[i, order[:n]] = 1.0
    inside = ((sign @ kernel) * sign).sum(axis=1)
    other = 1.0 - sign
    outside = ((other @ kernel) * other).sum(axis=1)
    between = ((sign @ kernel) * other).sum(axis=1)
    statistic = inside / (n * (n - 1)) + outside / (m * (m - 1)) - 2 * between / (n * m)
    extreme = int((statistic[1:] >= statistic[0] - 1e-12).sum())
    return TestResult((1 + extreme) / (1 + permutations), "mmd permutation")


def topic_share_test(
    before: Floats, after: Floats, *, topics: int = 8, seed: int = 0
) -> tuple[TestResult, tuple[tuple[int, float, float], ...]]:
    """Test whether topics are asked about as often as before.

    Topics are k-means groups of both sets together, so that the null distribution is kept. Rare
    topics are joined until each is expected 5 times on either side; chi-square otherwise.

    Returns:
        The test, and per topic (number, share before, share after), largest change first.
    """
    rows = np.concatenate([np.asarray(before), np.asarray(after)]).astype(np.float64)
    k = max(2, min(topics, len(rows) // 20))
    centres, _ = kmeans2(rows, k, seed=np.random.default_rng(seed), minit="++")
    labels = vq(rows, centres)[0]
    counts = np.stack(
        [
            np.bincount(labels[: len(before)], minlength=k),
            np.bincount(labels[len(before) :], minlength=k),
        ]
    )
    shares = counts / counts.sum(axis=1, keepdims=True)
    changed = sorted(range(k), key=lambda j: (-abs(float(shares[1, j] - shares[0, j])), j))
    table = tuple((j, float(shares[0, j]), float(shares[1, j])) for j in changed)
    joined = _join_rare(counts)
    if joined.shape[1] < 2:
        return TestResult(1.0, "chi-square", "too few questions for topics"), table
    return TestResult(float(stats.chi2_contingency(joined).pvalue), "chi-square"), table


def _cut(rows: Floats, most: int, rng: np.random.Generator) -> Floats:
    return rows if len(rows) <= most else rows[np.sort(rng.choice(len(rows), most, replace=False))]


def _join_rare(counts: Ints) -> Ints:
    """Join the rarest topics until every expected count is at least 5."""
    sides = counts.sum(axis=1) / counts.sum()
    columns = sorted((counts[:, j] for j in range(counts.shape[1])), key=lambda c: int(c.sum()))
    while len(columns) > 1 and float((columns[0].sum() * sides).min()) < 5:
        columns[1] = columns[0] + columns[1]
        columns = sorted(columns[1:], key=lambda c: int(c.sum()))
    return np.stack(columns, axis=1)
