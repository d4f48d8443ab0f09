"""Workspaces (tenants) and the API keys that act in them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Created, Id, new_id, now


class Workspace(Base):
    """A tenant: nothing crosses its border. `limits` hold for all its keys together."""

    __tablename__ = "workspaces"

    id: Mapped[Id] = mapped_column(default=new_id)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    limits: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[Created] = mapped_column(default=now)


class ApiKey(Base):
    """A person or program in one workspace, with one role. Only the secret's hash is kept.

    `groups`: the document groups it may be answered from; None means all of them.
    """

    __tablename__ = "api_keys"
    __table_args__ = (UniqueConstraint("workspace_id", "name"),)

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(20))
    secret_sha256: Mapped[str] = mapped_column(String(64))
    groups: Mapped[list[Any] | None] = mapped_column(JSON)
    limits: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[Created] = mapped_column(default=now)
    revoked_at: Mapped[datetime | None]
