"""Tuning runs and adapters over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.dependencies import ContainerDep, PrincipalDep
from app.jobs import service as jobs
from app.tuning_runs import adapters, explaining, reader, registry, service
from app.use_cases import service as use_cases
from tuning.adapters import verify
from tuning.errors import AdapterError
from tuning.model_card import render_markdown

router = APIRouter(tags=["tuning"])


class NewRun(BaseModel):
    """A tuning run. `start_from`: 'reader' (default), 'none', or an adapter."""

    use_case: str
    dataset: str
    start_from: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class RegisterAdapter(BaseModel):
    """An adapter directory of this machine, trained elsewhere (the operator only)."""

    use_case: str
    path: str
    name: str | None = None


class Explain(BaseModel):
    """What to recommend a method for; see `tuning.explain.Situation` for the hints."""

    use_case: str
    dataset: str
    start_from: str | None = None
    hints: dict[str, Any] = Field(default_factory=dict)


class Move(BaseModel):
    """A stage (candidate, staged, live, retired) and why."""

    stage: str
    reason: str = ""


class Rollback(BaseModel):
    """Why the live adapter goes back to the one before."""

    reason: str = ""


@router.post("/tuning-runs/explain")
def explain(body: Explain, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """Recommend a method and settings, with time and cost from a short probe of this machine."""
    principal.require("tune")
    return explaining.explain(
        container.database, container.base, principal, explaining.Asked(**body.model_dump())
    )


@router.get("/tuning-runs/{run}/events")
def run_events(
    run: str, container: ContainerDep, principal: PrincipalDep, after: int = 0
) -> dict[str, Any]:
    """Progress events of a run from number `after` on, and the number to ask from next."""
    principal.require("read")
    with container.database.session() as session:
        found = service.find(session, principal.workspace_id, run)
    events = service.read_events(container.settings.root, found.id)
    return {"events": events[after:], "next": len(events)}


@router.post("/tuning-runs", status_code=202)
def start(body: NewRun, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """Tune an adapter as a job."""
    principal.require("tune")
    with container.database.session() as session:
        run, job = service.start(
            session,
            principal,
            body.use_case,
            body.dataset,
            settings=body.settings,
            start_from=body.start_from,
        )
        described = jobs.describe(job) | {"run": run.id}
    container.jobs.submit(job.id, "tune")
    return described


@router.get("/tuning-runs")
def list_runs(container: ContainerDep, principal: PrincipalDep) -> list[dict[str, Any]]:
    """Tuning runs, newest first."""
    principal.require("read")
    with container.database.session() as session:
        return service.list_all(session, principal.workspace_id)


@router.get("/adapters")
def list_adapters(container: ContainerDep, principal: PrincipalDep) -> list[dict[str, Any]]:
    """Adapters of the workspace and the shipped reader."""
    principal.require("read")
    reader.ensure(container.database, container.base, container.settings.root)
    with container.database.session() as session:
        return adapters.list_all(session, principal.workspace_id)


@router.post("/adapters", status_code=201)
def register(
    body: RegisterAdapter, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Verify, probe and register an adapter that was trained on another machine."""
    principal.require("tune")
    principal.require("local_paths")
    with container.database.session() as session:
        use_case = use_cases.get(session, principal.workspace_id, body.use_case)
    directory = Path(body.path).resolve()
    adapter = adapters.admit_copy(
        container.database,
        container.base,
        directory,
        container.settings.root,
        adapters.Owner(body.name or directory.name, principal.workspace_id, use_case.id),
    )
    return {"id": adapter.id, "name": adapter.name, "digest": adapter.digest}


@router.post("/adapters/{adapter}/stage")
def move_adapter(
    adapter: str, body: Move, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Take an adapter to its next stage; a live one serves at once."""
    principal.require("decide")
    with container.database.session() as session:
        moved = registry.move(session, principal, adapter, body.stage, body.reason)
        return {"id": moved.id, "name": moved.name, "stage": moved.stage}


@router.get("/adapters/{adapter}/history")
def adapter_history(
    adapter: str, container: ContainerDep, principal: PrincipalDep
) -> list[dict[str, Any]]:
    """Who moved an adapter from which stage to which, and why."""
    principal.require("read")
    with container.database.session() as session:
        return registry.history(session, principal.workspace_id, adapter)


@router.post("/use-cases/{use_case}/adapters/rollback")
def roll_back(
    use_case: str, body: Rollback, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Serve with the adapter that was live before the live one."""
    principal.require("decide")
    with container.database.session() as session:
        back = registry.rollback(session, principal, use_case, body.reason)
        return {"id": back.id, "name": back.name, "stage": back.stage}


@router.get("/adapters/{adapter}")
def show_adapter(adapter: str, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """An adapter with its manifest and card, after every byte and the signature were checked."""
    principal.require("read")
    reader.ensure(container.database, container.base, container.settings.root)
    with container.database.session() as session:
        found = use_cases.find_adapter(session, principal.workspace_id, adapter)
    manifest = verify(found.path, base_digest=found.base_sha256)
    if manifest.digest != found.digest:
        raise AdapterError(
            f"{found.path!r} holds adapter {manifest.digest[:12]}, not {found.digest[:12]}"
        )
    return {
        "id": found.id,
        "name": found.name,
        "digest": found.digest,
        "path": found.path,
        "verified": True,
        "signature": adapters.signature_of(found, container.settings.root),
        "manifest": asdict(manifest),
        "smoke": found.manifest.get("smoke"),
        "card": render_markdown(manifest),
    }
