"""Answers with a confidence: risk at every coverage, its area, and how well it is calibrated."""

from dataclasses import dataclass

import numpy as np

from evals.errors import MetricError
from evals.statistics.intervals import Floats, Ints


@dataclass(frozen=True, slots=True)
class RiskPoint:
    """Answering only at or above `threshold`: share answered and mean loss among those."""

    threshold: float
    coverage: float
    risk: float


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Answers whose confidence lies in one bin: mean confidence, mean score, how many."""

    confidence: float
    score: float
    n: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far confidence means what it says.

    Attributes:
        ece: expected calibration error over bins of equal count, in [0, 1].
        brier: mean squared distance between confidence and score.
    """

    bins: tuple[CalibrationBin, ...]
    ece: float
    brier: float
    n: int


def risk_coverage(confidence: Floats, scores: Floats) -> tuple[RiskPoint, ...]:
    """Give the curve from the most confident answers alone to all of them.

    Risk is 1 - score. Answers of equal confidence enter together: no threshold parts them.
    Source: El-Yaniv and Wiener 2010.

    Raises:
        MetricError: if the arrays differ in length.
    """
    _same_length(confidence, scores)
    order = np.argsort(-confidence, kind="stable")
    sure, loss = confidence[order], 1.0 - scores[order]
    sums = np.cumsum(loss)
    n = len(sure)
    last = np.flatnonzero(np.append(sure[1:] != sure[:-1], True)[:n])
    return tuple(
        RiskPoint(float(sure[i]), (int(i) + 1) / n, float(sums[i]) / (int(i) + 1)) for i in last
    )


def aurc(confidence: Floats, scores: Floats) -> float | None:
    """Give the area under the risk-coverage curve, the mean risk over all coverages; None if empty.

    Lower is better. Ties count with their expected order, so constant confidence gives the mean
    risk. Source: Geifman et al. 2019.
    """
    _same_length(confidence, scores)
    n = len(scores)
    if n == 0:
        return None
    order = np.argsort(-confidence, kind="stable")
    sure, loss = confidence[order], 1.0 - scores[order]
    starts = np.flatnonzero(np.append(True, sure[1:] != sure[:-1]))
    sizes = np.diff(np.append(starts, n))
    expected = np.repeat(np.add.reduceat(loss, starts) / sizes, sizes)
    return float((np.cumsum(expected) / np.arange(1, n + 1)).mean())


def best_aurc(scores: Floats) -> float | None:
    """Give the area that a perfect order of the same answers would reach."""
    return aurc(scores, scores)


def calibration(confidence: Floats, scores: Floats, bins: int = 10) -> Calibration | None:
    """Compare confidence in [0, 1] with scores in bins that hold equally many answers.

    None when there is nothing to compare. Source: Nguyen and O'Connor 2015 (adaptive binning).

    Raises:
        MetricError: if a confidence is outside [0, 1] or the arrays differ in length.
    """
    _same_length(confidence, scores)
    n = len(scores)
    if n == 0:
        return None
    if float(confidence.min()) < 0 or float(confidence.max()) > 1:
        worst = float(confidence.min() if confidence.min() < 0 else confidence.max())
        raise MetricError(f"a confidence must lie in [0, 1], got {worst}")
    order = np.argsort(confidence, kind="stable")
    rows = [
        CalibrationBin(float(confidence[part].mean()), float(scores[part].mean()), len(part))
        for part in np.array_split(order, min(bins, n))
    ]
    ece = sum(row.n * abs(row.confidence - row.score) for row in rows) / n
    return Calibration(tuple(rows), ece, float(((confidence - scores) ** 2).mean()), n)


def thin(points: tuple[RiskPoint, ...], most: int = 60) -> tuple[RiskPoint, ...]:
    """Keep at most this many points of a curve, its ends among them."""
    if len(points) <= most:
        return points
    kept: Ints = np.unique(np.linspace(0, len(points) - 1, most).round().astype(np.int64))
    return tuple(points[i] for i in kept)


def _same_length(confidence: Floats, scores: Floats) -> None:
    if len(confidence) != len(scores):
        raise MetricError(f"{len(confidence)} confidences but {len(scores)} scores")
