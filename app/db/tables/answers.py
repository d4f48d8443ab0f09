"""Answers with their full identity, and the chunks they were given and cited."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Created, Id, new_id, now


class Answer(Base):
    """What was asked, what was said, and everything that determined it.

    `raw_text` is what the engine said before citations were checked, `request` what a replay needs
    besides the passages. `cached_from` is the answer whose generation this one was given.
    """

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
    coverage: Mapped[float | None]
    raw_text: Mapped[str | None]
    request: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    cached_from: Mapped[str | None] = mapped_column(String(64))
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


class CachedAnswer(Base):
    """A generation that may be given again while everything that determined it is the same.

    `key_sha256` is over the whole identity with the prompt; `scope_sha256` leaves the question and
    the prompt out, so that a question of the same meaning can be looked for. `vector` is the
    question's embedding, float32.
    """

    __tablename__ = "cached_answers"

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    use_case_id: Mapped[str] = mapped_column(ForeignKey("use_cases.id"), index=True)
    key_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    scope_sha256: Mapped[str] = mapped_column(String(64), index=True)
    question: Mapped[str]
    vector: Mapped[bytes | None] = mapped_column(LargeBinary)
    generation: Mapped[dict[str, Any]]
    answer_id: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[Created] = mapped_column(default=now)


class CachedAnswerVersion(Base):
    """A document version that a cached answer was made of: when it ends, so does the answer."""

    __tablename__ = "cached_answer_versions"

    cached_id: Mapped[str] = mapped_column(
        ForeignKey("cached_answers.id", ondelete="CASCADE"), primary_key=True
    )
    version_id: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
