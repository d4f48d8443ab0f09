"""An evaluation: what is scored, what stays unscored, and what does not depend on order."""

from dataclasses import replace

import numpy as np
import pytest

from evals.baselines import best_sentence, best_sentence_arm, constant_answer
from evals.decision import decide
from evals.decision_spec import DecisionSpec, max_p95_latency
from evals.errors import MetricError, OutputError
from evals.evaluation import IntervalSettings, evaluate
from evals.outputs import Output, Passage
from evals.pareto import pareto_front, pareto_membership
from evals.samples import Sample
from evals.scoring import score_output, score_table

ANSWERABLE = Sample("a", "How long?", ("14 days",), ("d1",), tags=("t",))
UNANSWERABLE = Sample("u", "Why?", None)
FAST = IntervalSettings(resamples=200)


def out(sample_id, arm="rag", text="14 days", **fields):
    return Output(sample_id, arm, text, **fields)


def value(sample, output, metric, **options):
    return score_output(sample, output, **options)[metric].value


@pytest.mark.parametrize("metric", ["token_f1", "exact_match", "contains_answer", "value_recall"])
def test_abstaining_is_right_without_an_answer_and_wrong_with_one(metric):
    assert value(UNANSWERABLE, out("u", abstained=True), metric) == 1.0
    assert value(UNANSWERABLE, out("u"), metric) == 0.0
    assert value(ANSWERABLE, out("a", abstained=True), metric) == 0.0
    assert value(ANSWERABLE, out("a"), metric) == 1.0


def test_an_error_is_the_worst_score_of_all_that_is_about_the_question():
    scores = score_output(ANSWERABLE, out("a", error="timeout"))  # although its text is right
    assert {scores[name].value for name in ("token_f1", "right_citation", "recall_at_k")} == {0.0}
    assert (scores["over_refusal"].value, scores["error_rate"].value) == (1.0, 1.0)
    assert scores["abstention"].value is None
    refused = score_output(UNANSWERABLE, out("u", error="timeout", abstained=True))
    assert (refused["token_f1"].value, refused["abstention"].value) == (0.0, 0.0)
    assert refused["right_citation"].value is None


def test_failures_count_in_quality_latency_and_every_pair(world):
    made = world({"prompt": 0.7, "rag": 0.7}, n=200)
    down = [
        replace(o, error="timeout") if o.arm == "rag" and int(o.sample_id[1:]) % 25 == 0 else o
        for o in made.outputs
    ]
    fine, hurt = (evaluate(made.samples, o, settings=FAST) for o in (made.outputs, down))
    assert hurt.arm("rag").errors == 8
    assert hurt.arm("rag").scored == 200
    pair = next(p for p in hurt.differences if p.metric == "token_f1")
    assert pair.difference.n == 200
    assert (
        hurt.arm("rag").metrics["token_f1"].estimate < fine.arm("rag").metrics["token_f1"].estimate
    )
    slow = hurt.table.values["rag"]["latency_s"]
    assert np.isinf(slow).sum() == 8
    p95 = hurt.arm("rag").latency_p95_s
    assert "8 answers failed" in p95.note
    half = [replace(o, error="timeout") if o.arm == "rag" else o for o in made.outputs]
    assert evaluate(made.samples, half, settings=FAST).arm("rag").latency_p50_s.estimate is None
    limit = DecisionSpec(constraints=(max_p95_latency(10.0),), slack=0.0, max_unscored=0.2)
    gone = decide(evaluate(made.samples, half[:100] + down[100:], settings=FAST), limit)
    verdict = gone.evidence.verdicts_of("rag")[0]
    assert verdict.n == 200
    assert verdict.estimate > 0.03


def test_failures_are_named_in_the_decision_and_too_many_rule_an_arm_out(world):
    made = world({"prompt": 0.3, "rag": 0.8}, n=200)

    def failing(every):
        return [
            replace(o, error="down") if o.arm == "rag" and int(o.sample_id[1:]) % every == 0 else o
            for o in made.outputs
        ]

    some = decide(evaluate(made.samples, failing(40), settings=FAST), DecisionSpec())
    assert any("5 answers of rag failed" in line for line in some.warnings)
    assert some.evidence.failed == (0, 5)
    many = decide(evaluate(made.samples, failing(10), settings=FAST), DecisionSpec())
    assert [(r.arm, r.kind) for r in many.rejected] == [("rag", "unscored")]
    assert "20 of 200 answers of rag failed" in many.rejected[0].sentence


def test_citations_and_retrieval_of_unanswerable_questions_are_unscored():
    scores = score_output(UNANSWERABLE, out("u", citations=("d1",), retrieved=("d1",)))
    for name in ("right_citation", "citation_precision", "recall_at_k", "over_refusal"):
        assert not scores[name].scored


def test_faithfulness_reads_the_cited_passages_only():
    meta = {"passages": [{"id": "d1", "text": "14 days"}, {"id": "d2", "text": "30 days"}, "junk"]}
    cited = out("a", "rag", "30 days [1]", citations=("d1",), meta=meta)
    assert value(ANSWERABLE, cited, "value_faithfulness") == 0.0
    assert value(ANSWERABLE, replace(cited, citations=()), "value_faithfulness") == 1.0
    assert value(ANSWERABLE, replace(cited, meta={}), "value_faithfulness") is None


def test_style_is_scored_only_when_given_and_answered():
    assert value(ANSWERABLE, out("a"), "style_match") is None
    assert value(ANSWERABLE, out("a"), "style_match", style="days$") == 1.0
    assert value(ANSWERABLE, out("a", abstained=True), "style_match", style="days$") is None


def test_an_arm_without_retrieval_has_no_recall_but_an_empty_result_of_one_with_it_scores_zero():
    samples = [ANSWERABLE, replace(ANSWERABLE, id="b")]
    outputs = [
        out("a", "rag", retrieved=("d1",)),
        out("b", "rag"),
        out("a", "prompt"),
        out("b", "prompt"),
    ]
    table = score_table(samples, outputs)
    assert table.scored("rag", "recall_at_k")[0].tolist() == [1.0, 0.0]
    assert len(table.scored("prompt", "recall_at_k")[0]) == 0


def test_a_missing_output_is_unscored_and_left_out_of_pairs():
    samples = [ANSWERABLE, replace(ANSWERABLE, id="b", gold=("d2",))]
    table = score_table(samples, [out("a"), out("b"), out("a", "prompt", "no")])
    assert table.arms == ("prompt", "rag")
    first, second, _ = table.paired("prompt", "rag", "token_f1")
    assert (first.tolist(), second.tolist()) == ([0.0], [1.0])


def test_outputs_that_do_not_fit_are_refused():
    with pytest.raises(OutputError, match="'x', which is not given"):
        evaluate([ANSWERABLE], [out("x")])
    with pytest.raises(OutputError, match="twice"):
        evaluate([ANSWERABLE], [out("a"), out("a")])
    with pytest.raises(OutputError, match="no outputs"):
        evaluate([ANSWERABLE], [])
    with pytest.raises(OutputError, match="baseline 'c' has no outputs"):
        evaluate([ANSWERABLE], [out("a")], baselines=("c",))
    with pytest.raises(MetricError, match="valid choices are token_f1"):
        evaluate([ANSWERABLE], [out("a")], primary="mrr")


def test_an_evaluation_finds_the_better_arm_and_adjusts_for_all_pairs(world):
    made = world({"prompt": 0.2, "rag": 0.5, "hybrid": 0.8})
    found = evaluate(made.samples, made.outputs, settings=FAST)
    assert [arm.arm for arm in found.arms] == ["prompt", "rag", "hybrid"]
    f1 = {arm.arm: arm.metrics["token_f1"] for arm in found.arms}
    assert f1["prompt"].high < f1["rag"].low < f1["rag"].high < f1["hybrid"].low
    pairs = [pair for pair in found.differences if pair.metric == "token_f1"]
    assert [(pair.a, pair.b) for pair in pairs] == [
        ("prompt", "rag"), ("prompt", "hybrid"), ("rag", "hybrid"),
    ]  # fmt: skip
    assert all(pair.difference.low > 0 and pair.p_holm >= pair.p for pair in pairs)
    for pair in pairs:
        means = [f1[pair.b].estimate - f1[pair.a].estimate, pair.difference.estimate]
        assert means[0] == pytest.approx(means[1])
    assert {pair.metric for pair in found.differences} == {
        "token_f1",
        "right_citation",
        "contains_answer",
    }


def test_independent_rates_use_newcombe_and_mcnemar_and_clusters_do_not(world):
    for size, test in ((1, "mcnemar"), (4, "sign flip")):
        made = world({"prompt": 0.3, "rag": 0.5}, cluster_size=size)
        found = evaluate(made.samples, made.outputs, settings=FAST)
        pair = next(p for p in found.differences if p.metric == "contains_answer")
        assert pair.test.startswith(test)


def test_order_of_samples_and_outputs_changes_no_number(world):
    made = world({"prompt": 0.4, "rag": 0.6}, n=60, cluster_size=3)
    one = evaluate(made.samples, made.outputs, settings=FAST)
    other = evaluate(made.samples[::-1], made.outputs[::-1], settings=FAST)
    assert (one.arms, one.differences, one.slices) == (other.arms, other.differences, other.slices)
    assert (one.failures, one.audit) == (other.failures, other.audit)
    assert (one.samples_digest, one.outputs_digest) == (other.samples_digest, other.outputs_digest)


def test_slices_cover_every_tag_and_carry_q_values(world):
    made = world({"prompt": 0.1, "rag": 0.9}, n=80)
    rows = evaluate(made.samples, made.outputs, settings=FAST).slices
    assert {(row.tag, row.arm) for row in rows} == {
        (tag, arm) for tag in ("odd", "even") for arm in ("prompt", "rag")
    }
    assert all(row.q < 0.01 for row in rows if row.arm == "rag")
    assert all(row.q is None for row in rows if row.arm == "prompt")


def test_failures_show_the_worst_first_with_all_answers_and_passages(world):
    made = world({"prompt": 0.2, "rag": 0.9}, n=50)
    found = evaluate(made.samples, made.outputs, settings=FAST).failures
    worst = [failure for failure in found if failure.arm == "prompt"]
    assert len(worst) == 5
    assert all(failure.score == 0 for failure in worst)
    answers = {answer.arm: answer for answer in worst[0].answers}
    assert answers["rag"].score == 1.0
    assert answers["rag"].passages[0].id == worst[0].gold[0]
    assert all(failure.score < 1 for failure in found)


def test_audit_counts_clusters_and_repeated_questions():
    samples = [
        ANSWERABLE, replace(ANSWERABLE, id="b", question=" how  LONG? "), UNANSWERABLE,
        Sample("n", "Who?", ("x",)),
    ]  # fmt: skip
    audit = evaluate(samples, [out("a")], settings=FAST).audit
    assert (audit.samples, audit.clusters, audit.largest_cluster) == (4, 3, 2)
    assert (audit.answerable, audit.unanswerable, audit.without_gold) == (3, 1, 1)
    assert audit.repeated_questions == 1


def test_one_sample_and_only_errors_give_results_without_nan():
    one = evaluate([ANSWERABLE], [out("a"), out("a", "prompt", error="down")], settings=FAST)
    rag, prompt = one.arm("rag"), one.arm("prompt")
    assert rag.metrics["token_f1"].low is None
    assert (prompt.errors, prompt.scored) == (1, 1)
    assert prompt.metrics["token_f1"].estimate == 0.0
    assert prompt.latency_p50_s.estimate is None
    with pytest.raises(MetricError, match="no arm 'x'"):
        one.arm("x")


def test_pareto_front_keeps_what_nobody_beats_in_both(world):
    points = {"a": (0.5, 1.0), "b": (0.6, 1.0), "c": (0.9, 3.0), "d": (0.8, 3.5)}
    assert pareto_front(points) == {"b", "c"}
    made = world(
        {"prompt": 0.3, "rag": 0.2, "hybrid": 0.9}, latency_s={"prompt": 0.1, "rag": 1, "hybrid": 2}
    )
    shares = pareto_membership(score_table(made.samples, made.outputs), "token_f1", resamples=200)
    assert shares["prompt"] == shares["hybrid"] == 1.0
    assert shares["rag"] < 0.2


def test_constant_answer_says_the_most_frequent_answer_or_abstains():
    samples = [Sample(str(i), "?", (a,)) for i, a in enumerate(["The yes", "no", "yes!", "no way"])]
    solve = constant_answer(samples)
    assert solve(samples[1]).text == "The yes"
    assert not solve(samples[1]).abstained
    mostly_none = constant_answer([*samples, *[Sample(f"u{i}", "?", None) for i in range(3)]])
    assert mostly_none(samples[0]).abstained


def test_best_sentence_prefers_rare_words_of_the_question_and_cites_its_passage():
    passages = ["The shop is open. The shop sells tea.", "The trial lasts 14 days. It is free."]
    assert (
        best_sentence("How long can a trial in this shop be?", passages)
        == "The trial lasts 14 days."
    )
    assert best_sentence("anything", []) == ""
    solve = best_sentence_arm(lambda _: [Passage(f"p{i}", text) for i, text in enumerate(passages)])
    output = solve(Sample("a", "How long is the trial?", ("14 days",)))
    assert (output.citations, output.retrieved) == (("p1",), ("p0", "p1"))
    assert output.passages[1].text == passages[1]


def test_table_hides_unscored_values(score_table):
    table = score_table({"prompt": [1.0, np.nan, 0.0]})
    assert table.scored("prompt", "token_f1")[0].tolist() == [1.0, 0.0]
