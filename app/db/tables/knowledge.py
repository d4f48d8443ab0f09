"""Knowledge bases, documents, their versions and chunks. Vectors are derived from these rows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Created, Id, new_id, now


class KnowledgeBase(Base):
    """A named set of documents, one index shard."""

    __tablename__ = "knowledge_bases"
    __table_args__ = (UniqueConstraint("workspace_id", "name"),)

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str] = mapped_column(String(100))
    embedder: Mapped[str]
    created_at: Mapped[Created] = mapped_column(default=now)


class Document(Base):
    """A source that keeps its identity while its content changes."""

    __tablename__ = "documents"
    __table_args__ = (UniqueConstraint("knowledge_base_id", "external_id"),)

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    knowledge_base_id: Mapped[str] = mapped_column(ForeignKey("knowledge_bases.id"), index=True)
    external_id: Mapped[str] = mapped_column(String(500))
    title: Mapped[str]
    current_version_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[Created] = mapped_column(default=now)
    deleted_at: Mapped[datetime | None]


class DocumentVersion(Base):
    """One content of a document. `state`: pending (being indexed), visible, retired."""

    __tablename__ = "document_versions"
    __table_args__ = (Index("ix_versions_kb_state", "knowledge_base_id", "state"),)

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    knowledge_base_id: Mapped[str] = mapped_column(ForeignKey("knowledge_bases.id"))
    document_id: Mapped[str] = mapped_column(ForeignKey("documents.id"), index=True)
    number: Mapped[int]
    content_sha256: Mapped[str] = mapped_column(String(64))
    title: Mapped[str]
    media_type: Mapped[str] = mapped_column(String(120))
    state: Mapped[str] = mapped_column(String(12))
    supersedes_id: Mapped[str | None] = mapped_column(String(64))
    valid_from: Mapped[datetime]
    valid_to: Mapped[datetime | None]
    created_at: Mapped[Created] = mapped_column(default=now)


class Chunk(Base):
    """A citable span of a version: `document text[start_char:end_char]`."""

    __tablename__ = "chunks"

    id: Mapped[Id]
    version_id: Mapped[str] = mapped_column(ForeignKey("document_versions.id"), index=True)
    document_id: Mapped[str] = mapped_column(ForeignKey("documents.id"), index=True)
    ordinal: Mapped[int]
    text: Mapped[str]
    heading_path: Mapped[list[Any]]
    page_start: Mapped[int | None]
    page_end: Mapped[int | None]
    start_char: Mapped[int]
    end_char: Mapped[int]
    n_tokens: Mapped[int]
    content_sha256: Mapped[str] = mapped_column(String(64))
