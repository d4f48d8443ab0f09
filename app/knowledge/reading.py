"""From a source's file to a document version in waiting, or to the reason why there is none."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.session import Database
from app.db.tables import Document, DocumentVersion, KnowledgeBase
from app.knowledge import repository
from app.knowledge.publishing import Outcome, Pending, document_id_for, version_id_for
from app.knowledge.sources.types import FoundDocument
from retrieval.errors import DocumentError, UnsupportedFormat
from retrieval.parsing import ParseLimits, parse_file

_HASHED_BYTES = 1 << 16


def read_source(
    database: Database,
    kb: KnowledgeBase,
    source: FoundDocument,
    *,
    moved_from: str | None = None,
    limits: ParseLimits | None = None,
) -> Outcome | Pending:
    """Parse a source unless its content is what answers come from already.

    Args:
        database: the application database.
        kb: where the document belongs.
        source: the document's file and lasting name.
        moved_from: its name until now, when it was moved.
        limits: what parsing may cost.
    """
    if source.path is None:
        outcome = "failed" if source.named else "skipped"
        return Outcome(source.external_id, outcome, source.problem or "there is nothing to read")
    try:
        digest = sha256_of(source.path)
        with database.session() as session:
            document, current = _document(session, kb, source.external_id)
            same = current is not None and current.content_sha256 == digest
            if same and moved_from is None:
                return _unchanged(session, document, source)
            number = _next_number(session, document.id, digest)
        parsed = parse_file(source.path, limits, name=source.name or source.external_id)
    except UnsupportedFormat as error:
        outcome = "failed" if source.named else "skipped"
        return Outcome(source.external_id, outcome, str(error))
    except (DocumentError, FileNotFoundError, PermissionError) as error:
        return Outcome(source.external_id, "failed", str(error))
    title = parsed.title or source.external_id
    if same and current is not None and current.title == title:
        return Outcome(source.external_id, "moved", f"from {moved_from}")
    return Pending(
        document=document,
        parsed=parsed,
        digest=digest,
        previous=document.current_version_id,
        number=number,
        version_id=version_id_for(document.id, number, digest),
        valid_from=datetime.fromisoformat(source.valid_from) if source.valid_from else None,
        groups=source.groups,
        attributes=source.metadata or None,
        moved_from=moved_from,
    )


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    # Most files are one small block; `hashlib.file_digest` clears 256 KiB for each of them.
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_HASHED_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _unchanged(session: Session, document: Document, source: FoundDocument) -> Outcome:
    """The content stays; groups and attributes are brought up to date."""
    if source.groups is not None:
        repository.set_groups(session, document, source.groups)
    if source.metadata and document.attributes != dict(source.metadata):
        document.attributes = dict(source.metadata)
    return Outcome(source.external_id, "unchanged")


def _document(
    session: Session, kb: KnowledgeBase, external_id: str
) -> tuple[Document, DocumentVersion | None]:
    """The document, made but not stored when it is new, and the version it is answered from."""
    document = repository.find_document(session, kb, external_id)
    if document is None:
        made = Document(
            id=document_id_for(kb.id, external_id),
            workspace_id=kb.workspace_id,
            knowledge_base_id=kb.id,
            external_id=external_id,
            title=external_id,
            former_ids=[],
            attributes={},
        )
        return made, None
    if document.deleted_at is not None or document.current_version_id is None:
        return document, None
    return document, session.get(DocumentVersion, document.current_version_id)


def _next_number(session: Session, document_id: str, digest: str) -> int:
    """The number of a version an interrupted run left pending, else the next one."""
    newest = session.scalar(
        sa.select(DocumentVersion)
        .where(DocumentVersion.document_id == document_id)
        .order_by(DocumentVersion.number.desc())
        .limit(1)
    )
    if newest is None:
        return 1
    left_pending = newest.state == "pending" and newest.content_sha256 == digest
    return int(newest.number) + (not left_pending)
