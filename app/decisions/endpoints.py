"""Decisions over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from app.decisions import service
from app.dependencies import ContainerDep, PrincipalDep

router = APIRouter(prefix="/decisions", tags=["decisions"])


class NewDecision(BaseModel):
    """Decide from the newest (or the given) evaluation; `apply` serves a winner at once."""

    use_case: str
    evaluation: str | None = None
    apply: bool = True


@router.post("", status_code=201)
def decide(body: NewDecision, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """Record which arm serves and why."""
    principal.require("decide")
    with container.database.session() as session:
        decision = service.decide(
            session,
            principal,
            body.use_case,
            evaluation_id=body.evaluation,
            apply=body.apply,
        )
        return service.describe(decision)


@router.get("")
def list_decisions(container: ContainerDep, principal: PrincipalDep) -> list[dict[str, Any]]:
    """Decisions, newest first."""
    principal.require("read")
    with container.database.session() as session:
        found = service.list_all(session, principal.workspace_id)
        return [service.describe(decision) for decision in found]


@router.get("/{decision_id}")
def show(decision_id: str, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """One decision with its record."""
    principal.require("read")
    with container.database.session() as session:
        return service.describe(service.find(session, principal.workspace_id, decision_id))


@router.post("/{decision_id}/replay")
def replay(decision_id: str, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """Make the decision again from the stored outputs and compare."""
    principal.require("read")
    with container.database.session() as session:
        return service.replayed(session, principal.workspace_id, decision_id)
