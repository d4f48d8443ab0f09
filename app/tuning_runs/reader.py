"""The reader adapter that ships with Tandem, admitted once per data directory."""

from __future__ import annotations

from pathlib import Path

import structlog

import tuning.reader
from app.db.session import Database
from app.models.service import BaseModel
from app.tuning_runs.adapters import Owner, admit
from tuning.adapters import read_manifest

log = structlog.get_logger(__name__)

FOLDER = Path(tuning.reader.__file__).parent / "adapter"


def ensure(database: Database, base: BaseModel, root: Path) -> str | None:
    """Digest of the shipped reader, ready to serve; None when it is for another base model."""
    if not (FOLDER / "manifest.json").is_file():
        return None
    manifest = read_manifest(FOLDER)
    if manifest.base_digest != base.sha256:
        log.warning("reader_not_for_this_base", base=base.name)
        return None
    return admit(database, base, FOLDER, root, Owner("reader")).digest
