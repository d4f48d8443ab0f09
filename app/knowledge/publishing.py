"""From parsed documents to visible versions, exactly once.

Store the versions unseen, write and flush their vectors, then one SQL flip shows them and retires
the ones before. Killed anywhere, the same call repeats the same ids. The retired versions' vectors
move to the shard of the past, which only `as_of` searches read.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from app.db.base import now
from app.db.session import Database
from app.db.tables import Chunk, Document, DocumentVersion, KnowledgeBase
from app.knowledge import repository
from app.knowledge.indexes import KnowledgeIndex, KnowledgeIndexes, live_scope, past_scope
from retrieval.ingestion import DocumentVersion as PreparedVersion
from retrieval.ingestion import PreparedDocument, prepare_documents
from retrieval.types import ParsedDocument, Scope

VERSION_NAMESPACE = uuid.UUID("5f0c4f0e-52f4-4b67-9a5e-1f7ab1d7d0b3")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one document.

    `outcome`: added, changed, unchanged, moved, deleted, scheduled, skipped or failed.
    """

    document: str
    outcome: str
    reason: str = ""
    chunks: int = 0
    embedded: int = 0


@dataclass(frozen=True, slots=True)
class Pending:
    """A document that was read and is to become a version.

    `groups` and `attributes` None leave what the document has.
    """

    document: Document
    parsed: ParsedDocument
    digest: str
    previous: str | None
    number: int
    version_id: str
    valid_from: datetime | None = None
    groups: tuple[str, ...] | None = None
    attributes: Mapping[str, str] | None = field(default=None)
    moved_from: str | None = None


def publish(
    database: Database, indexes: KnowledgeIndexes, kb: KnowledgeBase, pending: Sequence[Pending]
) -> dict[str, Outcome]:
    """Make every pending document its document's visible version: outcomes by external id.

    A version whose `valid_from` lies ahead is indexed, but shown only then.
    """
    if not pending:
        return {}
    with database.session() as session:
        kb = session.get_one(KnowledgeBase, kb.id)
    knowledge = indexes.of(kb)
    prepared = _prepare(knowledge, kb, pending)
    _store(database, kb, pending, prepared)
    with indexes.writing(kb.id):
        # A change of the embedding model may have switched the shard while this was embedding.
        with database.session() as session:
            serving = session.get_one(KnowledgeBase, kb.id)
        if serving.index_name != kb.index_name:
            kb, knowledge = serving, indexes.of(serving)
            prepared = _prepare(knowledge, kb, pending)
            _store(database, kb, pending, prepared)
        points = (point for made in prepared for point in made.points)
        knowledge.index.upsert(replace(p, knowledge_base_id=kb.index_name) for p in points)
        knowledge.index.flush()
        shown = _show(database, pending)
        for item in pending:
            if item.version_id not in shown:
                knowledge.index.delete_version(live_scope(kb), item.version_id)
        move_to_past(knowledge, kb, [version_id for version_id in shown.values() if version_id])
    return {
        item.document.external_id: _outcome(item, made, shown)
        for item, made in zip(pending, prepared, strict=True)
    }


def move_to_past(knowledge: KnowledgeIndex, kb: KnowledgeBase, version_ids: Sequence[str]) -> None:
    """Take retired versions' vectors out of the serving shard and keep them in the past's."""
    if not version_ids:
        return
    live, past = live_scope(kb), past_scope(kb)
    chunks = (c for v in version_ids for c in knowledge.index.chunks_of_version(live, v))
    knowledge.index.upsert(replace(c, knowledge_base_id=past.knowledge_base_id) for c in chunks)
    knowledge.index.flush()
    for version_id in version_ids:
        knowledge.index.delete_version(live, version_id)
    knowledge.index.flush()


def document_id_for(kb_id: str, external_id: str) -> str:
    """The id of a new document, the same on every try."""
    return str(uuid.uuid5(VERSION_NAMESPACE, f"{kb_id}\x1f{external_id}"))


def version_id_for(document_id: str, number: int, digest: str) -> str:
    """The id of a version, the same on every try."""
    return str(uuid.uuid5(VERSION_NAMESPACE, f"{document_id}\x1f{number}\x1f{digest}"))


def _prepare(
    knowledge: KnowledgeIndex, kb: KnowledgeBase, pending: Sequence[Pending]
) -> list[PreparedDocument]:
    live = live_scope(kb)
    versions = [
        PreparedVersion(
            item.parsed,
            item.document.id,
            item.version_id,
            knowledge.index.stored_vectors(live, item.document.id) if item.previous else {},
        )
        for item in pending
    ]
    # Chunk ids come from the knowledge base, not from the shard it is served from at present.
    own = Scope(live.workspace_id, kb.id)
    return list(prepare_documents(versions, knowledge.embedder, own, options=knowledge.chunking))


def _store(
    database: Database,
    kb: KnowledgeBase,
    pending: Sequence[Pending],
    prepared: Sequence[PreparedDocument],
) -> None:
    with database.session() as session:
        for item, made in zip(pending, prepared, strict=True):
            if session.get(Document, item.document.id) is None:
                session.add(item.document)
                session.flush()
            repository.add_pending_version(session, _version_row(kb, item), _chunk_rows(made))


def _show(database: Database, pending: Sequence[Pending]) -> dict[str, str | None]:
    """The flip: versions now visible or scheduled, each with the version it retired.

    A document that was deleted while it was being read stays deleted.
    """
    retired: dict[str, str | None] = {}
    with database.session() as session:
        for item in pending:
            document = session.get_one(Document, item.document.id)
            if document.deleted_at != item.document.deleted_at:
                repository.purge_version(session, item.version_id)
                continue
            if item.attributes is not None:
                document.attributes = dict(item.attributes)
            if item.groups is not None:
                repository.set_groups(session, document, item.groups)
            retired[item.version_id] = repository.make_visible(session, item.version_id)
    return retired


def _outcome(item: Pending, made: PreparedDocument, shown: Mapping[str, str | None]) -> Outcome:
    name = item.document.external_id
    if item.version_id not in shown:
        return Outcome(name, "skipped", f"{name!r} was deleted while it was being read")
    if item.valid_from is not None and item.valid_from > now():
        reason = f"valid from {item.valid_from.isoformat()}"
        return Outcome(name, "scheduled", reason, len(made.chunks), made.n_embedded)
    if item.moved_from is not None:
        reason = f"from {item.moved_from}"
        return Outcome(name, "moved", reason, len(made.chunks), made.n_embedded)
    kind = "changed" if shown[item.version_id] else "added"
    return Outcome(name, kind, "", len(made.chunks), made.n_embedded)


def _version_row(kb: KnowledgeBase, item: Pending) -> DocumentVersion:
    return DocumentVersion(
        id=item.version_id,
        workspace_id=kb.workspace_id,
        knowledge_base_id=kb.id,
        document_id=item.document.id,
        number=item.number,
        content_sha256=item.digest,
        title=item.parsed.title or item.document.external_id,
        media_type=item.parsed.media_type,
        state="pending",
        supersedes_id=item.previous,
        valid_from=item.valid_from or now(),
        created_at=now(),
    )


def _chunk_rows(prepared: PreparedDocument) -> list[Chunk]:
    made: list[Any] = [
        Chunk(
            id=point.chunk_id,
            version_id=point.version_id,
            document_id=point.document_id,
            ordinal=chunk.ordinal,
            text=chunk.text,
            heading_path=list(chunk.heading_path),
            page_start=chunk.page_start,
            page_end=chunk.page_end,
            start_char=chunk.start_char,
            end_char=chunk.end_char,
            n_tokens=chunk.n_tokens,
            content_sha256=chunk.content_hash,
        )
        for chunk, point in zip(prepared.chunks, prepared.points, strict=True)
    ]
    return made
