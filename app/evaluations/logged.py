"""Samples from logged answers that one person corrected and another approved."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.tables import Answer, Example, Feedback, Review
from app.errors import BadInput
from app.use_cases import service as use_cases
from evals.linking import link_samples
from evals.samples import Sample, Turn, sample_record

_CITE = " {cite}"


def corrected_samples(
    session: Session, workspace_id: str, use_case_name: str
) -> tuple[Sample, ...]:
    """Questions of the use case with their approved corrections as accepted answers.

    Gold are the documents that the correction rests on today. A correction that teaches to abstain
    gives an unanswerable question. Questions of one conversation share a cluster.

    Raises:
        BadInput: If no correction has been approved yet.
    """
    use_case = use_cases.get(session, workspace_id, use_case_name)
    query = (
        sa.select(Example, Answer)
        .join(Review, Review.id == Example.review_id)
        .join(Feedback, Feedback.id == Review.feedback_id)
        .join(Answer, Answer.id == Feedback.answer_id)
        .where(Example.use_case_id == use_case.id, Review.state.in_(("approved", "edited")))
        .order_by(Example.created_at, Example.id)
    )
    samples = [_sample(example, answer) for example, answer in session.execute(query)]
    if not samples:
        raise BadInput(
            f"use case {use_case_name!r} has no approved correction yet: `tandem reviews list`"
        )
    return link_samples(samples)


def as_records(samples: tuple[Sample, ...]) -> list[dict[str, Any]]:
    """The samples as lines of a samples file."""
    return [sample_record(sample) for sample in samples]


def _sample(example: Example, answer: Answer) -> Sample:
    refused = example.kind == "abstain"
    return Sample(
        id=f"correction-{example.id}",
        question=example.question,
        answers=None if refused else (example.answer.replace(_CITE, "").strip(),),
        gold=() if refused else tuple(str(source) for source in example.sources),
        history=tuple(Turn(str(turn["role"]), str(turn["content"])) for turn in answer.history),
        tags=("logged", example.kind),
    )
