"""The gate for continuous integration: bounds decide, files say why."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from evals.errors import EvalError
from evals.outputs import Output
from evals.regression import (
    Scores,
    gate,
    gate_record,
    junit,
    read_scores,
    summary,
    write_scores,
)
from evals.samples import Sample
from evals.scoring import score_table as score_table_of


@pytest.fixture
def scores(score_table):
    def make(share, n=300, arms=("hybrid",), metric="token_f1"):
        columns = {arm: (np.arange(n) % 100 < 100 * share).astype(float) for arm in arms}
        other = {} if metric == "token_f1" else {metric: columns}
        return Scores("token_f1", score_table(columns, **other))

    return make


@pytest.mark.parametrize(
    ("before", "after", "margin", "strict", "outcome", "passed"),
    [
        (0.8, 0.6, 0.0, False, "fail", False),
        (0.8, 0.6, 0.3, False, "pass", True),
        (0.6, 0.8, 0.0, True, "pass", True),
        (0.80, 0.79, 0.0, False, "not shown", True),
        (0.80, 0.79, 0.0, True, "not shown", False),
        (0.80, 0.79, 0.05, True, "pass", True),
    ],
)
def test_a_regression_is_judged_by_its_interval(
    scores, before, after, margin, strict, outcome, passed
):
    made = gate(scores(before), scores(after), margin=margin, strict=strict)
    assert [check.outcome for check in made.checks] == [outcome]
    assert made.passed is passed
    assert made.arm == "hybrid"


def test_a_loss_that_ten_questions_cannot_show_passes_unless_strict(scores):
    before, after = scores(1.0, n=10), scores(0.0, n=100)
    few = Scores("token_f1", after.table)
    assert gate(before, scores(1.0, n=10)).passed
    assert not gate(before, few).passed  # ten of ten lost is shown
    assert not gate(before, scores(1.0, n=10), strict=True).passed


def test_floors_are_missed_or_kept_by_bounds_and_ceilings_turn_around(scores):
    run = scores(0.8, metric="over_refusal")
    made = gate(
        run,
        run,
        floors={"token_f1": 0.7, "over_refusal": 0.7, "latency_s": 0.2},
    )
    outcomes = {check.name: check.outcome for check in made.checks}
    assert outcomes == {
        "token_f1 against the baseline": "not shown",
        "token_f1 at least 0.7": "pass",
        "over_refusal at most 0.7": "fail",
        "latency_s at most 0.2": "pass",
    }
    assert gate(run, run, floors={"token_f1": 0.81}).checks[1].outcome == "not shown"
    assert gate(run, run, floors={"token_f1": 0.95}).checks[1].outcome == "fail"


def test_only_questions_in_both_runs_are_paired(scores):
    before, after = scores(0.9, n=100), scores(0.5, n=300)
    made = gate(before, after)
    assert "on 100 questions" in made.checks[0].sentence
    assert made.checks[0].outcome == "fail"


def test_files_hold_every_check_and_read_back(scores, tmp_path):
    run = scores(0.8)
    (tmp_path / "scores.json").write_text(write_scores(run.table, "token_f1", "abc"))
    (tmp_path / "result.json").write_text("{}")
    for path in (tmp_path, tmp_path / "scores.json", tmp_path / "result.json"):
        again = read_scores(path)
        assert again.primary == "token_f1"
        np.testing.assert_array_equal(
            again.table.values["hybrid"]["token_f1"], run.table.values["hybrid"]["token_f1"]
        )
    made = gate(run, scores(0.5), floors={"token_f1": 0.1})
    suite = ElementTree.fromstring(junit(made).split("\n", 1)[1])
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert "a loss" in suite.find("testcase/failure").text
    assert "**failed**" in summary(made)
    assert summary(made).count("\n| token_f1") == 2
    assert json.loads(json.dumps(gate_record(made)))["passed"] is False


def test_unscored_answers_stay_unscored_in_the_file(score_table, tmp_path):
    table = score_table({"rag": [1.0, np.nan, 0.0]})
    file = tmp_path / "scores.json"
    file.write_text(write_scores(table, "token_f1", "abc"))
    assert "NaN" not in file.read_text()
    np.testing.assert_array_equal(
        read_scores(file).table.values["rag"]["token_f1"], [1.0, np.nan, 0.0]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arm": "rag"}, "no arm 'rag'"),
        ({"metrics": ("beauty",)}, "unknown metric"),
        ({"metrics": ("chrf",)}, "no scores of 'chrf'"),
        ({"margin": 1.0}, "margin"),
    ],
)
def test_what_does_not_fit_is_refused(scores, options, message):
    with pytest.raises(EvalError, match=message):
        gate(scores(0.5), scores(0.5), **options)


def test_several_arms_need_a_name_and_broken_files_are_refused(scores, tmp_path):
    two = scores(0.5, arms=("rag", "hybrid"))
    with pytest.raises(EvalError, match="more than one arm"):
        gate(two, two)
    assert gate(two, two, arm="rag").arm == "rag"
    with pytest.raises(EvalError, match="cannot read scores"):
        read_scores(tmp_path)
    for text in ("{", "{}", '{"version": 99}', '{"version": 1, "samples": ["a"]}'):
        (tmp_path / "scores.json").write_text(text)
        with pytest.raises(EvalError):
            read_scores(tmp_path)


def test_a_latency_floor_counts_failures_as_slower_than_all(tmp_path):
    samples = [Sample(f"q{i:03d}", "What?", ("yes",)) for i in range(200)]

    def run(every):
        outputs = [
            Output(s.id, "rag", "yes", latency_s=0.5, error="down" if i % every == 0 else None)
            for i, s in enumerate(samples)
        ]
        table = score_table_of(samples, outputs)
        folder = tmp_path / f"every{every}"
        folder.mkdir()
        (folder / "scores.json").write_text(write_scores(table, "token_f1", "x"))
        return read_scores(folder)

    few, many = run(100), run(5)
    kept = gate(few, few, floors={"latency_s": 1.0})
    assert {c.name: c.outcome for c in kept.checks}["latency_s at most 1"] == "pass"
    missed = gate(many, many, floors={"latency_s": 1.0})
    check = next(c for c in missed.checks if c.name == "latency_s at most 1")
    assert check.outcome == "fail"
    assert "failed" in check.sentence


def test_a_latency_floor_counts_a_first_answer_that_failed(tmp_path):
    samples = [Sample(f"q{i:03d}", "What?", ("yes",)) for i in range(200)]
    outputs = [
        Output(s.id, "rag", "yes", latency_s=0.5, repeat=repeat,
               error="down" if repeat == 0 and i % 5 == 0 else None)
        for i, s in enumerate(samples)
        for repeat in (0, 1)
    ]  # fmt: skip
    scores = write_scores(score_table_of(samples, outputs), "token_f1", "x")
    (tmp_path / "scores.json").write_text(scores)
    run = read_scores(tmp_path)
    missed = gate(run, run, floors={"latency_s": 1.0})
    assert {c.name: c.outcome for c in missed.checks}["latency_s at most 1"] == "fail"
