"""From a trained adapter directory to one that may serve: verify, export, probe, register."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from app.datasets.signing import signing_key
from app.db.session import Database
from app.db.tables import Adapter
from app.errors import BadInput
from app.models.service import BaseModel
from tuning.adapter_signature import Signature, sign, signature_state
from tuning.adapters import AdapterManifest, read_manifest, verify
from tuning.gguf_export import export_gguf
from tuning.methods import LLAMACPP, served_by

log = structlog.get_logger(__name__)

_PROBE_SECONDS = 180
_HEADERS_BYTES = 1 << 20


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
    """Register an adapter after it loaded and answered in a process of its own, and sign it.

    Admitting the same adapter twice gives the same row.

    Raises:
        BadInput: It does not load or does not answer; nothing is registered.
    """
    check_size(directory, base)
    # A Hugging Face id has no folder to compare shapes with; its probe compares them.
    folder = base.hf if Path(base.hf).is_dir() else None
    manifest = verify(directory, base_digest=base.sha256, base_folder=folder)
    gguf = root / "adapters" / "gguf" / f"{manifest.digest}.gguf"
    for_llamacpp = base.gguf is not None and served_by(manifest.method, LLAMACPP)
    if for_llamacpp and not gguf.is_file():
        gguf.parent.mkdir(parents=True, exist_ok=True)
        export_gguf(directory, base.hf, gguf)
    with database.session() as session:
        found = _find(session, manifest.digest, owner.workspace_id)
        if found is not None:
            found.path, found.gguf_path = str(directory), str(gguf)
            if _as_admitted(found, manifest):
                _sign(directory, root)
            return found
    smoke = probe(base, gguf if for_llamacpp else directory)
    if owner.workspace_id is not None:
        _sign(directory, root)
    record = asdict(read_manifest(directory)) | {"smoke": smoke}
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


def admit_copy(
    database: Database, base: BaseModel, directory: Path, root: Path, owner: Owner
) -> Adapter:
    """Admit an adapter that lies elsewhere: a copy of it serves, the original stays as it is.

    Raises:
        BadInput: As `admit`.
    """
    check_size(directory, base)
    digest = verify(directory, base_digest=base.sha256).digest
    kept = root / "adapters" / "imported" / digest
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        # Under another name first: a copy cut off half-way must not be taken for the adapter.
        scratch = Path(tempfile.mkdtemp(prefix=".copy-", dir=kept.parent))
        try:
            shutil.copytree(directory, scratch / "adapter")
            (scratch / "adapter").replace(kept)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return admit(database, base, kept, root, owner)


def signature_of(adapter: Adapter, root: Path) -> Signature:
    """Whether an adapter's manifest carries this installation's signature.

    One that was signed when it was admitted and is not any more counts as forged.
    """
    state = signature_state(adapter.path, signing_key(root))
    lost = state == "unsigned" and adapter.manifest.get("signature") is not None
    return "forged" if lost else state


def _sign(directory: Path, root: Path) -> None:
    try:
        sign(directory, signing_key(root))
    except PermissionError:
        # A directory lent for reading serves as well; `adapters verify` says it is unsigned.
        log.warning("adapter_not_signed", path=str(directory))


def _as_admitted(adapter: Adapter, manifest: AdapterManifest) -> bool:
    """Whether a directory offered again says what was admitted, checks made since apart."""
    if adapter.workspace_id is None or manifest.signature is not None:
        return False
    now = asdict(manifest)
    later = ("smoke", "checks", "signature")
    return all(now.get(k) == v for k, v in adapter.manifest.items() if k not in later)


def check_size(directory: Path, base: BaseModel) -> None:
    """Refuse an adapter larger than its base, before any of it is read.

    Raises:
        BadInput: With both sizes.
    """
    if not Path(base.hf).is_dir():
        return
    whole = sum(file.stat().st_size for file in Path(base.hf).glob("*.safetensors"))
    tensors = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    # A fully tuned model kept in float32 is twice its bfloat16 base.
    if tensors > 2 * whole + _HEADERS_BYTES:
        raise BadInput(
            f"the adapter is refused: its tensors take {tensors >> 20} MiB, the base model's "
            f"{whole >> 20} MiB"
        )


def probe(base: BaseModel, adapter: Path) -> dict[str, Any]:
    """Load base and adapter in a fresh process and answer the smoke prompts there.

    A GGUF file is probed by llama.cpp, a directory by transformers.

    Raises:
        BadInput: With the probe's reason.
    """
    model = base.hf if adapter.is_dir() else str(base.gguf)
    command = [sys.executable, "-m", "app.engines.probe", model, str(adapter), base.hf]
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
            "stage": None if adapter.workspace_id is None else adapter.stage,
            "method": adapter.manifest.get("method", "lora"),
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
