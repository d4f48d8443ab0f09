"""Feedback, its review by a second person, and the examples that come of it."""

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
    """`state`: pending, approved, edited, rejected. Never decided by the correction's author."""

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


class Example(Base):
    """A question with the reply the house wants, and where it came from."""

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
