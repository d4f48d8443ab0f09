"""Documents over HTTP: upload, push, list, show, close to groups, delete."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, UploadFile
from fastapi import File as FormFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from app.bootstrap import Container
from app.db.base import aware, new_id
from app.dependencies import ContainerDep, PrincipalDep
from app.errors import AppError, BadInput, TooLarge
from app.knowledge import repository, service
from app.knowledge.endpoints import submit
from app.knowledge.publishing import Outcome
from app.knowledge.push import file_name, push
from app.knowledge.sources.types import FoundDocument
from app.workspaces.policy import Principal

router = APIRouter(prefix="/knowledge-bases", tags=["knowledge"])


class Groups(BaseModel):
    """Who may be answered from a document; none means everyone."""

    groups: list[str]


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
    payload = {"specs": [{"kind": "files", "path": str(folder)}], "sync": False}
    return submit(container, principal, name, "ingest", payload)


@router.get("/{name}/documents")
def list_documents(
    name: str, container: ContainerDep, principal: PrincipalDep
) -> list[dict[str, Any]]:
    """Documents that answers come from."""
    principal.require("read")
    with container.database.session() as session:
        kb = repository.find_knowledge_base(session, principal.workspace_id, name)
        return service.describe_documents(session, kb, principal.groups)


@router.get("/{name}/documents/{external_id:path}")
def show_document(
    name: str, external_id: str, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """One document with its versions and chunks."""
    principal.require("read")
    with container.database.session() as session:
        kb = repository.find_knowledge_base(session, principal.workspace_id, name)
        return service.describe_document(session, kb, external_id, principal.groups)


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


class PushOptions(BaseModel):
    """What may be said of a pushed document in the address; `group` and `attribute` repeat."""

    valid_from: datetime | None = None
    group: list[str] | None = None
    attribute: list[str] = Field(default_factory=list)


@router.put("/{name}/documents/{external_id:path}")
async def put_document(
    name: str,
    external_id: str,
    request: Request,
    options: Annotated[PushOptions, Query()],
    container: ContainerDep,
    principal: PrincipalDep,
) -> JSONResponse:
    """Make the body the document's content: answered from when the reply is there.

    Sending the same content again changes nothing. An `attribute` is `key:value`. 201 for a new
    document, 202 where `valid_from` lies ahead.
    """
    principal.require("knowledge.write")
    limit = container.settings.max_upload_bytes
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:  # said before the body is read
        raise TooLarge(f"the document has {declared} bytes, the limit is {limit}")
    path = container.settings.root / "uploads" / new_id()
    found = FoundDocument(
        external_id,
        file_name(external_id, request.headers.get("content-type", "")),
        path,
        named=True,
        metadata=_pairs(options.attribute),
        groups=None if options.group is None else tuple(options.group),
        valid_from=moment.isoformat() if (moment := aware(options.valid_from)) else "",
    )
    try:
        await _receive(request, path, limit)
        outcome = await run_in_threadpool(_push, container, principal, name, found)
    finally:
        path.unlink(missing_ok=True)
    status = {"added": 201, "scheduled": 202}.get(outcome.outcome, 200)
    return JSONResponse(asdict(outcome), status_code=status)


@router.put("/{name}/groups/{external_id:path}")
def put_groups(
    name: str, external_id: str, body: Groups, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Close a document to all but these groups, at once; none opens it to everyone."""
    principal.require("knowledge.write")
    with container.database.session() as session:
        kb = repository.find_knowledge_base(session, principal.workspace_id, name)
        return service.set_groups(session, kb, external_id, body.groups)


def _push(container: Container, principal: Principal, name: str, found: FoundDocument) -> Outcome:
    with container.database.reading() as session:
        kb = repository.find_knowledge_base(session, principal.workspace_id, name)
    return push(container.database, container.knowledge, kb, found)


async def _receive(request: Request, path: Path, limit: int) -> None:
    """Write the body to a file, giving up as soon as it is too large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("xb") as target:
        async for block in request.stream():
            written += len(block)
            if written > limit:
                raise TooLarge(f"the document is larger than {limit} bytes")
            target.write(block)


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = {}
    for item in given:
        key, colon, value = item.partition(":")
        if not colon or not key:
            raise BadInput(f"attribute {item!r} is not of the form key:value")
        pairs[key] = value
    return pairs


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
