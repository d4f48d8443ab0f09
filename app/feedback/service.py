"""The loop: a rating, a correction, a review by somebody else, then knowledge or training data.

An approved correction becomes an example only when the knowledge base supports what it says. When
it does not, the knowledge base is what must change, and the review says so: facts do not go into
weights (see docs/adr/0004).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.answers.grounding import is_abstention, without_markers
from app.answers.service import find as find_answer
from app.db.base import now
from app.db.tables import Answer, AnswerChunk, Chunk, Document, Example, Feedback, Review, UseCase
from app.errors import BadInput, Conflict, Forbidden, NotFound
from app.workspaces.policy import Principal
from evals.metrics.values import unsupported_values

RATINGS = ("up", "down")
DECISIONS = ("approve", "edit", "reject")
_WORD = re.compile(r"\w+")
_CITE = "{cite}"
_MIN_OVERLAP = 0.34


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a review. `outcome`: example, knowledge_gap or rejected."""

    review: Review
    outcome: str
    example: Example | None
    reason: str


def give(
    session: Session,
    principal: Principal,
    answer_id: str,
    *,
    rating: str,
    correction: str | None = None,
) -> tuple[Feedback, Review | None]:
    """Rate an answer of the workspace; a correction opens a review."""
    if rating not in RATINGS:
        raise BadInput(f"rating {rating!r} is unknown: choose {', '.join(RATINGS)}")
    if correction is not None and not correction.strip():
        raise BadInput("the correction is empty: leave it out to rate only")
    answer = find_answer(session, principal.workspace_id, answer_id)
    feedback = Feedback(
        workspace_id=principal.workspace_id,
        answer_id=answer.id,
        author=principal.name,
        rating=rating,
        correction=correction.strip() if correction else None,
    )
    session.add(feedback)
    session.flush()
    if not feedback.correction:
        return feedback, None
    review = Review(workspace_id=principal.workspace_id, feedback_id=feedback.id)
    session.add(review)
    session.flush()
    return feedback, review


def queue(
    session: Session, workspace_id: str, state: str | None = "pending"
) -> list[dict[str, Any]]:
    """Reviews with question, answer and correction, oldest first."""
    query = (
        sa.select(Review, Feedback, Answer)
        .join(Feedback, Feedback.id == Review.feedback_id)
        .join(Answer, Answer.id == Feedback.answer_id)
        .where(Review.workspace_id == workspace_id)
        .order_by(Review.created_at)
    )
    if state:
        query = query.where(Review.state == state)
    return [
        {
            "id": review.id,
            "state": review.state,
            "question": answer.question,
            "answer": answer.text,
            "answer_id": answer.id,
            "correction": feedback.correction,
            "author": feedback.author,
            "reviewer": review.reviewer,
            "final_text": review.final_text,
            "note": review.note,
        }
        for review, feedback, answer in session.execute(query)
    ]


def decide(
    session: Session,
    principal: Principal,
    review_id: str,
    *,
    decision: str,
    text: str | None = None,
    note: str | None = None,
) -> Verdict:
    """Approve, edit or reject a correction written by somebody else.

    Raises:
        Forbidden: The reviewer wrote the correction.
        Conflict: The review is decided already.
    """
    if decision not in DECISIONS:
        raise BadInput(f"decision {decision!r} is unknown: choose {', '.join(DECISIONS)}")
    if (decision == "edit") != bool(text and text.strip()):
        raise BadInput("give the edited text with 'edit', and only with it")
    review = session.get(Review, review_id)
    if review is None or review.workspace_id != principal.workspace_id:
        raise NotFound(f"no review {review_id!r} in this workspace")
    feedback = session.get_one(Feedback, review.feedback_id)
    if feedback.author == principal.name:
        raise Forbidden(f"{principal.name!r} wrote this correction: somebody else must review it")
    if review.state != "pending":
        raise Conflict(f"the review is {review.state} already, by {review.reviewer!r}")
    review.reviewer, review.note, review.decided_at = principal.name, note, now()
    if decision == "reject":
        review.state = "rejected"
        return Verdict(review, "rejected", None, "nothing is learned from it")
    review.state = "approved" if decision == "approve" else "edited"
    review.final_text = ((text if decision == "edit" else feedback.correction) or "").strip()
    session.flush()
    return _learn(session, review, feedback, principal)


def _learn(session: Session, review: Review, feedback: Feedback, principal: Principal) -> Verdict:
    answer = session.get_one(Answer, feedback.answer_id)
    use_case = session.get_one(UseCase, answer.use_case_id)
    text = without_markers(str(review.final_text))
    kind, gold, reason = _classify(session, answer, text, use_case.abstain_sentence)
    if kind == "knowledge_gap":
        return Verdict(review, kind, None, reason)
    example = Example(
        workspace_id=review.workspace_id,
        use_case_id=use_case.id,
        kind=kind,
        question=answer.question,
        answer=str(review.final_text) if _CITE in str(review.final_text) else text,
        sources=[row["document"] for row in gold],
        gold_text=gold[0]["text"] if gold else None,
        gold=gold,
        author=feedback.author,
        reviewer=principal.name,
        review_id=review.id,
        origin=f"answer {answer.id}",
        content_sha256=example_digest(answer.question, text),
    )
    taken = sa.select(Example).where(
        Example.use_case_id == use_case.id, Example.content_sha256 == example.content_sha256
    )
    if session.scalar(taken):
        return Verdict(review, "example", session.scalar(taken), "the same example exists already")
    session.add(example)
    session.flush()
    return Verdict(review, "example", example, reason)


def _classify(
    session: Session, answer: Answer, text: str, abstain: str
) -> tuple[str, list[dict[str, str]], str]:
    """Kind of example and its supporting passage, from the passages the answer was given."""
    if is_abstention(text, abstain):
        return "abstain", [], "teaches to abstain"
    query = (
        sa.select(AnswerChunk, Chunk, Document)
        .join(Chunk, Chunk.id == AnswerChunk.chunk_id)
        .join(Document, Document.id == AnswerChunk.document_id)
        .where(
            AnswerChunk.answer_id == answer.id,
            Document.deleted_at.is_(None),
            Document.current_version_id == AnswerChunk.version_id,
        )
        .order_by(AnswerChunk.number)
    )
    rows = [(chunk, document) for _, chunk, document in session.execute(query)]
    if not rows:
        given = sa.select(AnswerChunk.number).where(AnswerChunk.answer_id == answer.id)
        if session.scalars(given).first() is not None:
            return "knowledge_gap", [], "its passages have changed since: ask again"
        return "style", [], "teaches voice: the answer had no passages"
    words = {w for w in _WORD.findall(text.lower()) if len(w) > 2}
    best: tuple[float, Chunk, Document] | None = None
    for chunk, document in rows:
        if unsupported_values(text, [chunk.text]):
            continue
        share = len(words & set(_WORD.findall(chunk.text.lower()))) / max(1, len(words))
        if best is None or share > best[0]:
            best = (share, chunk, document)
    if best is None:
        wrong = unsupported_values(text, [chunk.text for chunk, _ in rows])
        named = ", ".join(value.surface for value in wrong) or "its values together"
        return (
            "knowledge_gap",
            [],
            f"no passage says {named}: change the knowledge base, then ask again",
        )
    share, chunk, document = best
    if share < _MIN_OVERLAP:
        return "style", [], "teaches voice: it states nothing that the passages hold"
    gold = {
        "id": chunk.id,
        "title": document.title,
        "text": chunk.text,
        "version": chunk.version_id,
    }
    return "grounded", [gold | {"document": document.external_id}], "teaches to use its passage"


def example_digest(question: str, answer: str) -> str:
    """Identity of an example's content, blanks and case folded."""
    folded = "\x1f".join(" ".join(part.lower().split()) for part in (question, answer))
    return hashlib.sha256(folded.encode()).hexdigest()
