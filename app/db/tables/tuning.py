"""Sealed dataset snapshots, tuning runs, adapters."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Created, Id, new_id, now


class DatasetSnapshot(Base):
    """A sealed dataset; `content_sha256` is its identity, the files lie under `path`."""

    __tablename__ = "dataset_snapshots"
    __table_args__ = (UniqueConstraint("use_case_id", "content_sha256"),)

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    use_case_id: Mapped[str] = mapped_column(ForeignKey("use_cases.id"), index=True)
    content_sha256: Mapped[str] = mapped_column(String(64))
    path: Mapped[str]
    manifest: Mapped[dict[str, Any]]
    created_by: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[Created] = mapped_column(default=now)


class HeldOutItem(Base):
    """An example that a snapshot of the use case held out to confirm or test; it never trains.

    `item` is the row's id, `question_sha256` its question without case and punctuation.
    """

    __tablename__ = "held_out_items"

    use_case_id: Mapped[str] = mapped_column(ForeignKey("use_cases.id"), primary_key=True)
    item: Mapped[str] = mapped_column(String(64), primary_key=True)
    question_sha256: Mapped[str] = mapped_column(String(64))
    split: Mapped[str] = mapped_column(String(10))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset_snapshots.id"))
    created_at: Mapped[Created] = mapped_column(default=now)


class TuningRun(Base):
    """One training; its job tells the state."""

    __tablename__ = "tuning_runs"

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    use_case_id: Mapped[str] = mapped_column(ForeignKey("use_cases.id"), index=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset_snapshots.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    config: Mapped[dict[str, Any]]
    adapter_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[Created] = mapped_column(default=now)


class Adapter(Base):
    """A verified adapter. `workspace_id` is null for the reader that ships with Tandem.

    `stage`: candidate, staged, live, retired.
    """

    __tablename__ = "adapters"

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str | None] = mapped_column(ForeignKey("workspaces.id"), index=True)
    use_case_id: Mapped[str | None] = mapped_column(ForeignKey("use_cases.id"))
    name: Mapped[str] = mapped_column(String(120))
    digest: Mapped[str] = mapped_column(String(64), index=True)
    path: Mapped[str]
    gguf_path: Mapped[str]
    base_sha256: Mapped[str] = mapped_column(String(64))
    parent_digest: Mapped[str | None] = mapped_column(String(64))
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("dataset_snapshots.id"))
    manifest: Mapped[dict[str, Any]]
    created_at: Mapped[Created] = mapped_column(default=now)
    stage: Mapped[str] = mapped_column(String(10), default="candidate")


class AdapterMove(Base):
    """An adapter's step from one stage to another, with who made it and why."""

    __tablename__ = "adapter_moves"

    id: Mapped[Id] = mapped_column(default=new_id)
    adapter_id: Mapped[str] = mapped_column(ForeignKey("adapters.id"), index=True)
    use_case_id: Mapped[str] = mapped_column(ForeignKey("use_cases.id"), index=True)
    from_stage: Mapped[str] = mapped_column(String(10))
    to_stage: Mapped[str] = mapped_column(String(10))
    reason: Mapped[str]
    moved_by: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[Created] = mapped_column(default=now)
