"""The damage list: answers that were made of knowledge which has changed since."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from app.db.tables import Answer, AnswerChunk, Chunk, Document, DocumentVersion, KnowledgeBase
from app.knowledge import repository


def damage(
    session: Session,
    kb: KnowledgeBase,
    since: datetime | None,
    groups: frozenset[str] | None = None,
    limit: int = 500,
) -> list[dict[str, Any]]:
    """Answers given from versions of `kb` that were retired since (default: ever), newest first.

    Per answer and version: whether the answer cited it, and whether the sentence it quoted still
    stands word for word in the version that took its place. A quote that is gone is where to look
    first. Answers made of documents that are closed to `groups` are left out.
    """
    current = aliased(DocumentVersion)
    query = (
        sa.select(Answer, AnswerChunk, Document, DocumentVersion, current.number)
        .join(AnswerChunk, AnswerChunk.answer_id == Answer.id)
        .join(DocumentVersion, DocumentVersion.id == AnswerChunk.version_id)
        .join(Document, Document.id == DocumentVersion.document_id)
        .outerjoin(current, current.id == Document.current_version_id)
        .where(
            DocumentVersion.knowledge_base_id == kb.id,
            DocumentVersion.state == "retired",
            Answer.created_at < DocumentVersion.valid_to,
        )
        .order_by(Answer.created_at.desc(), AnswerChunk.number)
        .limit(limit)
    )
    if since is not None:
        query = query.where(DocumentVersion.valid_to >= since)
    texts: dict[str, str] = {}
    rows = []
    for answer, used, document, version, number in session.execute(query):
        if groups is not None and repository.any_closed(session, [document.id], groups):
            continue
        still = None
        if used.quote:
            text = texts.get(document.id)
            if text is None:
                text = texts[document.id] = _present_text(session, document)
            still = _plain(used.quote) in text
        rows.append(
            {
                "answer": answer.id,
                "question": answer.question,
                "asked_at": answer.created_at.isoformat(),
                "document": document.external_id,
                "version": version.number,
                "now": number,
                "changed_at": version.valid_to.isoformat() if version.valid_to else None,
                "cited": used.cited,
                "quote": used.quote,
                "quote_still_there": still,
            }
        )
    return rows


def _present_text(session: Session, document: Document) -> str:
    """The text answers come from now, in plain words; empty where the document is gone."""
    if document.current_version_id is None:
        return ""
    query = (
        sa.select(Chunk.text)
        .where(Chunk.version_id == document.current_version_id)
        .order_by(Chunk.ordinal)
    )
    return _plain(" ".join(session.scalars(query)))


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
