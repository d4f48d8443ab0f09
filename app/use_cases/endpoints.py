"""Use cases over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.db.tables import UseCase
from app.dependencies import ContainerDep, PrincipalDep
from app.use_cases import service
from tuning.prompt import DEFAULT_ABSTAIN, DEFAULT_SYSTEM

router = APIRouter(prefix="/use-cases", tags=["use cases"])


class NewUseCase(BaseModel):
    """A use case to create."""

    name: str
    knowledge_bases: list[str] = []
    system_prompt: str = DEFAULT_SYSTEM
    abstain_sentence: str = DEFAULT_ABSTAIN
    options: dict[str, Any] = Field(default_factory=dict)


class Serving(BaseModel):
    """What the use case serves with from now on; an option that is null is taken away."""

    arm: str | None = None
    adapter: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


@router.post("", status_code=201)
def create(body: NewUseCase, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """Create a use case."""
    principal.require("use_cases.write")
    with container.database.session() as session:
        use_case = service.create(
            session,
            principal.workspace_id,
            body.name,
            knowledge_bases=body.knowledge_bases,
            system_prompt=body.system_prompt,
            abstain_sentence=body.abstain_sentence,
            options=body.options,
        )
        return _describe(use_case)


@router.get("")
def list_use_cases(container: ContainerDep, principal: PrincipalDep) -> list[dict[str, Any]]:
    """Use cases by name."""
    principal.require("read")
    with container.database.session() as session:
        return [_describe(uc) for uc in service.list_all(session, principal.workspace_id)]


@router.get("/{name}")
def show(name: str, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """One use case."""
    principal.require("read")
    with container.database.session() as session:
        return _describe(service.get(session, principal.workspace_id, name))


@router.patch("/{name}")
def serve_with(
    name: str, body: Serving, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Choose arm, adapter and options; takes effect with the next request."""
    principal.require("use_cases.write")
    with container.database.session() as session:
        use_case = service.get(session, principal.workspace_id, name)
        adapter = body.adapter and service.find_adapter(
            session, principal.workspace_id, body.adapter
        )
        service.serve_with(
            session, use_case, arm=body.arm, adapter_id=adapter.id if adapter else None
        )
        service.set_options(session, use_case, body.options)
        return _describe(use_case)


def _describe(use_case: UseCase) -> dict[str, Any]:
    return {
        "name": use_case.name,
        "id": use_case.id,
        "arm": use_case.arm,
        "adapter": use_case.adapter_id,
        "knowledge_bases": use_case.knowledge_base_ids,
        "system_prompt": use_case.system_prompt,
        "abstain_sentence": use_case.abstain_sentence,
        "options": use_case.options,
    }
