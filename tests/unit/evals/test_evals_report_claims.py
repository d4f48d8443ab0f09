"""A report claims no more than its tests show, and says what it does not know."""

import re
from dataclasses import replace

import numpy as np
import pytest

from evals.analysis import Known, analyse
from evals.analysis.context import _counted
from evals.comparisons import PairedDifference, paired_differences, slice_scores
from evals.decision import decide
from evals.decision_spec import DecisionSpec
from evals.evaluation import IntervalSettings, evaluate
from evals.failures import worst_answers
from evals.outputs import Output
from evals.report import render_report, to_markdown
from evals.report.labels import along, place_label
from evals.report.manifest import manifest_rows
from evals.runner import run_arms
from evals.samples import Sample
from evals.statistics.clustered import ClusterBootstrap, paired_bounds
from evals.statistics.intervals import FEWEST_CLUSTERS, Interval
from evals.statistics.multiplicity import holm
from evals.statistics.quantiles import percentile_interval
from evals.text import has_tail, second_bounds

FAST = IntervalSettings(resamples=100)
BOOTSTRAP = ClusterBootstrap(200)


def page_of(samples, outputs, spec=None, **options):
    evaluation = evaluate(samples, outputs, settings=FAST, **options)
    return evaluation, render_report(evaluation, decide(evaluation, spec or DecisionSpec()))


def marks(page):
    return set(re.findall(r'<rect class="(up|down|tie)"', page))


# Differences: (clusters, value) of arm b with arm a at .2.
SKEWED = [0.9, 0.6, 0.5, 0.02, 0.02, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.01]


def test_few_groups_take_the_interval_of_decisions_and_no_colour_without_a_test(score_table):
    values = np.array(SKEWED)
    table = score_table({"prompt": [0.1] * 16, "rag": 0.1 + values})
    (pair,) = paired_differences(table, ["token_f1"], bootstrap=BOOTSTRAP)
    wide = paired_bounds(values, np.arange(16), 0.05)
    assert pair.difference.low == pytest.approx(wide.low)
    assert pair.difference.high == pytest.approx(wide.high)
    bca = BOOTSTRAP.interval(values, np.arange(16), support=(-1.0, 1.0))
    assert bca.low > 0 >= pair.difference.low
    assert pair.shown_better(0.05) is None
    many = score_table({"prompt": [0.1] * 48, "rag": np.tile(0.1 + values, 3)})
    (pair,) = paired_differences(many, ["token_f1"], bootstrap=BOOTSTRAP)
    assert pair.difference.method == "cluster bootstrap bca"
    assert pair.shown_better(0.05) == "rag"


def test_a_difference_is_shown_only_if_the_adjusted_p_and_the_interval_and_the_groups_agree():
    found = Interval(0.2, 0.1, 0.3, 40, 40, 0.95, "t")
    pair = PairedDifference("a", "b", "token_f1", found, 0.01, 0.04, "t", 0.1, 1, 9)
    assert pair.shown_better(0.05) == "b"
    assert pair.shown_better(0.03) is None
    assert pair.shown_better(0.05, min_clusters=41) is None
    assert replace(pair, difference=replace(found, low=-0.1)).shown_better(0.05) is None
    worse = replace(pair, difference=replace(found, estimate=-0.2, low=-0.3, high=-0.1))
    assert worse.shown_better(0.05) == "a"


def test_the_picture_is_coloured_by_the_adjusted_test(world):
    made = world({"prompt": 0.1, "rag": 0.9}, n=100)
    evaluation, page = page_of(made.samples, made.outputs)
    assert marks(page) == {"up"}
    assert "below 0.05" in page
    strict = DecisionSpec(min_clusters=101)
    assert marks(render_report(evaluation, decide(evaluation, strict))) == {"tie"}
    pairs = tuple(replace(pair, p_holm=0.06) for pair in evaluation.differences)
    unproven = replace(evaluation, differences=pairs)
    assert marks(render_report(unproven, decide(evaluation, DecisionSpec()))) == {"tie"}


def test_arms_and_baselines_are_adjusted_apart_and_baselines_not_compared(score_table):
    rng = np.random.default_rng(0)
    arms = ("prompt", "rag", "hybrid", "constant", "best sentence")
    scores = {arm: rng.random(40) for arm in arms}
    baselines = frozenset(arms[3:])
    pairs = paired_differences(
        score_table(scores, baselines=baselines), ["token_f1"], bootstrap=BOOTSTRAP
    )
    own = [pair for pair in pairs if not {pair.a, pair.b} & baselines]
    against = [pair for pair in pairs if len({pair.a, pair.b} & baselines) == 1]
    assert (len(own), len(against), len(pairs)) == (3, 6, 9)
    for family in (own, against):
        assert [p.p_holm for p in family] == list(holm([p.p for p in family]))
    alone = paired_differences(
        score_table({arm: scores[arm] for arm in arms[:3]}), ["token_f1"], bootstrap=BOOTSTRAP
    )
    assert [(p.p_holm, p.mde) for p in own] == [(p.p_holm, p.mde) for p in alone]


def tagged(clusters, size=12):
    samples, outputs = [], []
    for i in range(clusters * size):
        group = f"g{i // size}"
        samples.append(
            Sample(f"q{i}", f"What is {i}?", (f"value {i}",), cluster=group, tags=("x",))
        )
        for arm in ("prompt", "rag"):
            right = arm == "rag" and i % 7
            outputs.append(Output(f"q{i}", arm, f"value {i}" if right else "no idea"))
    return samples, outputs


@pytest.mark.parametrize("clusters", [4, 9, 10])
def test_a_slice_of_few_groups_gets_no_star_and_shows_its_groups(clusters):
    samples, outputs = tagged(clusters)
    evaluation, page = page_of(samples, outputs)
    (row,) = (row for row in evaluation.slices if row.arm == "rag")
    assert (row.q is not None) == (clusters >= FEWEST_CLUSTERS)
    assert (" *<" in page) == (clusters >= FEWEST_CLUSTERS)
    assert f"{clusters * 12}<small>{clusters} groups" in page
    assert f"{clusters * 12} in {clusters} groups" in to_markdown(
        evaluation, decide(evaluation, DecisionSpec())
    )


def test_stars_keep_a_larger_minimum_of_the_rules():
    samples, outputs = tagged(12)
    evaluation, page = page_of(samples, outputs, DecisionSpec(min_clusters=13))
    assert any(row.q is not None and row.q < 0.05 for row in evaluation.slices)
    assert " *<" not in page
    assert DecisionSpec().min_clusters == FEWEST_CLUSTERS


def test_slices_without_a_test_take_nothing_from_the_others(score_table):
    rng = np.random.default_rng(3)
    scores = {"prompt": rng.random(44), "rag": rng.random(44)}
    samples = [Sample(f"q{i}", "?", ("x",), tags=("few" if i < 4 else "many",)) for i in range(44)]
    rows = slice_scores(score_table(scores), samples, "token_f1")
    tested = [row for row in rows if row.p is not None]
    assert [(row.tag, row.q) for row in tested] == [("many", tested[0].p)]


def test_an_undecided_headline_says_what_its_number_of_questions_assumes(world):
    made = world({"prompt": 0.5, "rag": 0.56}, n=120)
    evaluation = evaluate(made.samples, made.outputs, settings=FAST)
    decision = decide(evaluation, DecisionSpec())
    assert decision.status == "UNDECIDED"
    assert "in new groups" in decision.headline
    assert "if the arms differ as much as they seem to" in decision.headline


def test_tuned_arms_without_training_rows_are_said_not_to_be_audited(world):
    for arms, told in (
        ({"prompt": 0.2, "hybrid": 0.8}, True),
        ({"prompt": 0.2, "rag": 0.8}, False),
    ):
        made = world(arms, n=40)
        evaluation = evaluate(made.samples, made.outputs, settings=FAST)
        found = analyse(evaluation, made.samples, made.outputs)
        sections = {section.title: section for section in found.sections}
        assert ("Training rows against questions" in sections) == told
        page = render_report(evaluation, decide(evaluation, DecisionSpec()), analysis=found)
        assert ("not known here: not audited" in page) == told
        audited = analyse(evaluation, made.samples, made.outputs, Known(training=["Other words"]))
        assert all("not audited" not in str(section.rows) for section in audited.sections)


def test_a_latency_without_an_upper_bound_reads_as_at_least():
    def took(low, high):
        return Interval(5.76, low, high, 30, 30, 0.95, "order statistics")

    assert second_bounds(took(5.18, None)) == "at least 5.18 s"
    assert second_bounds(took(None, 0.9)) == "at most 900 ms"
    assert second_bounds(took(5.18, 6.0)) == "5.18–6.00 s"
    assert second_bounds(took(None, None)) == "no interval"


@pytest.mark.parametrize(
    ("n", "p95", "p99"), [(19, False, False), (20, True, False), (100, True, True)]
)
def test_high_percentiles_need_enough_answers(world, n, p95, p99):
    values = np.linspace(1, 2, n)
    assert has_tail(percentile_interval(values, 0.95), 0.95) == p95
    assert has_tail(percentile_interval(values, 0.99), 0.99) == p99
    made = world({"prompt": 0.3, "rag": 0.7}, n=n)
    evaluation, page = page_of(made.samples, made.outputs)
    found = analyse(evaluation, made.samples, made.outputs)
    time = next(section for section in found.sections if section.title == "Time and tokens")
    assert ("p95" in time.columns, "p99" in time.columns) == (p95, p99)
    assert "tokens out per second of waiting" in time.columns
    assert ("p95 latency of" in page, "median latency (dashed" in page) == (p95, not p95)
    if p95 and not p99:  # the upper bound is missing, in the table as in the page
        assert "at least" in str(time.rows)
        assert "at least" in page
    assert "–n/a" not in page


def test_equal_scores_show_first_what_another_arm_got_right_then_other_sets(score_table):
    tags = ["a"] * 8 + ["b"] * 4 + ["c"] * 2
    samples = [Sample(f"q{i}", f"Question {i}", ("x",), tags=(tag,)) for i, tag in enumerate(tags)]
    rag = [0.0] * 14
    rag[7], rag[11] = 1.0, 0.8
    table = score_table(
        {"prompt": [0.0] * 14, "rag": rag, "constant": [0.0] * 13 + [1.0]},
        baselines=frozenset({"constant"}),
    )
    outputs = {arm: {s.id: Output(s.id, arm, "text") for s in samples} for arm in table.arms}
    found = worst_answers(table, samples, outputs, "token_f1")
    prompt = [failure.sample_id for failure in found if failure.arm == "prompt"]
    assert prompt == ["q7", "q13", "q11", "q0", "q8"]
    assert found[0].tags == ("a",)


def test_the_page_names_the_tag_of_a_failure_and_folds_baselines(world):
    made = world({"prompt": 0.2, "rag": 0.9}, n=40)
    outputs = [*made.outputs, *(Output(s.id, "constant", "nothing") for s in made.samples)]
    _, page = page_of(made.samples, outputs, baselines=("constant",))
    summaries = re.findall(r"<summary>0\.00 · .*?</summary>", page)
    assert summaries
    assert all(re.search(r">(odd|even)</span>", line) for line in summaries)
    assert not re.search(r">q\d{4}<", "".join(summaries))
    assert "<summary>Baselines</summary>" in page


def test_live_intervals_stay_within_the_scale(tmp_path):
    samples = [Sample(f"q{i}", "?", ("yes",)) for i in range(3)]

    def solve(sample):
        return Output(sample.id, "rag", "yes" if sample.id == "q0" else "no")

    seen = []
    run_arms(samples, {"rag": solve}, store=tmp_path / "run.jsonl", progress=seen.append)
    arm = seen[-1].arms[0]
    assert (arm.low, arm.high) == (0.0, 1.0)
    assert arm.mean == pytest.approx(1 / 3)


def test_a_mean_of_few_questions_is_not_shown_and_others_carry_their_number():
    few = Interval(0.2, 0.0, 1.0, 4, 4, 0.95, "t")
    assert _counted(few) is None
    assert _counted(replace(few, n=14)) == "0.200 (0.000 to 1.000, n = 14)"


def test_many_pairs_stand_in_a_table_and_not_in_six_sentences(world):
    made = world(dict.fromkeys(("prompt", "tuned", "rag", "hybrid"), 0.5), n=30)
    evaluation, page = page_of(made.samples, made.outputs)
    decision = decide(evaluation, DecisionSpec())
    told = [line for line in decision.reason if " minus " in line]
    assert len(told) == 6
    assert not any(re.search(r"(^|\s)-\d", line) for line in told)
    assert " minus " not in page
    assert "bounds (margin 0.03)" in page
    two = world({"prompt": 0.5, "rag": 0.52}, n=30)
    assert "rag minus prompt" in page_of(two.samples, two.outputs)[1]


def test_the_manifest_names_arms_and_adapters_once_and_leaves_out_what_is_empty(world):
    made = world({"prompt": 0.5, "hybrid": 0.6}, n=20)
    evaluation = evaluate(made.samples, made.outputs, settings=FAST)
    manifest = {
        "title": "T",
        "created_at": "today",
        "look": "2 of 3 planned",
        "arms": [
            {"name": "prompt", "arm": "prompt", "adapter": None},
            {"name": "reader", "arm": "hybrid", "adapter": "0af3"},
        ],
        "adapters": {"0af3": "adapter voice, digest 123"},
        "task": None,
        "texts_sha256": "abc",
    }
    rows = manifest_rows(evaluation, decide(evaluation, DecisionSpec()), manifest)
    named = dict(rows)
    assert len(named) == len(rows)
    assert named["arms"] == "prompt; reader (adapter voice, digest 123, runs as hybrid)"
    assert (named["look"], named["texts sha256"]) == ("2 of 3 planned", "abc")
    assert not {"title", "created_at", "task", "adapters"} & set(named)


def test_labels_keep_off_lines_and_within_the_picture():
    area = (0.0, 0.0, 200.0, 200.0)
    rising = along((100, 100), (200, 20))
    box = place_label((100, 100), "arm", area, rising)
    assert box[2] <= 100
    corner = place_label((5, 100), "arm", area, [])
    assert corner[0] >= 5
