"""bench: the repository's benchmarks with the paths they need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

import app as package
from app.cli.state import state_of
from app.config import Settings
from app.errors import BadInput
from app.models.service import DEFAULT_BASE

_ROOT = Path(package.__file__).resolve().parents[1]
# Module and the paths it takes: data sets, models folder, folder of the embedding model, of the
# base model. "json": it prints tables unless told otherwise.
_BENCHES: dict[str, tuple[str, ...]] = {
    "base_files": ("data", "models"),
    "churn": (),
    "coverage": ("data", "models"),
    "decisions": ("json",),
    "followups": ("data", "models"),
    "four_arms": ("data",),
    "freshness": ("data",),
    "ingest": ("data", "model"),
    "overhead": ("models",),
    "replay": ("models",),
    "push_latency": ("data",),
    "query_load": ("data", "models"),
    "retrieval_quality": ("data", "models"),
    "search": ("data", "models"),
    "serve": ("data", "models"),
    "shapes": ("json",),
    "tune": ("base",),
    "worlds": ("json",),
    "xquad": (),
}


def register(tree: typer.Typer) -> None:
    """Add the command to the tree."""
    settings = {"allow_extra_args": True, "ignore_unknown_options": True}
    tree.command(context_settings=settings)(bench)


def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help=", ".join(_BENCHES))],
) -> None:
    """Run a benchmark of the repository; more options go on to it.

    Data sets are looked for in $TANDEM_DATA, else in ../shared/data beside the repository.
    """
    if name not in _BENCHES:
        raise BadInput(f"benchmark {name!r} is unknown: choose {', '.join(_BENCHES)}")
    if not (_ROOT / "benchmarks").is_dir():
        raise BadInput("benchmarks are part of the repository, not of the installed package")
    given = list(context.args)
    command = [sys.executable, "-m", f"benchmarks.{name}", *given]
    for option, value in _paths(state_of(context).settings).items():
        if option in _BENCHES[name] and f"--{option}" not in given:
            command += [f"--{option}", str(value)]
    if state_of(context).json and "json" in _BENCHES[name]:
        command.append("--json")
    raise typer.Exit(subprocess.run(command, cwd=_ROOT, check=False).returncode)


def _paths(settings: Settings) -> dict[str, Path]:
    models = settings.models_dir
    return {
        "data": settings.data or _ROOT.parent / "shared" / "data",
        "models": models,
        "model": models / settings.embedding_model,
        "base": models / DEFAULT_BASE.name / "hf",
    }
