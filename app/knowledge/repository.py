"""SQL of knowledge bases, documents, versions and chunks. Every query names the workspace."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.base import now
from app.db.tables import Chunk, Document, DocumentVersion, KnowledgeBase
from app.errors import NotFound


def find_knowledge_base(session: Session, workspace_id: str, name: str) -> KnowledgeBase:
    """By name (or id), with the valid names in the error."""
    query = sa.select(KnowledgeBase).where(KnowledgeBase.workspace_id == workspace_id)
    bases = list(session.scalars(query.order_by(KnowledgeBase.name)))
    for kb in bases:
        if name in (kb.name, kb.id):
            return kb
    known = ", ".join(kb.name for kb in bases) or "none yet"
    raise NotFound(f"no knowledge base {name!r}: there are {known}")


def find_document(session: Session, kb: KnowledgeBase, external_id: str) -> Document | None:
    """A document by its external id, deleted ones too."""
    return session.scalar(
        sa.select(Document).where(
            Document.workspace_id == kb.workspace_id,
            Document.knowledge_base_id == kb.id,
            Document.external_id == external_id,
        )
    )


def live_documents(session: Session, kb: KnowledgeBase) -> list[Document]:
    """Documents that answers may come from, by external id."""
    query = sa.select(Document).where(
        Document.workspace_id == kb.workspace_id,
        Document.knowledge_base_id == kb.id,
        Document.deleted_at.is_(None),
        Document.current_version_id.is_not(None),
    )
    return list(session.scalars(query.order_by(Document.external_id)))


def visible_versions(
    session: Session, workspace_id: str, version_ids: Sequence[str], without: Sequence[str] = ()
) -> set[str]:
    """Those of the versions that answers may come from now, but for documents in `without`."""
    if not version_ids:
        return set()
    query = (
        sa.select(DocumentVersion.id)
        .join(Document, Document.current_version_id == DocumentVersion.id)
        .where(
            DocumentVersion.workspace_id == workspace_id,
            DocumentVersion.id.in_(version_ids),
            DocumentVersion.state == "visible",
            Document.deleted_at.is_(None),
        )
    )
    if without:
        query = query.where(Document.external_id.not_in(without))
    return set(session.scalars(query))


def add_pending_version(session: Session, version: DocumentVersion, chunks: list[Chunk]) -> None:
    """Store a version nobody sees yet; what an interrupted run left of it is replaced."""
    session.execute(sa.delete(Chunk).where(Chunk.version_id == version.id))
    session.merge(version)
    session.flush()
    session.add_all(chunks)
    session.flush()


def make_visible(session: Session, version_id: str) -> str | None:
    """The one flip: the version is answered from, the one before it no more.

    Returns:
        The id of the version retired by it, if there was one.
    """
    version = session.get_one(DocumentVersion, version_id)
    document = session.get_one(Document, version.document_id)
    moment = now()
    retired = None
    if document.current_version_id and document.current_version_id != version.id:
        retired = document.current_version_id
        retire(session, retired, max(moment, version.valid_from))
    version.state = "visible"
    document.current_version_id = version.id
    document.title = version.title
    document.deleted_at = None
    session.flush()
    return retired


def retire(session: Session, version_id: str, moment: datetime) -> None:
    """The version is history from `moment` on."""
    session.execute(
        sa.update(DocumentVersion)
        .where(DocumentVersion.id == version_id)
        .values(state="retired", valid_to=moment)
    )


def delete_document(session: Session, document: Document) -> None:
    """The tombstone: from its commit on nothing of the document is answered from."""
    moment = now()
    if document.current_version_id:
        retire(session, document.current_version_id, moment)
    document.current_version_id = None
    document.deleted_at = moment
    session.add(document)
    session.flush()


def chunks_of(session: Session, version_id: str) -> list[Chunk]:
    """Chunks of a version in document order."""
    query = sa.select(Chunk).where(Chunk.version_id == version_id)
    return list(session.scalars(query.order_by(Chunk.ordinal)))
