"""Create, find and change use cases; choose the arm and adapter that serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.tables import Adapter, KnowledgeBase, UseCase
from app.errors import BadInput, Conflict, NotFound
from app.use_cases.json_schema import check_schema
from app.use_cases.options import serving_options
from app.workspaces.service import check_name
from evals.arms import COST_ORDER
from tuning.prompt import DEFAULT_ABSTAIN, DEFAULT_SYSTEM


def create(
    session: Session,
    workspace_id: str,
    name: str,
    *,
    knowledge_bases: list[str],
    system_prompt: str = DEFAULT_SYSTEM,
    abstain_sentence: str = DEFAULT_ABSTAIN,
    options: dict[str, Any] | None = None,
) -> UseCase:
    """A new use case over knowledge bases of the same workspace."""
    check_name("use case", name)
    if not abstain_sentence.startswith(DEFAULT_ABSTAIN.rstrip(".")):
        raise BadInput(f"the abstention sentence must start with {DEFAULT_ABSTAIN!r}")
    _check_options(options or {})
    if _find(session, workspace_id, name):
        raise Conflict(f"use case {name!r} exists already")
    query = sa.select(KnowledgeBase).where(KnowledgeBase.workspace_id == workspace_id)
    bases = {kb.name: kb.id for kb in session.scalars(query)}
    for kb in knowledge_bases:
        if kb not in bases:
            known = ", ".join(sorted(bases)) or "none yet"
            raise NotFound(f"no knowledge base {kb!r}: there are {known}")
    use_case = UseCase(
        workspace_id=workspace_id,
        name=name,
        knowledge_base_ids=[bases[kb] for kb in knowledge_bases],
        system_prompt=system_prompt,
        abstain_sentence=abstain_sentence,
        options=options or {},
    )
    session.add(use_case)
    session.flush()
    return use_case


def get(session: Session, workspace_id: str, name: str) -> UseCase:
    """A use case by name, with the valid names in the error."""
    found = _find(session, workspace_id, name)
    if found is None:
        known = ", ".join(uc.name for uc in list_all(session, workspace_id)) or "none yet"
        raise NotFound(f"no use case {name!r}: there are {known}")
    return found


def list_all(session: Session, workspace_id: str) -> list[UseCase]:
    """Use cases by name."""
    query = sa.select(UseCase).where(UseCase.workspace_id == workspace_id)
    return list(session.scalars(query.order_by(UseCase.name)))


def serve_with(
    session: Session, use_case: UseCase, *, arm: str | None = None, adapter_id: str | None = None
) -> None:
    """Choose the arm and adapter for the next requests."""
    if arm is not None:
        check_arm(arm)
        use_case.arm = arm
    if adapter_id is not None:
        find_adapter(session, use_case.workspace_id, adapter_id)
        use_case.adapter_id = adapter_id
    session.add(use_case)


def set_options(session: Session, use_case: UseCase, changes: Mapping[str, Any]) -> None:
    """Change some options; None takes one away."""
    options = {**use_case.options, **changes}
    options = {name: value for name, value in options.items() if value is not None}
    _check_options(options)
    use_case.options = options
    session.add(use_case)


def _check_options(options: Mapping[str, Any]) -> None:
    schema = serving_options(options).json_schema
    if schema is not None:
        check_schema(schema)


def check_arm(arm: str) -> None:
    """Raise unless `arm` is one of the four."""
    if arm not in COST_ORDER:
        raise BadInput(f"arm {arm!r} is unknown: choose {', '.join(COST_ORDER)}")


def find_adapter(session: Session, workspace_id: str, adapter: str) -> Adapter:
    """An adapter of the workspace, or the shipped reader, by id, name or digest prefix."""
    mine = sa.or_(Adapter.workspace_id == workspace_id, Adapter.workspace_id.is_(None))
    same = [Adapter.id == adapter, Adapter.name == adapter]
    if len(adapter) >= 8:
        same.append(Adapter.digest.startswith(adapter, autoescape=True))
    query = sa.select(Adapter).where(mine, sa.or_(*same)).order_by(Adapter.created_at.desc())
    found = session.scalars(query).first()
    if found is None:
        names = session.scalars(sa.select(Adapter.name).where(mine).order_by(Adapter.name))
        raise NotFound(f"no adapter {adapter!r}: there are {', '.join(names) or 'none yet'}")
    return found


def _find(session: Session, workspace_id: str, name: str) -> UseCase | None:
    return session.scalar(
        sa.select(UseCase).where(UseCase.workspace_id == workspace_id, UseCase.name == name)
    )
