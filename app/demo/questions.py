"""Which of the sample questions the demo asks, and how an answer after the update is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evals.metrics.answers import normalise_answer, strip_citations
from evals.metrics.values import extract_values, unsupported_values

KINDS = {"answerable": 30, "changed": 24, "unanswerable": 10, "style": 10}


def read(path: Path) -> list[dict[str, Any]]:
    """Questions of the samples file, with their second version's answers."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def chosen(rows: list[dict[str, Any]], *, quick: bool = False) -> list[dict[str, Any]]:
    """An even spread over each kind; questions on the pages that come or go are left out."""
    picked = []
    for kind, full in KINDS.items():
        wanted = full // 6 if quick else full
        of_kind = [
            row
            for row in rows
            if row["tags"][0] == kind and not {"removed", "added"} & set(row["tags"])
        ]
        n = min(wanted, len(of_kind))
        picked += [of_kind[i * len(of_kind) // n] for i in range(n)]
    return picked


def as_sample(row: dict[str, Any]) -> dict[str, Any]:
    """The row in the samples format, as of the first version."""
    kept = {key: row[key] for key in ("id", "question", "answers", "gold", "tags")}
    # Unanswerable questions do not depend on each other.
    kept["cluster"] = row["cluster"] if row["answers"] else None
    return kept


def verdict(row: dict[str, Any], text: str, version: str) -> str:
    """`right`, `stale` (the other version's value) or `other`, for one changed question."""
    said = f" {normalise_answer(strip_citations(text))} "
    now, before = row["value"], row["value_v2"]
    if version == "v2":
        now, before = before, now
    if _says(said, now):
        return "right"
    return "stale" if _says(said, before) else "other"


def _says(said: str, value: str) -> bool:
    """The value word for word, or all its numbers with their units."""
    if f" {normalise_answer(value)} " in said:
        return True
    return bool(extract_values(value)) and not unsupported_values(value, [said])
