"""Statistics against statsmodels, hand-worked numbers and laws; edge cases give clear results."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from evals.statistics.clustered import (
    ClusterBootstrap,
    cluster_t,
    cluster_t_test,
    paired_bounds,
    sign_flip_test,
    tost,
)
from evals.statistics.intervals import (
    cluster_influences,
    cluster_means,
    cluster_totals,
    unseen_share,
)
from evals.statistics.multiplicity import benjamini_hochberg, holm
from evals.statistics.power import mde, mde_binary, n_needed, n_needed_binary
from evals.statistics.quantiles import percentile_interval
from evals.statistics.rates import (
    clopper_pearson_bounds,
    effective_n,
    mcnemar_exact,
    newcombe_paired,
    rate_bounds,
    rate_interval,
    wilson_bounds,
)

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def each_alone(values):
    return np.asarray(values, dtype=np.float64), np.arange(len(values))


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (50, 200), (1, 3)])
def test_wilson_and_clopper_pearson_agree_with_statsmodels(k, n):
    assert wilson_bounds(k, n) == pytest.approx(
        proportion_confint(k, n, method="wilson"), abs=1e-12
    )
    exact = proportion_confint(k, n, alpha=0.1, method="beta")
    low, high = clopper_pearson_bounds(k, n, 0.05)
    assert (low, high) == pytest.approx(tuple(np.nan_to_num(exact, nan=float(k == n))), abs=1e-12)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (3, 9), (10, 10), (25, 12)])
def test_exact_mcnemar_agrees_with_statsmodels(b, c):
    expected = mcnemar([[7, b], [c, 4]], exact=True).pvalue
    assert mcnemar_exact(b, c).p == pytest.approx(min(1.0, expected))


@settings(max_examples=25)
@given(P_VALUES)
def test_holm_and_benjamini_hochberg_agree_with_statsmodels(p):
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])


@given(P_VALUES, st.randoms())
def test_adjusted_p_values_keep_the_order_and_follow_permutations(p, random):
    for adjust in (holm, benjamini_hochberg):
        adjusted = adjust(p)
        assert all(a >= q for a, q in zip(adjusted, p, strict=True))
        ranked = sorted(zip(p, adjusted, strict=True))
        assert [a for _, a in ranked] == sorted(adjusted)
        order = list(range(len(p)))
        random.shuffle(order)
        assert adjust([p[i] for i in order]) == pytest.approx([adjusted[i] for i in order])


def test_no_p_values_give_no_adjusted_ones():
    assert holm([]) == benjamini_hochberg([]) == ()


@given(st.tuples(*[st.integers(0, 30)] * 4).filter(any))
def test_newcombe_contains_the_estimate_and_mirrors_when_arms_are_swapped(counts):
    both, only_a, only_b, neither = counts
    found = newcombe_paired(both, only_a, only_b, neither)
    swapped = newcombe_paired(both, only_b, only_a, neither)
    assert -1 <= found.low <= found.estimate + 1e-12
    assert found.estimate - 1e-12 <= found.high <= 1
    assert (found.low, found.high) == pytest.approx((-swapped.high, -swapped.low), abs=1e-12)


def test_newcombe_without_correlation_is_square_and_add_of_wilson_bounds():
    found = newcombe_paired(25, 25, 25, 25)
    half = 0.5 - wilson_bounds(50, 100)[0]
    assert (found.low, found.high) == pytest.approx((-half * 2**0.5, half * 2**0.5))


def test_cluster_influences_average_to_the_mean_and_totals_do_too():
    values, clusters = np.array([1.0, 0, 0, 1, 1]), np.array([7, 7, 7, 3, 3])
    assert cluster_means(values, clusters) == pytest.approx([1, 1 / 3])  # clusters 3 and 7
    assert cluster_influences(values, clusters).mean() == pytest.approx(0.6)
    assert cluster_totals(values, clusters).mean() == pytest.approx(0.6)


def test_influences_are_cluster_means_when_clusters_have_equal_size():
    values, clusters = np.array([1.0, 0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2, 2])
    assert cluster_influences(values, clusters) == pytest.approx([0.5, 0, 1])


def test_cluster_t_is_the_plain_t_interval_without_clusters():
    found = cluster_t(*each_alone([0.1, 0.4, 0.7, 0.9]))
    half = 3.182446 * np.std([0.1, 0.4, 0.7, 0.9], ddof=1) / 2
    assert found.estimate == pytest.approx(0.525)
    assert found.high - 0.525 == pytest.approx(half, rel=1e-5)


def test_repeating_every_question_does_not_narrow_the_interval():
    values, clusters = each_alone([0.1, 0.9, 0.4, 0.7, 0.2, 0.6])
    once = cluster_t(values, clusters)
    thrice = cluster_t(np.repeat(values, 3), np.repeat(clusters, 3))
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    boot = ClusterBootstrap(500)
    assert boot.interval(np.repeat(values, 3), np.repeat(clusters, 3)).high == pytest.approx(
        boot.interval(values, clusters).high
    )


def test_effective_n_is_n_without_clusters_and_near_c_for_copies():
    values = (np.arange(60) % 3 == 0).astype(float)
    assert effective_n(values, np.arange(60)) == 60
    copies = effective_n(np.repeat(values, 5), np.repeat(np.arange(60), 5))
    assert 50 < copies <= 60
    assert effective_n(np.ones(50), np.repeat(np.arange(10), 5)) == 10


@given(
    st.integers(10, 60),
    st.integers(2, 8),
    st.floats(0.0, 1.0),
    st.floats(0.0, 0.4),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=200, deadline=None)
def test_one_more_right_answer_makes_no_bound_jump_down(n_clusters, size, level, spread, seed):
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(n_clusters), size)
    chance = np.clip(level + rng.uniform(-spread, spread, n_clusters), 0, 1)[clusters]
    values = (rng.random(len(clusters)) < chance).astype(float)
    wrong = np.flatnonzero(values == 0)
    bounds = rate_bounds(values, clusters, 0.05)
    perfect = rate_bounds(np.ones_like(values), clusters, 0.05)
    assert bounds[0] <= perfect[0] + 1e-12
    assert 1 <= effective_n(values, clusters) <= len(values)
    if len(wrong):
        better = values.copy()
        better[rng.choice(wrong)] = 1.0
        after = rate_bounds(better, clusters, 0.05)
        assert after[0] >= bounds[0] - 0.01
        assert after[1] >= bounds[1] - 0.01


@given(st.integers(10, 100), st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_effective_n_grows_with_spread_out_wrong_answers_and_does_not_jump(n_clusters, size):
    clusters = np.repeat(np.arange(n_clusters), size)
    values = np.ones(len(clusters))
    sizes = [effective_n(values, clusters)]
    for cluster in range(n_clusters // 2):
        values[cluster * size] = 0.0
        sizes.append(effective_n(values, clusters))
    assert sizes[1] <= 2 * n_clusters  # one wrong answer says little about how clusters differ
    assert all(b >= a - 0.1 * a for a, b in pairwise(sizes))


@pytest.mark.parametrize("make", [cluster_t, rate_interval, ClusterBootstrap(100).interval])
def test_no_values_and_one_cluster_say_what_is_missing(make):
    none = make(np.array([]), np.array([], dtype=int))
    assert (none.estimate, none.low, none.n) == (None, None, 0)
    assert "nothing could be scored" in none.note
    if make is not rate_interval:
        one = make(np.array([0.2, 0.8]), np.array([4, 4]))
        assert (one.estimate, one.low, one.high) == (0.5, None, None)
        assert "one cluster" in one.note


def test_equal_values_are_not_certain():
    for make in (cluster_t, ClusterBootstrap(100).interval):
        found = make(*each_alone([1.0] * 20))
        assert (found.estimate, found.high) == (1.0, 1.0)
        assert found.low == pytest.approx(0.025 ** (1 / 20))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=25),
    st.sampled_from(["bca", "percentile"]),
)
def test_every_interval_contains_its_estimate_and_is_finite(rows, method):
    values, clusters = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    boot = ClusterBootstrap(200)
    for found in (cluster_t(values, clusters), boot.interval(values, clusters, method=method)):
        assert math.isfinite(found.estimate)
        if found.low is not None:
            assert found.low - 1e-9 <= found.estimate <= found.high + 1e-9


def test_bootstrap_repeats_bit_for_bit_and_ignores_cluster_names():
    rng = np.random.default_rng(1)
    values, clusters = rng.random(90), np.repeat(np.arange(30), 3)
    first = ClusterBootstrap(300, 5).interval(values, clusters)
    assert first == ClusterBootstrap(300, 5).interval(values, clusters)
    assert first == ClusterBootstrap(300, 5).interval(values, clusters + 1000)
    assert first != ClusterBootstrap(300, 6).interval(values, clusters)


def test_bca_leans_towards_the_long_tail_where_percentile_does_not():
    values, clusters = each_alone(np.random.default_rng(2).exponential(0.1, 60))
    boot = ClusterBootstrap(4000)
    bca = boot.interval(values, clusters, method="bca")
    assert bca.high > boot.interval(values, clusters, method="percentile").high


def test_sign_flip_is_exact_for_few_clusters():
    values = np.array([0.3, 0.1, 0.2, -0.05])
    sums = [
        sum(s * v for s, v in zip(signs, values, strict=True))
        for signs in product((1, -1), repeat=4)
    ]
    expected = np.mean([abs(s) >= values.sum() - 1e-12 for s in sums])
    assert sign_flip_test(values).p == expected
    assert sign_flip_test(np.array([0.1] * 5)).p == 2 / 32
    assert sign_flip_test(np.array([0.1] * 5), alternative="greater").p == 1 / 32


def test_sign_flip_by_draws_agrees_with_the_t_test():
    values = np.random.default_rng(3).normal(0.1, 0.4, 100)
    drawn = sign_flip_test(values).p
    assert drawn == pytest.approx(cluster_t_test(*each_alone(values)).p, abs=0.01)
    assert drawn == sign_flip_test(values).p


def test_arms_that_never_differ_have_p_one():
    zero, clusters = each_alone(np.zeros(30))
    assert sign_flip_test(zero).p == cluster_t_test(zero, clusters).p == 1.0
    assert cluster_t_test(np.ones(3), np.zeros(3, dtype=int)).p == 1.0


def test_a_difference_seen_once_is_not_believed():
    one = np.zeros(300)
    one[0] = 1.0
    found = paired_bounds(one, np.arange(300), 0.05)
    assert found.low < 0 < found.high
    assert found.high - found.estimate == pytest.approx(unseen_share(300, 0.025))


def test_few_clusters_need_the_exact_test_to_exclude_zero():
    values, clusters = each_alone([0.2, 0.21, 0.19, 0.2, 0.22])
    assert cluster_t(values, clusters).low > 0
    assert paired_bounds(values, clusters, 0.05).low == pytest.approx(
        min(0, 0.204 - unseen_share(5, 0.025))
    )


def test_tost_shows_equivalence_only_with_enough_data():
    rng = np.random.default_rng(4)
    few, many = rng.normal(0, 0.3, 30), rng.normal(0, 0.3, 3000)
    assert tost(*each_alone(few), margin=0.03).p > 0.05 > tost(*each_alone(many), margin=0.03).p
    assert tost(*each_alone(np.zeros(20)), margin=0.03).p == pytest.approx(0.97**20)
    assert tost(*each_alone(np.full(20, 0.1)), margin=0.03).p == 1.0
    with pytest.raises(ValueError, match="margin"):
        tost(*each_alone(few), margin=0)


@pytest.mark.parametrize(
    ("n", "discordance", "expected"),
    [(100, 0.1, 0.088), (300, 0.2, 0.072), (1000, 0.3, 0.048), (2000, 0.4, 0.040)],
)
def test_binary_mde_matches_the_simulated_table(n, discordance, expected):
    found = mde_binary(n, discordance)
    assert found == pytest.approx(expected, abs=0.003)
    assert n_needed_binary(discordance, found) == pytest.approx(n, abs=1)


def test_sample_sizes_undo_mde_and_refuse_the_impossible():
    smallest = mde(0.4, 200)
    assert n_needed(0.4, smallest) == pytest.approx(200, abs=3)
    assert n_needed(0.4, 0.0) is None
    assert n_needed(0.4, 1e-9) is None
    assert mde(0.4, 1) is None
    assert n_needed_binary(0.1, 0.2) is None
    assert mde_binary(5, 0.1) is None


@given(st.floats(0.05, 1), st.floats(0.01, 0.5))
def test_smaller_differences_need_more_questions(sd, gap):
    assert n_needed(sd, gap / 2) >= n_needed(sd, gap) >= 2


def test_percentiles_use_order_statistics_and_admit_small_samples():
    found = percentile_interval(np.arange(1.0, 101.0), 0.5)
    assert (found.estimate, found.low, found.high) == (50.0, 40.0, 61.0)
    tail = percentile_interval(np.arange(1.0, 21.0), 0.95)
    assert tail.estimate == 19.0
    assert tail.high is None
    assert "too few" in tail.note
    assert percentile_interval(np.array([]), 0.5).estimate is None
