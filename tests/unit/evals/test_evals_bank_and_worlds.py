"""The arm bank and the six worlds, small: the benchmarks' own code with their own rules."""

import json

import numpy as np
import pytest

from benchmarks import decisions_bank as decisions
from benchmarks import worlds


def test_random_use_cases_are_hardly_ever_decided_wrongly_at_less_than_half_the_answers():
    rows = {row["rule"]: row for row in decisions.bank(60, seed=7, show=False)}
    ours, fixed = rows["Tandem, margin .05"], rows["best mean of 1000"]
    assert ours["wrong"] <= 0.05
    assert ours["answers"] <= 0.5 * fixed["answers"]
    assert ours["undecided"] <= 0.3


def test_the_same_arm_four_times_hardly_ever_wins_by_quality():
    assert decisions.same_arms(40, seed=8, show=False)["wins_by_quality"] <= 0.1


def test_the_truth_of_the_bank_is_what_many_answers_show():
    case = decisions.draw(np.random.default_rng(1), n=30_000)
    assert case.scores.mean(axis=0) == pytest.approx(case.quality, abs=0.02)
    assert case.slow.mean(axis=0) == pytest.approx(case.violation, abs=0.01)


@pytest.mark.parametrize("world", worlds.WORLDS, ids=lambda world: world.name)
def test_the_known_best_arm_of_every_world_is_found(world):
    best = max(world.dials.quality(arm) for arm in world.arms)
    good = [a for a in world.arms if world.dials.quality(a) > best - world.margin]
    assert set(good) & set(world.expected)
    assert worlds.judge(world, *worlds.stub(world, seed=1))["verdict"] == "right"


def test_worlds_are_judged_from_files_and_a_wrong_choice_is_told(tmp_path):
    from evals.outputs import output_line
    from evals.samples import sample_record

    world = worlds.find_world("reader")
    samples, outputs = worlds.stub(world, seed=2)
    folder = tmp_path / world.name
    (folder / "outputs").mkdir(parents=True)
    rows = [json.dumps(sample_record(sample)) for sample in samples]
    (folder / "samples.jsonl").write_text("\n".join(rows), "utf-8")
    swapped = {"hybrid": "rag", "rag": "hybrid"}
    for names, verdict in (({}, "right"), (swapped, "wrong")):
        for arm in world.arms:
            lines = [
                output_line(type(o)(o.sample_id, arm, o.text))
                for o in outputs
                if o.arm == names.get(arm, arm)
            ]
            (folder / "outputs" / f"{arm}.jsonl").write_text("\n".join(lines), "utf-8")
        (found,) = worlds.judge_folder(tmp_path)
        assert found["verdict"] == verdict
    (folder / "outputs" / "rag.jsonl").unlink()
    assert worlds.judge_folder(tmp_path) == []
