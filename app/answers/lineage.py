"""Where an answer came from: passages, versions, adapter, identity."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.answers.joined import passage_text
from app.answers.service import find, refuse_closed
from app.db.tables import (
    Adapter,
    Answer,
    AnswerChunk,
    Chunk,
    DatasetSnapshot,
    Decision,
    Document,
    DocumentVersion,
    Example,
)
from tuning.errors import TuningError
from tuning.snapshot import load

_ROW_ID = 24


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
    refuse_closed(session, answer, groups)
    adapter = session.get(Adapter, answer.adapter_id) if answer.adapter_id else None
    return {
        "id": answer.id,
        "question": answer.question,
        "history": answer.history,
        "text": answer.text,
        "arm": answer.arm,
        "abstained": answer.abstained,
        "grounded": answer.grounded,
        "coverage": answer.coverage,
        "cached_from": answer.cached_from,
        "fallback": (answer.request or {}).get("fallback"),
        "asked_by": answer.asked_by,
        "created_at": answer.created_at.isoformat(),
        "adapter": adapter and _adapter(session, adapter),
        "decision": _decision(session, answer),
        "identity": answer.identity,
        "identity_sha256": answer.identity_sha256,
        "timings": answer.timings,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "passages": _passages(session, answer),
    }


def _adapter(session: Session, adapter: Adapter) -> dict[str, Any]:
    """The adapter, the sealed snapshot it was trained on, and who wrote and approved its rows."""
    dataset = session.get(DatasetSnapshot, adapter.dataset_id) if adapter.dataset_id else None
    return {
        "id": adapter.id,
        "name": adapter.name,
        "digest": adapter.digest,
        "dataset": adapter.dataset_id,
        "parent": adapter.parent_digest,
        "snapshot": dataset
        and {
            "id": dataset.id,
            "content_sha256": dataset.content_sha256,
            "created_by": dataset.created_by,
            "created_at": dataset.created_at.isoformat(),
            "examples": _examples(session, dataset),
        },
    }


def _examples(session: Session, dataset: DatasetSnapshot) -> list[dict[str, Any]]:
    """The rows of a snapshot that came from examples, as SQL knows them now.

    A snapshot's row is named after the content of its example; one that was erased since is left
    out, its row's id stays in the snapshot.
    """
    try:
        rows = load(dataset.path).rows
    except (TuningError, OSError):
        return []  # the files were moved away; SQL alone cannot tell the rows
    ids = [str(row["id"]) for row in rows]
    query = sa.select(Example).where(Example.use_case_id == dataset.use_case_id)
    known = {example.content_sha256[:_ROW_ID]: example for example in session.scalars(query)}
    return [
        {
            "id": example.id,
            "kind": example.kind,
            "question": example.question,
            "author": example.author,
            "reviewer": example.reviewer,
            "review": example.review_id,
            "origin": example.origin,
        }
        for row_id in ids
        if (example := known.get(row_id[:_ROW_ID])) is not None
    ]


def _decision(session: Session, answer: Answer) -> dict[str, Any] | None:
    """The decision in force when the answer was given: the last one applied before it."""
    decision = session.scalar(
        sa.select(Decision)
        .where(
            Decision.use_case_id == answer.use_case_id,
            Decision.applied.is_(True),
            Decision.created_at <= answer.created_at,
        )
        .order_by(Decision.created_at.desc())
        .limit(1)
    )
    if decision is None:
        return None
    return {
        "id": decision.id,
        "status": decision.status,
        "arm": decision.arm,
        "evaluation": decision.evaluation_id,
        "created_by": decision.created_by,
        "created_at": decision.created_at.isoformat(),
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
    spans = dict(enumerate((answer.request or {}).get("spans", ()), start=1))
    return [
        {
            "number": used.number,
            "document": external_id,
            "version": version.number,
            "version_state": version.state,
            "heading": " > ".join(chunk.heading_path) if chunk else "",
            "page": chunk.page_start if chunk else None,
            "text": passage_text(session, chunk, spans.get(used.number)) if chunk else None,
            "score": used.score,
            "cited": used.cited,
            "quote": used.quote,
        }
        for used, external_id, version, chunk in session.execute(query)
    ]
