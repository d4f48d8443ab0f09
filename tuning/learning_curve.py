"""What more data is worth: runs on growing shares of the rows, a power law through them.

The error of a model falls as a power of its training data over a wide range (Hestness et al.
2017, arXiv 1712.00409). The interval carries the noise of the dev scores through the fit; with
three points it is wide, and says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuning.adapters import AdapterManifest
from tuning.config import TuneConfig
from tuning.errors import TuneConfigError

SHARES = (0.25, 0.5, 1.0)
_DRAWS = 2000
_LEAST_ERROR = 1e-3


@dataclass(frozen=True, slots=True)
class Point:
    """One run: rows it saw, dev composite, its 95 % interval."""

    rows: int
    score: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The score foretold for a number of rows; `gain` is over the run on all rows.

    `exponent` is that of the error: 0.3 means that ten times the rows halve it.
    """

    rows: int
    score: float
    interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]
    exponent: float

    @property
    def worth_it(self) -> bool:
        """Whether more rows help beyond doubt."""
        return self.gain_interval[0] > 0


def run_curve(
    config: TuneConfig,
    train: Callable[[TuneConfig], AdapterManifest],
    shares: Sequence[float] = SHARES,
) -> list[Point]:
    """Train on each share of the components and return the points.

    Raises:
        TuneConfigError: If the run has no dev rows to score on.
    """
    if not config.eval_rows:
        raise TuneConfigError("a learning curve needs eval_rows > 0")
    points = []
    for share in shares:
        output = f"{config.output}-share-{round(100 * share)}"
        manifest = train(replace(config, train_share=share, output=output))
        points.append(point_of(manifest))
    return points


def point_of(manifest: AdapterManifest) -> Point:
    """The point of a finished run: rows per epoch and the chosen checkpoint's composite."""
    chosen = next(entry for entry in manifest.dev if manifest.is_chosen(entry))
    seen = sum(n for name, n in manifest.counts.items() if name.startswith("rows_"))
    low, high = chosen["intervals"]["composite"]
    epochs = int(manifest.config.get("epochs", 1))
    return Point(max(1, seen // epochs), chosen["scores"]["composite"], (low, high))


def predict(points: Sequence[Point], rows: int, seed: int = 0) -> Prediction:
    """Extrapolate to a number of rows.

    Raises:
        TuneConfigError: If there are fewer than two different row counts.
    """
    import numpy as np

    if len({point.rows for point in points}) < 2:
        raise TuneConfigError("a learning curve needs at least two different row counts")
    log_rows = np.log([point.rows for point in points])
    scores = np.array([point.score for point in points])
    spread = np.array([(p.interval[1] - p.interval[0]) / 3.92 for p in points])
    rng = np.random.default_rng(seed)
    drawn = rng.normal(scores, spread, size=(_DRAWS, len(points)))
    fitted = [_extrapolate(log_rows, row, rows) for row in np.vstack([scores, drawn])]
    centre, draws = fitted[0], np.array(fitted[1:])
    score_low, score_high = np.percentile(draws[:, 0], (2.5, 97.5))
    gain_low, gain_high = np.percentile(draws[:, 1], (2.5, 97.5))
    return Prediction(
        rows,
        float(centre[0]),
        (float(score_low), float(score_high)),
        float(centre[1]),
        (float(gain_low), float(gain_high)),
        float(centre[2]),
    )


def _extrapolate(log_rows: Any, scores: Any, rows: int) -> tuple[float, float, float]:
    """Score at `rows`, gain over the fitted score at the most rows seen, exponent."""
    import numpy as np

    errors = np.log(np.clip(1 - scores, _LEAST_ERROR, 1.0))
    slope, start = np.polyfit(log_rows, errors, 1)
    there = 1 - np.exp(start + slope * np.log(rows))
    here = 1 - np.exp(start + slope * log_rows.max())
    return float(there), float(there - here), float(-slope)
