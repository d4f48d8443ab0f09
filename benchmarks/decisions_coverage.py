"""How often each interval of `evals` holds the truth, with clusters and under peeking."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.decisions_bank import LOOKS, Floats, progress
from evals.decision_spec import DecisionSpec
from evals.statistics.agreement import krippendorff_alpha
from evals.statistics.clustered import ClusterBootstrap, cluster_t, paired_bounds
from evals.statistics.intervals import Interval
from evals.statistics.prediction_powered import prediction_powered_mean
from evals.statistics.quantiles import percentile_interval
from evals.statistics.rates import newcombe_paired, rate_interval
from evals.statistics.sequential import asymptotic_sequence, empirical_bernstein_sequence


def coverage(runs: int, seed: int, show: bool) -> list[dict[str, Any]]:
    """How often each interval holds the truth."""
    rows = []
    for name, lowest, highest, check in _CHECKS:
        rng = np.random.default_rng(seed)
        start = time.perf_counter()
        hits = sum(bool(check(rng)) for _ in progress(range(runs), name, show))
        rows.append(
            {
                "interval": name,
                "coverage": hits / runs,
                "claim": [lowest, highest],
                "kept": lowest <= hits / runs <= highest,
                "runs": runs,
                "seconds": round(time.perf_counter() - start, 1),
            }
        )
    return rows


def _holds(interval: Interval, truth: float) -> bool:
    return (
        interval.low is not None
        and interval.high is not None
        and interval.low <= truth <= interval.high
    )


def _clustered(rng: np.random.Generator, count: int = 60) -> tuple[Floats, NDArray[np.int64]]:
    sizes = rng.integers(2, 11, count)
    ids = np.repeat(np.arange(count), sizes)
    chance = np.clip(0.6 + rng.uniform(-0.25, 0.25, count), 0, 1)[ids]
    return (rng.random(len(ids)) < chance).astype(np.float64), ids


def _graded(rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """Paired differences of F1-like scores, skewed and often 0; true mean .05."""
    ids = np.repeat(np.arange(80), rng.integers(1, 8, 80))
    effect = (rng.exponential(0.15, 80) - 0.15)[ids]
    moved = rng.random(len(ids)) < 0.5
    return np.where(moved, effect + rng.normal(0.1, 0.3, len(ids)), 0.0), ids


_BOOTSTRAP = ClusterBootstrap(1000)


def _wilson(rng: np.random.Generator) -> bool:
    return _holds(rate_interval(*_clustered(rng)), 0.6)


def _cluster_t(rng: np.random.Generator) -> bool:
    return _holds(cluster_t(*_graded(rng), support=(-1, 1)), 0.05)


def _bca(rng: np.random.Generator) -> bool:
    return _holds(_BOOTSTRAP.interval(*_graded(rng), support=(-1, 1)), 0.05)


def _bounds(rng: np.random.Generator) -> bool:
    return _holds(paired_bounds(*_graded(rng), 0.05), 0.05)


def _newcombe(rng: np.random.Generator) -> bool:
    return _holds(newcombe_paired(*rng.multinomial(300, [0.4, 0.1, 0.2, 0.3]).tolist()), 0.1)


def _p95(rng: np.random.Generator) -> bool:
    return _holds(percentile_interval(rng.lognormal(0, 0.5, 1000), 0.95), np.exp(1.6448536 * 0.5))


def _powered(rng: np.random.Generator) -> bool:
    good = rng.random(2100) < 0.7
    judged = np.where(rng.random(2100) < 0.85, good, ~good).astype(np.float64)
    labels = good[:100].astype(np.float64)
    return _holds(prediction_powered_mean(labels, judged[:100], judged[100:]).interval, 0.7)


_NOISE = 0.2  # each rater's label is random with this chance: true nominal alpha is (1 - .2)^2


def _agreement(rng: np.random.Generator) -> bool:
    truth = rng.integers(0, 4, 150)
    ratings = np.stack(
        [np.where(rng.random(150) < _NOISE, rng.integers(0, 4, 150), truth) for _ in range(3)], 1
    ).astype(np.float64)
    return _holds(krippendorff_alpha(ratings, resamples=1000), (1 - _NOISE) ** 2)


def _anytime(rng: np.random.Generator) -> bool:
    low, high = empirical_bernstein_sequence((rng.random(1500) < 0.7).astype(np.float64))
    return bool(((low <= 0.7) & (high >= 0.7)).all())


def _anytime_large(rng: np.random.Generator) -> bool:
    low, high = asymptotic_sequence((rng.random(1500) < 0.7).astype(np.float64))
    return bool(((low <= 0.7) & (high >= 0.7)).all())


def _five_looks(rng: np.random.Generator) -> bool:
    spec = DecisionSpec(looks=5)
    d = rng.choice([-1.0, 0.0, 1.0], p=[0.15, 0.7, 0.15], size=1000)
    found = [
        paired_bounds(d[:n], np.arange(n), spec.alpha_at(look))
        for look, n in enumerate(LOOKS, start=1)
    ]
    return all(_holds(interval, 0.0) for interval in found)


_Check = Callable[[np.random.Generator], bool]
_CHECKS: tuple[tuple[str, float, float, _Check], ...] = (
    ("rate, clusters (Wilson, effective n)", 0.935, 0.97, _wilson),
    ("paired difference, clusters (t)", 0.935, 0.97, _cluster_t),
    ("paired difference, clusters (BCa bootstrap)", 0.935, 0.97, _bca),
    ("paired difference, decision bounds", 0.935, 0.97, _bounds),
    ("paired rates (Newcombe)", 0.935, 0.97, _newcombe),
    ("p95 latency (order statistics)", 0.935, 0.97, _p95),
    ("judge and 100 labels (PPI++)", 0.935, 0.97, _powered),
    ("agreement (Krippendorff, item bootstrap)", 0.935, 0.97, _agreement),
    ("five looks, all of them (alpha split)", 0.95, 1.0, _five_looks),
    ("every moment to 1,500 (empirical Bernstein)", 0.95, 1.0, _anytime),
    ("every moment to 1,500 (asymptotic)", 0.94, 1.0, _anytime_large),
)
