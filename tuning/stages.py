"""Several runs in a row, each from the adapter of the one before: domain, task, house.

A recipe is a JSON object with shared settings and `stages`, a list of settings each with a name:
`{"base": ..., "output": ..., "stages": [{"name": "domain", "snapshot": ...}, ...]}`. Stage k
writes `<output>-<name>`; the last one writes `<output>`. A finished stage is not run again.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.adapters import AdapterManifest
from tuning.config import TuneConfig, config_from
from tuning.errors import TuneConfigError


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of a chain."""

    name: str
    config: TuneConfig


def is_recipe(record: dict[str, Any]) -> bool:
    """Whether decoded JSON is a chain and not one run."""
    return "stages" in record


def stages_from(record: dict[str, Any]) -> list[Stage]:
    """The runs of a recipe, in order.

    Raises:
        TuneConfigError: If there are no stages, names repeat, or a later stage names its start.
    """
    shared = {key: value for key, value in record.items() if key != "stages"}
    given = record.get("stages") or []
    names = [str(stage.get("name", "")) for stage in given]
    if not given or "" in names or len(set(names)) != len(names):
        raise TuneConfigError("a recipe needs stages, each with a name of its own")
    output, before = str(shared.get("output", "adapter")), shared.get("start_from")
    stages = []
    for number, stage in enumerate(given):
        if number and "start_from" in stage:
            raise TuneConfigError(f"stage {names[number]!r} starts from the stage before it")
        own = {key: value for key, value in stage.items() if key != "name"}
        last = number == len(given) - 1
        place = output if last else f"{output}-{names[number]}"
        settings = {**shared, "start_from": before, **own, "output": place}
        stages.append(Stage(names[number], config_from(settings)))
        before = place
    return stages


def load_stages(path: Path | str) -> list[Stage]:
    """Read a recipe file."""
    return stages_from(json.loads(Path(path).read_text(encoding="utf-8")))


def run_stages(
    stages: list[Stage], train: Callable[[TuneConfig], AdapterManifest]
) -> list[AdapterManifest]:
    """Train the stages one after another and return their manifests."""
    return [train(stage.config) for stage in stages]
