"""What a dataset is built from, read from the database."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.tables import (
    Answer,
    AnswerChunk,
    Chunk,
    DatasetSnapshot,
    Document,
    DocumentVersion,
    Example,
    Feedback,
    HeldOutItem,
    Review,
    UseCase,
)
from retrieval.types import context_path
from tuning.snapshot import Row, RowPassage
from tuning.splits import Split, normalise_question

_TRAFFIC = 1_000


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A chunk with its document's name and the version it belongs to."""

    id: str
    title: str
    text: str
    document: str
    version: str
    valid_from: datetime

    def row_passage(self, *, dated: bool = False) -> RowPassage:
        """As a row holds it; `dated` adds the day from which it holds."""
        passage: RowPassage = {"id": self.id, "title": self.title, "text": self.text}
        if dated:
            passage["valid_from"] = self.valid_from.date().isoformat()
        return passage


@dataclass(frozen=True, slots=True)
class RatedAnswer:
    """An answer with what a person thought of it.

    `passages`: those it was given that are current still; `given`: how many it was given.
    """

    answer: Answer
    feedback: Feedback
    review: Review | None
    passages: tuple[StoredPassage, ...]
    given: int


def approved_examples(session: Session, use_case: UseCase) -> list[Example]:
    """Examples that a second person approved, in an order that depends on their content alone."""
    query = sa.select(Example).where(
        Example.use_case_id == use_case.id, Example.reviewer.is_not(None)
    )
    return list(session.scalars(query.order_by(Example.content_sha256)))


def current_passages(session: Session, use_case: UseCase) -> dict[str, list[StoredPassage]]:
    """Passages that are answered from today, by document."""
    return _by_document(
        session, use_case, Document.current_version_id == DocumentVersion.id, oldest_first=True
    )


def retired_passages(
    session: Session, use_case: UseCase, documents: Collection[str]
) -> dict[str, list[StoredPassage]]:
    """Passages of former versions of some documents, newest first."""
    if not documents:
        return {}
    named = sa.and_(DocumentVersion.state == "retired", Document.external_id.in_(sorted(documents)))
    return _by_document(session, use_case, named, oldest_first=False)


def _by_document(
    session: Session, use_case: UseCase, condition: sa.ColumnElement[bool], *, oldest_first: bool
) -> dict[str, list[StoredPassage]]:
    moment = DocumentVersion.valid_from
    query = (
        sa.select(Chunk, Document, DocumentVersion)
        .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
        .join(Document, Document.id == DocumentVersion.document_id)
        .where(
            Document.knowledge_base_id.in_(use_case.knowledge_base_ids),
            Document.deleted_at.is_(None),
            condition,
        )
        .order_by(Document.external_id, moment if oldest_first else moment.desc(), Chunk.ordinal)
    )
    passages: dict[str, list[StoredPassage]] = {}
    for chunk, document, version in session.execute(query):
        passage = _passage(chunk, document, version)
        passages.setdefault(document.external_id, []).append(passage)
    return passages


def served_passages(
    session: Session, examples: Iterable[Example]
) -> dict[str, list[StoredPassage]]:
    """For examples that came of corrections: what the answer was given and still holds today."""
    answer_of = {example.id: example.review_id for example in examples if example.review_id}
    if not answer_of:
        return {}
    query = (
        sa.select(Review.id, Feedback.answer_id)
        .join(Feedback, Feedback.id == Review.feedback_id)
        .where(Review.id.in_(answer_of.values()))
    )
    answers = {review: answer for review, answer in session.execute(query)}
    passages = given_passages(session, answers.values())
    return {
        example: list(passages.get(answers.get(review, ""), ()))
        for example, review in answer_of.items()
    }


def given_passages(
    session: Session, answers: Iterable[str]
) -> dict[str, tuple[StoredPassage, ...]]:
    """Passages that answers were given and that are current still, in their order."""
    query = (
        sa.select(AnswerChunk.answer_id, Chunk, Document, DocumentVersion)
        .join(Chunk, Chunk.id == AnswerChunk.chunk_id)
        .join(DocumentVersion, DocumentVersion.id == AnswerChunk.version_id)
        .join(Document, Document.current_version_id == DocumentVersion.id)
        .where(AnswerChunk.answer_id.in_(sorted(set(answers))), Document.deleted_at.is_(None))
        .order_by(AnswerChunk.answer_id, AnswerChunk.number)
    )
    found: dict[str, list[StoredPassage]] = {}
    for answer_id, chunk, document, version in session.execute(query):
        found.setdefault(answer_id, []).append(_passage(chunk, document, version))
    return {answer_id: tuple(passages) for answer_id, passages in found.items()}


def rated_answers(session: Session, use_case: UseCase) -> list[RatedAnswer]:
    """Answers of a use case that somebody rated or corrected, oldest first."""
    query = (
        sa.select(Answer, Feedback, Review)
        .join(Feedback, Feedback.answer_id == Answer.id)
        .outerjoin(Review, Review.feedback_id == Feedback.id)
        .where(Answer.use_case_id == use_case.id)
        .order_by(Feedback.created_at, Feedback.id)
    )
    found = session.execute(query).all()
    passages = given_passages(session, (answer.id for answer, _, _ in found))
    counted = (
        sa.select(AnswerChunk.answer_id, sa.func.count())
        .where(AnswerChunk.answer_id.in_(sorted({answer.id for answer, _, _ in found})))
        .group_by(AnswerChunk.answer_id)
    )
    given = {answer_id: count for answer_id, count in session.execute(counted)}
    return [
        RatedAnswer(answer, feedback, review, passages.get(answer.id, ()), given.get(answer.id, 0))
        for answer, feedback, review in found
    ]


def asked_questions(session: Session, use_case: UseCase) -> list[str]:
    """The newest questions people asked, at most a thousand."""
    query = (
        sa.select(Answer.question)
        .where(Answer.use_case_id == use_case.id)
        .order_by(Answer.created_at.desc(), Answer.id)
        .limit(_TRAFFIC)
    )
    return list(session.scalars(query))


def held_out(session: Session, use_case: UseCase, asked: Mapping[str, str]) -> dict[str, Split]:
    """Items that an earlier snapshot held out, by themselves or by their question.

    Args:
        session: An open session.
        use_case: Whose ledger.
        asked: The question of every item, rows and preferences, by id.
    """
    query = sa.select(HeldOutItem).where(HeldOutItem.use_case_id == use_case.id)
    entries = list(session.scalars(query))
    by_item = {entry.item: entry.split for entry in entries}
    by_question = {entry.question_sha256: entry.split for entry in entries}
    found: dict[str, Split] = {}
    for name, question in asked.items():
        split = by_item.get(name) or by_question.get(question_sha256(question))
        if split:
            found[name] = split  # type: ignore[assignment]
    return found


def remember_held_out(session: Session, snapshot: DatasetSnapshot, rows: Iterable[Row]) -> int:
    """Write the confirm and test rows of a snapshot into the ledger; how many were new."""
    query = sa.select(HeldOutItem.item).where(HeldOutItem.use_case_id == snapshot.use_case_id)
    known = set(session.scalars(query))
    new = [
        HeldOutItem(
            use_case_id=snapshot.use_case_id,
            item=row["id"],
            question_sha256=question_sha256(row["question"]),
            split=row["split"],
            dataset_id=snapshot.id,
        )
        for row in rows
        if row["split"] in ("confirm", "test") and row["id"] not in known
    ]
    session.add_all(new)
    session.flush()
    return len(new)


def question_sha256(question: str) -> str:
    """Identity of a question, whatever its case and punctuation."""
    return hashlib.sha256(normalise_question(question).encode()).hexdigest()


def _passage(chunk: Chunk, document: Document, version: DocumentVersion) -> StoredPassage:
    title = context_path(document.title, chunk.heading_path)
    return StoredPassage(
        chunk.id, title, chunk.text, document.external_id, version.id, version.valid_from
    )
