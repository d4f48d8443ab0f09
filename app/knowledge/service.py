"""What people do with knowledge bases: create, list, search, delete, rebuild the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.session import Database
from app.db.tables import Chunk, Document, DocumentVersion, KnowledgeBase
from app.errors import Conflict, NotFound
from app.knowledge import repository
from app.workspaces.service import check_name
from retrieval.chunking import ChunkingOptions
from retrieval.embedding import TextEncoder
from retrieval.index import VectorIndex
from retrieval.langchain import TandemRetriever
from retrieval.search import HybridSearcher, SearchResult
from retrieval.types import Hit, IndexedChunk, Scope, WorkspaceId, located_text


@dataclass(frozen=True, slots=True)
class KnowledgeIndex:
    """The derived side of knowledge: vectors, the model that makes them, the search over both."""

    index: VectorIndex
    embedder: TextEncoder
    searcher: HybridSearcher
    chunking: ChunkingOptions


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


def describe_documents(session: Session, kb: KnowledgeBase) -> list[dict[str, Any]]:
    """The documents answers come from, with version number and chunk count."""
    query = (
        sa.select(Document, DocumentVersion, sa.func.count(Chunk.id))
        .join(DocumentVersion, DocumentVersion.id == Document.current_version_id)
        .outerjoin(Chunk, Chunk.version_id == DocumentVersion.id)
        .where(Document.knowledge_base_id == kb.id, Document.deleted_at.is_(None))
        .group_by(Document.id, DocumentVersion.id)
        .order_by(Document.external_id)
    )
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
        }
        for document, version, chunks in session.execute(query)
    ]


def describe_document(session: Session, kb: KnowledgeBase, external_id: str) -> dict[str, Any]:
    """One document with all its versions and the chunks of the present one."""
    document = repository.find_document(session, kb, external_id)
    if document is None:
        raise NotFound(f"no document {external_id!r} in knowledge base {kb.name!r}")
    query = sa.select(DocumentVersion).where(DocumentVersion.document_id == document.id)
    versions = session.scalars(query.order_by(DocumentVersion.number))
    current = document.current_version_id
    return {
        "id": document.id,
        "document": document.external_id,
        "title": document.title,
        "deleted": document.deleted_at.isoformat() if document.deleted_at else None,
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


def search(
    database: Database,
    knowledge: KnowledgeIndex,
    workspace_id: WorkspaceId,
    kb_ids: Sequence[str],
    question: str,
    limit: int,
    *,
    without: Sequence[str] = (),
) -> SearchResult:
    """The best visible chunks over several knowledge bases of one workspace.

    Every hit is checked against SQL: only the current version of a document passes, and none of
    the documents whose external ids stand in `without`.
    """

    def visible(version_ids: Sequence[str]) -> set[str]:
        with database.session() as session:
            return repository.visible_versions(session, workspace_id, version_ids, without)

    results = [
        knowledge.searcher.search(Scope(workspace_id, kb_id), question, limit, visible)
        for kb_id in kb_ids
    ]
    if len(results) == 1:
        return results[0]
    hits = sorted((h for r in results for h in r.hits), key=lambda h: -h.score)[:limit]
    scores = [h.dense_score for h in hits if h.dense_score is not None]
    return SearchResult(tuple(hits), max(scores, default=None))


def retriever(
    database: Database,
    knowledge: KnowledgeIndex,
    workspace_id: WorkspaceId,
    kb_ids: Sequence[str],
    limit: int,
) -> TandemRetriever:
    """The same search as a LangChain `BaseRetriever`, scope and visibility bound into it."""

    def find(question: str, n: int) -> list[Hit]:
        return list(search(database, knowledge, workspace_id, kb_ids, question, n).hits)

    return TandemRetriever(search=find, limit=limit)


def delete_document(
    database: Database, knowledge: KnowledgeIndex, workspace_id: str, kb_name: str, external_id: str
) -> None:
    """Delete for good: tombstone first, then the vectors."""
    with database.session() as session:
        kb = repository.find_knowledge_base(session, workspace_id, kb_name)
        document = repository.find_document(session, kb, external_id)
        if document is None or document.deleted_at is not None:
            raise NotFound(f"no document {external_id!r} in knowledge base {kb.name!r}")
        repository.delete_document(session, document)
    scope = Scope(WorkspaceId(kb.workspace_id), kb.id)
    knowledge.index.delete_document(scope, document.id)
    knowledge.index.flush()


def rebuild(
    database: Database, knowledge: KnowledgeIndex, workspace_id: str, kb_name: str
) -> dict[str, int]:
    """Throw the shard away and make it again from SQL alone."""
    with database.session() as session:
        kb = repository.find_knowledge_base(session, workspace_id, kb_name)
        documents = repository.live_documents(session, kb)
        rows = [
            (doc, chunk)
            for doc in documents
            for chunk in repository.chunks_of(session, str(doc.current_version_id))
        ]
    scope = Scope(WorkspaceId(kb.workspace_id), kb.id)
    knowledge.index.drop(scope)
    points = [_unembedded(scope, document, chunk) for document, chunk in rows]
    texts = [located_text(point.title, point.heading_path, point.text) for point in points]
    vectors = knowledge.embedder.embed_passages(texts)
    knowledge.index.upsert(replace(p, vector=v) for p, v in zip(points, vectors, strict=True))
    knowledge.index.flush()
    return {"documents": len(documents), "chunks": len(points)}


def _unembedded(scope: Scope, document: Document, chunk: Chunk) -> IndexedChunk:
    return IndexedChunk(
        chunk_id=chunk.id,
        document_id=document.id,
        version_id=chunk.version_id,
        workspace_id=scope.workspace_id,
        knowledge_base_id=scope.knowledge_base_id,
        text=chunk.text,
        title=document.title,
        heading_path=tuple(chunk.heading_path),
        page_start=chunk.page_start,
        page_end=chunk.page_end,
        start_char=chunk.start_char,
        end_char=chunk.end_char,
        ordinal=chunk.ordinal,
        vector=np.zeros(0, np.float32),
        content_hash=chunk.content_sha256,
    )
