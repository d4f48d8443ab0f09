"""Overlap, classes, fields, schemas, support, confidence, context, freshness, style, cost."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.costs import Rates, arm_costs, break_even
from evals.errors import EvalError, MetricError
from evals.judging import judge_card, run_judge
from evals.metrics.classification import (
    OTHER,
    confusion,
    label_of,
    macro_f1_difference,
    macro_f1_interval,
)
from evals.metrics.context_use import conflict, context_use, sufficiency_split
from evals.metrics.extraction import field_f1, field_match, field_scores, schema_valid
from evals.metrics.freshness import compare_versions, flip_latency, median_latency
from evals.metrics.json_schema import schema_errors
from evals.metrics.overlap import chrf, rouge_l
from evals.metrics.selective import aurc, best_aurc, calibration, risk_coverage, thin
from evals.metrics.style import train_style
from evals.metrics.support import statements, support_precision, support_recall
from evals.outputs import Output
from evals.repeats import variance_split
from evals.samples import Sample
from evals.scoring import score_output
from evals.statistics.clustered import ClusterBootstrap

# Values of rouge-score 0.1.2 (no stemming) and sacrebleu 2.6.0 sentence_chrf.
ORACLES = [
    ("It costs 49 euros a month.", "The Ripple plan costs 49 euros a month.", 0.714286, 0.602922),
    ("replaced free of charge", "Tyres are replaced free of charge.", 0.8, 0.707193),
    ("no idea", "14 days", 0.0, 0.055556),
    ("14 days", "14 days", 1.0, 1.0),
    ("a", "abcdefgh", 0.0, 0.151515),
    (
        "The quick brown fox jumps over the lazy dog",
        "The lazy dog jumps over the quick brown fox",
        0.444444,
        0.871321,
    ),
    ("Grüße aus Köln, heute 12 °C", "Grüße aus Bonn, heute 13 °C", 0.666667, 0.576028),
    (
        "you have fourteen days to return it and then some more words follow here",
        "fourteen days",
        0.25,
        0.501282,
    ),
]


@pytest.mark.parametrize(("text", "answer", "rouge", "character"), ORACLES)
def test_overlap_equals_the_reference_implementations(text, answer, rouge, character):
    assert rouge_l(text, [answer]).value == pytest.approx(rouge, abs=1e-6)
    assert chrf(text, [answer]).value == pytest.approx(character, abs=1e-6)


@given(
    st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12)
)
def test_rouge_equals_the_textbook_recursion(first, second):
    table = np.zeros((len(first) + 1, len(second) + 1))
    for i, a in enumerate(first, 1):
        for j, b in enumerate(second, 1):
            table[i, j] = (
                table[i - 1, j - 1] + 1 if a == b else max(table[i - 1, j], table[i, j - 1])
            )
    expected = (
        2 * table[-1, -1] / (len(first) + len(second))
        if first and second
        else float(first == second)
    )
    assert rouge_l(" ".join(first), [" ".join(second)]).value == pytest.approx(expected)


def test_overlap_takes_the_best_answer_and_ignores_citation_marks():
    assert rouge_l("14 days [1]", ["a month", "14 days"]).value == 1.0
    assert chrf("14 days [1]", ["14 days"]).value == 1.0
    assert rouge_l("x", []).value is None
    assert chrf("x", []).value is None


WANTED = ["a", "a", "a", "b", "b", "c", "c", "c", "c", "a"]
SAID = ["a", "b", "a", "b", "c", "c", "c", "a", "c", "zzz"]


def test_macro_f1_equals_the_reference_implementation():
    made = confusion(WANTED, SAID)  # scikit-learn 1.7, f1_score(average="macro")
    assert made.macro_f1 == pytest.approx(0.6071428571428571)
    assert [round(score.f1, 6) for score in made.per_class()] == [0.571429, 0.5, 0.75]
    assert made.counts.tolist() == [[2, 1, 0, 1], [0, 1, 1, 0], [1, 0, 3, 0]]
    assert ("a", OTHER, 1) in made.worst_confusions()
    with pytest.raises(MetricError, match="'z'"):
        confusion(["z"], ["a"], ["a"])


def test_a_class_is_found_in_a_sentence_only_when_it_is_the_only_one():
    labels = ("card_arrival", "card", "top_up_failed")
    assert label_of("Card arrival.", labels) == "card_arrival"
    assert label_of("The label is card_arrival [1]", labels) == "card_arrival"
    assert label_of("card or top up failed", labels) is None
    assert label_of("something else", labels) is None


def test_macro_f1_interval_holds_the_truth_and_differences_pair_up():
    rng = np.random.default_rng(3)
    wanted = [str(x) for x in rng.integers(0, 3, 300)]
    weak = [w if rng.random() < 0.5 else "0" for w in wanted]
    strong = [w if rng.random() < 0.9 else "0" for w in wanted]
    clusters = np.arange(300)
    bootstrap = ClusterBootstrap(300)
    found = macro_f1_interval(wanted, strong, clusters, bootstrap=bootstrap)
    assert found.low < confusion(wanted, strong).macro_f1 < found.high
    gain = macro_f1_difference(wanted, weak, strong, clusters, bootstrap=bootstrap)
    assert gain.low > 0.2
    same = macro_f1_difference(wanted, weak, weak, clusters, bootstrap=bootstrap)
    assert (same.low, same.high) == (0.0, 0.0)


def test_fields_are_compared_one_by_one():
    wanted = ['{"date": "2026-11-22", "sum": 49.0, "items": ["a", "b"], "note": null}']
    right = '```json\n{"items": ["b", "a"], "sum": 49, "date": "2026-11-22"}\n```'
    assert field_f1(right, wanted).value == 1.0
    assert field_match(right, wanted).value == 1.0
    wrong = '{"date": "2026-11-23", "sum": 49, "items": ["a"], "extra": 1}'
    assert field_f1(wrong, wanted).value == pytest.approx(2 * 2 / (4 + 4))
    assert field_match(wrong, wanted).value == 0.0
    assert field_f1("49 euros", wanted).value == 0.0
    assert field_f1("49 euros", ["49 euros"]).value is None
    assert field_f1('{"a": "1.5"}', ['{"a": "15"}']).value == 0.0
    assert field_scores([(wrong, wanted[0])])["items"] == (1, 1, 2)


SCHEMA = {
    "type": "object",
    "required": ["amount"],
    "properties": {"amount": {"type": "number", "minimum": 0}, "unit": {"enum": ["EUR", "USD"]}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"amount": 3, "unit": "EUR"}', ""),
        ("three", "not a JSON object"),
        ('{"unit": "EUR"}', "$: field 'amount' is missing"),
        ('{"amount": -1}', "$.amount: -1 breaks the bound 0"),
        ('{"amount": true}', "$.amount: True is not of type number"),
        ('{"amount": 1, "unit": "GBP"}', "$.unit: 'GBP' is not one of ['EUR', 'USD']"),
        ('{"amount": 1, "x": 1}', "$: field 'x' is not allowed"),
    ],
)
def test_a_schema_is_kept_or_the_first_error_is_named(text, reason):
    score = schema_valid(text, SCHEMA)
    assert (score.value, score.reason) == (float(not reason), reason)


def test_a_schema_keyword_that_is_not_checked_is_refused_wherever_it_stands():
    with pytest.raises(MetricError, match="'if' is not checked"):
        schema_errors({}, {"properties": {"a": {"anyOf": [{"if": {}}]}}})
    with pytest.raises(MetricError, match="no type 'text'"):
        schema_errors("a", {"type": "text"})


PASSAGES = [
    "The Ripple plan costs 49 euros a month. Returns are not possible after 14 days.",
    "The workshop in Graz opens at 9 am on weekdays.",
]


def test_each_sentence_is_held_against_what_it_cites():
    good = "The Ripple plan costs 49 euros a month [1]. The workshop in Graz opens at 9 am. [2]"
    assert [s.cited for s in statements(good)] == [(1,), (2,)]
    assert support_recall(good, PASSAGES).value == 1.0
    assert support_precision(good, PASSAGES).value == 1.0


@pytest.mark.parametrize(
    ("text", "recall", "precision"),
    [
        ("The Ripple plan costs 49 euros a month [2].", 0.0, 0.0),  # cites the wrong passage
        ("The Ripple plan costs 59 euros a month [1].", 0.0, 0.0),  # another value
        ("Returns are possible after 14 days [1].", 0.0, 0.0),  # "not" is gone
        ("The Ripple plan costs 49 euros a month [1][2].", 1.0, 0.5),  # one citation too many
        ("The Ripple plan costs 49 euros a month.", 0.0, None),  # cites nothing
        ("The Ripple plan costs 49 euros a month [7].", 0.0, 0.0),  # no such passage
    ],
)
def test_planted_citation_mistakes_are_seen(text, recall, precision):
    assert support_recall(text, PASSAGES).value == recall
    assert support_precision(text, PASSAGES).value == precision


def test_risk_falls_with_coverage_only_if_confidence_knows_something():
    confidence = np.array([0.9, 0.8, 0.3, 0.2])
    scores = np.array([1.0, 1.0, 0.0, 1.0])
    points = risk_coverage(confidence, scores)
    assert [(p.coverage, round(p.risk, 3)) for p in points] == [
        (0.25, 0.0),
        (0.5, 0.0),
        (0.75, 0.333),
        (1.0, 0.25),
    ]
    assert aurc(confidence, scores) == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert best_aurc(scores) == pytest.approx((0 + 0 + 0 + 1 / 4) / 4)
    assert len(thin(points * 50, 60)) == 60


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=30))
def test_constant_confidence_has_the_mean_risk_and_perfect_order_is_least(scores):
    column = np.array(scores)
    flat = np.full(len(scores), 0.5)
    assert aurc(flat, column) == pytest.approx(1 - column.mean())
    rng = np.random.default_rng(len(scores))
    assert best_aurc(column) <= aurc(rng.random(len(scores)), column) + 1e-12


def test_calibration_error_is_what_was_put_in():
    confidence = np.repeat([0.2, 0.8], 50)
    right = np.concatenate([np.arange(50) < 10, np.arange(50) < 40]).astype(float)
    assert calibration(confidence, right, bins=2).ece == pytest.approx(0.0)
    assert calibration(confidence, 1 - right, bins=2).ece == pytest.approx(0.6)
    with pytest.raises(MetricError, match=r"1\.5"):
        calibration(np.array([1.5]), np.array([1.0]))


def test_context_splits_show_what_a_mean_hides():
    clusters = np.arange(40)
    alone = np.array([1.0] * 20 + [0.0] * 20)
    with_context = np.array([0.0] * 10 + [1.0] * 20 + [0.0] * 10)
    use = context_use(alone, with_context, clusters)
    assert alone.mean() == with_context.mean()
    assert (use.gain.estimate, use.harm.estimate) == (0.5, 0.5)
    split = sufficiency_split(with_context, np.arange(40) >= 30, with_context == 1, clusters)
    assert (split.with_gold.estimate, split.without_gold.estimate) == (1.0, 0.0)
    assert split.refused_without.estimate == 0.5
    found = conflict(["it is 9", "it is 5", "9 or 5"], [["9"]] * 3, [["5"]] * 3)
    assert (found.context, found.weights, found.neither, found.memorisation) == (1, 1, 1, 0.5)


def versions():
    old = [Sample(f"q{i}", "?", (f"{i} euros",)) for i in range(10)]
    new = [replace(s, answers=("99 euros",)) if i < 4 else s for i, s in enumerate(old)]

    def said(arm, texts):
        return [Output(s.id, arm, text) for s, text in zip(old, texts, strict=True)]

    before = [s.answers[0] for s in old]
    return old, new, said, before


def test_freshness_tells_flipped_stale_and_collateral_apart():
    old, new, said, before = versions()
    after = ["99 euros", "99 euros", before[2], "no idea", *before[4:9], "no idea"]
    (rag,) = compare_versions(old, new, said("rag", before), said("rag", after))
    assert (rag.flip.estimate, rag.flip.n) == (0.5, 4)
    assert rag.stale.estimate == 0.25
    assert (rag.collateral.n, round(rag.collateral.estimate, 3)) == (6, 0.167)
    (tuned,) = compare_versions(old, new, said("tuned", before), said("tuned", before))
    assert (tuned.flip.estimate, tuned.stale.estimate) == (0.0, 1.0)
    with pytest.raises(MetricError, match="both runs"):
        compare_versions(old, [replace(s, id="x" + s.id) for s in new], [], [])


def test_flip_latency_counts_those_that_never_flipped():
    steps = flip_latency([1, 2, 2, 5], [True, True, False, False])
    assert [(s.seconds, round(s.not_flipped, 3), s.at_risk) for s in steps] == [
        (1, 0.75, 4),
        (2, 0.5, 3),
    ]
    assert median_latency(steps) == 2
    assert median_latency(flip_latency([9, 9], [False, False])) is None


def test_style_is_learned_on_texts_it_has_not_seen():
    house = [f"The {n} plan costs {n} euros a month [1]. Fair winds!" for n in range(30)]
    other = [
        f"I think that the price for number {n} would be {n} euros monthly." for n in range(30)
    ]
    model = train_style(house, other)
    assert model.held_out_auc > 0.95
    assert model("Workshops open at nine. Fair winds!")
    assert not model("I think that workshops would be open at nine.")
    both = np.random.default_rng(0).permutation([*house, *other]).tolist()
    assert train_style(both[:30], both[30:]).held_out_auc < 0.8  # nothing to learn
    with pytest.raises(MetricError, match="too few"):
        train_style(house[:2], other)


def test_style_fits_the_style_argument_of_scoring():
    model = train_style(["Fair winds! " * 3] * 5, ["Regards. " * 3] * 5)
    sample = Sample("q", "?", ("x",))
    assert score_output(sample, Output("q", "a", "Fair winds!"), style=model)["style_match"].value


def test_costs_are_shared_out_and_break_even_where_they_meet():
    outputs = {
        "rag": [Output("q", "rag", "x", latency_s=3.6, prompt_tokens=1000)],
        "tuned": [Output("q", "tuned", "x", latency_s=1.8, prompt_tokens=100)],
    }
    rates = Rates(per_machine_hour=1.0, per_million_in=1.0)
    rag, tuned = arm_costs(outputs, rates, fixed={"tuned": 7.0}, answers=10_000)
    assert rag.running == pytest.approx(1.0 + 1.0)
    assert tuned.running == pytest.approx(0.5 + 0.1)
    assert tuned.per_1000 == pytest.approx(0.6 + 0.7)
    assert (rag.break_even, tuned.break_even) == (None, 5000)
    at = tuned.break_even
    assert 7.0 + at * tuned.running / 1000 == pytest.approx(at * rag.running / 1000)
    assert break_even(1.0, 0.0) is None
    assert break_even(0.0, 0.1) == 0
    with pytest.raises(EvalError, match="per_machine_hour"):
        Rates(per_machine_hour=-1)


def test_refusing_is_worth_half_of_being_right():
    able, unable = Sample("q", "?", ("14 days",)), Sample("q", "?")
    refused, right = Output("q", "a", "No.", abstained=True), Output("q", "a", "14 days")
    utility = [
        score_output(sample, output)["answer_utility"].value
        for sample in (able, unable)
        for output in (right, refused)
    ]
    assert utility == [1.0, 0.5, 0.0, 1.0]


def test_variance_is_split_between_questions_and_dice():
    rng = np.random.default_rng(0)
    samples = [Sample(f"q{i}", "?", ("yes",)) for i in range(200)]
    outputs = []
    for i, sample in enumerate(samples):
        for repeat in range(4):
            steady = "yes" if i % 2 else "no"
            dice = "yes" if rng.random() < 0.5 else "no"
            outputs.append(Output(sample.id, "steady", steady, repeat=repeat))
            outputs.append(Output(sample.id, "dice", dice, repeat=repeat))
    dice, steady = variance_split(samples, outputs, "exact_match")
    assert (steady.within, steady.worth) == (0.0, 0.0)
    assert steady.between == pytest.approx(0.25, rel=0.02)
    assert dice.within == pytest.approx(0.25, rel=0.15)
    assert dice.between < 0.03
    assert dice.se_single == pytest.approx(dice.se * 2, rel=0.2)
    assert variance_split(samples, [o for o in outputs if o.repeat == 0], "exact_match") == ()


def judged(bias, n=240):
    rng = np.random.default_rng(5)
    samples = [Sample(f"q{i:03d}", "?", ("right",)) for i in range(n)]
    outputs, truth = [], {}
    for sample in samples:
        for arm, skill in (("rag", 0.5), ("hybrid", 0.5)):
            good = rng.random() < skill
            truth[arm, sample.id] = bool(good)
            outputs.append(Output(sample.id, arm, "right" if good else "wrong"))

    def judge(sample, output):
        if output.arm == "hybrid" and rng.random() < bias:
            return True
        return (output.text == "right") if rng.random() < 0.9 else (output.text != "right")

    verdicts = run_judge(judge, samples, outputs)
    labels = {key: value for key, value in truth.items() if int(key[1][1:]) < n // 2}
    return samples, verdicts, labels, truth


def test_a_judge_is_measured_and_corrected_by_labels():
    samples, verdicts, labels, truth = judged(bias=0.6)
    clusters = {sample.id: i for i, sample in enumerate(samples)}
    hybrid, rag = judge_card(verdicts, labels, clusters=clusters)
    actual = np.mean([value for (arm, _), value in truth.items() if arm == "hybrid"])
    assert hybrid.judged.low > actual  # the judge alone is wrong, and sure of it
    assert hybrid.corrected.low < actual < hybrid.corrected.high
    assert hybrid.specificity.high < rag.specificity.low
    assert rag.sensitivity.estimate > 0.8
    assert hybrid.skew < 0.001 < rag.skew
    few = {key: value for key, value in labels.items() if int(key[1][1:]) < 8}
    assert judge_card(verdicts, few, clusters=clusters)[0].corrected is None
    with pytest.raises(MetricError, match="without a single human label"):
        judge_card(verdicts, {}, clusters=clusters)
    with pytest.raises(MetricError, match="not judged"):
        judge_card(verdicts, {("rag", "q999"): True}, clusters=clusters)


def test_records_of_fields_survive_json():
    assert json.loads(json.dumps(field_scores([('{"a": 1}', '{"a": 1}')]))) == {"a": [1, 1, 1]}
