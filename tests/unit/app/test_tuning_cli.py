"""The terminal's loss curve, distillation's input, and the export check."""

import pytest

from app.cli.loss_curve import Curve, sparkline
from app.errors import BadInput
from app.tuning_runs.distilling import read_asked
from app.tuning_runs.exporting import compare
from app.tuning_runs.jobs import _chosen
from tuning.distill import Origin


def test_a_falling_loss_is_a_falling_line():
    assert sparkline([8, 7, 6, 5, 4, 3, 2, 1]) == "█▇▆▅▄▃▂▁"
    assert sparkline([]) == ""
    assert sparkline([2, 2]) == "▁▁"
    assert len(sparkline(list(range(1000)))) == 60


def test_the_curve_takes_losses_and_dev_scores_apart():
    curve = Curve("tune x")
    curve.add({"phase": "train", "step": 1, "loss": 2.5})
    curve.add({"phase": "evaluate", "step": 1, "loss": 2.5, "scores": {"composite": 0.4}})
    assert (curve.losses, curve.scores) == ([2.5], [0.4])
    assert "dev composite 0.40" in curve.line


def test_questions_without_a_question_name_the_line(tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "a?", "passages": [{"title": "t", "text": "x"}]}\n{"q": 1}\n')
    with pytest.raises(BadInput, match=r"q\.jsonl line 2"):
        read_asked(file)
    file.write_text(
        '{"question": "a?", "passages": [{"title": "t", "text": "x", "document": "d", '
        '"version": "v"}, {"title": "t", "text": "y"}]}\n'
    )
    assert read_asked(file)[0].origins == (Origin("d", "v"), Origin())
    file.write_text('{"question": "a?"}\n\n')
    assert [one.question for one in read_asked(file)] == ["a?"]


def test_an_export_that_answers_otherwise_is_told():
    made = compare(["21 days [1]", "5 euros"], ["21 days [1]", "5 dollars"])
    assert (made["prompts"], made["same"], made["same_first_word"]) == (2, 1, 2)
    assert made["differ"] == [{"original": "5 euros", "exported": "5 dollars"}]


def test_a_finished_run_shows_the_scores_of_what_was_kept():
    dev = [{"step": 3, "scores": 1}, {"step": 9, "scores": 2}]
    dev.append({"step": 9, "averaged": 4, "scores": 3})
    assert _chosen({"dev": dev, "best_step": 3})["scores"] == 1
    assert _chosen({"dev": dev, "best_step": 9, "averaged": 0})["scores"] == 2
    assert _chosen({"dev": dev, "best_step": 9, "averaged": 4})["scores"] == 3
    assert _chosen({"dev": [], "best_step": None}) is None
