"""SQL of decisions, of what is due, and of the logs that triggers and volatility are read from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.tables import (
    Answer,
    AnswerChunk,
    Chunk,
    Decision,
    DecisionRequest,
    Document,
    DocumentVersion,
    Evaluation,
    Feedback,
    KnowledgeBase,
    TriggerCheck,
    UseCase,
)

_EVALUATION = "evaluation"


def latest_decision(session: Session, use_case: UseCase) -> Decision | None:
    """The newest decision of a use case."""
    query = sa.select(Decision).where(
        Decision.workspace_id == use_case.workspace_id, Decision.use_case_id == use_case.id
    )
    return session.scalars(query.order_by(Decision.created_at.desc()).limit(1)).first()


def decision_from(
    session: Session, evaluation: Evaluation, record: dict[str, Any]
) -> Decision | None:
    """The decision with exactly this record made from an evaluation before, if there is one."""
    query = sa.select(Decision).where(
        Decision.workspace_id == evaluation.workspace_id, Decision.evaluation_id == evaluation.id
    )
    made = session.scalars(query.order_by(Decision.created_at.desc()))
    return next((decision for decision in made if decision.record == record), None)


def open_requests(
    session: Session, workspace_id: str, use_case_id: str | None = None
) -> list[tuple[DecisionRequest, str]]:
    """Decisions that are due again, oldest first, with the name of the use case."""
    query = (
        sa.select(DecisionRequest, UseCase.name)
        .join(UseCase, UseCase.id == DecisionRequest.use_case_id)
        .where(DecisionRequest.workspace_id == workspace_id)
        .where(DecisionRequest.answered_by.is_(None))
        .order_by(DecisionRequest.created_at)
    )
    if use_case_id is not None:
        query = query.where(DecisionRequest.use_case_id == use_case_id)
    return [(request, name) for request, name in session.execute(query)]


def answer_requests(session: Session, decision: Decision) -> None:
    """A new decision answers everything that was open for its use case."""
    session.execute(
        sa.update(DecisionRequest)
        .where(
            DecisionRequest.workspace_id == decision.workspace_id,
            DecisionRequest.use_case_id == decision.use_case_id,
            DecisionRequest.answered_by.is_(None),
        )
        .values(answered_by=decision.id)
    )


def checks_since(session: Session, use_case: UseCase, since: datetime) -> dict[str, int]:
    """How often each trigger was checked and cost part of the false alarms, since a moment."""
    query = (
        sa.select(TriggerCheck.kind, sa.func.count(TriggerCheck.id))
        .where(
            TriggerCheck.workspace_id == use_case.workspace_id,
            TriggerCheck.use_case_id == use_case.id,
            TriggerCheck.created_at >= since,
            TriggerCheck.alpha > 0,
        )
        .group_by(TriggerCheck.kind)
    )
    return {kind: count for kind, count in session.execute(query)}


def booked(session: Session, decision: Decision, kind: str) -> bool:
    """Whether a look at this decision's trigger has counted against the false alarms already."""
    query = sa.select(sa.func.count(TriggerCheck.id)).where(
        TriggerCheck.decision_id == decision.id,
        TriggerCheck.kind == kind,
        TriggerCheck.alpha > 0,
    )
    return bool(session.scalar(query))


def questions_asked(
    session: Session,
    use_case: UseCase,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    most: int = 1000,
) -> list[str]:
    """Different questions people asked, the latest `most`, oldest first."""
    query = _asked(sa.select(Answer.question), use_case, since, until)
    latest = session.scalars(query.order_by(Answer.created_at.desc()).limit(4 * most))
    found = list(dict.fromkeys(str(question) for question in latest))[:most]
    return found[::-1]


def corrections(
    session: Session,
    use_case: UseCase,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[bool]:
    """For each answer in order whether somebody corrected it."""
    corrected = (
        sa.select(Feedback.answer_id)
        .where(
            Feedback.workspace_id == use_case.workspace_id,
            Feedback.correction.is_not(None),
        )
        .distinct()
    )
    query = _asked(sa.select(Answer.id.in_(corrected)), use_case, since, until)
    return [bool(flag) for flag in session.scalars(query.order_by(Answer.created_at, Answer.id))]


def _asked(
    query: sa.Select[Any], use_case: UseCase, since: datetime | None, until: datetime | None
) -> sa.Select[Any]:
    """Only answers to people, of one use case, between two moments."""
    query = query.where(
        Answer.workspace_id == use_case.workspace_id,
        Answer.use_case_id == use_case.id,
        Answer.asked_by != _EVALUATION,
    )
    if since is not None:
        query = query.where(Answer.created_at > since)
    return query if until is None else query.where(Answer.created_at <= until)


def documents(session: Session, use_case: UseCase) -> list[Document]:
    """All documents there ever were in the use case's knowledge bases."""
    query = sa.select(Document).where(
        Document.workspace_id == use_case.workspace_id,
        Document.knowledge_base_id.in_(use_case.knowledge_base_ids),
    )
    return list(session.scalars(query.order_by(Document.external_id)))


def published_versions(session: Session, use_case: UseCase) -> dict[str, list[DocumentVersion]]:
    """Versions that were or are answered from, by document, oldest first."""
    query = (
        sa.select(DocumentVersion)
        .where(
            DocumentVersion.workspace_id == use_case.workspace_id,
            DocumentVersion.knowledge_base_id.in_(use_case.knowledge_base_ids),
            DocumentVersion.state.in_(("visible", "retired", "purged")),
        )
        .order_by(DocumentVersion.document_id, DocumentVersion.number)
    )
    found: dict[str, list[DocumentVersion]] = {}
    for version in session.scalars(query):
        found.setdefault(version.document_id, []).append(version)
    return found


def texts(session: Session, version_ids: Sequence[str]) -> dict[str, str]:
    """The text of versions that still have their passages, by version id."""
    query = (
        sa.select(Chunk.version_id, Chunk.text)
        .where(Chunk.version_id.in_(version_ids))
        .order_by(Chunk.version_id, Chunk.ordinal)
    )
    parts: dict[str, list[str]] = {}
    for version_id, text in session.execute(query):
        parts.setdefault(version_id, []).append(text)
    return {version_id: "\n".join(found) for version_id, found in parts.items()}


def cited_quotes(session: Session, use_case: UseCase) -> list[tuple[str, str, str | None]]:
    """(answer, document, quote) of every passage that an answer to a person cited."""
    query = (
        sa.select(AnswerChunk.answer_id, AnswerChunk.document_id, AnswerChunk.quote)
        .join(Answer, Answer.id == AnswerChunk.answer_id)
        .where(
            Answer.workspace_id == use_case.workspace_id,
            Answer.use_case_id == use_case.id,
            Answer.asked_by != _EVALUATION,
            AnswerChunk.cited.is_(True),
        )
    )
    return [(answer, document, quote) for answer, document, quote in session.execute(query)]


def embedding_models(session: Session, use_case: UseCase) -> list[str]:
    """The embedding models of the use case's knowledge bases."""
    query = sa.select(KnowledgeBase.embedder).where(
        KnowledgeBase.workspace_id == use_case.workspace_id,
        KnowledgeBase.id.in_(use_case.knowledge_base_ids),
    )
    return sorted(session.scalars(query))
