"""Many comparisons at once: Holm for claims, Benjamini-Hochberg for exploration."""

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust p-values so that the chance of any false claim stays below the level.

    Same order as given. Source: Holm 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    m = len(p)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (m - np.arange(m)))
    return _restore(np.minimum(1.0, stepped), order)


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Give q-values: the expected share of false findings among those at or below each.

    Same order as given. Source: Benjamini and Hochberg 1995.
    """
    p = np.asarray(p_values, dtype=np.float64)
    m = len(p)
    order = np.argsort(p, kind="stable")
    stepped = p[order] * (m / (np.arange(m) + 1))
    stepped = np.minimum.accumulate(stepped[::-1])[::-1]
    return _restore(np.minimum(1.0, stepped), order)


def _restore(values: np.ndarray, order: np.ndarray) -> tuple[float, ...]:
    result = np.empty(len(values))
    result[order] = values
    return tuple(float(v) for v in result)
