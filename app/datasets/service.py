"""Ground approved examples in the knowledge base, check them, and seal them into a snapshot."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.datasets import repository
from app.datasets.building import BuildOptions, Draft, Tools, check, place, replay_rows
from app.datasets.preferences import Preference, make_preferences
from app.datasets.rows import Knowledge, make_rows
from app.datasets.signing import signing_key
from app.db.session import Database
from app.db.tables import DatasetSnapshot, UseCase
from app.errors import BadInput, NotFound
from app.use_cases import service as use_cases
from app.workspaces.policy import Principal
from tuning.dataset_card import render_dataset_card
from tuning.dataset_flags import find_flags
from tuning.errors import SnapshotError
from tuning.snapshot import (
    Extras,
    Row,
    SnapshotManifest,
    load,
    load_findings,
    load_pairs,
    load_ratings,
    seal,
    verify,
)
from tuning.snapshot_diff import SnapshotDiff, diff

_DATASETS = "datasets"


def build(
    database: Database,
    principal: Principal,
    use_case_name: str,
    tools: Tools,
    root: Path,
    options: BuildOptions | None = None,
) -> DatasetSnapshot:
    """Seal all approved examples of a use case, each with its passages, into a snapshot.

    The same examples over the same knowledge give the same snapshot.

    Raises:
        BadInput: If the use case has no approved examples, or none is left after the checks.
    """
    options = options or BuildOptions()
    with database.session() as session:
        use_case = use_cases.get(session, principal.workspace_id, use_case_name)
        examples = repository.approved_examples(session, use_case)
        if not examples:
            raise BadInput(
                f"use case {use_case_name!r} has no approved examples: "
                "`tandem dataset build USE_CASE --from FILE` imports some"
            )
        sources = {source for example in examples for source in example.sources}
        knowledge = Knowledge(
            repository.current_passages(session, use_case),
            repository.retired_passages(session, use_case, sources),
            repository.served_passages(session, examples),
            tools.search,
        )
        rated = repository.rated_answers(session, use_case)
        traffic = repository.asked_questions(session, use_case)
    draft = check(make_rows(examples, knowledge, use_case), options, tools, traffic)
    if not draft.rows:
        reasons = "; ".join(entry["reason"] for entry in draft.made.refused[:3])
        raise BadInput(f"no example of {use_case_name!r} is usable: {reasons}")
    preferences = make_preferences(rated, use_case, principal, ratings=options.ratings)
    with database.session() as session:
        asked = {row["id"]: row["question"] for row in draft.rows}
        asked |= {preference.item.id: preference.item.question for preference in preferences}
        pinned = repository.held_out(session, use_case, asked)
    result = place(draft, options, pinned, [preference.item for preference in preferences])
    trained = [p for p in preferences if result.split[p.item.id] == "train"]
    return _store(database, principal, use_case, _sealed(draft, trained, use_case, options, root))


def find(session: Session, workspace_id: str, snapshot: str) -> DatasetSnapshot:
    """By id or content hash (or a prefix of 8 characters or more)."""
    mine = DatasetSnapshot.workspace_id == workspace_id
    same = [DatasetSnapshot.id == snapshot]
    if len(snapshot) >= 8:
        same.append(DatasetSnapshot.content_sha256.startswith(snapshot, autoescape=True))
    found = session.scalars(sa.select(DatasetSnapshot).where(mine, sa.or_(*same))).first()
    if found is None:
        query = sa.select(DatasetSnapshot.content_sha256).where(mine)
        known = ", ".join(sha[:12] for sha in session.scalars(query)) or "none yet"
        raise NotFound(f"no dataset {snapshot!r}: there are {known}")
    return found


def list_all(session: Session, workspace_id: str) -> list[dict[str, Any]]:
    """Snapshots of a workspace, newest first; their files are not read."""
    query = (
        sa.select(DatasetSnapshot, UseCase.name)
        .join(UseCase, UseCase.id == DatasetSnapshot.use_case_id)
        .where(DatasetSnapshot.workspace_id == workspace_id)
        .order_by(DatasetSnapshot.created_at.desc(), DatasetSnapshot.id)
    )
    return [
        {
            "id": snapshot.id,
            "content_sha256": snapshot.content_sha256,
            "use_case": name,
            "rows": snapshot.manifest.get("rows"),
            "created_by": snapshot.created_by,
            "created_at": snapshot.created_at.isoformat(),
        }
        for snapshot, name in session.execute(query)
    ]


def show(snapshot: DatasetSnapshot, root: Path | None = None) -> dict[str, Any]:
    """Manifest and counts, after every byte (and, given the root, the signature) was checked."""
    manifest = checked(snapshot, root)
    return {
        "id": snapshot.id,
        "content_sha256": manifest.id,
        "path": snapshot.path,
        "rows": manifest.rows,
        "splits": manifest.counts,
        "pairs": len(load_pairs(snapshot.path)),
        "ratings": len(load_ratings(snapshot.path)),
        "audit": manifest.audit,
        "quality": manifest.quality,
        "provenance": manifest.provenance,
        "verified": True,
        "signed": manifest.signature is not None,
    }


def checked(snapshot: DatasetSnapshot, root: Path | None = None) -> SnapshotManifest:
    """Its manifest, after every byte, the id and (given the root) the signature were checked.

    Raises:
        SnapshotError: If anything changed, or the folder holds another snapshot or schema now.
    """
    manifest = verify(snapshot.path, key=signing_key(root) if root else None)
    if manifest.id != snapshot.content_sha256:
        wanted = snapshot.content_sha256[:12]
        raise SnapshotError(f"{snapshot.path!r} holds dataset {manifest.id[:12]}, not {wanted}")
    # An older schema has no signature to check.
    if manifest.schema < snapshot.manifest.get("schema", 1):
        raise SnapshotError(f"the manifest of {snapshot.path!r} lost its signature")
    return manifest


def card(snapshot: DatasetSnapshot) -> tuple[str, list[dict[str, Any]]]:
    """The snapshot's card as one self-contained HTML page, and the faults it flags."""
    loaded = load(snapshot.path)
    flags = [asdict(flag) for flag in find_flags(loaded.manifest)]
    return render_dataset_card(loaded, load_findings(snapshot.path)), flags


def compare(before: DatasetSnapshot, after: DatasetSnapshot) -> SnapshotDiff:
    """What changed from one snapshot to the other."""
    return diff(before.path, after.path)


def _sealed(
    draft: Draft,
    preferences: Sequence[Preference],
    use_case: UseCase,
    options: BuildOptions,
    root: Path,
) -> tuple[Path, SnapshotManifest]:
    training = sum(row["split"] == "train" for row in draft.rows)
    rows = [*draft.rows, *replay_rows(options, training)]
    asked = asdict(options) | {"replay": options.replay.name if options.replay else None}
    provenance = {"use_case": use_case.name, "refused": draft.made.refused, "options": asked}
    report = draft.report
    extras = Extras(
        pairs=tuple(p.pair for p in preferences if p.pair is not None),
        ratings=tuple(p.rating for p in preferences if p.rating is not None),
        findings=tuple(asdict(row) for row in report.rows) if report else (),
        quality=report.summary() if report else {},
    )
    folder = root / _DATASETS
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".sealing-"))
    try:
        manifest = seal(
            rows,
            scratch / "snapshot",
            provenance=provenance,
            audit=draft.audit,
            extras=extras,
            key=signing_key(root),
        )
        target = folder / manifest.id
        if not target.exists():
            os.replace(scratch / "snapshot", target)
        return target, manifest
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _store(
    database: Database,
    principal: Principal,
    use_case: UseCase,
    sealed: tuple[Path, SnapshotManifest],
) -> DatasetSnapshot:
    folder, manifest = sealed
    rows: tuple[Row, ...] = load(folder).rows
    with database.session() as session:
        stored = session.scalar(
            sa.select(DatasetSnapshot).where(
                DatasetSnapshot.use_case_id == use_case.id,
                DatasetSnapshot.content_sha256 == manifest.id,
            )
        )
        if stored is None:
            stored = DatasetSnapshot(
                workspace_id=principal.workspace_id,
                use_case_id=use_case.id,
                content_sha256=manifest.id,
                path=str(folder),
                manifest=asdict(manifest),
                created_by=principal.name,
            )
            session.add(stored)
            session.flush()
        repository.remember_held_out(session, stored, rows)
    return stored
