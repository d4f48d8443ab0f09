"""sync: sources that are read again by the clock."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli.output import out, print_json, table
from app.cli.state import state_of
from app.errors import BadInput

_PERIOD = re.compile(r"(\d+)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    sync = typer.Typer(help="Sources that are read again by the clock.", no_args_is_help=True)
    sync.command("add")(sync_add)
    sync.command("list")(sync_list)
    sync.command("run")(sync_run)
    sync.command("remove")(sync_remove)
    app.add_typer(sync, name="sync")


def source(given: str) -> str | dict[str, Any]:
    """What a person typed as a source; paths become absolute, as the server may run elsewhere."""
    if given.lstrip().startswith("{") or "://" in given:
        return given
    return {"kind": "files", "path": str(Path(given).resolve())}


def seconds(period: str) -> int:
    """A period such as 30m, 1h or 1d, in seconds; 0 for `never`.

    Raises:
        BadInput: It is none.
    """
    if period == "never":
        return 0
    match = _PERIOD.fullmatch(period.strip())
    if match is None:
        raise BadInput(f"period {period!r} is not of the form 30s, 15m, 1h, 1d or never")
    return int(match.group(1)) * _SECONDS[match.group(2)]


def sync_add(
    context: typer.Context,
    kb: str,
    sources: Annotated[list[str], typer.Argument(help="As for `tandem ingest`.")],
    every: Annotated[str, typer.Option(help="30s, 15m, 1h, 1d or never.")] = "1h",
    keep: Annotated[bool, typer.Option("--keep", help="Keep documents that are gone.")] = False,
) -> None:
    """Read sources now and again by the clock, while `tandem serve` runs."""
    state = state_of(context)
    body = {
        "specs": [source(given) for given in sources],
        "sync": not keep,
        "every_s": seconds(every),
    }
    with state.api() as api:
        made = api.call("POST", f"/api/v1/knowledge-bases/{quote(kb)}/syncs", json=body)
        made["last_job"] = state.run_job(api, made["last_job"], f"sync {kb}")
    if state.json:
        print_json(made)
    else:
        counts = made["last_job"]["result"]["counts"]
        told = ", ".join(f"{number} {kind}" for kind, number in counts.items() if number)
        out.print(f"sync {made['id']}: {told or 'nothing to do'}", highlight=False)


def sync_list(context: typer.Context, kb: str) -> None:
    """Schedules with how their last reading ended."""
    state = state_of(context)
    with state.api() as api:
        rows = api.call("GET", f"/api/v1/knowledge-bases/{quote(kb)}/syncs")
    if state.json:
        print_json(rows)
        return
    shown = [
        (
            row["id"],
            ", ".join(str(s.get("path") or s.get("url")) for s in row["specs"]),
            f"{row['every_s']} s",
            row["next_at"],
            (row["last_job"] or {}).get("state"),
        )
        for row in rows
    ]
    table(f"syncs of {kb}", ["id", "sources", "every", "next", "last"], shown)


def sync_run(context: typer.Context, kb: str, sync_id: str) -> None:
    """Read the sources of a schedule now."""
    state = state_of(context)
    with state.api() as api:
        job = api.call("POST", f"/api/v1/knowledge-bases/{quote(kb)}/syncs/{sync_id}/run")
        result = state.run_job(api, job, f"sync {kb}")["result"]
    print_json(result) if state.json else out.print(str(result["counts"]), highlight=False)


def sync_remove(context: typer.Context, kb: str, sync_id: str) -> None:
    """Read the sources no more; their documents stay."""
    state = state_of(context)
    with state.api() as api:
        made = api.call("DELETE", f"/api/v1/knowledge-bases/{quote(kb)}/syncs/{sync_id}")
    print_json(made) if state.json else out.print(f"sync {sync_id} removed", highlight=False)
