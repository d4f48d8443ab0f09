"""What people do with knowledge bases: create, list, search, delete, rebuild the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from app.db.session import Database
from app.db.tables import Chunk, Document, DocumentVersion, KnowledgeBase
from app.errors import Conflict, NotFound
from app.knowledge import repository
from app.knowledge.indexes import KnowledgeIndex, KnowledgeIndexes, live_scope, past_scope
from app.knowledge.view import EVERYTHING_NOW, VersionName, View
from app.workspaces.service import check_name
from retrieval.langchain import TandemRetriever
from retrieval.neighbours import Place
from retrieval.search import SearchResult
from retrieval.types import Chunk as Passage
from retrieval.types import Hit, IndexedChunk, Scope, WorkspaceId, located_text

passage_of = repository.passage_of  # other features reach it through here

_WINDOW = 500
_CURRENT = aliased(DocumentVersion)
# Built once: every answer asks it, and building it takes longer than running it.
_NAMES = (
    sa.select(
        DocumentVersion.id,
        Document.external_id,
        DocumentVersion.number,
        Document.current_version_id,
        _CURRENT.number,
    )
    .join(Document, Document.id == DocumentVersion.document_id)
    .outerjoin(_CURRENT, _CURRENT.id == Document.current_version_id)
    .where(DocumentVersion.id.in_(sa.bindparam("ids", expanding=True)))
)


@dataclass(frozen=True, slots=True)
class Question:
    """What to look for, where, and for whom."""

    workspace_id: WorkspaceId
    kb_ids: tuple[str, ...]
    text: str
    limit: int
    view: View = EVERYTHING_NOW


def create(session: Session, workspace_id: str, name: str, embedder: str) -> KnowledgeBase:
    """A new, empty knowledge base."""
    check_name("knowledge base", name)
    taken = sa.select(KnowledgeBase).where(
        KnowledgeBase.workspace_id == workspace_id, KnowledgeBase.name == name
    )
    if session.scalar(taken):
        raise Conflict(f"knowledge base {name!r} exists already")
    kb = KnowledgeBase(workspace_id=workspace_id, name=name, embedder=embedder)
    session.add(kb)
    session.flush()
    return kb


def describe_all(session: Session, workspace_id: str) -> list[dict[str, Any]]:
    """Knowledge bases with the number of documents and chunks answers come from."""
    query = (
        sa.select(
            KnowledgeBase,
            sa.func.count(sa.distinct(Document.id)),
            sa.func.count(Chunk.id),
        )
        .outerjoin(
            Document,
            sa.and_(Document.knowledge_base_id == KnowledgeBase.id, Document.deleted_at.is_(None)),
        )
        .outerjoin(Chunk, Chunk.version_id == Document.current_version_id)
        .where(KnowledgeBase.workspace_id == workspace_id)
        .group_by(KnowledgeBase.id)
        .order_by(KnowledgeBase.name)
    )
    return [
        {"name": kb.name, "id": kb.id, "embedder": kb.embedder, "documents": docs, "chunks": chunks}
        for kb, docs, chunks in session.execute(query)
    ]


def describe_documents(
    session: Session, kb: KnowledgeBase, groups: frozenset[str] | None = None
) -> list[dict[str, Any]]:
    """The documents answers come from, with version number and chunk count.

    Documents that are closed to `groups` are left out.
    """
    query = (
        sa.select(Document, DocumentVersion, sa.func.count(Chunk.id))
        .join(DocumentVersion, DocumentVersion.id == Document.current_version_id)
        .outerjoin(Chunk, Chunk.version_id == DocumentVersion.id)
        .where(Document.knowledge_base_id == kb.id, Document.deleted_at.is_(None))
        .group_by(Document.id, DocumentVersion.id)
        .order_by(Document.external_id)
    )
    rows = list(session.execute(query))
    closed_to = repository.groups_by_document(session, kb)
    return [
        {
            "id": document.id,
            "document": document.external_id,
            "title": document.title,
            "version": version.number,
            "version_id": version.id,
            "chunks": chunks,
            "media_type": version.media_type,
            "sha256": version.content_sha256,
            "valid_from": version.valid_from.isoformat(),
            "groups": closed_to.get(document.id, []),
            "attributes": document.attributes,
        }
        for document, version, chunks in rows
        if groups is None or not (own := closed_to.get(document.id)) or groups & set(own)
    ]


def describe_document(
    session: Session, kb: KnowledgeBase, external_id: str, groups: frozenset[str] | None = None
) -> dict[str, Any]:
    """One document with all its versions and the chunks of the present one."""
    document = repository.find_document(session, kb, external_id)
    if document is None or any_closed(session, [document.id], groups):
        raise NotFound(f"no document {external_id!r} in knowledge base {kb.name!r}")
    query = sa.select(DocumentVersion).where(DocumentVersion.document_id == document.id)
    versions = session.scalars(query.order_by(DocumentVersion.number))
    current = document.current_version_id
    return {
        "id": document.id,
        "document": document.external_id,
        "title": document.title,
        "deleted": document.deleted_at.isoformat() if document.deleted_at else None,
        "former_ids": document.former_ids,
        "groups": repository.groups_by_document(session, kb).get(document.id, []),
        "attributes": document.attributes,
        "versions": [
            {
                "id": version.id,
                "number": version.number,
                "state": version.state,
                "sha256": version.content_sha256,
                "valid_from": version.valid_from.isoformat(),
                "valid_to": version.valid_to.isoformat() if version.valid_to else None,
            }
            for version in versions
        ],
        "chunks": [
            {
                "ordinal": chunk.ordinal,
                "heading": " > ".join(chunk.heading_path),
                "page": chunk.page_start,
                "text": chunk.text,
            }
            for chunk in (repository.chunks_of(session, current) if current else [])
        ],
    }


def search(database: Database, indexes: KnowledgeIndexes, question: Question) -> SearchResult:
    """The best chunks that the view may see, over several knowledge bases of one workspace.

    Every hit is checked against SQL after it was found: no version passes that was retired,
    deleted or closed to the asker by then.
    """
    with database.rows() as rows:
        places = [
            (kb, repository.narrow(rows, kb, question.view))
            for kb in repository.knowledge_bases(rows, question.workspace_id, question.kb_ids)
        ]

    def visible(version_ids: Sequence[str]) -> set[str]:
        with database.rows() as rows:
            return repository.visible_versions(
                rows, question.workspace_id, version_ids, question.view
            )

    def neighbours(wanted: Sequence[Place]) -> dict[Place, Passage]:
        with database.reading() as session:
            return repository.chunks_at(session, wanted)

    results = []
    for kb, narrowing in places:
        scopes = [live_scope(kb)]
        if question.view.as_of is not None:
            scopes.append(past_scope(kb))
        results.append(
            indexes.of(kb).searcher.search(
                scopes,
                question.text,
                question.limit,
                visible,
                narrowing=narrowing,
                neighbours=neighbours,
            )
        )
    return _merged(results, question.limit)


def _merged(results: Sequence[SearchResult], limit: int) -> SearchResult:
    if len(results) == 1:
        return results[0]
    found = {hit.chunk_id: hit for result in reversed(results) for hit in result.hits}
    hits = tuple(sorted(found.values(), key=lambda h: (-h.score, h.chunk_id))[:limit])
    scores = [h.dense_score for h in hits if h.dense_score is not None]
    covered = [r.coverage for r in results if r.coverage is not None]
    return SearchResult(hits, max(scores, default=None), max(covered, default=None))


def retriever(database: Database, indexes: KnowledgeIndexes, question: Question) -> TandemRetriever:
    """The same search as a LangChain `BaseRetriever`, scope and view bound into it.

    `question.text` is not used; the retriever's own argument takes its place.
    """

    def find(text: str, n: int) -> list[Hit]:
        asked = replace(question, text=text, limit=n)
        return list(search(database, indexes, asked).hits)

    return TandemRetriever(search=find, limit=question.limit)


def delete_document(
    database: Database, indexes: KnowledgeIndexes, workspace_id: str, kb_name: str, external_id: str
) -> None:
    """Delete for good, from the past too: tombstone first, then the vectors."""
    with database.session() as session:
        kb = repository.find_knowledge_base(session, workspace_id, kb_name)
        document = repository.find_document(session, kb, external_id)
        ended = repository.delete_document(session, document, purge=True) if document else []
        if document is None or not ended:
            raise NotFound(f"no document {external_id!r} in knowledge base {kb.name!r}")
    index = indexes.of(kb).index
    index.delete_document(live_scope(kb), document.id)
    index.delete_document(past_scope(kb), document.id)
    index.flush()


def set_groups(
    session: Session, kb: KnowledgeBase, external_id: str, groups: Sequence[str]
) -> dict[str, Any]:
    """Close a document to all but some groups, from this commit on; none opens it to everyone."""
    document = repository.find_document(session, kb, external_id)
    if document is None or document.deleted_at is not None:
        raise NotFound(f"no document {external_id!r} in knowledge base {kb.name!r}")
    for group in groups:
        check_name("group", group)
    repository.set_groups(session, document, groups)
    return {"document": external_id, "groups": sorted(set(groups))}


def version_names(
    rows: Session | sa.Connection, version_ids: Sequence[str]
) -> dict[str, VersionName]:
    """How versions are called, by their ids."""
    if not version_ids:
        return {}
    found = rows.execute(_NAMES, {"ids": list(version_ids)})
    return {
        version_id: VersionName(name, number, None if version_id == current_id else newest or 0)
        for version_id, name, number, current_id, newest in found
    }


def any_closed(
    session: Session, document_ids: Sequence[str], groups: frozenset[str] | None
) -> bool:
    """Whether one of the documents is closed to whoever is in these groups (None: in all)."""
    return groups is not None and repository.any_closed(session, document_ids, groups)


def rebuild(
    database: Database, indexes: KnowledgeIndexes, workspace_id: str, kb_name: str
) -> dict[str, int]:
    """Make the shards again from SQL alone, with the configured embedding model."""
    with database.session() as session:
        kb = repository.find_knowledge_base(session, workspace_id, kb_name)
        knowledge = indexes.by_source(kb.embedder_source)
        kb.embedder = knowledge.embedder.identity
    with indexes.writing(kb.id):
        with database.reading() as session:
            present = list(repository.expected_hashes(session, kb, past=False))
            past = list(repository.expected_hashes(session, kb, past=True))
            documents = len(repository.live_ids(session, kb))
        for scope, wanted in ((live_scope(kb), present), (past_scope(kb), past)):
            knowledge.index.drop(scope)
            index_chunks(database, knowledge, scope, wanted)
        knowledge.index.flush()
    return {"documents": documents, "chunks": len(present)}


def index_chunks(
    database: Database, knowledge: KnowledgeIndex, scope: Scope, chunk_ids: Sequence[str]
) -> None:
    """Embed chunks as SQL has them and write their points, some hundred at a time."""
    for start in range(0, len(chunk_ids), _WINDOW):
        with database.reading() as session:
            rows = repository.chunks_with_titles(session, chunk_ids[start : start + _WINDOW])
        points = [_unembedded(scope, title, chunk) for title, chunk in rows]
        texts = [located_text(point.title, point.heading_path, point.text) for point in points]
        vectors = knowledge.embedder.embed_passages(texts)
        knowledge.index.upsert(replace(p, vector=v) for p, v in zip(points, vectors, strict=True))


def _unembedded(scope: Scope, title: str, chunk: Chunk) -> IndexedChunk:
    return IndexedChunk(
        chunk_id=chunk.id,
        document_id=chunk.document_id,
        version_id=chunk.version_id,
        workspace_id=scope.workspace_id,
        knowledge_base_id=scope.knowledge_base_id,
        text=chunk.text,
        title=title,
        heading_path=tuple(chunk.heading_path),
        page_start=chunk.page_start,
        page_end=chunk.page_end,
        start_char=chunk.start_char,
        end_char=chunk.end_char,
        ordinal=chunk.ordinal,
        vector=np.zeros(0, np.float32),
        content_hash=chunk.content_sha256,
    )
