"""Stages of an adapter: candidate, staged, live, retired; one live adapter per use case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.tables import Adapter, AdapterMove, UseCase
from app.errors import BadInput, Conflict
from app.use_cases import service as use_cases
from app.workspaces.policy import Principal

CANDIDATE, STAGED, LIVE, RETIRED = "candidate", "staged", "live", "retired"
_NEXT: dict[str, tuple[str, ...]] = {
    CANDIDATE: (STAGED, RETIRED),
    STAGED: (LIVE, RETIRED),
    LIVE: (RETIRED,),
    RETIRED: (STAGED,),
}


def move(session: Session, principal: Principal, adapter: str, stage: str, reason: str) -> Adapter:
    """Take an adapter to a stage; a new live one serves at once and the old one becomes staged.

    Raises:
        BadInput: The stage is unknown, or the adapter belongs to no use case.
        Conflict: The stage cannot follow the adapter's own.
    """
    found = use_cases.find_adapter(session, principal.workspace_id, adapter)
    use_case = _use_case_of(session, found)
    if stage not in _NEXT:
        raise BadInput(f"stage {stage!r} is unknown: choose {', '.join(_NEXT)}")
    _live(session, principal, use_case)
    if stage not in _NEXT[found.stage]:
        raise Conflict(
            f"adapter {found.name!r} is {found.stage}: next can be {', '.join(_NEXT[found.stage])}"
        )
    if found.stage == LIVE and use_case.adapter_id == found.id:
        raise Conflict(
            f"adapter {found.name!r} serves {use_case.name!r}: make another one live, or roll back"
        )
    if stage == LIVE:
        _require_files(found)
        _replace_live(session, principal, use_case, found, reason)
    _record(session, principal, found, stage, (use_case.id, reason))
    return found


def rollback(session: Session, principal: Principal, use_case_name: str, reason: str) -> Adapter:
    """Retire the live adapter and serve with the one that was live before it.

    Raises:
        Conflict: No earlier adapter was live, or it is retired, or its files are gone.
    """
    use_case = use_cases.get(session, principal.workspace_id, use_case_name)
    live = _live(session, principal, use_case)
    query = (
        sa.select(Adapter)
        .join(AdapterMove, AdapterMove.adapter_id == Adapter.id)
        .where(
            AdapterMove.use_case_id == use_case.id,
            AdapterMove.from_stage == LIVE,
            Adapter.stage == STAGED,
        )
        .order_by(AdapterMove.created_at.desc())
    )
    before = session.scalars(query).first()
    if live is None or before is None:
        raise Conflict(f"use case {use_case_name!r} has no earlier live adapter to go back to")
    _require_files(before)
    _record(session, principal, live, RETIRED, (use_case.id, reason))
    _record(session, principal, before, LIVE, (use_case.id, f"rollback: {reason}"))
    use_cases.serve_with(session, use_case, adapter_id=before.id)
    return before


def history(session: Session, workspace_id: str, adapter: str) -> list[dict[str, Any]]:
    """An adapter's moves, oldest first."""
    found = use_cases.find_adapter(session, workspace_id, adapter)
    query = sa.select(AdapterMove).where(AdapterMove.adapter_id == found.id)
    return [
        {
            "at": made.created_at.isoformat(),
            "from": made.from_stage,
            "to": made.to_stage,
            "by": made.moved_by,
            "reason": made.reason,
        }
        for made in session.scalars(query.order_by(AdapterMove.created_at))
    ]


def _replace_live(
    session: Session, principal: Principal, use_case: UseCase, new: Adapter, reason: str
) -> None:
    live = _live(session, principal, use_case)
    if live is not None and live.id != new.id:
        _record(session, principal, live, STAGED, (use_case.id, f"replaced: {reason}"))
    use_cases.serve_with(session, use_case, adapter_id=new.id)


def _live(session: Session, principal: Principal, use_case: UseCase) -> Adapter | None:
    """The use case's own adapter that serves; a setting made it live if no move did."""
    # Two moves at once would each make an adapter live; SQLite has one writer anyhow.
    session.refresh(use_case, with_for_update=True)
    own = sa.select(Adapter).where(Adapter.use_case_id == use_case.id, Adapter.stage == LIVE)
    for other in session.scalars(own).all():
        if other.id != use_case.adapter_id:
            why = (use_case.id, "a setting made the use case serve with another one")
            _record(session, principal, other, STAGED, why)
    if use_case.adapter_id is None:
        return None
    serving = session.get(Adapter, use_case.adapter_id)
    if serving is None or serving.workspace_id is None:
        return None
    if serving.use_case_id not in (None, use_case.id):
        return None  # its stage is told by the use case it belongs to
    serving.stage = LIVE
    return serving


def _require_files(adapter: Adapter) -> None:
    if not Path(adapter.path).is_dir():
        raise Conflict(f"adapter {adapter.name!r} cannot serve: its folder is gone; retire it")


def _record(
    session: Session, principal: Principal, adapter: Adapter, stage: str, why: tuple[str, str]
) -> None:
    session.add(
        AdapterMove(
            adapter_id=adapter.id,
            use_case_id=why[0],
            from_stage=adapter.stage,
            to_stage=stage,
            reason=why[1],
            moved_by=principal.name,
        )
    )
    adapter.stage = stage
    session.add(adapter)
    session.flush()


def _use_case_of(session: Session, adapter: Adapter) -> UseCase:
    if adapter.use_case_id is None:
        raise BadInput(f"adapter {adapter.name!r} belongs to no use case, so it has no stages")
    return session.get_one(UseCase, adapter.use_case_id)
