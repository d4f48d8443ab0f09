"""Look at jobs, and wait for one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.session import Database
from app.db.tables import Job
from app.errors import NotFound

FINISHED = ("succeeded", "failed")


def find(session: Session, workspace_id: str, job_id: str) -> Job:
    """A job of the workspace."""
    job = session.get(Job, job_id)
    if job is None or job.workspace_id != workspace_id:
        raise NotFound(f"no job {job_id!r} in this workspace")
    return job


def list_all(session: Session, workspace_id: str, limit: int = 50) -> list[dict[str, Any]]:
    """Jobs, newest first."""
    query = sa.select(Job).where(Job.workspace_id == workspace_id)
    return [
        describe(job) for job in session.scalars(query.order_by(Job.created_at.desc()).limit(limit))
    ]


def describe(job: Job) -> dict[str, Any]:
    """A job for people and programs."""
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "done": job.done,
        "total": job.total,
        "message": job.message,
        "result": job.result,
        "error": job.error,
        "created_at": job.created_at.isoformat(),
        "started_at": job.started_at.isoformat() if job.started_at else None,
        "finished_at": job.finished_at.isoformat() if job.finished_at else None,
    }


def events(
    database: Database, workspace_id: str, job_id: str, period_s: float = 0.3
) -> Iterator[str]:
    """Server-sent events: the job whenever it changed, until it has finished."""
    shown: dict[str, Any] | None = None
    while True:
        with database.session() as session:
            now = describe(find(session, workspace_id, job_id))
        if now != shown:
            yield f"data: {json.dumps(now)}\n\n"
            shown = now
        if now["state"] in FINISHED:
            return
        time.sleep(period_s)
