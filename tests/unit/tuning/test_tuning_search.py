"""Sweeps, learning curves, chained stages, distillation: with a fake trainer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.adapters import AdapterManifest
from tuning.config import TuneConfig
from tuning.distill import Asked, Origin, distill, write_examples
from tuning.errors import TrainingFailedError, TuneConfigError
from tuning.learning_curve import Point, point_of, predict, run_curve
from tuning.prompt import DEFAULT_ABSTAIN, Passage
from tuning.stages import run_stages, stages_from
from tuning.sweep import best_config, grid, successive_halving


@pytest.fixture
def config(tmp_path):
    return TuneConfig("base", str(tmp_path / "out"), snapshot="s")


def manifest(score, config, rows=100):
    interval = {"composite": [score - 0.02, score + 0.02]}
    return AdapterManifest(
        "d", "b", "t", config.r, config.alpha, 1,
        config=config.identity(),
        counts={"rows_grounded": rows * config.epochs, "tokens": 5},
        dev=[{"step": 3, "scores": {"composite": score}, "intervals": interval}],
        best_step=3,
        seconds=10.0,
    )  # fmt: skip


def test_halving_keeps_the_best_third_and_gives_it_three_times_the_rows(config):
    arms = grid({"learning_rate": [1e-4, 3e-4, 1e-3], "r": [8, 16, 32]})
    runs = []

    def train(settings):
        runs.append((settings.train_share, settings.learning_rate, settings.r))
        return manifest(settings.learning_rate * 100 + settings.r / 1000, settings)

    result = successive_halving(config, arms, train)
    assert [round(share, 3) for share, *_ in runs] == [0.111] * 9 + [0.333] * 3 + [1.0]
    assert {(rate, r) for _, rate, r in runs[9:12]} == {(1e-3, 8), (1e-3, 16), (1e-3, 32)}
    assert result.best.arm == {"learning_rate": 1e-3, "r": 32}
    assert best_config(config, result).r == 32
    assert len({trial.output for trial in result.trials}) == 13


def test_an_arm_that_fails_is_out_and_the_sweep_goes_on(config):
    def train(settings):
        if settings.r == 8:
            raise TrainingFailedError("the loss is nan")
        return manifest(0.5, settings)

    result = successive_halving(config, [{"r": 8}, {"r": 16}], train)
    assert result.trials[0].error == "the loss is nan"
    assert result.best.arm == {"r": 16}
    record = json.loads((config.work.parent / "out" / "sweep.json").read_text())
    assert [trial["score"] for trial in record] == [None, 0.5, 0.5]


def test_a_sweep_without_dev_rows_or_arms_is_refused(tmp_path, config):
    with pytest.raises(TuneConfigError, match="at least one arm and eval_rows"):
        successive_halving(config, [], lambda c: manifest(0.5, c))


def points(exponent, counts=(100, 200, 400), width=0.01):
    scores = [1 - 2 * n**-exponent for n in counts]
    return [Point(n, s, (s - width, s + width)) for n, s in zip(counts, scores, strict=True)]


@given(st.floats(0.2, 0.6))
def test_a_power_law_is_found_again(exponent):
    found = predict(points(exponent), 800)
    assert found.exponent == pytest.approx(exponent, abs=1e-6)
    assert found.score == pytest.approx(1 - 2 * 800**-exponent, abs=1e-6)
    assert found.interval[0] <= found.score <= found.interval[1]


def test_noise_as_large_as_the_gain_is_not_worth_more_rows():
    assert predict(points(0.4), 800).worth_it
    assert not predict(points(0.1, width=0.2), 800).worth_it


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    import numpy as np

    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(60):
        noisy = [
            Point(p.rows, s, (s - 0.0392, s + 0.0392))
            for p in points(0.3)
            for s in (p.score + rng.normal(0, 0.02),)
        ]
        low, high = predict(noisy, 800).interval
        inside += low <= 1 - 2 * 800**-0.3 <= high
    assert inside >= 52


def test_a_curve_trains_each_share_once(config):
    shares = []

    def train(settings):
        shares.append(settings.train_share)
        return manifest(
            0.3 + 0.2 * settings.train_share, settings, round(80 * settings.train_share)
        )

    made = run_curve(config, train)
    assert shares == [0.25, 0.5, 1.0]
    assert [point.rows for point in made] == [20, 40, 80]
    assert point_of(manifest(0.5, config, rows=70)).rows == 70


def test_one_row_count_is_no_curve():
    with pytest.raises(TuneConfigError, match="two different row counts"):
        predict(points(0.3)[:1], 800)


def test_stages_start_from_the_one_before(tmp_path):
    stages = stages_from(
        {
            "base": "b",
            "output": str(tmp_path / "house"),
            "epochs": 2,
            "stages": [
                {"name": "domain", "reader_rows": 10, "learning_rate": 1e-3},
                {"name": "task", "snapshot": "s"},
                {"name": "prefer", "snapshot": "s", "objective": "dpo"},
            ],
        }
    )
    assert [stage.config.output.rsplit("/")[-1] for stage in stages] == [
        "house-domain",
        "house-task",
        "house",
    ]
    assert [stage.config.start_from for stage in stages] == [
        None,
        stages[0].config.output,
        stages[1].config.output,
    ]
    trained = []
    run_stages(stages, lambda c: trained.append(c.objective) or manifest(0.1, c))
    assert trained == ["sft", "sft", "dpo"]


@pytest.mark.parametrize("stages", [[], [{"snapshot": "s"}], [{"name": "a"}, {"name": "a"}]])
def test_stages_without_names_of_their_own_are_refused(stages):
    with pytest.raises(TuneConfigError, match="each with a name"):
        stages_from({"base": "b", "output": "o", "stages": stages})


def test_a_later_stage_cannot_name_its_start():
    given = [{"name": "a", "snapshot": "s"}, {"name": "b", "snapshot": "s", "start_from": "x"}]
    with pytest.raises(TuneConfigError, match="starts from the stage before"):
        stages_from({"base": "b", "output": "o", "stages": given})


PASSAGES = (Passage("Returns", "Return it within 21 days."), Passage("Fees", "A fee of 5 euros."))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("21 days [1]", ""),
        (DEFAULT_ABSTAIN, ""),
        ("21 days", "no citation"),
        ("21 days [2]", "the number 21 is not in what it cites"),
        ("30 days [1]", "the number 30 is not in what it cites"),
        ("21 days [3]", "cites passage 3 of 2"),
        ("", "empty answer"),
    ],
)
def test_distilled_answers_are_checked_against_what_they_cite(answer, reason):
    asked = [Asked("How long?", PASSAGES)]
    seen = []
    [result] = distill(asked, lambda messages: seen.append(messages) or answer)
    assert result.reason == reason
    assert "[1] Returns" in seen[0][-1]["content"]


def test_distilled_examples_wait_for_approval(tmp_path):
    answers = iter(["21 days [1]", "no idea"])
    results = distill([Asked("a?", PASSAGES), Asked("b?", PASSAGES)], lambda _: next(answers))
    out = tmp_path / "x.jsonl"
    assert write_examples(out, results, model="big", use_case="help") == (1, 1)
    record = json.loads(out.read_text())
    assert record["output"] == "21 days {cite}"
    assert record["metadata"]["provenance"] == "distilled"
    assert record["metadata"]["approved"] is False


def test_a_distilled_example_names_its_documents_and_the_versions_it_was_shown(tmp_path):
    passages = (*PASSAGES, Passage("Fees", "A return costs 5 euros."))
    origins = tuple(Origin(f"doc-{n}.md", f"v{n}") for n in range(len(passages)))
    last = len(passages)
    answers = iter([f"It costs 5 euros [{last}], always [{last}].", DEFAULT_ABSTAIN])
    asked = [Asked(question, passages, origins) for question in ("a?", "b?")]
    write_examples(tmp_path / "x.jsonl", distill(asked, lambda _: next(answers)), model="big")
    cited, abstained = map(json.loads, (tmp_path / "x.jsonl").read_text().splitlines())
    assert cited["output"] == "It costs 5 euros {cite}, always."
    assert cited["metadata"]["sources"] == [f"doc-{last - 1}.md"]
    assert cited["metadata"]["gold_text"] == "A return costs 5 euros."
    assert abstained["metadata"]["sources"] == []
    for record in (cited, abstained):
        assert record["metadata"]["document_versions"] == [o.version for o in origins]
        assert record["metadata"]["passages"][0]["document"] == "doc-0.md"
    with pytest.raises(ValueError, match="1 origins"):
        Asked("a?", passages, origins[:1])
