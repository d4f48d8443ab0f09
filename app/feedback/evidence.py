"""What the knowledge base says to a correction: supported, lacking, not found, or outdated then."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.answers.grounding import is_abstention
from app.db.tables import Answer, AnswerChunk, Chunk, Document, DocumentVersion, UseCase
from evals.metrics.values import extract_values, unsupported_values

Status = Literal[
    "grounded", "style", "abstain", "changed_since", "knowledge", "retrieval", "reindex"
]
_WORD = re.compile(r"\w+")
_MIN_OVERLAP = 0.34
_MAX_SCANNED = 2_000


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the knowledge base says; `chunk` supports it, `documents` are what a ticket names."""

    status: Status
    reason: str
    chunk: Chunk | None = None
    document: Document | None = None
    documents: tuple[str, ...] = ()


def find_evidence(session: Session, use_case: UseCase, answer: Answer, text: str) -> Evidence:
    """Judge a corrected text by the passages its answer was given, then by the knowledge base."""
    if is_abstention(text, use_case.abstain_sentence):
        return Evidence("abstain", "teaches to abstain")
    given = _given(session, answer)
    current = [
        (chunk, document) for chunk, document, version in given if _serves(document, version)
    ]
    if not given:
        shown = sa.select(AnswerChunk.number).where(AnswerChunk.answer_id == answer.id)
        if session.scalars(shown).first() is None:
            return Evidence("style", "teaches voice: the answer had no passages")
    best = _best(current, text)
    if best is not None:
        share, chunk, document = best
        if share < _MIN_OVERLAP:
            return Evidence("style", "teaches voice: it states nothing that the passages hold")
        return Evidence("grounded", "teaches to use its passage", chunk, document)
    stale = _outdated_then(session, answer, given, text)
    if stale:
        named = ", ".join(stale)
        reason = f"the answer was given an outdated version of {named}: index it again"
        return Evidence("reindex", reason, documents=stale)
    if not current:
        return Evidence("changed_since", "its passages have changed since: ask again")
    return _lacking(session, use_case, current, text)


def _given(session: Session, answer: Answer) -> list[tuple[Chunk, Document, DocumentVersion]]:
    query = (
        sa.select(Chunk, Document, DocumentVersion)
        .join(AnswerChunk, AnswerChunk.chunk_id == Chunk.id)
        .join(Document, Document.id == AnswerChunk.document_id)
        .join(DocumentVersion, DocumentVersion.id == AnswerChunk.version_id)
        .where(AnswerChunk.answer_id == answer.id, Document.deleted_at.is_(None))
        .order_by(AnswerChunk.number)
    )
    return [(chunk, document, version) for chunk, document, version in session.execute(query)]


def _serves(document: Document, version: DocumentVersion) -> bool:
    return document.current_version_id == version.id


def _best(
    passages: Sequence[tuple[Chunk, Document]], text: str
) -> tuple[float, Chunk, Document] | None:
    """The passage that holds every value of the text and shares most words with it."""
    words = {word for word in _WORD.findall(text.lower()) if len(word) > 2}
    best: tuple[float, Chunk, Document] | None = None
    for chunk, document in passages:
        if unsupported_values(text, [chunk.text]):
            continue
        share = len(words & set(_WORD.findall(chunk.text.lower()))) / max(1, len(words))
        if best is None or share > best[0]:
            best = (share, chunk, document)
    return best


def _outdated_then(
    session: Session,
    answer: Answer,
    given: Sequence[tuple[Chunk, Document, DocumentVersion]],
    text: str,
) -> tuple[str, ...]:
    """Documents that were outdated when the answer was given and now hold the corrected text."""
    outdated = {
        document.id: document
        for _, document, version in given
        if version.valid_to is not None and version.valid_to <= answer.created_at
    }
    if not outdated:
        return ()
    query = (
        sa.select(Chunk, Document)
        .join(Document, Document.current_version_id == Chunk.version_id)
        .where(Document.id.in_(outdated))
    )
    best = _best([(chunk, document) for chunk, document in session.execute(query)], text)
    return (best[2].external_id,) if best and best[0] >= _MIN_OVERLAP else ()


def _lacking(
    session: Session, use_case: UseCase, given: Sequence[tuple[Chunk, Document]], text: str
) -> Evidence:
    missing = unsupported_values(text, [chunk.text for chunk, _ in given])
    named = ", ".join(value.surface for value in missing) or "its values together"
    elsewhere = _elsewhere(session, use_case, text)
    if elsewhere:
        reason = f"{elsewhere!r} says {named}, but the answer was not given that passage"
        return Evidence("retrieval", reason, documents=(elsewhere,))
    reason = f"no passage says {named}: change the knowledge base, then ask again"
    return Evidence("knowledge", reason, documents=tuple({d.external_id: None for _, d in given}))


def _elsewhere(session: Session, use_case: UseCase, text: str) -> str | None:
    """A current document of the use case that holds the corrected text after all."""
    values = extract_values(text)
    if not values:
        return None
    longest = max(re.findall(r"\w+", " ".join(value.surface for value in values)), key=len)
    query = (
        sa.select(Chunk, Document)
        .join(Document, Document.current_version_id == Chunk.version_id)
        .where(
            Document.knowledge_base_id.in_(use_case.knowledge_base_ids),
            Document.deleted_at.is_(None),
            Chunk.text.icontains(longest, autoescape=True),
        )
        .order_by(Document.external_id, Chunk.ordinal)
        .limit(_MAX_SCANNED)
    )
    best = _best([(chunk, document) for chunk, document in session.execute(query)], text)
    return best[2].external_id if best and best[0] >= _MIN_OVERLAP else None
