"""Volatility against known rates, triggers against their false-alarm budget."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.triggers import (
    FALSE_ALARMS_A_QUARTER,
    KINDS,
    alpha_of_check,
    check_age,
    check_churn,
    check_corrections,
    check_parts,
    check_quality,
    check_questions,
    open_watch,
)
from evals.volatility import (
    SourceLog,
    change_class,
    measure_volatility,
    polled_rate,
    pooled_prior,
    retrain_every,
    staleness,
    tuned_quality,
    values_changed,
    weight_by_traffic,
)


@pytest.mark.parametrize(
    ("rate", "days", "stale"),
    [(0.02, 7, 0.067), (0.02, 30, 0.248), (0.02, 90, 0.536), (0.001, 30, 0.015), (0.0, 30, 0.0)],
)
def test_staleness_of_known_rates(rate, days, stale):
    assert staleness(rate, days) == pytest.approx(stale, abs=0.001)


@pytest.mark.parametrize(("rate", "days"), [(0.02, 5.2), (0.001, 103)])
def test_renewal_that_keeps_five_percent(rate, days):
    assert retrain_every(rate) == pytest.approx(days, rel=0.02)
    assert retrain_every(0.0) is None


@given(st.floats(1e-6, 1.0), st.floats(0.1, 365), st.floats(1.0, 3.0))
def test_staleness_grows_with_rate_and_time(rate, days, factor):
    once = staleness(rate, days)
    assert 0 <= once < 1
    assert staleness(rate * factor, days) >= once - 1e-9
    assert staleness(rate, days * factor) == pytest.approx(staleness(rate * factor, days))


def test_polling_is_corrected_for_changes_between_the_looks():
    rng = np.random.default_rng(0)
    found = rng.binomial(60, 1 - math.exp(-2.0), 2000)
    rates = [polled_rate(60, int(x), 1.0)[0] for x in found]
    assert np.mean(rates) == pytest.approx(2.0, rel=0.05)
    bounds = [polled_rate(60, int(x), 1.0) for x in found[:500]]
    assert np.mean([low <= 2.0 <= high for _, low, high in bounds]) >= 0.95
    assert polled_rate(10, 0, 1.0)[1] == 0.0
    assert polled_rate(10, 10, 1.0)[2] == math.inf
    with pytest.raises(ValueError, match="11 changes in 10 polls"):
        polled_rate(10, 11, 1.0)


def logs_of(rng, sources=80, days=200.0):
    rates = rng.gamma(0.8, 0.02 / 0.8, sources)
    events = rng.poisson(rates * days)
    weights = rng.gamma(1.0, 1.0, sources)
    logs = [
        SourceLog(f"d{i}", int(e), days, float(w))
        for i, (e, w) in enumerate(zip(events, weights, strict=True))
    ]
    return logs, float((weights / weights.sum()) @ rates)


def test_the_measured_rate_covers_the_true_one():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(250):
        logs, truth = logs_of(rng)
        found = measure_volatility(logs)
        hits += found.low <= truth <= found.high
    assert 0.91 <= hits / 250 <= 0.99


def test_pooling_beats_single_sources_where_little_was_seen():
    rng = np.random.default_rng(2)
    raw, pooled = [], []
    for _ in range(60):
        rates = rng.gamma(2.0, 0.01, 50)
        events = rng.poisson(rates * 20)
        a, b = pooled_prior([SourceLog(str(i), int(e), 20.0) for i, e in enumerate(events)])
        raw.append(np.mean((events / 20 - rates) ** 2))
        pooled.append(np.mean(((a + events) / (b + 20) - rates) ** 2))
    assert np.mean(pooled) < 0.6 * np.mean(raw)


def test_what_nobody_asks_about_does_not_count():
    logs = {"hot": (0, 300.0), "cold": (90, 300.0), "odd": (1, 300.0)}
    asked = weight_by_traffic(logs, [["hot"], ["hot", "odd"], ["hot"], ["unknown"]])
    assert [(entry.source, entry.weight) for entry in asked] == [
        ("cold", 0),
        ("hot", 3),
        ("odd", 1),
    ]
    calm = measure_volatility(asked)
    alike = measure_volatility([SourceLog(s, e, d) for s, (e, d) in logs.items()])
    assert calm.rate < 0.1 * alike.rate
    assert calm.sources[0].source in ("hot", "odd")
    with pytest.raises(ValueError, match="asked about"):
        measure_volatility([SourceLog("x", 1, 1.0, 0.0)])


@pytest.mark.parametrize(("events", "level"), [(0, "low"), (5, "medium"), (400, "high")])
def test_classes_follow_the_stale_share_and_are_said_in_words(events, level):
    found = measure_volatility([SourceLog("a", events, 1000.0), SourceLog("b", events, 1000.0)])
    assert found.level == level == change_class(found.stale_after_30_days)
    assert f"{level} pace of change" in found.sentences[1]


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("Refunds take 14 days.", "Refunds take fourteen days!", False),
        ("Refunds take 14 days.", "Refunds take 30 days.", True),
        ("You can cancel.", "You cannot cancel.", True),
        ("Call us. It costs 5 euros.", "It costs 5 euros. Write to us instead.", False),
        ("Open on 3 May 2024.", "Open on 4 May 2024.", True),
    ],
)
def test_only_values_and_negations_count_as_changes(before, after, changed):
    assert values_changed(before, after) is changed


def test_tuned_quality_falls_by_what_is_stale_and_from_the_weights():
    assert tuned_quality(0.8, 0.02, 30, 0.0) == 0.8
    assert tuned_quality(0.8, 0.02, 30, 1.0) == pytest.approx(0.8 * (1 - staleness(0.02, 30)))


def test_the_alarms_of_a_quarter_stay_within_the_budget():
    total = 0.0
    for kind in KINDS:
        if kind in ("corrections", "quality"):
            total += alpha_of_check(kind, 0)
        else:
            total += sum(alpha_of_check(kind, done) for done in range(40))
    assert total == pytest.approx(FALSE_ALARMS_A_QUARTER)
    assert alpha_of_check("questions", 13) == 0


def test_churn_fires_only_when_the_class_is_left_for_certain():
    calm = measure_volatility([SourceLog(str(i), 0, 400.0) for i in range(20)])
    busy = measure_volatility([SourceLog(str(i), 40, 400.0) for i in range(20)])
    assert not check_churn("low", calm, 0.01).fired
    fired = check_churn("low", busy, 0.01)
    assert fired.fired
    assert "the decision was made for a low pace" in fired.sentence
    assert not check_churn(None, busy, 0.01).fired
    assert check_churn("low", busy, 0.0).alpha == 0


def test_question_drift_keeps_its_level_and_fires_on_new_topics():
    rng = np.random.default_rng(3)
    alarms = [
        check_questions(rng.normal(size=(60, 5)), rng.normal(size=(60, 5)), 0.1).fired
        for _ in range(60)
    ]
    assert np.mean(alarms) <= 0.2
    moved = check_questions(rng.normal(size=(80, 5)), rng.normal(size=(80, 5)) + 1.0, 0.01)
    assert moved.fired
    assert "ask about other things" in moved.sentence
    few = check_questions(rng.normal(size=(80, 5)), rng.normal(size=(12, 5)), 0.01)
    assert (few.fired, few.alpha, few.value) == (False, 0.0, None)
    assert check_questions(rng.normal(size=(80, 5)), rng.normal(size=(80, 5)), 0.0).alpha == 0


def test_corrections_may_be_watched_all_the_time():
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(300):
        before = int((rng.random(400) < 0.05).sum())
        after = (rng.random(600) < 0.05).tolist()
        watch = open_watch((before, 400), alpha=0.05, margin=0.0)
        alarms += check_corrections(after, watch).fired
    assert alarms / 300 <= 0.05
    rise = check_corrections((rng.random(600) < 0.25).tolist(), open_watch((20, 400), alpha=0.05))
    assert rise.fired
    assert "certain enough after" in rise.sentence
    assert check_corrections([True] * 50, open_watch((0, 0), alpha=0.05)).value is None


def corrections_over_decisions(rate, decisions, rng, each=120):
    """Whether any watch of one quarter fired, and what all of them may spend."""
    seen, previous, spent = [bool(v) for v in rng.random(400) < 0.05], None, 0.0
    fired = False
    for _ in range(decisions):
        watch = open_watch((sum(seen), len(seen)), previous, alpha=0.05, margin=0.0)
        spent += watch.spent
        after = (rng.random(each) < rate).tolist()
        fired |= check_corrections(after, watch).fired
        previous = (watch, after)
        seen = seen + after if rate == 0.05 else seen
    return fired, spent


def test_new_decisions_do_not_buy_new_false_alarms():
    rng = np.random.default_rng(8)
    found = [corrections_over_decisions(0.05, 12, rng) for _ in range(200)]
    assert sum(fired for fired, _ in found) / 200 <= 0.05
    assert max(spent for _, spent in found) <= 0.05 + 1e-9


def test_evidence_goes_on_over_decisions_that_are_too_short_for_an_alarm():
    rng = np.random.default_rng(9)
    alone = 0
    for _ in range(40):
        watch = open_watch((20, 400), alpha=0.05)
        alone += check_corrections((rng.random(40) < 0.25).tolist(), watch).fired
    joined = sum(corrections_over_decisions(0.25, 6, rng, each=40)[0] for _ in range(40))
    assert joined > alone
    assert joined >= 35


def test_a_watch_after_an_alarm_starts_from_nothing_at_half_the_level():
    first = open_watch((20, 400), alpha=0.05)
    second = open_watch((20, 400), (first, [True] * 60), alpha=0.05)
    assert (second.alarms, second.carried, second.level) == (1, 1.0, first.level / 2)
    third = open_watch((20, 400), (second, [False] * 60), alpha=0.05)
    assert (third.alarms, third.level) == (1, second.level)
    assert third.carried <= 1.0
    assert third.spent < second.spent  # only for not knowing the old rate
    again = check_corrections([True] * 9, second)
    assert check_corrections([True] * 9, second, first=False).alpha == 0.0 < again.alpha


def test_quality_fires_below_the_target_only():
    rng = np.random.default_rng(5)
    assert check_quality((rng.random(800) < 0.6).tolist(), 0.8, 0.05).fired
    assert not check_quality((rng.random(800) < 0.8).tolist(), 0.8, 0.05).fired
    assert check_quality([], 0.8, 0.05).value is None


def test_changed_parts_and_age_need_no_statistics():
    same = {"base model": "a", "prompt": "p"}
    assert not check_parts(same, dict(same)).fired
    changed = check_parts(same, same | {"prompt": "q"})
    assert (changed.fired, changed.alpha) == (True, 0.0)
    assert "prompt" in changed.sentence
    assert not check_parts(same, {"adapter": "new"}).fired
    assert check_age(90.0, 90).fired
    assert not check_age(89.0, 90).fired
