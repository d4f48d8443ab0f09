"""Sources that are read again on a schedule, over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from app.db.base import now
from app.db.tables import Job, SyncSource
from app.dependencies import ContainerDep, PrincipalDep
from app.errors import NotFound
from app.jobs import service as jobs
from app.knowledge import repository
from app.knowledge.endpoints import checked_specs
from app.knowledge.schedule import start_sync
from app.knowledge.sources import spec_as_dict

router = APIRouter(prefix="/knowledge-bases", tags=["knowledge"])


class NewSync(BaseModel):
    """Sources to read every `every_s` seconds (0: only on request)."""

    specs: list[dict[str, Any] | str] = Field(min_length=1)
    sync: bool = True
    every_s: int = Field(3600, ge=0, le=31_536_000)


@router.post("/{name}/syncs", status_code=201)
def create(
    name: str, body: NewSync, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Remember sources and read them again by the clock; the first time at once."""
    principal.require("knowledge.write")
    specs = checked_specs(principal, body.specs)
    with container.database.session() as session:
        kb = repository.find_knowledge_base(session, principal.workspace_id, name)
        source = SyncSource(
            workspace_id=kb.workspace_id,
            knowledge_base_id=kb.id,
            specs=[spec_as_dict(spec) for spec in specs],
            sync=body.sync,
            every_s=body.every_s,
            next_at=now() + timedelta(seconds=body.every_s) if body.every_s else None,
            created_by=principal.name,
        )
        session.add(source)
        session.flush()
        job = start_sync(session, source)
        made = _described(session, source)
    container.jobs.submit(job.id, "ingest")
    return made


@router.get("/{name}/syncs")
def list_syncs(name: str, container: ContainerDep, principal: PrincipalDep) -> list[dict[str, Any]]:
    """The schedules of a knowledge base with how their last reading ended."""
    principal.require("read")
    with container.database.reading() as session:
        kb = repository.find_knowledge_base(session, principal.workspace_id, name)
        query = sa.select(SyncSource).where(SyncSource.knowledge_base_id == kb.id)
        found = session.scalars(query.order_by(SyncSource.created_at))
        return [_described(session, source) for source in found]


@router.post("/{name}/syncs/{sync_id}/run", status_code=202)
def run(
    name: str, sync_id: str, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Read the sources now."""
    principal.require("knowledge.write")
    with container.database.session() as session:
        job = start_sync(session, _find(session, principal.workspace_id, name, sync_id))
        described = jobs.describe(job)
    container.jobs.submit(job.id, "ingest")
    return described


@router.delete("/{name}/syncs/{sync_id}")
def delete(
    name: str, sync_id: str, container: ContainerDep, principal: PrincipalDep
) -> dict[str, str]:
    """Read the sources no more; their documents stay."""
    principal.require("knowledge.write")
    with container.database.session() as session:
        session.delete(_find(session, principal.workspace_id, name, sync_id))
    return {"id": sync_id, "state": "deleted"}


def _find(session: Session, workspace_id: str, name: str, sync_id: str) -> SyncSource:
    kb = repository.find_knowledge_base(session, workspace_id, name)
    source = session.get(SyncSource, sync_id)
    if source is None or source.knowledge_base_id != kb.id:
        raise NotFound(f"no sync {sync_id!r} in knowledge base {kb.name!r}")
    return source


def _described(session: Session, source: SyncSource) -> dict[str, Any]:
    last = session.get(Job, source.last_job_id) if source.last_job_id else None
    return {
        "id": source.id,
        "specs": source.specs,
        "sync": source.sync,
        "every_s": source.every_s,
        "next_at": source.next_at.isoformat() if source.next_at else None,
        "last_job": last and jobs.describe(last),
    }
