"""Feedback and reviews over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from app.dependencies import ContainerDep, PrincipalDep
from app.feedback import service, tickets

router = APIRouter(tags=["feedback"])


class NewFeedback(BaseModel):
    """A rating, with a correction when the person knows better."""

    answer_id: str
    rating: str
    correction: str | None = None


class ReviewDecision(BaseModel):
    """approve, edit (with text) or reject."""

    decision: str
    text: str | None = None
    note: str | None = None


@router.post("/feedback", status_code=201)
def give(body: NewFeedback, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """Rate an answer; a correction opens a review."""
    principal.require("feedback")
    with container.database.session() as session:
        feedback, review = service.give(
            session, principal, body.answer_id, rating=body.rating, correction=body.correction
        )
        return {"id": feedback.id, "review": review.id if review else None}


@router.get("/reviews")
def reviews(
    container: ContainerDep, principal: PrincipalDep, state: str = "pending"
) -> list[dict[str, Any]]:
    """The review queue; `state=all` shows decided ones too."""
    principal.require("read")
    with container.database.session() as session:
        wanted = None if state == "all" else state
        return service.queue(session, principal.workspace_id, wanted)


@router.post("/reviews/{review_id}")
def decide(
    review_id: str, body: ReviewDecision, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Decide a review of a correction that somebody else wrote."""
    principal.require("review")
    with container.database.session() as session:
        verdict = service.decide(
            session,
            principal,
            review_id,
            decision=body.decision,
            text=body.text,
            note=body.note,
        )
        return {
            "review": verdict.review.id,
            "state": verdict.review.state,
            "outcome": verdict.outcome,
            "reason": verdict.reason,
            "example": verdict.example.id if verdict.example else None,
            "kind": verdict.example.kind if verdict.example else None,
            "class": verdict.review.correction_class,
            "ticket": verdict.ticket.id if verdict.ticket else None,
        }


@router.get("/tickets")
def list_tickets(
    container: ContainerDep, principal: PrincipalDep, state: str = "open"
) -> list[dict[str, Any]]:
    """What corrections ask of the knowledge base; `state`: open, closed, all."""
    principal.require("read")
    with container.database.session() as session:
        return tickets.list_tickets(session, principal.workspace_id, state)


@router.post("/tickets/{ticket_id}/close")
def close_ticket(
    ticket_id: str, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Close a ticket when the knowledge base says what it should."""
    principal.require("knowledge.write")
    with container.database.session() as session:
        return tickets.close(session, principal, ticket_id)
