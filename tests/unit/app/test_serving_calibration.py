"""The threshold of abstention: what it promises holds, and it promises no more than it can."""

import json

import numpy as np
import pytest

from app.answers.calibration import Outcome, calibrate, from_evaluation
from app.db.tables import Evaluation, UseCase
from app.errors import BadInput, NotFound
from app.workspaces import service as workspaces
from evals.outputs import Output, output_record


def draw(rng, n, slope=8.0):
    """Outcomes whose chance of being right rises with coverage."""
    coverage = rng.random(n)
    right = rng.random(n) < 1 / (1 + np.exp(-slope * (coverage - 0.4)))
    return [Outcome(float(c), True, bool(r)) for c, r in zip(coverage, right, strict=True)]


def test_promise_is_kept_more_often_than_its_confidence():
    rng = np.random.default_rng(7)
    truth = draw(rng, 100_000)
    coverage = np.array([o.coverage for o in truth])
    wrong = np.array([not o.right for o in truth])
    order = np.argsort(-coverage)
    error_from = np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
    broken = found = 0
    for _ in range(200):
        fitted = calibrate(draw(rng, 300), 0.15, 0.9)
        if fitted.threshold is None:
            continue
        found += 1
        n = int((coverage >= fitted.threshold).sum())
        broken += error_from[n - 1] > 0.15
    assert found > 150
    assert broken <= 0.1 * 200 + 3 * np.sqrt(0.1 * 0.9 * 200)


def test_curve_runs_from_the_strictest_to_answering_everything():
    fitted = calibrate(draw(np.random.default_rng(1), 400))
    thresholds = [p.threshold for p in fitted.curve]
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[-1] == 0.0
    answered = [p.answered for p in fitted.curve]
    assert answered == sorted(answered)
    assert answered[-1] == 1.0
    assert fitted.curve[-1].refused_right == 0.0
    assert len(fitted.curve) <= 102


def test_an_error_that_cannot_be_reached_gives_no_threshold():
    fitted = calibrate([Outcome(0.9, True, i % 2 == 0) for i in range(200)], 0.1)
    assert fitted.threshold is None
    assert "no threshold keeps the error at or below 10.0%" in fitted.why


def test_too_few_answers_say_how_many_are_needed():
    fitted = calibrate([Outcome(0.9, True, True)] * 10, 0.1, 0.95)
    assert fitted.threshold is None
    assert "at least 29" in fitted.why


def test_answers_that_are_all_right_need_no_threshold():
    outcomes = [Outcome(i / 100, True, True) for i in range(100)]
    assert calibrate(outcomes, 0.1).threshold == 0.0


def test_what_the_model_refused_itself_is_no_error():
    refused = [Outcome(0.1, False, True, answerable=False)] * 100
    fitted = calibrate([*refused, *[Outcome(0.9, True, True)] * 60], 0.1)
    assert fitted.threshold == 0.0
    assert fitted.curve[-1].answered == 60 / 160


@pytest.mark.parametrize("target", [0, 1, -0.1])
def test_a_target_that_is_no_share_is_named(target):
    with pytest.raises(BadInput, match="target_error"):
        calibrate([Outcome(0.5, True, True)], target)


def test_nothing_to_calibrate_with_is_said():
    with pytest.raises(BadInput, match="no outcome"):
        calibrate([])


def use_case(session, workspace_id, name):
    made = UseCase(
        workspace_id=workspace_id,
        name=name,
        knowledge_base_ids=[],
        system_prompt="",
        abstain_sentence="",
        options={},
    )
    session.add(made)
    session.flush()
    return made


def test_an_evaluation_gives_one_outcome_a_question_to_its_own_use_case(database, tmp_path):
    sample = {"id": "s1", "question": "Price?", "answers": ["49"], "gold": []}
    (tmp_path / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    lines = []
    for arm, repeat in (("hybrid", 0), ("hybrid", 1), ("rag", 0)):
        output = Output("s1", arm, "49", (), (), False, 0.1, 1, 1, meta={"coverage": 0.5})
        lines.append(json.dumps(output_record(output) | {"repeat": repeat}))
    (tmp_path / "outputs.jsonl").write_text("\n".join(lines) + "\n")
    with database.session() as session:
        space = workspaces.create_workspace(session, "shop").id
        mine, other = use_case(session, space, "mine"), use_case(session, space, "other")
        evaluation = Evaluation(
            workspace_id=space,
            use_case_id=mine.id,
            samples_sha256="0" * 64,
            path=str(tmp_path),
            summary={},
            manifest={},
        )
        session.add(evaluation)
        session.flush()
        assert from_evaluation(session, mine, evaluation.id) == [Outcome(0.5, True, True)]
        with pytest.raises(NotFound, match="of use case 'other'"):
            from_evaluation(session, other, evaluation.id)
