"""Decisions: every status is reached for its reason, explained, and replayed bit for bit."""

import json
from dataclasses import replace

import pytest

from evals.decision import decide, replay
from evals.decision_spec import (
    Constraint,
    DecisionSpec,
    max_over_refusal,
    max_p95_latency,
    min_abstention,
    min_right_citation,
    parse_spec,
)
from evals.errors import DecisionError
from evals.evaluation import IntervalSettings, evaluate

FAST = IntervalSettings(resamples=100)
ARMS = {"prompt": 0.1, "tuned": 0.2, "rag": 0.5, "hybrid": 0.8}
SPEC = DecisionSpec()


def decision(world, quality, spec=SPEC, **options):
    made = world(quality, **options)
    return decide(evaluate(made.samples, made.outputs, settings=FAST), spec)


def test_a_clearly_better_arm_is_the_winner(world):
    found = decision(world, ARMS, n=300)
    assert (found.status, found.choice, found.survivors) == ("WINNER", "hybrid", ("hybrid",))
    assert [(r.arm, r.kind) for r in found.rejected] == [
        (arm, "dominated") for arm in ("prompt", "tuned", "rag")
    ]
    assert "below hybrid" in found.rejected[0].sentence
    assert found.headline.startswith("Serve hybrid (token F1 0.")


def test_equal_arms_go_to_the_cheapest(world):
    found = decision(world, {"prompt": 1.0, "hybrid": 1.0, "rag": 0.2}, n=300)
    assert (found.status, found.choice) == ("CHEAPEST", "prompt")
    assert found.survivors == ("prompt", "hybrid")
    assert "cannot be better by 0.03 or more" in found.headline


def test_too_little_data_is_undecided_with_the_number_still_needed(world):
    found = decision(world, {"prompt": 0.5, "rag": 0.55}, n=100)
    assert (found.status, found.choice, found.default) == ("UNDECIDED", None, "prompt")
    assert found.more.answers == 2 * found.more.samples > 200
    assert f"about {found.more.samples} more questions" in found.headline


def test_a_broken_limit_removes_an_arm_before_it_can_eliminate_others(world):
    spec = replace(SPEC, constraints=(max_p95_latency(1.0),))
    found = decision(world, ARMS, spec, n=300, latency_s={"hybrid": 3.0})
    assert (found.status, found.choice) == ("WINNER", "rag")
    reasons = {r.arm: r for r in found.rejected}
    assert reasons["hybrid"].kind == "constraint"
    assert "take longer than 1 s" in reasons["hybrid"].sentence


def test_latencies_of_one_cluster_count_one_by_one(world):
    spec = replace(SPEC, constraints=(max_p95_latency(1.0),))
    found = decision(world, ARMS, spec, n=200, cluster_size=10)
    assert {verdict.n_effective for verdict in found.evidence.verdicts} == {200}
    assert found.choice == "hybrid"


def test_no_arm_within_the_limits_is_infeasible_with_the_smallest_relaxation(world):
    spec = replace(SPEC, constraints=(max_p95_latency(0.1), min_right_citation(0.7)))
    found = decision(world, ARMS, spec, n=300)
    assert (found.status, found.choice, found.survivors) == ("INFEASIBLE", None, ())
    assert found.relaxation.arm == "hybrid"
    ((constraint, limit),) = found.relaxation.changes
    assert (constraint.metric, 0.2 < limit < 0.4) == ("latency_s", True)
    relaxed = replace(spec, constraints=(max_p95_latency(limit), min_right_citation(0.7)))
    assert decision(world, ARMS, relaxed, n=300).choice == "hybrid"


def test_a_limit_that_is_not_shown_keeps_the_arm_from_winning(world):
    spec = replace(SPEC, constraints=(min_abstention(0.85),))
    found = decision(world, {"prompt": 0.1, "rag": 0.8}, spec, n=120)
    assert found.status == "UNDECIDED"
    assert {v.verdict for v in found.evidence.verdicts} == {"not shown"}
    assert any("not shown either way" in line for line in found.reason)
    assert found.more.samples > 0


def test_constraints_on_both_sides_are_judged_by_one_sided_bounds(world):
    spec = replace(SPEC, constraints=(min_right_citation(0.6), max_over_refusal(0.05)))
    found = decision(world, ARMS, spec, n=400)
    verdicts = {(v.arm, v.constraint.metric): v.verdict for v in found.evidence.verdicts}
    assert verdicts["hybrid", "right_citation"] == "pass"
    assert verdicts["tuned", "right_citation"] == "fail"
    assert verdicts["tuned", "over_refusal"] == "pass"
    assert found.certified == ("hybrid",)


def test_a_graded_limit_is_judged_too(world):
    spec = replace(SPEC, constraints=(Constraint("citation_recall", "at_least", 0.6),))
    found = decision(world, ARMS, spec, n=300)
    assert (found.status, found.choice) == ("WINNER", "hybrid")


def test_an_arm_that_often_fails_to_answer_cannot_win(world):
    made = world(ARMS, n=200)
    outputs = [
        replace(o, error="timeout") if o.arm == "hybrid" and int(o.sample_id[1:]) % 5 == 0 else o
        for o in made.outputs
    ]
    found = decide(evaluate(made.samples, outputs, settings=FAST), SPEC)
    assert found.choice == "rag"
    assert found.rejected[0].kind == "unscored"
    assert "40 of 200" in found.rejected[0].sentence


def test_few_clusters_make_no_claim_about_quality(world):
    found = decision(world, ARMS, n=200, cluster_size=40)
    assert (found.status, found.evidence.clusters) == ("UNDECIDED", 5)
    assert found.survivors == tuple(ARMS)
    assert any("too few for a claim" in line for line in found.reason)
    assert any("effective n" in line for line in found.warnings)
    assert found.more.samples >= 200


def test_a_single_candidate_wins_if_it_keeps_the_limits(world):
    spec = replace(SPEC, constraints=(max_p95_latency(1.0),))
    assert decision(world, {"rag": 0.5}, spec).status == "WINNER"
    assert decision(world, {"rag": 0.5}, spec, latency_s={"rag": 5.0}).status == "INFEASIBLE"


def test_more_looks_cost_evidence(world):
    made = world({"prompt": 0.4, "rag": 0.6}, n=200)
    evaluation = evaluate(made.samples, made.outputs, settings=FAST)
    one, many = decide(evaluation, SPEC), decide(evaluation, replace(SPEC, looks=10), look=3)
    assert many.evidence.pairs[0].low < one.evidence.pairs[0].low
    assert many.look == 3
    with pytest.raises(DecisionError, match="look 2 is not one of the 1 planned"):
        decide(evaluation, SPEC, look=2)


def test_a_baseline_is_never_chosen_but_named_when_it_is_not_beaten(world):
    made = world({"prompt": 0.3, "constant": 0.5}, n=200)
    found = decide(
        evaluate(made.samples, made.outputs, baselines=("constant",), settings=FAST), SPEC
    )
    assert found.choice == "prompt"
    assert "prompt is not shown to beat the baseline constant." in found.warnings


def test_sensitivity_tells_when_the_rules_matter(world):
    spec = replace(SPEC, constraints=(max_p95_latency(1.0),))
    found = decision(world, ARMS, spec, n=300, latency_s={"hybrid": 0.82, "rag": 0.1})
    outcomes = {v.change: (v.status, v.choice) for v in found.sensitivity}
    assert found.choice == "hybrid"
    assert outcomes["p95 latency at most 1.1 s"] == ("WINNER", "hybrid")
    assert outcomes["p95 latency at most 0.9 s"] == ("WINNER", "rag")


def test_a_decision_replays_bit_for_bit_from_stored_outputs(world):
    made = world(ARMS, n=150)
    spec = replace(SPEC, constraints=(max_p95_latency(1.0), min_right_citation(0.3)), looks=2)
    evaluation = evaluate(made.samples, made.outputs, style="value", k=3, settings=FAST)
    record = decide(evaluation, spec, look=2).to_json()
    again = replay(record, made.samples[::-1], made.outputs[::-1])
    assert (again.identical, again.differences) == (True, ())
    assert again.decision.to_json() == record


def test_a_replay_names_what_changed(world):
    made = world(ARMS, n=150)
    record = decide(evaluate(made.samples, made.outputs, settings=FAST), SPEC).to_json()
    changed = [replace(made.outputs[0], text="other"), *made.outputs[1:]]
    again = replay(record, made.samples, changed)
    assert not again.identical
    assert any(line.startswith("inputs:") for line in again.differences)
    tampered = json.loads(record) | {"choice": "prompt"}
    assert replay(tampered, made.samples, made.outputs).differences == (
        'choice: recorded "prompt", now "hybrid"',
    )


@pytest.mark.parametrize("record", ["{", "{}", "[]", '{"schema_version": 1}'])
def test_an_unreadable_record_is_refused(world, record):
    made = world({"prompt": 0.5}, n=10)
    with pytest.raises(DecisionError, match="cannot be read"):
        replay(record, made.samples, made.outputs)


def test_a_spec_reads_back_with_the_same_digest_and_names_bad_fields():
    spec = DecisionSpec(constraints=(max_p95_latency(2.0), min_abstention(0.5)), margin=0.02)
    record = json.loads(json.dumps({"constraints": [
        {"metric": "latency_s", "sense": "at_most", "limit": 2.0, "quantile": 0.95},
        {"metric": "abstention", "sense": "at_least", "limit": 0.5},
    ], "margin": 0.02}))  # fmt: skip
    assert parse_spec(record) == spec
    assert parse_spec(record).digest == spec.digest != replace(spec, margin=0.03).digest
    with pytest.raises(DecisionError, match="'eps'"):
        parse_spec({"eps": 0.1})
    with pytest.raises(DecisionError, match="cannot be read"):
        parse_spec({"constraints": [{"metric": "abstention"}]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margin": 0}, "margin"),
        ({"alpha": 0.7}, "alpha"),
        ({"primary": "mrr"}, "valid choices"),
        ({"looks": 0}, "looks"),
        ({"slack": -0.1}, "slack"),
        ({"cost_order": ("rag", "rag")}, "twice"),
    ],
)
def test_an_impossible_spec_is_refused(change, message):
    with pytest.raises(DecisionError, match=message):
        DecisionSpec(**change)


@pytest.mark.parametrize(
    "arguments",
    [
        ("speed", "at_most", 0.5),
        ("latency_s", "at_most", 2.0),
        ("latency_s", "at_least", 2.0, 0.95),
        ("latency_s", "at_most", 0.0, 0.95),
        ("abstention", "at_least", 1.5),
        ("abstention", "above", 0.5),
        ("abstention", "at_least", 0.5, 0.95),
    ],
)
def test_an_impossible_constraint_is_refused(arguments):
    with pytest.raises(DecisionError):
        Constraint(*arguments)


def test_spec_and_evaluation_must_fit(world):
    made = world({"prompt": 0.5, "mine": 0.5}, n=20)
    evaluation = evaluate(made.samples, made.outputs, settings=FAST)
    with pytest.raises(DecisionError, match="'mine' is not in the cost order"):
        decide(evaluation, SPEC)
    with pytest.raises(DecisionError, match="evaluation was made for token_f1"):
        decide(evaluation, DecisionSpec(primary="exact_match"))
    only = evaluate(made.samples, made.outputs, baselines=("prompt", "mine"), settings=FAST)
    with pytest.raises(DecisionError, match="only baselines"):
        decide(only, SPEC)
