"""Planted faults are flagged and clean twins are not; sections say what the data holds."""

import json
from dataclasses import replace

import numpy as np
import pytest

from evals.analysis import Known, analyse
from evals.costs import Rates
from evals.decision import decide
from evals.decision_spec import DecisionSpec
from evals.errors import OutputError
from evals.evaluation import IntervalSettings, evaluate
from evals.outputs import Output
from evals.report import Section, render_report, to_json, to_markdown
from evals.runner import RunOptions, read_outputs, run_arms
from evals.samples import Sample
from evals.sections import Chart, Line

ARMS = {"prompt": 0.5, "rag": 0.8, "hybrid": 0.9}
TOPICS = ["price", "colour", "weight", "warranty", "height", "speed", "range", "voltage"]


def build(n=200, seed=0, noise=0.0, arms=ARMS):
    """Questions on n things; every right answer holds the thing's value, cited and supported."""
    rng = np.random.default_rng(seed)
    samples, outputs = [], []
    for i in range(n):
        value = f"{1000 + i} units"
        label = f"{5000 + i} units" if rng.random() < noise else value
        words = f"{TOPICS[i % 8]} of the thing {i}"
        samples.append(Sample(f"q{i:03d}", f"What is the {words}?", (label,), (f"doc{i}",)))
        for arm, skill in arms.items():
            good = rng.random() < skill
            text = value if good else f"{9000 + int(rng.integers(900))} units"
            passage = {"id": f"doc{i}", "text": f"The {words} is {value}."}
            outputs.append(
                Output(
                    f"q{i:03d}",
                    arm,
                    f"It is {text} [1].",
                    (f"doc{i}",),
                    (f"doc{i}",),
                    latency_s=0.1,
                    prompt_tokens=50,
                    completion_tokens=5,
                    meta={"passages": [passage], "identity": f"{arm}-{i}"},
                )
            )
    return samples, outputs


def flaws(samples, outputs, **known):
    evaluation = evaluate(
        samples, outputs, primary="contains_answer", settings=IntervalSettings(resamples=100)
    )
    found = analyse(evaluation, samples, outputs, Known(**known))
    return {flaw.kind: flaw for flaw in found.flaws}


def test_a_clean_evaluation_has_no_flaw():
    samples, outputs = build()
    training = [f"How heavy is the other thing {i}?" for i in range(300)]
    assert flaws(samples, outputs, training=training, earlier_uses=2) == {}


@pytest.mark.parametrize(
    "copy",
    [
        lambda question: question,
        lambda question: question.upper().replace("?", " ?!"),
        lambda question: question.replace("What is the", "What is"),
    ],
)
def test_leaked_duplicates_are_flagged_and_named(copy):
    samples, outputs = build()
    training = [copy(sample.question) for sample in samples[:20]]
    found = flaws(samples, outputs, training=training)
    assert set(found) == {"leaked questions"}
    assert "20 of 200 questions (10 %)" in found["leaked questions"].sentence


def test_thirteen_words_in_a_row_leak_and_another_number_does_not():
    samples, outputs = build()
    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    samples[3] = replace(samples[3], answers=(f"so {long} end", "1003 units"))
    other_numbers = [s.question.replace("thing ", "thing 7") for s in samples[:50]]
    assert flaws(samples, outputs, training=other_numbers) == {}
    found = flaws(samples, outputs, training=[f"Before {long} after", *other_numbers])
    assert "1 of 200" in found["leaked questions"].sentence


def test_five_percent_wrong_labels_are_flagged_and_named():
    samples, outputs = build(n=400, noise=0.05)
    wrong = {s.id for s in samples if s.answers[0].startswith("5")}
    sentence = flaws(samples, outputs)["wrong labels"].sentence
    named = sentence.split("Look first at ")[1].split(", ")
    assert set(named) <= wrong
    clean, answers = build(n=400)
    assert flaws(clean, answers) == {}


def test_near_equal_questions_with_different_answers_are_wrong_labels():
    samples, outputs = build(n=60)
    for i in range(30):
        twin = replace(
            samples[i], id=f"twin{i}", question=samples[i].question + "!", answers=("something",)
        )
        samples.append(replace(twin, cluster=f"c{i}"))
        outputs += [replace(o, sample_id=twin.id) for o in outputs if o.sample_id == samples[i].id]
    found = flaws(samples, outputs)
    assert "near-equal questions" in found["wrong labels"].sentence


def changed(outputs, stale):
    """The same questions after every value rose; a stale arm repeats its old text."""
    after = []
    for output in outputs:
        i = int(output.sample_id[1:])
        old, new = f"{1000 + i} units", f"{2000 + i} units"
        passage = output.meta["passages"][0]
        passages = [{"id": passage["id"], "text": passage["text"].replace(old, new)}]
        text = output.text if stale else output.text.replace(old, new)
        identity = output.meta["identity"] + "-new"
        meta = {"passages": passages, "identity": identity}
        after.append(replace(output, text=text, meta=meta))
    return after


def test_answers_from_a_stale_cache_are_flagged_and_fresh_ones_are_not():
    samples, before = build(n=80)
    now = [replace(s, answers=(f"{2000 + i} units",)) for i, s in enumerate(samples)]
    fresh = flaws(now, changed(before, stale=False), earlier=(samples, before))
    assert fresh == {}
    stale = flaws(now, changed(before, stale=True), earlier=(samples, before))
    assert "word for word" in stale["stale answers"].sentence


def test_one_identity_for_two_contexts_is_a_cache_key_that_forgets_the_knowledge():
    samples, before = build(n=30)
    after = [
        replace(new, meta=new.meta | {"identity": old.meta["identity"]})
        for old, new in zip(before, changed(before, stale=False), strict=True)
    ]
    now = [replace(s, answers=(f"{2000 + i} units",)) for i, s in enumerate(samples)]
    found = flaws(now, after, earlier=(samples, before))
    assert "different passages" in found["stale answers"].sentence


def verdicts_of(samples, outputs, bias):
    rng = np.random.default_rng(1)
    labels = {}
    verdicts = {}
    answers = {sample.id: sample.answers[0] for sample in samples}
    for output in outputs:
        key = (output.arm, output.sample_id)
        labels[key] = answers[output.sample_id] in output.text
        verdicts[key] = labels[key] if rng.random() < 0.95 else not labels[key]
        if output.arm == "hybrid" and rng.random() < bias:
            verdicts[key] = True
    return verdicts, labels


def test_a_judge_that_favours_an_arm_is_flagged_and_a_fair_one_is_not():
    samples, outputs = build(n=300, arms={"rag": 0.6, "hybrid": 0.6})
    verdicts, labels = verdicts_of(samples, outputs, bias=0.5)
    found = flaws(samples, outputs, verdicts=verdicts, labels=labels)
    assert "kinder to hybrid" in found["judge favours an arm"].sentence
    verdicts, labels = verdicts_of(samples, outputs, bias=0.0)
    assert flaws(samples, outputs, verdicts=verdicts, labels=labels) == {}


def grouped(depends):
    """Forty documents of ten questions; whether an arm is right hangs on the document or not."""
    rng = np.random.default_rng(2)
    samples, outputs = [], []
    for i in range(400):
        gold = f"guide{i // 10}#{i % 10}"
        question = f"What is the {TOPICS[i % 8]} of the thing {i}?"
        samples.append(Sample(f"q{i:03d}", question, (f"{i} units",), (gold,)))
        luck = np.random.default_rng(i // 10).random() if depends else rng.random()
        for arm, skill in (("prompt", 0.3), ("rag", 0.6)):
            hit = luck < skill if arm == "rag" else rng.random() < skill
            outputs.append(Output(f"q{i:03d}", arm, f"{i} units" if hit else "no idea"))
    return samples, outputs


def test_a_cluster_key_that_misses_the_document_is_flagged():
    found = flaws(*grouped(depends=True))
    assert "Put document into the field `cluster`" in found["cluster key"].sentence
    assert flaws(*grouped(depends=False)) == {}


def test_pooling_over_a_ramp_is_flagged_when_it_turns_the_result():
    rng = np.random.default_rng(4)
    samples, outputs, stages = [], [], {}
    for i in range(1600):
        late = i >= 800
        stages[f"q{i:04d}"] = "50 %" if late else "10 %"
        new = rng.random() < (0.5 if late else 0.1)
        base = 0.3 if late else 0.8  # the later requests are harder
        good = rng.random() < base + (0.05 if new else 0.0)
        samples.append(Sample(f"q{i:04d}", f"Thing {i}?", ("yes",)))
        arm = "hybrid" if new else "rag"
        outputs.append(Output(f"q{i:04d}", arm, "yes" if good else "no"))
    found = flaws(samples, outputs, stages=stages)
    assert "within the stages" in found["pooled stages"].sentence
    even = dict(zip(stages, ["a", "b"] * 800, strict=True))
    assert "pooled stages" not in flaws(samples, outputs, stages=even)


def test_questions_used_often_are_flagged():
    samples, outputs = build(n=40)
    assert "used 12 times" in flaws(samples, outputs, earlier_uses=12)["reused questions"].sentence


def sections(samples, outputs, primary="contains_answer", **known):
    evaluation = evaluate(
        samples, outputs, primary=primary, settings=IntervalSettings(resamples=100)
    )
    found = analyse(evaluation, samples, outputs, Known(**known))
    return evaluation, found, {section.title: section for section in found.sections}


def test_sections_hold_retrieval_cost_time_and_freshness():
    samples, before = build(n=60)
    now = [replace(s, answers=(f"{2000 + i} units",)) for i, s in enumerate(samples)]
    _, _, found = sections(
        now,
        changed(before, stale=False),
        earlier=(samples, before),
        rates=Rates(per_machine_hour=2.0),
        fixed_costs={"hybrid": 10.0},
    )
    assert set(found) >= {"Retrieval", "What context changes", "Cost", "Time and tokens"}
    rows = {row[0]: row for row in found["Freshness"].rows}
    assert rows["rag"][1] == 60
    assert float(rows["rag"][2].split()[0]) > 0.6
    assert float(rows["rag"][3].split()[0]) == 0.0
    cost = {row[0]: row[-1] for row in found["Cost"].rows}
    assert cost["hybrid"] == "never cheaper than prompt"


def test_altered_facts_show_whether_weights_or_passages_are_followed():
    samples, outputs = build(n=40)
    twins = [
        replace(s, id=f"alt-{s.id}", answers=("77 units",), tags=(f"counterfactual:{s.id}",))
        for s in samples
    ]
    answers = [
        replace(o, sample_id=f"alt-{o.sample_id}", text="77 units" if o.arm == "rag" else o.text)
        for o in outputs
    ]
    _, _, found = sections([*samples, *twins], [*outputs, *answers])
    rows = {row[0]: row for row in found["Passage against weights"].rows}
    assert (rows["rag"][2], rows["rag"][5]) == (40, 0.0)
    assert rows["hybrid"][5] == 1.0


def test_classes_are_found_and_shown_as_a_matrix():
    rng = np.random.default_rng(6)
    names = ["card_arrival", "lost_card", "top_up"]
    samples, outputs = [], []
    for i in range(90):
        samples.append(Sample(f"q{i}", f"Message {i}", (names[i % 3],)))
        for arm, skill in (("prompt", 0.4), ("tuned", 0.9)):
            said = names[i % 3] if rng.random() < skill else names[(i + 1) % 3]
            outputs.append(Output(f"q{i}", arm, said.replace("_", " ")))
    evaluation, analysis, found = sections(samples, outputs, primary="exact_match")
    macro = {row[0]: row for row in found["Classes: macro-F1"].rows}
    assert float(macro["tuned"][1].split()[0]) > 0.8
    assert float(macro["tuned"][2].split("(")[1].split()[0]) > 0
    matrix = found["Confusion matrix"]
    assert [row[0] for row in matrix.rows] == names
    assert sum(sum(row[1:]) for row in matrix.rows) == 90
    page = render_report(
        evaluation, decide(evaluation, DecisionSpec(primary="exact_match")), analysis=analysis
    )
    assert page.count('class="n h') >= 3


def test_json_answers_are_held_to_a_contract_field_by_field():
    samples = [Sample(f"q{i}", "?", (json.dumps({"sum": i, "unit": "EUR"}),)) for i in range(20)]
    outputs = [
        Output(s.id, "tuned", json.dumps({"sum": i, "unit": "EUR" if i % 2 else 3}))
        for i, s in enumerate(samples)
    ]
    schema = {"type": "object", "properties": {"unit": {"type": "string"}}}
    evaluation, _, found = sections(samples, outputs, primary="field_f1", json_schema=schema)
    assert found["JSON contract"].rows[0][2].startswith("0.500")
    fields = {row[0]: row for row in found["Fields"].rows}
    assert (fields["sum"][2], fields["unit"][2]) == (1.0, 0.5)
    assert evaluation.arm("tuned").metrics["field_match"].estimate == 0.5


def test_confidence_draws_risk_and_calibration_for_arms_that_state_one():
    samples, outputs = build(n=100)
    rng = np.random.default_rng(0)
    stated = [
        replace(o, meta=o.meta | {"confidence": float(rng.random())}) if o.arm == "rag" else o
        for o in outputs
    ]
    evaluation, analysis, found = sections(samples, stated)
    section = found["Confidence"]
    assert [row[0] for row in section.rows] == ["rag"]
    assert [chart.title for chart in section.charts] == ["Risk against coverage", "Calibration"]
    decision = decide(evaluation, DecisionSpec(primary="contains_answer"))
    page = render_report(evaluation, decision, analysis=analysis)
    assert page.count('class="curve') == 2


def test_repeated_answers_are_averaged_and_their_variance_split(tmp_path):
    samples, _ = build(n=30)
    store = tmp_path / "run.jsonl"
    for repeat in range(3):
        rng = np.random.default_rng(repeat)

        def solve(sample, rng=rng):
            return Output(sample.id, "rag", sample.answers[0] if rng.random() < 0.5 else "no")

        run_arms(samples, {"rag": solve}, store=store, options=RunOptions(repeat=repeat))
    outputs = read_outputs(store)
    assert len(outputs) == 90
    evaluation, _, found = sections(samples, outputs)
    column = evaluation.table.values["rag"]["contains_answer"]
    assert set(np.round(column * 3)) <= {0, 1, 2, 3}
    assert len(set(column)) > 2
    assert found["Repeated answers"].rows[0][2] == 3.0
    with pytest.raises(OutputError, match="twice"):
        evaluate(samples, [*outputs, outputs[0]])


EVIL = '<script>alert(1)</script>"&\u202e'


def test_hostile_text_in_flaws_sections_and_charts_stays_text():
    samples, outputs = build(n=40)
    samples = [replace(s, id=s.id + EVIL) for s in samples]
    outputs = [replace(o, sample_id=o.sample_id + EVIL) for o in outputs]
    evaluation, analysis, _ = sections(
        samples, outputs, training=[s.question for s in samples] + [EVIL]
    )
    line = Line(f"arm{EVIL}", ((0.0, 0.5), (1.0, 1.0)))
    chart = Chart(f"T{EVIL}", f"x{EVIL}", f"y{EVIL}", (line,), diagonal=True, marks=True)
    extra = [Section(f"S{EVIL}", ("a",), ((f"0.5 (0.4 to {EVIL})",),), charts=(chart,))]
    decision = decide(evaluation, DecisionSpec(primary="contains_answer"))
    page = render_report(evaluation, decision, analysis=analysis, extra_sections=extra)
    assert "<script" not in page
    assert "\u202e" not in page
    text = to_markdown(evaluation, decision, analysis=analysis, extra_sections=extra)
    assert "<script" not in text.replace("\\<", "")
    record = json.loads(to_json(evaluation, decision, analysis=analysis, extra_sections=extra))
    assert record["flaws"][0]["kind"] == "leaked questions"
    assert record["sections"][-1]["charts"][0]["lines"][0]["points"] == [[0.0, 0.5], [1.0, 1.0]]


def test_the_page_does_not_grow_with_the_number_of_questions():
    pages = []
    for n in (150, 600):
        samples, outputs = build(n=n, arms={"prompt": 0.1, "rag": 0.5, "hybrid": 0.8})
        evaluation, analysis, _ = sections(samples, outputs, training=["something else"])
        decision = decide(evaluation, DecisionSpec(primary="contains_answer"))
        pages.append(len(render_report(evaluation, decision, analysis=analysis).encode()))
    assert pages[1] < 1.1 * pages[0]


def test_what_tuning_cost_the_model_and_failures_stand_in_the_report():
    samples, outputs = build(80)
    outputs = [
        replace(o, error="timeout") if o.arm == "rag" and o.sample_id < "q004" else o
        for o in outputs
    ]
    made = evaluate(samples, outputs, settings=IntervalSettings(resamples=100))
    record = {
        "items": 100,
        "accuracy_base": 0.61,
        "accuracy_adapter": 0.58,
        "accuracy_change": -0.03,
        "accuracy_interval": [-0.08, 0.02],
        "margin": 0.1,
        "not_inferior": True,
    }
    found = analyse(made, samples, outputs, Known(forgetting={"hybrid": record}))
    sections = {section.title: section for section in found.sections}
    assert sections["Forgetting"].rows[0][-2:] == ("-0.030 (-0.080 to +0.020)", "not worse")
    unasked = record | {"items": 0, "not_inferior": None}
    bare = analyse(made, samples, outputs, Known(forgetting={"hybrid": unasked}))
    assert "Forgetting" not in {section.title for section in bare.sections}
    times = sections["Time and tokens"]
    failed = {row[0]: row[times.columns.index("failed")] for row in times.rows}
    assert failed == {"prompt": 0, "rag": 4, "hybrid": 0}
    whole = analyse(evaluate(*build(80), settings=IntervalSettings(resamples=100)), *build(80))
    assert "Forgetting" not in {section.title for section in whole.sections}
    assert all("failed" not in s.columns for s in whole.sections if s.title == "Time and tokens")
