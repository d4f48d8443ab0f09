"""Tickets for the knowledge owner: what corrections ask of the knowledge base."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.base import now
from app.db.tables import Ticket, UseCase
from app.errors import BadInput, Conflict, NotFound
from app.workspaces.policy import Principal

STATES = ("open", "closed", "all")


def list_tickets(session: Session, workspace_id: str, state: str = "open") -> list[dict[str, Any]]:
    """Tickets of a workspace, oldest first."""
    if state not in STATES:
        raise BadInput(f"state {state!r} is unknown: choose {', '.join(STATES)}")
    query = (
        sa.select(Ticket, UseCase.name)
        .join(UseCase, UseCase.id == Ticket.use_case_id)
        .where(Ticket.workspace_id == workspace_id)
        .order_by(Ticket.created_at, Ticket.id)
    )
    if state != "all":
        query = query.where(Ticket.state == state)
    return [describe(ticket) | {"use_case": name} for ticket, name in session.execute(query)]


def close(session: Session, principal: Principal, ticket_id: str) -> dict[str, Any]:
    """Close a ticket when the knowledge base says what it should.

    Raises:
        Conflict: It is closed already.
    """
    ticket = session.get(Ticket, ticket_id)
    if ticket is None or ticket.workspace_id != principal.workspace_id:
        raise NotFound(f"no ticket {ticket_id!r} in this workspace")
    if ticket.state != "open":
        raise Conflict(f"the ticket is closed already, by {ticket.closed_by!r}")
    ticket.state, ticket.closed_at, ticket.closed_by = "closed", now(), principal.name
    session.flush()
    return describe(ticket)


def describe(ticket: Ticket) -> dict[str, Any]:
    """What is shown of a ticket."""
    return {
        "id": ticket.id,
        "kind": ticket.kind,
        "state": ticket.state,
        "question": ticket.question,
        "correction": ticket.correction,
        "reason": ticket.reason,
        "documents": ticket.documents,
        "review": ticket.review_id,
        "created_at": ticket.created_at.isoformat(),
        "closed_by": ticket.closed_by,
    }
