"""Looking at results more than once: alpha split over looks, confidence sequences, e-processes.

Offline, a planned number of looks shares alpha. Online, a confidence sequence holds at every
moment at once, so that anybody may look and stop whenever they like.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from evals.statistics.intervals import Floats

Spending = Literal["equal", "obrien_fleming"]
SPENDINGS: tuple[Spending, ...] = ("equal", "obrien_fleming")
_MOST_BET = 0.5  # share of the capital that one observation can cost


def spend_alpha(alpha: float, looks: int, spending: Spending = "equal") -> tuple[float, ...]:
    """Give the alpha of each of `looks` equally spaced looks; together they spend `alpha`.

    "equal" gives every look the same; "obrien_fleming" keeps nearly all for the last looks
    (Lan and DeMets 1983, spending 2 - 2 Phi(z / sqrt(t)) at information fraction t). Each look is
    tested at its own share, so the sum bounds the error whatever the dependence between looks.

    Raises:
        ValueError: on an unknown spending or no look.
    """
    if looks < 1:
        raise ValueError(f"looks must be at least 1, got {looks}")
    if spending == "equal":
        return (alpha / looks,) * looks
    if spending != "obrien_fleming":
        raise ValueError(f"unknown spending {spending!r}; valid are {', '.join(SPENDINGS)}")
    fractions = np.arange(1, looks + 1) / looks
    quantile = float(stats.norm.ppf(1 - alpha / 2))
    spent = 2 * stats.norm.sf(quantile / np.sqrt(fractions))
    return tuple(float(step) for step in np.diff(spent, prepend=0.0))


def empirical_bernstein_sequence(
    values: Floats, alpha: float = 0.05, support: tuple[float, float] = (0.0, 1.0)
) -> tuple[Floats, Floats]:
    """Bound the mean at every moment at once; with probability 1 - alpha no bound is ever wrong.

    The predictable plug-in empirical Bernstein confidence sequence with running intersection.
    Source: Waudby-Smith and Ramdas 2024, https://arxiv.org/abs/2010.09686, theorem 2.

    Args:
        values: shape (..., n) in order of arrival, one per independent group, within `support`.
        alpha: chance of any wrong bound.
        support: the range that no value can leave.

    Returns:
        Lower and upper bounds after each value, both of the shape of `values`.
    """
    low, high = support
    x = (np.asarray(values, dtype=np.float64) - low) / (high - low)
    if x.size and (x.min() < -1e-9 or x.max() > 1 + 1e-9):
        raise ValueError(f"values must lie in [{low:g}, {high:g}]")
    n = x.shape[-1]
    t = np.arange(1, n + 1, dtype=np.float64)
    mean = (0.5 + np.cumsum(x, axis=-1)) / (t + 1)
    spread = (0.25 + np.cumsum((x - mean) ** 2, axis=-1)) / (t + 1)
    first = np.ones((*x.shape[:-1], 1))
    mean_before = np.concatenate([0.5 * first, mean[..., :-1]], axis=-1)
    spread_before = np.concatenate([0.25 * first, spread[..., :-1]], axis=-1)
    bet = np.minimum(np.sqrt(2 * math.log(2 / alpha) / (spread_before * t * np.log1p(t))), 0.5)
    cost = -np.log1p(-bet) - bet
    total = np.cumsum(bet, axis=-1)
    centre = np.cumsum(bet * x, axis=-1) / total
    paid = np.cumsum((x - mean_before) ** 2 * cost, axis=-1)
    radius = (math.log(2 / alpha) + paid) / total
    lower = np.maximum.accumulate(np.clip(centre - radius, 0, 1), axis=-1)
    upper = np.minimum.accumulate(np.clip(centre + radius, 0, 1), axis=-1)
    return low + lower * (high - low), low + upper * (high - low)


def asymptotic_sequence(
    values: Floats, alpha: float = 0.05, *, planned: int = 500, first: int = 50
) -> tuple[Floats, Floats]:
    """Bound the mean at every moment from `first` on, for means well away from their limits.

    Narrower than `empirical_bernstein_sequence`, but only valid for large samples: not for rates
    near 0 or 1. Bounds before `first` values are infinite.

    Source: Waudby-Smith et al. 2024, https://arxiv.org/abs/2103.06476, theorem 2.2.

    Args:
        values: shape (..., n) in order of arrival, one per independent group.
        alpha: chance of any wrong bound.
        planned: number of values at which the bounds are narrowest.
        first: bounds start here.
    """
    x = np.asarray(values, dtype=np.float64)
    t = np.arange(1, x.shape[-1] + 1, dtype=np.float64)
    mean = np.cumsum(x, axis=-1) / t
    spread = np.sqrt(np.maximum(np.cumsum(x * x, axis=-1) / t - mean**2, 0.0))
    rho = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / planned
    radius = spread * np.sqrt(
        2 * (t * rho + 1) / (t * t * rho) * np.log(np.sqrt(t * rho + 1) / alpha)
    )
    radius[..., : first - 1] = np.inf
    return mean - radius, mean + radius


def betting_e_values(values: Floats, at_most: float) -> Floats:
    """Give the running evidence that a mean is larger than `at_most`, shape of `values`.

    While the mean is `at_most` or less, the evidence exceeds 1 / alpha at any time with
    probability at most alpha (Ville's inequality), so an alarm may be raised at any look.

    Source: Waudby-Smith and Ramdas 2024, https://arxiv.org/abs/2010.09686, section 4; the bet is
    the plug-in of Kelly's, made before each value.

    Args:
        values: in [0, 1], shape (..., n) in order of arrival, one per independent group.
        at_most: mean under the null hypothesis, between 0 and 1.
    """
    if not 0 < at_most < 1:
        raise ValueError(f"at_most must lie between 0 and 1, got {at_most}")
    x = np.asarray(values, dtype=np.float64)
    t = np.arange(1, x.shape[-1] + 1, dtype=np.float64)
    start = np.full((*x.shape[:-1], 1), at_most)
    mean = (at_most + np.cumsum(x, axis=-1)) / (t + 1)
    before = np.concatenate([start, mean[..., :-1]], axis=-1)
    gap = before - at_most
    spread = np.maximum(before * (1 - before), 1e-6)
    bet = np.clip(gap / (spread + gap**2), 0.0, _MOST_BET / at_most)
    growth: Floats = np.exp(np.cumsum(np.log1p(bet * (x - at_most)), axis=-1))
    return growth


def first_alarm(e_values: Sequence[float] | Floats, alpha: float) -> int | None:
    """Give the number of values after which the evidence first reached 1 / alpha, else None."""
    crossed = np.flatnonzero(np.asarray(e_values) >= 1 / alpha)
    return int(crossed[0]) + 1 if len(crossed) else None
