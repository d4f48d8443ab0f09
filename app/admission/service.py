"""One request's admission: quotas of its key and workspace, then a place among those answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import sqlalchemy as sa
from anyio import to_thread

from app.admission.gate import Gate
from app.admission.quotas import QuotaStore, Subject
from app.db.base import new_id
from app.db.session import Database
from app.db.tables import Answer
from app.workspaces.service import Caller


@dataclass(slots=True)
class Ticket:
    """An admitted request; `tokens` are charged when it leaves."""

    subjects: tuple[Subject, ...]
    id: str = field(default_factory=new_id)
    tokens: int = 0


class Admission:
    """Lets requests in and out."""

    def __init__(self, database: Database, quotas: QuotaStore, gate: Gate) -> None:
        self._database = database
        self._quotas = quotas
        self.gate = gate

    async def enter(self, caller: Caller) -> Ticket:
        """Count the request and take a place.

        Raises:
            QuotaExceeded: Its key or workspace may not ask now.
            Overloaded: Too many wait already.
            DependencyDown: The store of quotas does not answer.
        """
        ticket = Ticket(_subjects(caller))
        if ticket.subjects:
            await self._count_earlier_use(caller, ticket.subjects)
            await self._quotas.admit(ticket.subjects, ticket.id)
        entered = False
        try:
            await self.gate.enter()
            entered = True
        finally:
            if not entered and ticket.subjects:
                await self._quotas.release(ticket.subjects, ticket.id)
        return ticket

    async def leave(self, ticket: Ticket) -> None:
        """Give the place back and charge what was used."""
        self.gate.leave()
        if ticket.subjects:
            try:
                if ticket.tokens:
                    await self._quotas.charge(ticket.subjects, ticket.tokens)
            finally:
                await self._quotas.release(ticket.subjects, ticket.id)

    async def _count_earlier_use(self, caller: Caller, subjects: Sequence[Subject]) -> None:
        """A day's budget survives a restart: what SQL has recorded today counts."""
        for subject in subjects:
            if subject.limits.tokens_per_day is None or await self._quotas.known_day(subject):
                continue
            tokens = await to_thread.run_sync(self._used_today, caller, subject)
            await self._quotas.start_day(subject, tokens)

    def _used_today(self, caller: Caller, subject: Subject) -> int:
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        query = sa.select(
            sa.func.coalesce(sa.func.sum(Answer.prompt_tokens + Answer.completion_tokens), 0)
        ).where(
            Answer.workspace_id == caller.principal.workspace_id,
            Answer.created_at >= midnight,
            Answer.cached_from.is_(None),
        )
        if subject.kind == "key":
            query = query.where(Answer.asked_by == caller.principal.name)
        with self._database.reading() as session:
            return int(session.scalar(query) or 0)


def _subjects(caller: Caller) -> tuple[Subject, ...]:
    principal = caller.principal
    found = []
    if caller.key_id is not None and caller.key_limits:
        found.append(Subject("key", caller.key_id, principal.name, caller.key_limits))
    if caller.workspace_limits:
        workspace = Subject(
            "workspace", principal.workspace_id, principal.workspace, caller.workspace_limits
        )
        found.append(workspace)
    return tuple(found)
