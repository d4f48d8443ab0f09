"""Looks, confidence sequences, e-processes, agreement, PPI++, two-sample tests: values and laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.statistics.agreement import krippendorff_alpha, usable_as_gold
from evals.statistics.calibration import (
    brier_score,
    calibration_error,
    fit_isotonic,
    fit_logistic,
)
from evals.statistics.clustered import ClusterBootstrap, sign_flip_test, sign_flip_tests
from evals.statistics.prediction_powered import prediction_powered_mean
from evals.statistics.sequential import (
    asymptotic_sequence,
    betting_e_values,
    empirical_bernstein_sequence,
    first_alarm,
    spend_alpha,
)
from evals.statistics.two_sample import mmd_test, topic_share_test

NAN = float("nan")
# Krippendorff 2011, example C: four people, twelve units.
KNOWN = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
).T


@given(st.floats(0.001, 0.2), st.integers(1, 30), st.sampled_from(["equal", "obrien_fleming"]))
def test_looks_spend_alpha_and_no_more(alpha, looks, spending):
    spent = spend_alpha(alpha, looks, spending)
    assert len(spent) == looks
    assert sum(spent) == pytest.approx(alpha)
    assert all(part > 0 for part in spent)
    if spending == "obrien_fleming":
        assert spent[0] == min(spent)


def test_unknown_spending_names_the_choices():
    with pytest.raises(ValueError, match="equal, obrien_fleming"):
        spend_alpha(0.05, 3, "pocock")


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_no_bound_of_a_confidence_sequence_is_ever_wrong_more_often_than_alpha(rate):
    x = (np.random.default_rng(1).random((600, 800)) < rate).astype(float)
    low, high = empirical_bernstein_sequence(x, 0.05)
    assert ((low > rate) | (high < rate)).any(axis=1).mean() <= 0.05
    assert (high - low)[:, -1].mean() < 0.16
    assert np.all(np.diff(low, axis=1) >= 0)


def test_confidence_sequence_of_differences_is_the_stretched_one():
    d = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], 300)
    low, high = empirical_bernstein_sequence(d, 0.1, (-1, 1))
    base = empirical_bernstein_sequence((d + 1) / 2, 0.1)
    assert low == pytest.approx(2 * base[0] - 1)
    assert high == pytest.approx(2 * base[1] - 1)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        empirical_bernstein_sequence(d)


def test_asymptotic_sequence_is_narrower_and_starts_late():
    x = (np.random.default_rng(3).random((500, 800)) < 0.6).astype(float)
    low, high = asymptotic_sequence(x, 0.05)
    wide = empirical_bernstein_sequence(x, 0.05)
    assert np.isinf(low[:, 48]).all()
    assert ((low > 0.6) | (high < 0.6)).any(axis=1).mean() <= 0.075
    assert (high - low)[:, -1].mean() < (wide[1] - wide[0])[:, -1].mean()


def test_plain_tests_under_peeking_fail_where_the_e_process_holds():
    x = (np.random.default_rng(4).random((1500, 800)) < 0.1).astype(float)
    growth = betting_e_values(x, 0.1)
    assert (growth.max(axis=1) >= 20).mean() <= 0.05
    t = np.arange(1, 801)
    z = (np.cumsum(x, axis=1) / t - 0.1) / np.sqrt(0.09 / t)
    assert (z[:, 49::50] > 1.645).any(axis=1).mean() > 0.12


def test_a_real_rise_is_noticed():
    x = (np.random.default_rng(5).random((200, 600)) < 0.25).astype(float)
    alarms = [first_alarm(row, 0.05) for row in betting_e_values(x, 0.1)]
    assert np.mean([alarm is not None for alarm in alarms]) > 0.95


@pytest.mark.parametrize(
    ("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_krippendorff_alpha_of_the_published_example(level, alpha):
    found = krippendorff_alpha(KNOWN, level, resamples=200)
    assert found.estimate == pytest.approx(alpha, abs=0.0006)
    assert found.n == 11
    assert found.low < alpha < found.high


def test_krippendorff_agrees_with_the_package_where_it_is_installed():
    oracle = pytest.importorskip("krippendorff", reason="GPL oracle, not among the dependencies")
    rng = np.random.default_rng(6)
    table = rng.integers(0, 4, (40, 3)).astype(float)
    table[rng.random(table.shape) < 0.2] = np.nan
    for level in ("nominal", "ordinal", "interval"):
        expected = oracle.alpha(reliability_data=table.T, level_of_measurement=level)
        assert krippendorff_alpha(table, level, resamples=50).estimate == pytest.approx(expected)


def test_agreement_edge_cases():
    same = np.tile(np.arange(4.0)[:, None], (1, 3))
    perfect = krippendorff_alpha(same)
    assert (perfect.estimate, perfect.high) == (1.0, 1.0)
    assert perfect.low < 0.5  # four items prove little
    assert krippendorff_alpha(np.tile(same, (50, 1))).low > 0.9
    assert krippendorff_alpha(np.ones((5, 2))).estimate is None
    assert krippendorff_alpha(np.full((5, 2), np.nan)).estimate is None
    with pytest.raises(ValueError, match="nominal, ordinal, interval"):
        krippendorff_alpha(same, "ratio")


def test_labels_are_gold_only_when_the_lower_bound_is_high_too():
    rng = np.random.default_rng(7)
    truth = rng.integers(0, 3, 300)
    noisy = np.where(rng.random(300) < 0.05, rng.integers(0, 3, 300), truth)
    good = krippendorff_alpha(np.stack([truth, noisy], 1).astype(float))
    assert usable_as_gold(good)[0]
    few = krippendorff_alpha(np.stack([truth, noisy], 1)[:6].astype(float))
    assert not usable_as_gold(few)[0]


def judged(rng, accuracy, n=100, rest=1500, truth=0.7):
    good = rng.random(n + rest) < truth
    said = np.where(rng.random(n + rest) < accuracy, good, ~good).astype(float)
    return good[:n].astype(float), said[:n], said[n:]


def test_ppi_covers_and_a_good_judge_is_worth_labels():
    rng = np.random.default_rng(8)
    hits, worth, weights = 0, [], []
    for _ in range(400):
        found = prediction_powered_mean(*judged(rng, 0.9))
        hits += found.interval.low <= 0.7 <= found.interval.high
        worth.append(found.worth)
        weights.append(found.weight)
    assert 0.92 <= hits / 400 <= 0.98
    assert np.mean(worth) > 1.8
    assert 0.6 < np.mean(weights) < 1


def test_a_useless_judge_is_ignored_and_a_biased_one_does_no_harm():
    rng = np.random.default_rng(9)
    useless = [prediction_powered_mean(*judged(rng, 0.5)) for _ in range(100)]
    assert np.mean([found.weight for found in useless]) < 0.12
    errors = []
    for _ in range(300):
        labels, said, rest = judged(rng, 0.9)
        biased = prediction_powered_mean(
            labels, np.clip(said + 0.3, 0, 1), np.clip(rest + 0.3, 0, 1)
        )
        errors.append(biased.interval.estimate - 0.7)
    assert abs(np.mean(errors)) < 3 * np.std(errors) / 300**0.5 + 1e-9


def test_ppi_refuses_too_few_labels():
    with pytest.raises(ValueError, match="at least 10"):
        prediction_powered_mean(np.ones(5), np.ones(5), np.ones(50))


def questions(rng, n, shift=0.0, mix=0.5):
    centre = np.where(rng.random(n)[:, None] < mix, 1.0, -1.0) * np.ones((1, 6))
    return centre + rng.normal(0, 0.6, (n, 6)) + shift


def test_drift_tests_keep_their_level_and_see_shifts():
    rng = np.random.default_rng(10)
    quiet = [mmd_test(questions(rng, 60), questions(rng, 60), permutations=99) for _ in range(80)]
    assert np.mean([found.p <= 0.05 for found in quiet]) <= 0.13
    assert mmd_test(questions(rng, 100), questions(rng, 100, shift=0.4)).p < 0.01
    still, _ = topic_share_test(questions(rng, 200), questions(rng, 200))
    moved, shares = topic_share_test(questions(rng, 200), questions(rng, 200, mix=0.9))
    assert moved.p < 0.001 < still.p
    assert abs(shares[0][2] - shares[0][1]) >= abs(shares[-1][2] - shares[-1][1])
    with pytest.raises(ValueError, match="10 rows"):
        mmd_test(np.zeros((3, 2)), np.zeros((30, 2)))


def test_logistic_and_isotonic_are_calibrated():
    rng = np.random.default_rng(11)
    x = rng.normal(size=(3000, 3))
    truth = 1 / (1 + np.exp(-(x[:, 0] - 0.5 * x[:, 1])))
    y = (rng.random(3000) < truth).astype(float)
    model = fit_logistic(x[:2000], y[:2000])
    raw = model.scores(x[2000:])
    assert np.abs(raw - truth[2000:]).mean() < 0.03
    bent = raw**3
    curve = fit_isotonic(bent[:500], y[2000:2500])
    assert calibration_error(curve(bent[500:]), y[2500:]) < calibration_error(bent[500:], y[2500:])
    assert np.all(np.diff(curve.values) >= -1e-12)
    assert brier_score(y, y) == 0


def test_many_columns_at_once_are_bootstrapped_as_one_by_one():
    rng = np.random.default_rng(12)
    table, ids = rng.random((300, 3)), np.repeat(np.arange(60), 5)
    boot = ClusterBootstrap(300, seed=3)
    together = boot.intervals(table, ids)
    for column, found in zip(table.T, together, strict=True):
        alone = boot.interval(column, ids)
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high))
    assert sum(part.sum() for part in boot.counts(60)) == 300 * 60


def test_many_sign_flip_tests_at_once_agree_with_one_by_one():
    rng = np.random.default_rng(13)
    table = rng.normal([0, 0.2, 0.5], 1, (80, 3))
    table[14:, 0] = 0.0
    together = sign_flip_tests(table)
    assert together[0].p == sign_flip_test(table[:, 0]).p
    for j in (1, 2):
        assert together[j].p == pytest.approx(sign_flip_test(table[:, j]).p, abs=0.02)
