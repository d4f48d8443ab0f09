"""Monte Carlo: intervals miss and tests reject about as often as they promise."""

import numpy as np

from evals.statistics.clustered import ClusterBootstrap, cluster_t, paired_bounds, sign_flip_test
from evals.statistics.intervals import cluster_totals
from evals.statistics.quantiles import percentile_interval
from evals.statistics.rates import newcombe_paired, rate_interval

RUNS = 400


def clustered_binary(rng, clusters=40, size=8, share=0.6, spread=0.25):
    chance = np.clip(share + rng.uniform(-spread, spread, clusters), 0, 1)
    return (rng.random((clusters, size)) < chance[:, None]).astype(float).ravel()


def covered(interval, truth):
    return interval.low <= truth <= interval.high


def test_clustered_intervals_cover_where_the_naive_one_does_not():
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(40), 8)
    boot = ClusterBootstrap(400)
    hits = np.zeros(4)
    for _ in range(RUNS):
        values = clustered_binary(rng)
        hits += [
            covered(cluster_t(values, ids), 0.6),
            covered(rate_interval(values, ids), 0.6),
            covered(boot.interval(values, ids), 0.6),
            covered(cluster_t(values, np.arange(len(values))), 0.6),
        ]
    t, wilson, bootstrap, naive = hits / RUNS
    assert 0.92 <= t <= 0.98
    assert 0.92 <= wilson <= 0.985
    assert 0.91 <= bootstrap <= 0.98
    assert naive < 0.91


def test_newcombe_covers_the_paired_difference():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(RUNS):
        counts = rng.multinomial(60, [0.4, 0.1, 0.25, 0.25])
        hits += covered(newcombe_paired(*counts), 0.15)
    assert 0.92 <= hits / RUNS <= 0.99


def test_sign_flip_keeps_its_level_under_clustered_noise():
    rng = np.random.default_rng(2)
    ids = np.repeat(np.arange(12), 6)
    rejected = 0
    for _ in range(RUNS):
        effect = rng.normal(0, 0.3, 12)[ids]
        differences = effect + rng.normal(0, 0.3, len(ids))
        rejected += sign_flip_test(cluster_totals(differences, ids)).p <= 0.05
    assert rejected / RUNS <= 0.085


def test_decision_bounds_hold_at_small_alpha_with_rare_differences():
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(1500):
        # b wins on 1 %, loses on 1 %: true difference 0, most runs see a handful of either
        d = rng.choice([-1.0, 0.0, 1.0], p=[0.01, 0.98, 0.01], size=120)
        found = paired_bounds(d, np.arange(120), 0.01)
        missed += not covered(found, 0.0)
    assert missed / 1500 <= 0.015


def test_latency_percentile_interval_covers():
    rng = np.random.default_rng(4)
    truth = np.exp(1.6448536 * 0.5)
    hits = sum(
        covered(percentile_interval(rng.lognormal(0, 0.5, 300), 0.95), truth) for _ in range(RUNS)
    )
    assert hits / RUNS >= 0.93
