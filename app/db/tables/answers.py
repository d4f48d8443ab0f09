"""Answers with their full identity, and the chunks they were given and cited."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Created, Id, new_id, now


class Answer(Base):
    """What was asked, what was said, and everything that determined it."""

    __tablename__ = "answers"
    __table_args__ = (Index("ix_answers_workspace_created", "workspace_id", "created_at"),)

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    use_case_id: Mapped[str] = mapped_column(ForeignKey("use_cases.id"), index=True)
    question: Mapped[str]
    history: Mapped[list[Any]]
    text: Mapped[str]
    arm: Mapped[str] = mapped_column(String(10))
    adapter_id: Mapped[str | None] = mapped_column(String(64))
    abstained: Mapped[bool]
    grounded: Mapped[bool | None]
    finish_reason: Mapped[str] = mapped_column(String(20))
    identity: Mapped[dict[str, Any]]
    identity_sha256: Mapped[str] = mapped_column(String(64), index=True)
    timings: Mapped[dict[str, Any]]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    asked_by: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[Created] = mapped_column(default=now)


class AnswerChunk(Base):
    """A passage put before the model; `cited` with the quoted span when the answer used it."""

    __tablename__ = "answer_chunks"

    answer_id: Mapped[str] = mapped_column(ForeignKey("answers.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    chunk_id: Mapped[str] = mapped_column(String(64))
    document_id: Mapped[str] = mapped_column(String(64), index=True)
    version_id: Mapped[str] = mapped_column(String(64), index=True)
    score: Mapped[float]
    cited: Mapped[bool]
    quote: Mapped[str | None]
    quote_start: Mapped[int | None]
    quote_end: Mapped[int | None]
