"""Knowledge bases and documents over HTTP."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, UploadFile
from fastapi import File as FormFile
from pydantic import BaseModel, Field

from app.bootstrap import Container
from app.db.base import new_id
from app.db.tables import Job
from app.dependencies import ContainerDep, PrincipalDep
from app.errors import AppError, BadInput, Forbidden, TooLarge
from app.jobs import service as jobs
from app.knowledge import repository, service
from app.knowledge.ingest import list_sources
from app.workspaces.policy import Principal

router = APIRouter(prefix="/knowledge-bases", tags=["knowledge"])


class NewKnowledgeBase(BaseModel):
    """A knowledge base to create."""

    name: str


class IngestPaths(BaseModel):
    """Files and folders of this machine (the operator only)."""

    paths: list[str] = Field(min_length=1)
    sync: bool = False
    valid_from: datetime | None = None


class SearchQuery(BaseModel):
    """A search."""

    query: str
    limit: int = Field(5, ge=1, le=50)


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
def ingest_paths(
    name: str, body: IngestPaths, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Ingest files of this machine as a job; `sync` deletes documents that are gone."""
    principal.require("knowledge.write")
    if not principal.operator:
        raise Forbidden("only the operator of this machine may name its files: upload instead")
    if not list_sources(body.paths) and not body.sync:
        raise BadInput(f"no files under {', '.join(body.paths)}")
    payload = {
        "paths": body.paths,
        "sync": body.sync,
        "valid_from": _aware(body.valid_from).isoformat() if body.valid_from else None,
    }
    return _submit(container, principal, name, payload)


@router.post("/{name}/documents", status_code=202)
def upload(
    name: str,
    container: ContainerDep,
    principal: PrincipalDep,
    files: Annotated[list[UploadFile], FormFile()],
) -> dict[str, Any]:
    """Upload files and ingest them as a job. A 202 means they are on disk."""
    principal.require("knowledge.write")
    with container.database.session() as session:
        repository.find_knowledge_base(session, principal.workspace_id, name)
    folder = container.settings.root / "uploads" / new_id()
    folder.mkdir(parents=True)
    try:
        for upload_file in files:
            _store(upload_file, folder, container.settings.max_upload_bytes)
    except (AppError, OSError):
        shutil.rmtree(folder, ignore_errors=True)
        raise
    payload = {"paths": [str(folder)], "sync": False, "valid_from": None}
    return _submit(container, principal, name, payload)


@router.get("/{name}/documents")
def list_documents(
    name: str, container: ContainerDep, principal: PrincipalDep
) -> list[dict[str, Any]]:
    """Documents that answers come from."""
    principal.require("read")
    with container.database.session() as session:
        kb = repository.find_knowledge_base(session, principal.workspace_id, name)
        return service.describe_documents(session, kb)


@router.get("/{name}/documents/{external_id:path}")
def show_document(
    name: str, external_id: str, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """One document with its versions and chunks."""
    principal.require("read")
    with container.database.session() as session:
        kb = repository.find_knowledge_base(session, principal.workspace_id, name)
        return service.describe_document(session, kb, external_id)


@router.delete("/{name}/documents/{external_id:path}")
def delete_document(
    name: str, external_id: str, container: ContainerDep, principal: PrincipalDep
) -> dict[str, str]:
    """Delete a document; from the reply on nothing of it is answered from."""
    principal.require("knowledge.write")
    service.delete_document(
        container.database, container.knowledge, principal.workspace_id, name, external_id
    )
    return {"document": external_id, "state": "deleted"}


@router.post("/{name}/search")
def search(
    name: str, body: SearchQuery, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """The best chunks for a query."""
    principal.require("read")
    with container.database.session() as session:
        kb = repository.find_knowledge_base(session, principal.workspace_id, name)
        names = {doc.id: doc.external_id for doc in repository.live_documents(session, kb)}
    found = service.search(
        container.database,
        container.knowledge,
        principal.workspace_id,
        [kb.id],
        body.query,
        body.limit,
    )
    return {
        "best_cosine": found.best_dense_score,
        "hits": [
            {
                "document": names.get(hit.document_id, "?"),
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


def _submit(
    container: Container, principal: Principal, name: str, payload: dict[str, Any]
) -> dict[str, Any]:
    with container.database.session() as session:
        kb = repository.find_knowledge_base(session, principal.workspace_id, name)
        job = Job(
            workspace_id=principal.workspace_id,
            kind="ingest",
            payload={"knowledge_base_id": kb.id, **payload},
            created_by=principal.name,
        )
        session.add(job)
        session.flush()
        described = jobs.describe(job)
    container.jobs.submit(job.id, "ingest")
    return described


def _aware(moment: datetime) -> datetime:
    """A date or a time without a zone is meant as UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _store(upload_file: UploadFile, folder: Path, limit: int) -> None:
    """Write one upload to disk under a safe name, synced."""
    name = PurePosixPath((upload_file.filename or "").replace("\\", "/")).name
    if not name.isprintable() or name.startswith(".") or not 1 <= len(name.encode()) <= 255:
        raise BadInput(f"upload name {upload_file.filename!r} is not usable as a document id")
    if (folder / name).exists():
        raise BadInput(f"two uploads are called {name!r}: give each its own name")
    written = 0
    with (folder / name).open("xb") as target:
        while block := upload_file.file.read(1 << 20):
            written += len(block)
            if written > limit:
                raise TooLarge(f"{name!r} is larger than {limit} bytes")
            target.write(block)
        target.flush()
        os.fsync(target.fileno())
