"""Evaluations of arms and the decisions that rest on them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Created, Id, new_id, now


class Evaluation(Base):
    """Arms compared on one set of samples; outputs and report lie under `path`."""

    __tablename__ = "evaluations"

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    use_case_id: Mapped[str] = mapped_column(ForeignKey("use_cases.id"), index=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    samples_sha256: Mapped[str] = mapped_column(String(64))
    path: Mapped[str]
    summary: Mapped[dict[str, Any]]
    manifest: Mapped[dict[str, Any]]
    created_at: Mapped[Created] = mapped_column(default=now)


class Look(Base):
    """One look at an evaluation's outputs under registered rules (`app.evaluations.looks`).

    `questions` are fingerprints; `exploratory` says why the promised error rate does not hold;
    `earlier` are arms that looks before had dropped, `dropped` those of this one.
    """

    __tablename__ = "looks"
    __table_args__ = (UniqueConstraint("evaluation_id", "rules_sha256"),)

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    use_case_id: Mapped[str] = mapped_column(ForeignKey("use_cases.id"), index=True)
    evaluation_id: Mapped[str] = mapped_column(ForeignKey("evaluations.id"))
    rules_sha256: Mapped[str] = mapped_column(String(64))
    rules: Mapped[dict[str, Any]]
    samples_sha256: Mapped[str] = mapped_column(String(64))
    texts_sha256: Mapped[str] = mapped_column(String(64))
    questions: Mapped[list[Any]]
    look: Mapped[int]
    planned: Mapped[int]
    seen_before: Mapped[int]
    uses_before: Mapped[int]
    exploratory: Mapped[list[Any]]
    earlier: Mapped[list[Any]]
    dropped: Mapped[list[Any]]
    created_at: Mapped[Created] = mapped_column(default=now)


class Decision(Base):
    """Which arm serves and why; `record` is the whole replayable decision.

    Without an evaluation it is an assumption. `context`: what served when it was made, so that a
    change can be told (`app.decisions.due`).
    """

    __tablename__ = "decisions"

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    use_case_id: Mapped[str] = mapped_column(ForeignKey("use_cases.id"), index=True)
    evaluation_id: Mapped[str | None] = mapped_column(ForeignKey("evaluations.id"))
    status: Mapped[str] = mapped_column(String(12))
    arm: Mapped[str | None] = mapped_column(String(10))
    applied: Mapped[bool] = mapped_column(default=False)
    record: Mapped[dict[str, Any]]
    context: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_by: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[Created] = mapped_column(default=now)


class TriggerCheck(Base):
    """One look at whether a decision still holds; `alpha` counts against the quarter's budget."""

    __tablename__ = "trigger_checks"

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    use_case_id: Mapped[str] = mapped_column(ForeignKey("use_cases.id"), index=True)
    decision_id: Mapped[str] = mapped_column(ForeignKey("decisions.id"))
    kind: Mapped[str] = mapped_column(String(12))
    fired: Mapped[bool]
    alpha: Mapped[float]
    value: Mapped[float | None]
    sentence: Mapped[str]
    created_at: Mapped[Created] = mapped_column(default=now)


class DecisionRequest(Base):
    """A decision that is due again, and why; open until a newer decision answers it."""

    __tablename__ = "decision_requests"

    id: Mapped[Id] = mapped_column(default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    use_case_id: Mapped[str] = mapped_column(ForeignKey("use_cases.id"), index=True)
    decision_id: Mapped[str] = mapped_column(ForeignKey("decisions.id"))
    kind: Mapped[str] = mapped_column(String(12))
    sentence: Mapped[str]
    created_at: Mapped[Created] = mapped_column(default=now)
    answered_by: Mapped[str | None] = mapped_column(String(64))
