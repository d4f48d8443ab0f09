"""Datasets over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from app.datasets import recall, service
from app.datasets.building import BuildOptions, HeldOutDistractors, PersonalData, Tools
from app.datasets.importing import import_examples
from app.db.tables import UseCase
from app.dependencies import ContainerDep, PrincipalDep
from app.knowledge import service as knowledge_service
from app.knowledge.view import View
from app.use_cases import service as use_cases
from app.workspaces.policy import Principal
from retrieval.types import Hit

router = APIRouter(tags=["datasets"])


class BuildDataset(BaseModel):
    """Seal the approved examples of a use case; files (operator only) are imported first."""

    use_case: str
    from_file: str | None = None
    consent: str | None = None
    dev: float = 0.1
    test: float = 0.1
    confirm: float | None = None
    seed: int = 0
    min_score: float = Field(0.5, ge=0, le=1)
    personal_data: PersonalData = "mask"
    ratings: bool = False
    replay: str | None = None
    replay_share: float = Field(0.05, ge=0, le=0.5)
    held_out_distractors: HeldOutDistractors = "drop"


class ImportExamples(BaseModel):
    """A file of this machine (operator only) and the right to train on it."""

    use_case: str
    path: str
    consent: str | None = None


class ProbeRecall(BaseModel):
    """The dataset whose values the adapter must not know by heart."""

    dataset: str
    limit: int = Field(64, ge=1, le=1000)


@router.post("/datasets", status_code=201)
def build(body: BuildDataset, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """Import examples when asked, then seal a snapshot."""
    principal.require("examples.write")
    imported = None
    if body.from_file or body.replay:
        principal.require("local_paths")
    with container.database.session() as session:
        use_case = use_cases.get(session, principal.workspace_id, body.use_case)
        if body.from_file:
            path = Path(body.from_file)
            imported = import_examples(session, principal, use_case, path, consent=body.consent)
    options = BuildOptions(
        dev=body.dev,
        test=body.test,
        confirm=body.confirm,
        seed=body.seed,
        min_score=body.min_score,
        personal_data=body.personal_data,
        ratings=body.ratings,
        replay=Path(body.replay) if body.replay else None,
        replay_share=body.replay_share,
        held_out_distractors=body.held_out_distractors,
    )
    tools = _tools(container, principal, use_case)
    root = container.settings.root
    snapshot = service.build(container.database, principal, body.use_case, tools, root, options)
    return service.show(snapshot, root) | {"imported": imported}


@router.post("/examples/import", status_code=201)
def import_file(
    body: ImportExamples, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Take examples from a file without building a dataset."""
    principal.require("examples.write")
    principal.require("local_paths")
    with container.database.session() as session:
        use_case = use_cases.get(session, principal.workspace_id, body.use_case)
        path = Path(body.path)
        return import_examples(session, principal, use_case, path, consent=body.consent)


@router.get("/datasets")
def list_all(container: ContainerDep, principal: PrincipalDep) -> list[dict[str, Any]]:
    """Snapshots, newest first."""
    principal.require("read")
    with container.database.session() as session:
        return service.list_all(session, principal.workspace_id)


@router.get("/datasets/{snapshot}")
def show(snapshot: str, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """A snapshot's manifest, after every byte and the signature were checked."""
    principal.require("read")
    with container.database.session() as session:
        found = service.find(session, principal.workspace_id, snapshot)
        return service.show(found, container.settings.root)


@router.get("/datasets/{snapshot}/card", response_model=None)
def card(
    snapshot: str, container: ContainerDep, principal: PrincipalDep, as_json: bool = False
) -> HTMLResponse | dict[str, Any]:
    """The snapshot's card, one self-contained page; `as_json` wraps it with its flags."""
    principal.require("read")
    with container.database.session() as session:
        found = service.find(session, principal.workspace_id, snapshot)
        page, flags = service.card(found)
    if as_json:
        return {"content_sha256": found.content_sha256, "html": page, "flags": flags}
    return HTMLResponse(page)


@router.get("/datasets/{before}/diff/{after}")
def compare(
    before: str, after: str, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """What changed from one snapshot to another."""
    principal.require("read")
    with container.database.session() as session:
        one = service.find(session, principal.workspace_id, before)
        two = service.find(session, principal.workspace_id, after)
        changes = service.compare(one, two)
    return asdict(changes) | {"identical": changes.identical}


@router.post("/adapters/{adapter}/recall")
def probe_recall(
    adapter: str, body: ProbeRecall, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Ask an adapter for the knowledge base's values without passages: it must not know them."""
    principal.require("evaluate")
    with container.database.session() as session:
        found = recall.find_adapter(session, principal.workspace_id, adapter)
        snapshot = service.find(session, principal.workspace_id, body.dataset)
    rows = recall.rows_with_values(snapshot, body.limit)
    return recall.probe(container.engine, container.tokenizer, found, rows)


def _tools(container: ContainerDep, principal: Principal, use_case: UseCase) -> Tools:
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

    embedder = container.knowledge.by_source(None).embedder
    return Tools(search, embedder.embed_passages, container.tokenizer)
