"""Claims that the numbers make at their edges: few events, failures, exact limits, records."""

import json
from dataclasses import replace

import numpy as np
import pytest

from evals.analysis import analyse
from evals.confirmation import Confirmation, confirm, split_table
from evals.decision import decide, replay
from evals.decision_spec import (
    Constraint,
    DecisionSpec,
    max_p95_latency,
    min_right_citation,
    parse_spec,
)
from evals.errors import DecisionError, EvalError
from evals.evaluation import IntervalSettings, evaluate
from evals.evidence import gather_evidence
from evals.metrics.classification import macro_f1_interval
from evals.metrics.freshness import compare_versions
from evals.outputs import Output
from evals.regression import Scores, gate, gate_record
from evals.router import judge_router
from evals.rules import settle
from evals.sample_size import more_needed
from evals.samples import Sample
from evals.scoring import LATENCY, score_table
from evals.statistics.clustered import ClusterBootstrap, cluster_t
from evals.statistics.intervals import Interval
from evals.statistics.power import mde, n_needed
from evals.volatility import SourceLog, measure_volatility

FAST = IntervalSettings(resamples=50)


@pytest.mark.parametrize("rate", [0.0005, 0.005])
def test_few_changes_in_many_sources_leave_the_pace_unsure(rate):
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(120):
        logs = [SourceLog(f"d{i}", int(e), 20.0) for i, e in enumerate(rng.poisson(rate * 20, 80))]
        found = measure_volatility(logs)
        covered += found.low <= rate <= found.high
    assert covered / 120 >= 0.9


def test_nothing_seen_in_many_sources_is_no_proof_that_nothing_changes():
    found = measure_volatility([SourceLog(str(i), 0, 1.0) for i in range(100)])
    assert found.high > 2 / 100  # the rule of three says 3 / 100
    moment = measure_volatility([SourceLog(str(i), 0, 1e-6) for i in range(3)])
    assert moment.low < 0.1
    assert moment.high > 1  # a moment's look says nothing


def test_a_share_exactly_at_its_limit_needs_no_number_of_questions(score_table):
    table = score_table({"prompt": [1.0, 0.0] * 50})
    table.values["prompt"][LATENCY][:8] = 9.0
    spec = DecisionSpec(constraints=(max_p95_latency(1.0),), slack=0.03)
    evidence = gather_evidence(table, spec)
    assert evidence.verdicts[0].verdict == "not shown"
    assert more_needed(evidence, spec, ("prompt",)) is None


def test_the_questions_still_needed_include_those_that_will_be_held_back(score_table):
    columns = {"prompt": [1.0, 0.0] * 50, "rag": [1.0, 0.0, 0.0, 1.0] * 25}
    spec = DecisionSpec(margin=0.05)
    evidence = gather_evidence(score_table(columns), spec)
    plain = more_needed(evidence, spec, ("prompt", "rag"))
    held = more_needed(evidence, replace(spec, confirm_share=0.5), ("prompt", "rag"))
    assert held.samples == 2 * plain.samples


def test_an_arm_that_breaks_a_limit_cannot_refute_the_choice(score_table):
    rng = np.random.default_rng(0)
    good = (rng.random(400) < 0.9).astype(float)
    fair = good * (rng.random(400) < 0.7)
    poor = fair * (rng.random(400) < 0.3)
    table = score_table(
        {"prompt": poor, "rag": fair, "hybrid": good},
        right_citation={"prompt": good, "rag": good, "hybrid": np.zeros(400)},
    )
    spec = DecisionSpec(constraints=(min_right_citation(0.5),), confirm_share=0.4)
    chosen, held = split_table(table, spec.confirm_share)
    evidence = gather_evidence(chosen, spec)
    outcome = settle(evidence, spec)
    assert outcome.choice == "rag"
    found = confirm(held, evidence, spec, outcome)
    assert found.versus == "prompt"
    assert "That confirms the choice." in found.sentence
    assert not found.refutes(spec.margin)


def test_a_choice_is_refuted_only_by_more_than_the_margin():
    gain = Interval(-0.3, -0.4, -0.2, 50, 50, 0.95, "cluster t")
    assert Confirmation(50, 50, gain, "prompt", 0.1, gain, "").refutes(0.03)
    assert not Confirmation(50, 50, gain, "prompt", 0.1, gain, "").refutes(0.2)
    assert not Confirmation(50, 50, gain, None, None, None, "").refutes(0.03)


def test_clusters_with_equal_means_are_no_proof_of_certainty():
    values, clusters = np.tile([1.0, 0.0], 12), np.repeat(np.arange(12), 2)
    for found in (cluster_t(values, clusters), ClusterBootstrap(200).interval(values, clusters)):
        assert found.low < 0.4
        assert found.high > 0.6
        assert "all clusters are equal" in found.note


def test_sample_sizes_hold_at_a_tiny_alpha():
    assert np.isfinite(mde(0.5, 50, alpha=1e-20))
    assert n_needed(0.0, 0.1, alpha=1e-20) >= 2


def test_a_rule_is_used_as_it_is_recorded(world):
    made = world({"prompt": 0.4, "rag": 0.6}, n=60)
    spec = DecisionSpec(
        alpha=1 / 30, margin=1 / 30, effort=(("rag", 2 / 3),), constraints=(max_p95_latency(1 / 3),)
    )
    found = decide(evaluate(made.samples, made.outputs, settings=FAST), spec)
    record = found.to_json()
    assert found.spec == parse_spec(json.loads(record)["spec"])
    assert replay(record, made.samples, made.outputs).decision == found


def test_a_limit_that_is_not_a_number_is_refused():
    with pytest.raises(DecisionError):
        Constraint(LATENCY, "at_most", float("nan"), 0.95)


def answer(arm, name, repeat=0, **changes):
    made = Output(name, arm, "1", (), (), False, 1.0, 1, 1, None, {}, repeat)
    return replace(made, **changes)


def test_a_latency_is_that_of_one_answer_however_often_it_was_asked():
    samples = [Sample(f"q{i}", "How many?", ("1",)) for i in range(4)]
    outputs = [
        answer("rag", sample.id, repeat, latency_s=9.0 if (i + repeat) % 4 == 0 else 1.0)
        for i, sample in enumerate(samples)
        for repeat in (3, 2, 1, 0)
    ]
    assert score_table(samples, outputs).values["rag"][LATENCY].tolist() == [9.0, 1.0, 1.0, 1.0]


def test_questions_a_metric_is_not_about_are_not_failures_of_the_arms():
    samples = [
        Sample(f"q{i}", f"How many {i}?", ("10 euros",) if i % 2 else ("the red one",))
        for i in range(80)
    ]
    outputs = [
        answer(arm, sample.id, text="10 euros" if arm == "rag" else "no idea")
        for sample in samples
        for arm in ("prompt", "rag")
    ]
    spec = DecisionSpec(primary="value_recall")
    found = decide(evaluate(samples, outputs, primary="value_recall", settings=FAST), spec)
    assert (found.status, found.choice) == ("WINNER", "rag")
    assert (found.evidence.samples, found.evidence.clusters) == (40, 40)
    failed = [
        replace(o, error="down") if o.arm == "rag" and int(o.sample_id[1:]) < 20 else o
        for o in outputs
    ]
    again = decide(evaluate(samples, failed, primary="value_recall", settings=FAST), spec)
    assert [(r.arm, r.kind) for r in again.rejected] == [("rag", "unscored")]


def test_a_router_is_not_judged_on_missing_scores():
    right = np.ones((60, 2))
    right[3, 1] = np.nan
    with pytest.raises(EvalError, match="every arm"):
        judge_router(np.zeros((60, 1)), right, ("a", "b"), np.arange(60))


def test_failing_on_hard_questions_does_not_pass_a_gate(score_table):
    right = (np.arange(200) % 2).astype(float)
    before = Scores("token_f1", score_table({"rag": right}, error_rate={"rag": np.zeros(200)}))
    down = (np.arange(200) % 3 == 0).astype(float)
    left = np.where(down == 1, np.nan, right)
    after = Scores("token_f1", score_table({"rag": left}, error_rate={"rag": down}))
    assert not gate(before, after).passed
    assert gate(after, after).passed
    assert gate(after, before).checks[0].outcome == "pass"
    fine = np.where(down == 1, np.nan, 1.0)
    third = Scores("token_f1", score_table({"rag": fine}, error_rate={"rag": down}))
    assert gate(third, third, floors={"token_f1": 0.9}).checks[1].outcome == "fail"


def test_equal_latencies_can_be_written_as_json(score_table):
    run = Scores("token_f1", score_table({"rag": [1.0, 0.0] * 20}))
    made = gate(run, run, metrics=(LATENCY,))
    assert json.dumps(gate_record(made), allow_nan=False)


@pytest.mark.parametrize("n", [60, 700])
def test_macro_f1_has_the_spread_of_its_resamples(n):
    rng = np.random.default_rng(0)
    wanted = rng.choice(["a", "b"], n).tolist()
    said = [label if rng.random() < 0.8 else "ab".replace(label, "") for label in wanted]
    found = macro_f1_interval(wanted, said, np.arange(n), bootstrap=ClusterBootstrap(2000))
    usual = 1.96 * (0.8 * 0.2 / n) ** 0.5  # of the accuracy, which it equals here but for noise
    assert 0.8 * 2 * usual < found.high - found.low < 1.25 * 2 * usual


def test_classes_are_compared_on_the_questions_both_arms_answered():
    samples = [Sample(f"q{i:02d}", f"Which {i}?", ("ab"[i % 2],)) for i in range(40)]
    outputs = [
        answer(arm, s.id, text=s.answers[0], error="down" if s.id == lost else None)
        for arm, lost in (("prompt", "q00"), ("rag", "q02"))
        for s in samples
    ]
    outputs = [
        replace(o, text="c") if o.arm == "rag" and o.sample_id == "q00" else o for o in outputs
    ]
    made = analyse(evaluate(samples, outputs, settings=FAST), samples, outputs)
    (section,) = [s for s in made.sections if s.title == "Classes: macro-F1"]
    versus = {row[0]: row[2] for row in section.rows}
    assert versus["rag"].startswith("0.000")  # q00 is right in one arm only and was never compared


def test_changed_facts_of_one_document_are_not_independent():
    old = [Sample(f"q{i:02d}", f"Which {i}?", ("1",), (f"doc{i // 10}",)) for i in range(40)]
    new = [replace(sample, answers=("2",)) for sample in old]
    first = [answer("rag", sample.id) for sample in old]
    second = [answer("rag", s.id, text="2" if i < 20 else "1") for i, s in enumerate(new)]
    (found,) = compare_versions(old, new, first, second)
    assert (found.flip.n, found.flip.clusters) == (40, 4)
    assert found.flip.high - found.flip.low > 0.6  # two of four documents, not 20 of 40 facts
