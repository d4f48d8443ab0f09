"""Annotator agreement from a file of labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import BadInput
from evals.statistics.agreement import LEVELS, krippendorff_alpha, usable_as_gold


def annotator_agreement(path: Path, level: str = "nominal") -> dict[str, Any]:
    """Krippendorff's alpha of a JSONL file with `item`, `annotator` and `label` on each line.

    Raises:
        BadInput: If the level is unknown, a line lacks a part, or labels are not numbers where
            the level needs them.
    """
    if level not in LEVELS:
        raise BadInput(f"level {level!r} is unknown: choose {', '.join(LEVELS)}")
    labels = _read(path)
    items = sorted({item for item, _ in labels})
    people = sorted({person for _, person in labels})
    values: dict[Any, float] = {}
    if level == "nominal":
        names = sorted({str(label) for label in labels.values()})
        values = {name: float(number) for number, name in enumerate(names)}
    table = np.full((len(items), len(people)), np.nan)
    row = {item: number for number, item in enumerate(items)}
    column = {person: number for number, person in enumerate(people)}
    for (item, person), label in labels.items():
        number = values[str(label)] if level == "nominal" else _number(label, path)
        table[row[item], column[person]] = number
    alpha = krippendorff_alpha(table, level)
    usable, verdict = usable_as_gold(alpha)
    return {
        "alpha": alpha.estimate,
        "low": alpha.low,
        "high": alpha.high,
        "items": alpha.n,
        "annotators": len(people),
        "usable_as_gold": usable,
        "verdict": verdict,
    }


def _read(path: Path) -> dict[tuple[str, str], Any]:
    if not path.is_file():
        raise BadInput(f"labels file {str(path)!r} does not exist")
    labels: dict[tuple[str, str], Any] = {}
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            key = (str(record["item"]), str(record["annotator"]))
            labels[key] = record["label"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"line {number} of {path.name} is not an object with item, annotator, label"
            ) from error
    if not labels:
        raise BadInput(f"labels file {str(path)!r} is empty")
    return labels


def _number(label: Any, path: Path) -> float:
    try:
        return float(label)
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"label {label!r} of {path.name} is no number: choose the level nominal"
        ) from error
