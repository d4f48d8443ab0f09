"""Knowledge bases over HTTP: create, read sources, search, verify, change the model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.bootstrap import Container
from app.db.base import aware
from app.db.tables import Job
from app.dependencies import ContainerDep, PrincipalDep
from app.errors import BadInput, Forbidden, NotFound
from app.jobs import service as jobs
from app.knowledge import repository, service
from app.knowledge.history import damage
from app.knowledge.migration_gate import MARGIN
from app.knowledge.sources import (
    FilesSpec,
    RecordsSpec,
    SourceSpec,
    parse_spec,
    reads_this_machine,
    spec_as_dict,
)
from app.knowledge.verify import verify
from app.knowledge.view import View
from app.workspaces.policy import Principal

router = APIRouter(prefix="/knowledge-bases", tags=["knowledge"])


class NewKnowledgeBase(BaseModel):
    """A knowledge base to create."""

    name: str


class IngestSources(BaseModel):
    """Where to read from; files, git and records of this machine are for its operator only."""

    paths: list[str] = Field(default_factory=list)
    specs: list[dict[str, Any] | str] = Field(default_factory=list)
    sync: bool = False
    valid_from: datetime | None = None
    groups: list[str] | None = None
    attributes: dict[str, str] = Field(default_factory=dict)


class SearchQuery(BaseModel):
    """A search."""

    query: str
    limit: int = Field(5, ge=1, le=50)
    groups: list[str] | None = None
    as_of: datetime | None = None
    where: dict[str, str] = Field(default_factory=dict)


class Verification(BaseModel):
    """How to verify: whether to mend, and how many vectors to compute again."""

    repair: bool = False
    sample: int = Field(0, ge=0, le=10_000)


class NewMigration(BaseModel):
    """A change of the embedding model (None: to the configured one)."""

    model: str | None = None
    golden: list[dict[str, Any]] = Field(default_factory=list)
    margin: float = Field(MARGIN, ge=0, le=1)
    limit: int = Field(200, ge=0, le=5_000)
    dry_run: bool = False


@router.post("", status_code=201)
def create(
    body: NewKnowledgeBase, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Create a knowledge base."""
    principal.require("knowledge.write")
    embedder = container.embedder_name
    with container.database.session() as session:
        kb = service.create(session, principal.workspace_id, body.name, embedder)
        return {"id": kb.id, "name": kb.name, "embedder": kb.embedder}


@router.get("")
def list_knowledge_bases(container: ContainerDep, principal: PrincipalDep) -> list[dict[str, Any]]:
    """Knowledge bases with counts."""
    principal.require("read")
    with container.database.session() as session:
        return service.describe_all(session, principal.workspace_id)


@router.post("/{name}/ingest", status_code=202)
def ingest(
    name: str, body: IngestSources, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Read sources as a job; `sync` deletes documents that are gone from them."""
    principal.require("knowledge.write")
    given = [*({"kind": "files", "path": path} for path in body.paths), *body.specs]
    specs = checked_specs(principal, given)
    payload = {
        "specs": [spec_as_dict(spec) for spec in specs],
        "sync": body.sync,
        "valid_from": moment.isoformat() if (moment := aware(body.valid_from)) else None,
        "groups": body.groups,
        "attributes": body.attributes,
    }
    return submit(container, principal, name, "ingest", payload)


def checked_specs(principal: Principal, given: Sequence[dict[str, Any] | str]) -> list[SourceSpec]:
    """Parsed source specifications, at least one; those on this machine for its operator only."""
    if not given:
        raise BadInput("nothing to read: give paths or sources")
    specs = [parse_spec(item) for item in given]
    if not principal.operator and any(reads_this_machine(spec) for spec in specs):
        raise Forbidden("only the operator of this machine may name its files: upload instead")
    for spec in specs:
        if isinstance(spec, FilesSpec | RecordsSpec) and not Path(spec.path).exists():
            raise NotFound(f"{spec.path!r} does not exist: give a file or a folder")
    return specs


@router.post("/{name}/search")
def search(
    name: str, body: SearchQuery, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """The best chunks for a query."""
    principal.require("read")
    with container.database.reading() as session:
        kb = repository.find_knowledge_base(session, principal.workspace_id, name)
        view = View(principal.groups_for(body.groups), aware(body.as_of), where=body.where)
    question = service.Question(principal.workspace_id, (kb.id,), body.query, body.limit, view)
    found = service.search(container.database, container.knowledge, question)
    with container.database.reading() as session:
        names = service.version_names(session, [hit.version_id for hit in found.hits])
    return {
        "best_cosine": found.best_dense_score,
        "coverage": found.coverage,
        "hits": [
            {
                "document": names[hit.version_id].document,
                "version": names[hit.version_id].number,
                "superseded": names[hit.version_id].superseded_by is not None,
                "title": hit.title,
                "heading": " > ".join(hit.heading_path),
                "page": hit.page_start,
                "score": round(hit.score, 5),
                "cosine": hit.dense_score and round(hit.dense_score, 4),
                "text": hit.text,
                "version_id": hit.version_id,
            }
            for hit in found.hits
        ],
    }


@router.post("/{name}/rebuild")
def rebuild(name: str, container: ContainerDep, principal: PrincipalDep) -> dict[str, int]:
    """Make the index again from SQL alone."""
    principal.require("knowledge.write")
    return service.rebuild(container.database, container.knowledge, principal.workspace_id, name)


@router.post("/{name}/verify")
def verify_index(
    name: str, body: Verification, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Compare the index with SQL, and mend it when asked to."""
    principal.require("knowledge.write")
    with container.database.reading() as session:
        kb = repository.find_knowledge_base(session, principal.workspace_id, name)
    report = verify(
        container.database, container.knowledge, kb.id, repair=body.repair, sample=body.sample
    )
    return report.as_json()


@router.get("/{name}/damage")
def damage_list(
    name: str,
    container: ContainerDep,
    principal: PrincipalDep,
    since: datetime | None = None,
) -> list[dict[str, Any]]:
    """Past answers whose knowledge has changed since they were given."""
    principal.require("read")
    with container.database.reading() as session:
        kb = repository.find_knowledge_base(session, principal.workspace_id, name)
        return damage(session, kb, aware(since), principal.groups)


@router.post("/{name}/migrations", status_code=202)
def migrate(
    name: str, body: NewMigration, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Change the embedding model as a job, behind a gate."""
    principal.require("knowledge.write")
    if body.model is not None and not principal.operator:
        raise Forbidden("only the operator of this machine may name a model on it")
    return submit(container, principal, name, "migrate", body.model_dump())


def submit(
    container: Container, principal: Principal, name: str, kind: str, payload: dict[str, Any]
) -> dict[str, Any]:
    """A job on a knowledge base, committed and queued."""
    with container.database.session() as session:
        kb = repository.find_knowledge_base(session, principal.workspace_id, name)
        job = Job(
            workspace_id=principal.workspace_id,
            kind=kind,
            payload={"knowledge_base_id": kb.id, **payload},
            created_by=principal.name,
        )
        session.add(job)
        session.flush()
        described = jobs.describe(job)
    container.jobs.submit(job.id, kind)
    return described
