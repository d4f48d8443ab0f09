"""The terminal's loss curve, distillation's input, and the export check."""

import pytest

from app.cli.loss_curve import Curve, sparkline
from app.errors import BadInput
from app.tuning_runs.distilling import read_asked
from app.tuning_runs.exporting import compare


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
    file.write_text('{"question": "a?"}\n\n')
    assert [one.question for one in read_asked(file)] == ["a?"]


def test_an_export_that_answers_otherwise_is_told():
    made = compare(["21 days [1]", "5 euros"], ["21 days [1]", "5 dollars"])
    assert (made["prompts"], made["same"], made["same_first_word"]) == (2, 1, 2)
    assert made["differ"] == [{"original": "5 euros", "exported": "5 dollars"}]
