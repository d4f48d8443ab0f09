"""What the database knows about an evaluation beside its samples and outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.tables import Adapter, DatasetSnapshot, Evaluation, Look, UseCase
from app.errors import BadInput, NotFound
from app.evaluations import looks
from evals.analysis import Known
from evals.costs import Rates
from evals.errors import EvalError
from evals.runner import read_outputs
from evals.samples import load_samples
from tuning.adapters import read_manifest
from tuning.errors import AdapterError, SnapshotError
from tuning.snapshot import load as load_snapshot

JUDGED = "judge.json"
_Verdicts = dict[tuple[str, str], bool]


def judged_of(folder: Path) -> tuple[_Verdicts, _Verdicts]:
    """A judge's verdicts and people's labels by (arm, sample id); empty if nobody judged."""
    path = folder / JUDGED
    if not path.is_file():
        return {}, {}
    kept = json.loads(path.read_text("utf-8"))
    verdicts, labels = (
        {(row["arm"], row["id"]): bool(row["good"]) for row in kept[name]}
        for name in ("verdicts", "labels")
    )
    return verdicts, labels


def known_of(session: Session, evaluation: Evaluation, use_case: UseCase, look: Look) -> Known:
    """Training rows of the adapters, prices, the run before a change, earlier uses."""
    payload = evaluation.manifest
    costs = payload.get("costs") or {}
    verdicts, labels = judged_of(Path(evaluation.path))
    return Known(
        verdicts=verdicts,
        labels=labels,
        forgetting=_forgetting(session, payload["arms"]),
        adapters=_adapters(session, payload["arms"]),
        training=_training(session, payload["arms"]),
        earlier=_earlier(session, evaluation, payload.get("before")),
        rates=rates_from(costs),
        fixed_costs=costs.get("once", {}),
        answers_per_training=int(costs.get("answers_per_training", 100_000)),
        json_schema=use_case.options.get("json_schema"),
        task=payload.get("task"),
        earlier_uses=looks.uses_before(session, evaluation, look),
    )


def rates_from(costs: dict[str, Any]) -> Rates | None:
    """Prices of a request; None when none were given.

    Raises:
        BadInput: Naming the unknown field or the value.
    """
    prices = ("per_machine_hour", "per_million_in", "per_million_out", "currency")
    valid = (*prices, "once", "answers_per_training")
    unknown = sorted(set(costs) - set(valid))
    if unknown:
        raise BadInput(f"unknown cost {unknown[0]!r}: valid are {', '.join(valid)}")
    try:
        return Rates(**{name: costs[name] for name in prices if name in costs}) if costs else None
    except (EvalError, TypeError) as error:
        raise BadInput(f"costs cannot be read: {error}") from error


def find_earlier(session: Session, workspace_id: str, evaluation_id: str) -> Evaluation:
    """The finished run that another is compared with.

    Raises:
        NotFound: If there is none of that id in the workspace.
    """
    found = session.get(Evaluation, evaluation_id)
    if found is None or found.workspace_id != workspace_id or not found.summary:
        raise NotFound(f"no finished evaluation {evaluation_id!r} in this workspace")
    return found


def _earlier(session: Session, evaluation: Evaluation, before: str | None) -> Any:
    if before is None:
        return None
    folder = Path(find_earlier(session, evaluation.workspace_id, before).path)
    return load_samples(folder / "samples.jsonl"), read_outputs(folder / "outputs.jsonl")


def _adapters(session: Session, arms: list[dict[str, Any]]) -> dict[str, str]:
    """Name and digest of the adapters of the arms, by id."""
    names = {spec["adapter"] for spec in arms if spec.get("adapter")}
    found = (session.get(Adapter, name) for name in sorted(names))
    return {row.id: f"adapter {row.name}, digest {row.digest[:12]}" for row in found if row}


def _forgetting(session: Session, arms: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What `tandem adapters check` found about general knowledge, by arm."""
    found: dict[str, dict[str, Any]] = {}
    for spec in arms:
        adapter = session.get(Adapter, spec["adapter"]) if spec.get("adapter") else None
        try:
            checks = read_manifest(adapter.path).checks if adapter else {}
        except AdapterError:  # `tandem adapters verify` says what is wrong with it
            continue
        if checks.get("forgetting"):
            found[spec["name"]] = checks["forgetting"]
    return found


def _training(session: Session, arms: list[dict[str, Any]]) -> list[str]:
    """Questions and replies that the adapters of the arms were trained on.

    A snapshot that cannot be read gives none: `tandem dataset verify` says why.
    """
    names = sorted({spec["adapter"] for spec in arms if spec.get("adapter")})
    query = (
        sa.select(DatasetSnapshot.path)
        .join(Adapter, Adapter.dataset_id == DatasetSnapshot.id)
        .where(Adapter.id.in_(names))
        .order_by(DatasetSnapshot.path)
    )
    texts: list[str] = []
    for path in session.scalars(query):
        try:
            rows = load_snapshot(path).rows
        except SnapshotError:
            continue
        for row in rows:
            if row["split"] == "train":
                texts += [row["question"], row["answer"]]
    return texts
