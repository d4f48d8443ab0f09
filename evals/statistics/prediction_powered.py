"""A few labels from people and many from a judge: an estimate that is right whatever the judge."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from evals.statistics.intervals import Floats, Interval, Ints, cluster_influences


@dataclass(frozen=True, slots=True)
class PredictionPowered:
    """The estimate, how far the judge was trusted, and what that was worth.

    Attributes:
        weight: power-tuned lambda in [0, 1]; 0 ignores the judge.
        worth: the human labels alone would have to be this many times as many.
    """

    interval: Interval
    weight: float
    worth: float


def prediction_powered_mean(
    labels: Floats,
    judged: Floats,
    judged_unlabelled: Floats,
    *,
    clusters: Ints | None = None,
    confidence: float = 0.95,
    folds: int = 5,
) -> PredictionPowered:
    """Estimate the mean human label from `n` labels and `N` further judgements.

    The judge's weight is tuned on the other folds for every label, so that the estimate is
    unbiased whatever the judge; a useless judge gets weight near 0. Paired differences of two
    arms are values too: pass differences of labels and of judgements.

    Source: Angelopoulos, Duchi and Zrnic 2023, PPI++, https://arxiv.org/abs/2311.01453;
    cross-fitting after Zrnic and Candes 2024, https://arxiv.org/abs/2309.16598.

    Args:
        labels: shape (n,) human labels.
        judged: shape (n,) the judge on the same answers.
        judged_unlabelled: shape (N,) the judge on answers without a label.
        clusters: shape (n,) independent group of each label; default one each.
        confidence: of the interval.
        folds: parts that take turns; clusters are not torn apart.

    Raises:
        ValueError: if there are fewer than 10 labelled groups, or shapes differ.
    """
    y, f = np.asarray(labels, dtype=np.float64), np.asarray(judged, dtype=np.float64)
    rest = np.asarray(judged_unlabelled, dtype=np.float64)
    if y.shape != f.shape:
        raise ValueError(f"{len(y)} labels but {len(f)} judgements of the labelled answers")
    groups = np.arange(len(y)) if clusters is None else np.asarray(clusters)
    numbers = np.unique(groups, return_inverse=True)[1]
    n_groups = int(numbers.max()) + 1 if len(y) else 0
    if n_groups < 10:
        raise ValueError(f"at least 10 independent labelled groups are needed, got {n_groups}")
    part = numbers % folds
    ratio = len(y) / max(1, len(rest))
    weights = np.array([_tuned(y[part != k], f[part != k], rest, ratio) for k in range(folds)])
    each = weights[part]
    weight = float(each.mean())
    corrected = y - each * f
    far = float(rest.mean()) if len(rest) else 0.0
    estimate = float(corrected.mean()) + weight * far
    influences = cluster_influences(corrected, numbers)
    variance = float(influences.var(ddof=1)) / n_groups
    if len(rest) > 1:
        variance += weight**2 * float(rest.var(ddof=1)) / len(rest)
    half = float(stats.t.ppf((1 + confidence) / 2, n_groups - 1)) * variance**0.5
    interval = Interval(
        estimate, estimate - half, estimate + half, len(y), n_groups, confidence, "PPI++"
    )
    alone = float(cluster_influences(y, numbers).var(ddof=1)) / n_groups
    return PredictionPowered(interval, weight, alone / variance if variance > 0 else 1.0)


def _tuned(y: Floats, f: Floats, rest: Floats, ratio: float) -> float:
    spread = float(np.concatenate([f, rest]).var())
    if spread <= 0 or len(y) < 2 or len(rest) == 0:
        return 0.0
    shared = float(np.cov(y, f)[0, 1])
    return min(1.0, max(0.0, shared / ((1 + ratio) * spread)))
