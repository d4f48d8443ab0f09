"""Use cases: what a product team addresses as `model`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Created, Id, new_id, now


class UseCase(Base):
    """One endpoint's behaviour: knowledge bases, house prompt, and the arm that serves."""

    __tablename__ = "use_cases"
    __table_args__ = (UniqueConstraint("workspace_id", "name"),)

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str] = mapped_column(String(100))
    knowledge_base_ids: Mapped[list[Any]]
    system_prompt: Mapped[str]
    abstain_sentence: Mapped[str]
    arm: Mapped[str] = mapped_column(String(10), default="hybrid")
    adapter_id: Mapped[str | None] = mapped_column(String(64))
    options: Mapped[dict[str, Any]]
    created_at: Mapped[Created] = mapped_column(default=now)
