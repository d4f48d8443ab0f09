"""Feedback, its review by a second person, and the examples and tickets that come of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Created, Id, new_id, now


class Feedback(Base):
    """A rating of an answer, with a correction when the person knew better."""

    __tablename__ = "feedback"

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), index=True)
    answer_id: Mapped[str] = mapped_column(ForeignKey("answers.id"), index=True)
    author: Mapped[str] = mapped_column(String(100))
    rating: Mapped[str] = mapped_column(String(5))
    correction: Mapped[str | None]
    created_at: Mapped[Created] = mapped_column(default=now)


class Review(Base):
    """`state`: pending, approved, edited, rejected. Never decided by the correction's author.

    `correction_class`: what the correction changed (value, citation, style, format, refusal,
    cosmetic), `edit_ratio`: by how much, in [0, 1]; both are set when it is approved.
    """

    __tablename__ = "reviews"

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), index=True)
    feedback_id: Mapped[str] = mapped_column(ForeignKey("feedback.id"), unique=True)
    state: Mapped[str] = mapped_column(String(10), default="pending")
    reviewer: Mapped[str | None] = mapped_column(String(100))
    final_text: Mapped[str | None]
    note: Mapped[str | None]
    created_at: Mapped[Created] = mapped_column(default=now)
    decided_at: Mapped[datetime | None]
    correction_class: Mapped[str | None] = mapped_column(String(12))
    edit_ratio: Mapped[float | None]


class Example(Base):
    """A question with the reply the house wants, and where it came from.

    `source_type`: jsonl, csv, chat, faq, correction. `consent`: the class of right to train on
    it. `document_versions`: the versions its supporting text was read from. `conversation`: rows
    of one conversation are never split.
    """

    __tablename__ = "examples"
    __table_args__ = (UniqueConstraint("use_case_id", "content_sha256"),)

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    use_case_id: Mapped[str] = mapped_column(ForeignKey("use_cases.id"), index=True)
    kind: Mapped[str] = mapped_column(String(10))
    question: Mapped[str]
    answer: Mapped[str]
    sources: Mapped[list[Any]]
    gold_text: Mapped[str | None]
    gold: Mapped[list[Any]]
    author: Mapped[str] = mapped_column(String(100))
    reviewer: Mapped[str | None] = mapped_column(String(100))
    review_id: Mapped[str | None] = mapped_column(ForeignKey("reviews.id"), unique=True)
    origin: Mapped[str] = mapped_column(String(200))
    content_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[Created] = mapped_column(default=now)
    source_type: Mapped[str] = mapped_column(String(12), default="jsonl")
    consent: Mapped[str] = mapped_column(String(12), default="internal")
    document_versions: Mapped[list[Any]] = mapped_column(default=list)
    conversation: Mapped[str | None] = mapped_column(String(200))
    history: Mapped[list[Any]] = mapped_column(default=list)


class Ticket(Base):
    """Work that a correction asks of the knowledge owner instead of the model.

    `kind`: knowledge (no document holds the fact), retrieval (one does, but it was not found),
    reindex (the answer was given an outdated passage). `state`: open, closed.
    """

    __tablename__ = "tickets"

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), index=True)
    use_case_id: Mapped[str] = mapped_column(ForeignKey("use_cases.id"))
    review_id: Mapped[str] = mapped_column(ForeignKey("reviews.id"), unique=True)
    kind: Mapped[str] = mapped_column(String(10))
    state: Mapped[str] = mapped_column(String(10), default="open")
    question: Mapped[str]
    correction: Mapped[str]
    reason: Mapped[str]
    documents: Mapped[list[Any]]
    created_at: Mapped[Created] = mapped_column(default=now)
    closed_at: Mapped[datetime | None]
    closed_by: Mapped[str | None] = mapped_column(String(100))
