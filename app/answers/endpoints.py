"""Answers over HTTP: lineage."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from app.answers.lineage import lineage
from app.dependencies import ContainerDep, PrincipalDep

router = APIRouter(prefix="/answers", tags=["answers"])


@router.get("/{answer_id}")
def show(answer_id: str, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """An answer with its passages, versions, adapter and identity."""
    principal.require("read")
    with container.database.session() as session:
        return lineage(session, principal.workspace_id, answer_id, principal.groups)
