"""The loop: a rating, a correction, a review by somebody else, then knowledge or training data.

An approved correction becomes an example only when the knowledge base supports what it says. When
it does not, the knowledge base is what must change, and the review says so: facts do not go into
weights (see docs/adr/0004).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.answers.grounding import without_markers
from app.answers.service import find as find_answer
from app.db.base import now
from app.db.tables import Answer, Example, Feedback, Review, Ticket, UseCase
from app.errors import BadInput, Conflict, Forbidden, NotFound
from app.feedback.classification import classify_correction
from app.feedback.evidence import Evidence, find_evidence
from app.workspaces.policy import Principal

RATINGS = ("up", "down")
DECISIONS = ("approve", "edit", "reject")
_CITE = "{cite}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a review.

    `outcome`: example, knowledge_gap (with a ticket where somebody must act), stale_context,
    cosmetic or rejected.
    """

    review: Review
    outcome: str
    example: Example | None
    reason: str
    ticket: Ticket | None = None


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
            "class": review.correction_class,
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
    final = str(review.final_text)
    correction = classify_correction(answer.text, final, use_case.abstain_sentence)
    review.correction_class, review.edit_ratio = correction.kind, round(correction.edit_ratio, 4)
    session.flush()
    if correction.kind == "cosmetic":
        return Verdict(review, "cosmetic", None, "it changes nothing that could be learned")
    text = without_markers(final)
    evidence = find_evidence(session, use_case, answer, text)
    if evidence.status == "changed_since":
        return Verdict(review, "knowledge_gap", None, evidence.reason)
    if evidence.status in ("knowledge", "retrieval", "reindex"):
        ticket = _open_ticket(session, review, answer, evidence)
        outcome = "stale_context" if evidence.status == "reindex" else "knowledge_gap"
        return Verdict(review, outcome, None, evidence.reason, ticket)
    gold = _gold(evidence)
    history = [turn for turn in answer.history if turn.get("role") in ("user", "assistant")]
    example = Example(
        workspace_id=review.workspace_id,
        use_case_id=use_case.id,
        kind=evidence.status,
        question=answer.question,
        answer=final if _CITE in final else text,
        sources=[row["document"] for row in gold],
        gold_text=gold[0]["text"] if gold else None,
        gold=gold,
        author=feedback.author,
        reviewer=principal.name,
        review_id=review.id,
        origin=f"answer {answer.id}",
        content_sha256=example_digest(answer.question, text, [t["content"] for t in history]),
        source_type="correction",
        document_versions=[row["version"] for row in gold],
        history=history,
    )
    taken = sa.select(Example).where(
        Example.use_case_id == use_case.id, Example.content_sha256 == example.content_sha256
    )
    if session.scalar(taken):
        return Verdict(review, "example", session.scalar(taken), "the same example exists already")
    session.add(example)
    session.flush()
    return Verdict(review, "example", example, evidence.reason)


def _open_ticket(session: Session, review: Review, answer: Answer, evidence: Evidence) -> Ticket:
    ticket = Ticket(
        workspace_id=review.workspace_id,
        use_case_id=answer.use_case_id,
        review_id=review.id,
        kind=evidence.status,
        question=answer.question,
        correction=str(review.final_text),
        reason=evidence.reason,
        documents=list(evidence.documents),
    )
    session.add(ticket)
    session.flush()
    return ticket


def _gold(evidence: Evidence) -> list[dict[str, str]]:
    chunk, document = evidence.chunk, evidence.document
    if chunk is None or document is None:
        return []
    return [
        {
            "id": chunk.id,
            "title": document.title,
            "text": chunk.text,
            "version": chunk.version_id,
            "document": document.external_id,
        }
    ]


def example_digest(question: str, answer: str, history: Sequence[str] = ()) -> str:
    """Identity of an example's content, blanks and case folded."""
    folded = "\x1f".join(" ".join(part.lower().split()) for part in (*history, question, answer))
    return hashlib.sha256(folded.encode()).hexdigest()
