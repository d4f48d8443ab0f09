"""Where an answer came from: passages, versions, adapter, identity."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.answers.service import find
from app.db.tables import Adapter, Answer, AnswerChunk, Chunk, Document, DocumentVersion
from app.errors import NotFound
from app.knowledge import service as knowledge


def lineage(
    session: Session,
    workspace_id: str,
    answer_id: str,
    groups: frozenset[str] | None = None,
) -> dict[str, Any]:
    """An answer with its passages, their versions, the adapter and the whole identity.

    Raises:
        NotFound: There is none, or it was made of documents that are closed to these groups.
    """
    answer = find(session, workspace_id, answer_id)
    _refuse_closed(session, answer, groups)
    adapter = session.get(Adapter, answer.adapter_id) if answer.adapter_id else None
    return {
        "id": answer.id,
        "question": answer.question,
        "history": answer.history,
        "text": answer.text,
        "arm": answer.arm,
        "abstained": answer.abstained,
        "grounded": answer.grounded,
        "asked_by": answer.asked_by,
        "created_at": answer.created_at.isoformat(),
        "adapter": adapter
        and {
            "id": adapter.id,
            "name": adapter.name,
            "digest": adapter.digest,
            "dataset": adapter.dataset_id,
            "parent": adapter.parent_digest,
        },
        "identity": answer.identity,
        "identity_sha256": answer.identity_sha256,
        "timings": answer.timings,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "passages": _passages(session, answer),
    }


def _passages(session: Session, answer: Answer) -> list[dict[str, Any]]:
    query = (
        sa.select(AnswerChunk, Document.external_id, DocumentVersion, Chunk)
        .join(Document, Document.id == AnswerChunk.document_id)
        .join(DocumentVersion, DocumentVersion.id == AnswerChunk.version_id)
        .outerjoin(Chunk, Chunk.id == AnswerChunk.chunk_id)
        .where(AnswerChunk.answer_id == answer.id)
        .order_by(AnswerChunk.number)
    )
    return [
        {
            "number": used.number,
            "document": external_id,
            "version": version.number,
            "version_state": version.state,
            "heading": " > ".join(chunk.heading_path) if chunk else "",
            "page": chunk.page_start if chunk else None,
            "text": chunk.text if chunk else None,
            "score": used.score,
            "cited": used.cited,
            "quote": used.quote,
        }
        for used, external_id, version, chunk in session.execute(query)
    ]


def _refuse_closed(session: Session, answer: Answer, groups: frozenset[str] | None) -> None:
    used = sa.select(AnswerChunk.document_id).where(AnswerChunk.answer_id == answer.id)
    if knowledge.any_closed(session, list(session.scalars(used)), groups):
        raise NotFound(f"no answer {answer.id!r} in this workspace")
