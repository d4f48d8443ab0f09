"""Knowledge bases, documents, their versions and chunks. Vectors are derived from these rows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Created, Id, new_id, now


def _own_id(context: Any) -> str:
    return str(context.get_current_parameters()["id"])


class KnowledgeBase(Base):
    """A named set of documents, one index shard.

    `embedder` is the identity of the model that made its vectors, `embedder_source` the folder or
    name to load it from (None: the configured one). `index_name` is the shard that serves: a
    change of the embedding model fills another one beside it and switches.
    """

    __tablename__ = "knowledge_bases"
    __table_args__ = (UniqueConstraint("workspace_id", "name"),)

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str] = mapped_column(String(100))
    embedder: Mapped[str]
    embedder_source: Mapped[str | None]
    index_name: Mapped[str] = mapped_column(String(80), default=_own_id)
    created_at: Mapped[Created] = mapped_column(default=now)


class Document(Base):
    """A source that keeps its identity while its content and its name change.

    `attributes`: what searches can be narrowed by. `former_ids`: names it had before it was
    moved. Who may be answered from it stands in `DocumentGroup`; without any, everyone.
    """

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
    attributes: Mapped[dict[str, Any]] = mapped_column(default=dict)
    former_ids: Mapped[list[Any]] = mapped_column(default=list)


class DocumentGroup(Base):
    """A group that may be answered from the document; a document without any is for everyone."""

    __tablename__ = "document_groups"

    document_id: Mapped[str] = mapped_column(ForeignKey("documents.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    knowledge_base_id: Mapped[str] = mapped_column(ForeignKey("knowledge_bases.id"), index=True)


class DocumentVersion(Base):
    """One content of a document.

    `state`: pending (being indexed), scheduled (indexed, valid later), visible, retired (of the
    past), purged (deleted by the owner, from the past too).
    """

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


class SyncSource(Base):
    """Sources that are read again every `every_s` seconds (0: only on request)."""

    __tablename__ = "sync_sources"

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    knowledge_base_id: Mapped[str] = mapped_column(ForeignKey("knowledge_bases.id"), index=True)
    specs: Mapped[list[Any]]
    sync: Mapped[bool]
    every_s: Mapped[int]
    next_at: Mapped[datetime | None] = mapped_column(index=True)
    last_job_id: Mapped[str | None] = mapped_column(String(64))
    created_by: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[Created] = mapped_column(default=now)
