"""Percentiles with distribution-free intervals, for latencies."""

import numpy as np
from scipy import stats

from evals.statistics.intervals import Floats, Interval


def percentile_interval(values: Floats, q: float, confidence: float = 0.95) -> Interval:
    """Give the q-quantile (0 < q < 1) with the interval between two order statistics.

    The number of values below the true quantile is binomial(n, q), whatever the distribution.
    A bound is None when n is too small for one. Values count as independent. Infinite values
    are answers that never came; a percentile among them is None, for it has no number.
    """
    n = len(values)
    if n == 0:
        return Interval(None, None, None, 0, 0, confidence, "none", "nothing was measured")
    ordered = np.sort(values)
    estimate = float(ordered[min(n - 1, int(np.ceil(q * n)) - 1)])
    tail = (1 - confidence) / 2
    # Largest l with P(Binomial(n, q) < l) <= tail, smallest u with P(Binomial(n, q) >= u) <= tail.
    lower = int(stats.binom.ppf(tail, n, q))
    upper = int(stats.binom.ppf(1 - tail, n, q)) + 1
    low = float(ordered[lower - 1]) if lower >= 1 else None
    high = float(ordered[upper - 1]) if upper <= n else None
    note = "" if low is not None and high is not None else f"{n} values are too few for both bounds"
    never = int(np.isinf(ordered).sum())
    if never:
        note = "; ".join(
            filter(None, (note, f"{never} answers failed and count as slower than all"))
        )
    return Interval(
        _finite(estimate), _finite(low), _finite(high), n, n, confidence, "order statistics", note
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or np.isinf(value) else value
