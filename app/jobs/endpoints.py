"""Jobs over HTTP: state, and progress as server-sent events."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from app.dependencies import ContainerDep, PrincipalDep
from app.jobs import service

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.get("")
def list_jobs(container: ContainerDep, principal: PrincipalDep) -> list[dict[str, Any]]:
    """Jobs of the workspace, newest first."""
    principal.require("read")
    with container.database.session() as session:
        return service.list_all(session, principal.workspace_id)


@router.get("/{job_id}")
def show_job(job_id: str, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """One job with progress, result or error."""
    principal.require("read")
    with container.database.session() as session:
        return service.describe(service.find(session, principal.workspace_id, job_id))


@router.get("/{job_id}/events")
def follow_job(job_id: str, container: ContainerDep, principal: PrincipalDep) -> StreamingResponse:
    """Progress until the job has finished."""
    principal.require("read")
    with container.database.session() as session:
        service.find(session, principal.workspace_id, job_id)
    stream = service.events(container.database, principal.workspace_id, job_id)
    return StreamingResponse(stream, media_type="text/event-stream")


@router.post("/resume")
def resume(container: ContainerDep, principal: PrincipalDep) -> dict[str, bool]:
    """Continue jobs that a dead process left unfinished."""
    principal.require("read")
    container.jobs.launch()
    container.jobs.resubmit_stranded()
    return {"unfinished": container.jobs.has_unfinished()}
