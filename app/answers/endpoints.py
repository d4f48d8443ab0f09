"""Answers over HTTP: lineage and replay."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from app.admission.service import Ticket
from app.answers.lineage import lineage
from app.answers.replay import replay
from app.dependencies import ContainerDep, PrincipalDep

router = APIRouter(prefix="/answers", tags=["answers"])


@router.get("/{answer_id}")
def show(answer_id: str, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """An answer with its passages, versions, adapter, examples, decision and identity."""
    principal.require("read")
    with container.database.reading() as session:
        return lineage(session, principal.workspace_id, answer_id, principal.groups)


@router.post("/{answer_id}/replay")
async def replay_answer(
    answer_id: str, request: Request, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Generate the answer again: the same text, or which part of its identity changed."""
    principal.require("ask")
    replayed = await container.runner.call(
        lambda: replay(
            container.database,
            container.answers.chain,
            principal.workspace_id,
            answer_id,
            principal.groups,
            spares=container.answers.spares,
        )
    )
    ticket: Ticket | None = request.scope.get("tandem.ticket")
    if ticket is not None:
        ticket.tokens += replayed.tokens
    return replayed.as_json()
