"""From a trained adapter directory to one that may serve: verify, export, probe, register."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.session import Database
from app.db.tables import Adapter
from app.errors import BadInput
from app.models.service import BaseModel
from tuning.adapters import verify
from tuning.gguf_export import export_gguf

_PROBE_SECONDS = 180


@dataclass(frozen=True, slots=True)
class Owner:
    """What an adapter is called and whom it belongs to; the shipped reader belongs to nobody."""

    name: str
    workspace_id: str | None = None
    use_case_id: str | None = None
    dataset_id: str | None = None


def admit(
    database: Database,
    base: BaseModel,
    directory: Path,
    root: Path,
    owner: Owner,
) -> Adapter:
    """Register an adapter after it loaded and answered in a process of its own.

    Admitting the same adapter twice gives the same row.

    Raises:
        BadInput: It does not load or does not answer; nothing is registered.
    """
    manifest = verify(directory, base_digest=base.sha256, base_folder=base.hf)
    gguf = root / "adapters" / "gguf" / f"{manifest.digest}.gguf"
    if not gguf.is_file():
        gguf.parent.mkdir(parents=True, exist_ok=True)
        export_gguf(directory, base.hf, gguf)
    with database.session() as session:
        found = _find(session, manifest.digest, owner.workspace_id)
        if found is not None:
            found.path, found.gguf_path = str(directory), str(gguf)
            return found
    smoke = probe(base, gguf) if base.gguf else {"skipped": "no llama.cpp file of this base model"}
    record = asdict(manifest) | {"smoke": smoke}
    with database.session() as session:
        adapter = Adapter(
            workspace_id=owner.workspace_id,
            use_case_id=owner.use_case_id,
            name=owner.name,
            digest=manifest.digest,
            path=str(directory),
            gguf_path=str(gguf),
            base_sha256=base.sha256,
            parent_digest=manifest.start_from,
            dataset_id=owner.dataset_id,
            manifest=record,
        )
        session.add(adapter)
        session.flush()
    return adapter


def probe(base: BaseModel, gguf: Path) -> dict[str, Any]:
    """Load base and adapter in a fresh process and answer the smoke prompts there."""
    command = [sys.executable, "-m", "app.engines.probe", str(base.gguf), str(gguf), base.hf]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BadInput(f"the adapter did not answer within {_PROBE_SECONDS} s") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BadInput(f"the adapter is refused, its probe failed: {reason}")
    smoke: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return smoke


def list_all(session: Session, workspace_id: str) -> list[dict[str, Any]]:
    """The workspace's adapters and the shipped reader, newest first."""
    mine = sa.or_(Adapter.workspace_id == workspace_id, Adapter.workspace_id.is_(None))
    query = sa.select(Adapter).where(mine).order_by(Adapter.created_at.desc())
    return [
        {
            "id": adapter.id,
            "name": adapter.name,
            "digest": adapter.digest,
            "shipped": adapter.workspace_id is None,
            "rank": adapter.manifest.get("rank"),
            "dataset": adapter.dataset_id,
            "parent": adapter.parent_digest,
            "created_at": adapter.created_at.isoformat(),
        }
        for adapter in session.scalars(query)
    ]


def _find(session: Session, digest: str, workspace_id: str | None) -> Adapter | None:
    same = (
        Adapter.workspace_id.is_(None)
        if workspace_id is None
        else Adapter.workspace_id == workspace_id
    )
    return session.scalar(sa.select(Adapter).where(Adapter.digest == digest, same))
