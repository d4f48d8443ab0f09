"""How many questions a comparison needs, and what difference a given number can show."""

import math

from scipy import stats

_MOST = 10_000_000


def n_needed(sd: float, gap: float, *, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """Give the clusters needed to show a mean difference of `gap`, two-sided at `alpha`.

    Args:
        sd: standard deviation of the difference between clusters (`cluster_influences`).
        gap: difference to show; for equivalence, the margin less the difference expected.
        alpha: two-sided level.
        power: chance of showing it.

    Returns:
        At least 2; None when the gap is 0 or more than ten million clusters would be needed.
    """
    gap = abs(gap)
    if gap == 0 or sd < 0 or not math.isfinite(sd / gap):
        return None
    z_alpha, z_power = stats.norm.isf(alpha / 2), stats.norm.ppf(power)
    n = (float(z_alpha + z_power) * sd / gap) ** 2
    n += float(z_alpha) ** 2 / 2  # the t quantile is wider than the normal one
    return None if n > _MOST else max(2, math.ceil(n))


def mde(sd: float, clusters: int, *, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """Give the smallest mean difference that `clusters` clusters would probably show.

    None with fewer than two clusters.
    """
    if clusters < 2:
        return None
    t_alpha = float(stats.t.isf(alpha / 2, clusters - 1))
    t_power = float(stats.t.ppf(power, clusters - 1))
    return (t_alpha + t_power) * sd / math.sqrt(clusters)


def n_needed_binary(
    discordance: float, gap: float, *, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Give the pairs needed by McNemar's test to show a difference of two rates.

    Args:
        discordance: share of questions that exactly one of the two arms gets right.
        gap: difference of the rates; its size cannot exceed `discordance`.
        alpha: two-sided level.
        power: chance of showing it.

    Source: Connor 1987. Returns None when gap is 0 or larger than the discordance.
    """
    gap = abs(gap)
    if gap == 0 or gap > discordance:
        return None
    n = _connor(discordance, gap, alpha, power)
    return None if n > _MOST else max(2, math.ceil(n))


def mde_binary(
    n: int, discordance: float, *, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """Give the smallest difference of two rates that n pairs would probably show by McNemar.

    None when not even a difference as large as the discordance could be shown.
    """
    if n < 1 or discordance <= 0 or _connor(discordance, discordance, alpha, power) > n:
        return None
    low, high = 1e-9, discordance
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if _connor(discordance, middle, alpha, power) <= n else (middle, high)
        )
    return high


def _connor(discordance: float, gap: float, alpha: float, power: float) -> float:
    z_alpha, z_power = float(stats.norm.isf(alpha / 2)), float(stats.norm.ppf(power))
    spread = math.sqrt(max(0.0, discordance - gap * gap))
    return float((z_alpha * math.sqrt(discordance) + z_power * spread) ** 2 / gap**2)
