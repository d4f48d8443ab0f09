"""What people see: tables, progress bars, one-sentence errors; or JSON with `--json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

# No markup: names and documents may hold square brackets.
out = Console(markup=False)
err = Console(stderr=True, markup=False)


def print_json(data: Any) -> None:
    """Machine-readable output, nothing else on stdout."""
    sys.stdout.write(json.dumps(data, indent=1, ensure_ascii=False, default=str) + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table, or a line that says there is nothing."""
    if not rows:
        out.print(f"{title}: none", highlight=False)
        return
    shown = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(("" if cell is None else str(cell)) for cell in row))
    out.print(shown)


def sentence(error: str) -> None:
    """One clear sentence on stderr."""
    err.print(Text.assemble(("error:", "bold red"), f" {error}"), soft_wrap=True)


@contextmanager
def job_progress(label: str, quiet: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A live bar for a job; on a pipe it prints nothing until the end."""
    if quiet:
        yield lambda _job: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[message]}", markup=False),
    )
    with Progress(*columns, console=err, transient=False) as progress:
        task = progress.add_task(label, total=None, message="")

        def show(job: dict[str, Any]) -> None:
            progress.update(
                task,
                completed=job["done"],
                total=job["total"] or None,
                message=(job["message"] or job["state"])[:110],
            )

        yield show
