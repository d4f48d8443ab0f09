"""Datasets over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from app.datasets import service
from app.dependencies import ContainerDep, PrincipalDep
from app.knowledge import service as knowledge_service
from app.knowledge.view import View
from app.use_cases import service as use_cases
from retrieval.types import Hit

router = APIRouter(prefix="/datasets", tags=["datasets"])


class BuildDataset(BaseModel):
    """Seal the approved examples of a use case; `from_file` (operator only) imports more first."""

    use_case: str
    from_file: str | None = None
    dev: float = 0.1
    test: float = 0.1


@router.post("", status_code=201)
def build(body: BuildDataset, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """Import examples when asked, then seal a snapshot."""
    principal.require("examples.write")
    imported = None
    with container.database.session() as session:
        use_case = use_cases.get(session, principal.workspace_id, body.use_case)
        if body.from_file:
            principal.require("local_paths")
            imported = service.import_examples(session, principal, use_case, Path(body.from_file))

    def search(question: str, limit: int) -> list[Hit]:
        found = knowledge_service.search(
            container.database,
            container.knowledge,
            knowledge_service.Question(
                principal.workspace_id,
                tuple(use_case.knowledge_base_ids),
                question,
                limit,
                View(groups=principal.groups),
            ),
        )
        return list(found.hits)

    snapshot = service.build(
        container.database,
        principal,
        body.use_case,
        search,
        container.settings.root,
        dev=body.dev,
        test=body.test,
    )
    return service.show(snapshot) | {"imported": imported}


@router.get("/{snapshot}")
def show(snapshot: str, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """A snapshot's manifest, after every byte was checked."""
    principal.require("read")
    with container.database.session() as session:
        return service.show(service.find(session, principal.workspace_id, snapshot))
