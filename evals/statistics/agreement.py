"""How far several people agree: Krippendorff's alpha with a bootstrap interval over items."""

from typing import Literal

import numpy as np
from scipy import stats

from evals.statistics.intervals import Floats, Interval, unseen_share

Level = Literal["nominal", "ordinal", "interval"]
LEVELS: tuple[Level, ...] = ("nominal", "ordinal", "interval")
SEED_BAR, LOWER_BAR = 0.8, 0.667


def krippendorff_alpha(
    ratings: Floats,
    level: Level = "nominal",
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Give Krippendorff's alpha: 1 is perfect agreement, 0 what chance would give.

    Items rated by fewer than two people are left out. The interval resamples items (BCa).

    Source: Krippendorff 2011, Computing Krippendorff's alpha-reliability,
    https://repository.upenn.edu/asc_papers/43.

    Args:
        ratings: shape (items, raters), NaN where a person did not rate the item. Labels are
            numbers; only their equality counts at the nominal level, only their order at the
            ordinal one.
        level: scale of the labels.
        confidence: of the interval.
        resamples: draws of the interval.
        seed: of the draws.

    Raises:
        ValueError: if the level is unknown.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}; valid are {', '.join(LEVELS)}")
    table = np.asarray(ratings, dtype=np.float64)
    table = table[(~np.isnan(table)).sum(axis=1) >= 2]
    items = len(table)
    name = f"krippendorff alpha, {level}, item bootstrap"
    if items == 0:
        note = "no item was rated by two people"
        return Interval(None, None, None, 0, 0, confidence, name, note)
    counts = _label_counts(table)
    if counts.shape[1] == 1:
        note = "everybody always gave the same label: agreement beyond chance is undefined"
        return Interval(None, None, None, items, items, confidence, name, note)
    scale = np.unique(table[~np.isnan(table)])
    alpha = float(_alphas(np.ones((1, items)), counts, scale, level)[0])
    if items < 2:
        note = "one item: its spread is unknown"
        return Interval(alpha, None, None, items, items, confidence, name, note)
    if alpha == 1.0:
        low = 1 - unseen_share(items, (1 - confidence) / 2) * _worst(counts, scale, level)
        note = "nobody disagreed: the bound allows for disagreements not seen"
        return Interval(1.0, low, 1.0, items, items, confidence, name, note)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(items, np.full(items, 1 / items), size=resamples).astype(np.float64)
    draws = _alphas(weights, counts, scale, level)
    left_out = _alphas(1.0 - np.eye(items), counts, scale, level)
    tails = _bca(draws, left_out, alpha, confidence)
    low, high = (float(q) for q in np.quantile(draws, tails))
    return Interval(alpha, min(low, alpha), max(high, alpha), items, items, confidence, name)


def usable_as_gold(agreement: Interval) -> tuple[bool, str]:
    """Say whether labels agree well enough to be gold: alpha at least .8, lower bound .667."""
    if agreement.estimate is None or agreement.low is None:
        return False, f"Agreement is not known ({agreement.note}); the labels are not used as gold."
    measured = f"alpha {agreement.estimate:.2f}, at least {agreement.low:.2f}"
    if agreement.estimate >= SEED_BAR and agreement.low >= LOWER_BAR:
        return True, f"The labels agree well enough to be used as gold ({measured})."
    return False, (
        f"The labels are not used as gold: alpha must be {SEED_BAR:g} with a lower bound of "
        f"{LOWER_BAR:g} ({measured})."
    )


def _worst(counts: Floats, scale: Floats, level: Level) -> float:
    """The largest distance of two labels over the mean distance expected by chance."""
    margins = counts.sum(axis=0)
    steps = np.cumsum(margins) - margins / 2 if level == "ordinal" else scale
    gaps = (steps[:, None] - steps[None, :]) ** 2
    distance = (gaps > 0).astype(np.float64) if level == "nominal" else gaps
    n = float(margins.sum())
    return float(distance.max()) * n * (n - 1) / float(margins @ distance @ margins)


def _label_counts(table: Floats) -> Floats:
    """How often each label was given to each item, shape (items, labels)."""
    labels, index = np.unique(table, return_inverse=True)
    index = index.reshape(table.shape)
    kept = np.flatnonzero(~np.isnan(labels))
    return np.stack([(index == label).sum(axis=1) for label in kept], axis=1).astype(np.float64)


def _alphas(weights: Floats, counts: Floats, scale: Floats, level: Level) -> Floats:
    """Alpha of every weighting of the items; weights of shape (draws, items)."""
    raters = counts.sum(axis=1)
    margins = weights @ counts
    totals = margins.sum(axis=1)
    pairs = counts[:, :, None] * counts[:, None, :]
    pairs[:, np.arange(counts.shape[1]), np.arange(counts.shape[1])] -= counts
    pairs /= (raters - 1)[:, None, None]
    if level == "ordinal":
        observed = np.tensordot(weights, pairs, axes=1)
        below = np.cumsum(margins, axis=1) - margins / 2
        distance = (below[:, :, None] - below[:, None, :]) ** 2
        disagreement = (observed * distance).sum(axis=(1, 2))
        expected = np.einsum("dc,dk,dck->d", margins, margins, distance)
    else:
        gaps = scale[:, None] - scale[None, :]
        fixed = (gaps != 0).astype(np.float64) if level == "nominal" else gaps**2
        disagreement = weights @ (pairs * fixed).sum(axis=(1, 2))
        expected = np.einsum("dc,dk,ck->d", margins, margins, fixed)
    with np.errstate(divide="ignore", invalid="ignore"):
        alphas = 1 - (totals - 1) * disagreement / expected
    return np.where(expected > 0, alphas, 1.0)


def _bca(draws: Floats, left_out: Floats, estimate: float, confidence: float) -> Floats:
    edge = 0.5 / len(draws)
    below = float((draws < estimate).mean() + 0.5 * (draws == estimate).mean())
    bias = float(stats.norm.ppf(min(max(below, edge), 1 - edge)))
    spread = left_out.mean() - left_out
    scale = 6 * float((spread**2).sum()) ** 1.5
    acceleration = float((spread**3).sum()) / scale if scale > 0 else 0.0
    z = bias + stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    return np.asarray(stats.norm.cdf(bias + z / (1 - acceleration * z)), dtype=np.float64)
