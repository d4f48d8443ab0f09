"""Below which coverage a use case should abstain, from answers whose correctness is known.

The strictest threshold is tested first, then the next lower one, until the error's upper bound
passes the target: fixed-sequence testing keeps the promise over all thresholds tried.

Source: Angelopoulos, Bates, Candès, Jordan, Lei (2021), "Learn then Test: Calibrating Predictive
Algorithms to Achieve Risk Control", https://arxiv.org/abs/2110.01052; risk and coverage as in
El-Yaniv and Wiener (2010), JMLR 11.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.answers.service import AnswerService
from app.answers.types import AnswerRequest
from app.db.tables import Answer, Evaluation, Feedback, UseCase
from app.errors import BadInput, NotFound
from evals.metrics.answers import contains_answer, token_f1
from evals.outputs import parse_output
from evals.samples import Sample, load_samples
from evals.statistics.rates import clopper_pearson_bounds
from retrieval.types import WorkspaceId

_MOST_STEPS = 100
_RIGHT_F1 = 0.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question of a known answer.

    Attributes:
        coverage: the search's estimate in [0, 1] that the knowledge base answers it.
        answered: whether something was said; False where the model abstained by itself.
        right: whether what was said is right; saying anything to a question without an answer is
            wrong.
        answerable: whether there is an answer.
    """

    coverage: float
    answered: bool
    right: bool
    answerable: bool = True


@dataclass(frozen=True, slots=True)
class Point:
    """What a threshold gives: share answered, error among them with its bound, over-refusal."""

    threshold: float
    answered: float
    n_answered: int
    error: float | None
    error_at_most: float
    refused_right: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """The lowest threshold that keeps the target, or None; and the whole curve, strictest first."""

    threshold: float | None
    target_error: float
    confidence: float
    n: int
    why: str
    curve: tuple[Point, ...]

    def as_json(self) -> dict[str, Any]:
        """As clients see it."""
        return asdict(self)


def calibrate(
    outcomes: Sequence[Outcome], target_error: float = 0.1, confidence: float = 0.95
) -> Calibration:
    """Fit the threshold.

    Args:
        outcomes: at least one.
        target_error: the most errors among the answers given, as a share in (0, 1).
        confidence: how sure the promise is, in (0, 1).
    """
    for name, value in (("target_error", target_error), ("confidence", confidence)):
        if not 0 < value < 1:
            raise BadInput(f"{name} is {value}: choose a share between 0 and 1")
    if not outcomes:
        raise BadInput("there is no outcome to calibrate with: give samples with known answers")
    curve = tuple(_point(outcomes, t, confidence) for t in _thresholds(outcomes))
    # Fewer answers than this cannot show the target even without one error.
    least = math.ceil(math.log(1 - confidence) / math.log(1 - target_error))
    threshold = None
    for point in curve:
        if point.n_answered < least:
            continue
        if point.error_at_most > target_error:
            break
        threshold = point.threshold
    return Calibration(
        threshold,
        target_error,
        confidence,
        len(outcomes),
        _why(curve, threshold, target_error, confidence, least),
        curve,
    )


def judge(service: AnswerService, request: AnswerRequest, sample: Sample) -> Outcome | None:
    """Ask a sample's question without a threshold; None where nothing was searched."""
    result = service.answer(request)
    if result.coverage is None:
        return None
    return _outcome(result.coverage, result.text, result.abstained, sample)


def from_evaluation(session: Session, use_case: UseCase, evaluation_id: str) -> list[Outcome]:
    """Outcomes of an evaluation's outputs, of the arm that serves: one a question.

    Two arms' answers to one question are not independent, and would make the bound too tight.
    """
    evaluation = session.get(Evaluation, evaluation_id)
    if evaluation is None or evaluation.use_case_id != use_case.id:
        raise NotFound(f"no evaluation {evaluation_id!r} of use case {use_case.name!r}")
    folder = Path(evaluation.path)
    samples = {sample.id: sample for sample in load_samples(folder / "samples.jsonl")}
    found = []
    with (folder / "outputs.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            output = parse_output(json.loads(line))
            coverage = output.meta.get("coverage")
            if output.arm != use_case.arm or output.repeat:
                continue
            if coverage is None or output.error is not None:
                continue
            sample = samples[output.sample_id]
            found.append(_outcome(float(coverage), output.text, output.abstained, sample))
    return found


def from_ratings(session: Session, use_case: UseCase) -> list[Outcome]:
    """Outcomes of rated answers: the last rating of each counts, `up` is right."""
    query = (
        sa.select(Answer.id, Answer.coverage, Answer.abstained, Feedback.rating)
        .join(Feedback, Feedback.answer_id == Answer.id)
        .where(Answer.use_case_id == use_case.id, Answer.coverage.is_not(None))
        .order_by(Feedback.created_at)
    )
    last = {row.id: row for row in session.execute(query)}
    return [
        Outcome(row.coverage, not row.abstained, row.rating == "up", row.rating == "up")
        for row in last.values()
    ]


def request_for(workspace_id: str, use_case: str, sample: Sample) -> AnswerRequest:
    """The request that `judge` asks: nothing is recorded, no threshold holds."""
    return AnswerRequest(
        workspace_id=WorkspaceId(workspace_id),
        use_case=use_case,
        question=sample.question,
        history=tuple(
            {"role": "user" if turn.role == "user" else "assistant", "content": turn.content}
            for turn in sample.history
        ),
        asked_by="calibration",
        record=False,
        with_threshold=False,
    )


def _outcome(coverage: float, text: str, abstained: bool, sample: Sample) -> Outcome:
    if sample.answers is None:
        return Outcome(coverage, not abstained, abstained, answerable=False)
    right = contains_answer(text, sample.answers).value == 1 or (
        (token_f1(text, sample.answers).value or 0.0) >= _RIGHT_F1
    )
    return Outcome(coverage, not abstained, right and not abstained)


def _thresholds(outcomes: Iterable[Outcome]) -> list[float]:
    """Strictest first, 0 last; at most a hundred, evenly over the outcomes."""
    values = sorted({outcome.coverage for outcome in outcomes} | {0.0}, reverse=True)
    step = max(1, math.ceil(len(values) / _MOST_STEPS))
    return [*values[:-1:step], 0.0]


def _point(outcomes: Sequence[Outcome], threshold: float, confidence: float) -> Point:
    answered = [o for o in outcomes if o.answered and o.coverage >= threshold]
    wrong = sum(not outcome.right for outcome in answered)
    could = [o for o in outcomes if o.answered and o.right]
    refused = sum(outcome.coverage < threshold for outcome in could)
    return Point(
        threshold=threshold,
        answered=len(answered) / len(outcomes),
        n_answered=len(answered),
        error=wrong / len(answered) if answered else None,
        error_at_most=clopper_pearson_bounds(wrong, len(answered), 1 - confidence)[1],
        refused_right=refused / len(could) if could else 0.0,
    )


def _why(
    curve: Sequence[Point], threshold: float | None, target: float, confidence: float, least: int
) -> str:
    if threshold is not None:
        point = next(p for p in curve if p.threshold == threshold)
        return (
            f"{point.answered:.0%} of the questions are answered, and with {confidence:.0%} "
            f"confidence at most {point.error_at_most:.1%} of those answers are wrong"
        )
    if max(point.n_answered for point in curve) < least:
        return f"too few answers: at least {least} are needed to show an error of {target:.1%}"
    best = min(curve, key=lambda p: p.error_at_most)
    return (
        f"no threshold keeps the error at or below {target:.1%}: the best, {best.threshold:.2f}, "
        f"can only be shown to keep {best.error_at_most:.1%}"
    )
