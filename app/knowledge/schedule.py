"""What happens by the clock: versions that become valid, and sources that are read again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from app.db.base import now
from app.db.session import Database
from app.db.tables import Job, KnowledgeBase, SyncSource
from app.errors import AppError
from app.knowledge import repository
from app.knowledge.indexes import KnowledgeIndexes
from app.knowledge.publishing import move_to_past
from retrieval.errors import RetrievalError

log = structlog.get_logger(__name__)

_PERIOD_S = 1.0


class Ticker:
    """A thread that looks once a second. It does nothing that may wait for long by itself."""

    def __init__(
        self,
        database: Database,
        indexes: Callable[[], KnowledgeIndexes],
        submit: Callable[[str, str], None],
    ) -> None:
        """Wire it; nothing runs before `start`.

        Args:
            database: the application database.
            indexes: gives the knowledge indexes, loading them when it must.
            submit: hands a committed job row to its queue, by id and kind.
        """
        self._database = database
        self._indexes = indexes
        self._submit = submit
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look from now on, once a second."""
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after what it is just doing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def tick(self, moment: datetime | None = None) -> None:
        """Show the versions and start the syncs that are due."""
        moment = moment or now()
        activate_due(self._database, self._indexes, moment)
        for job_id in start_due_syncs(self._database, moment):
            self._submit(job_id, "ingest")

    def _run(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            try:
                self.tick()
            except (sa.exc.SQLAlchemyError, AppError, RetrievalError, OSError) as error:
                log.warning("tick_failed", error=str(error))


def activate_due(
    database: Database, indexes: Callable[[], KnowledgeIndexes], moment: datetime
) -> int:
    """Show the scheduled versions whose time has come; returns how many."""
    with database.reading() as session:
        due = [(v.id, v.knowledge_base_id) for v in repository.due_versions(session, moment)]
    for version_id, kb_id in due:
        loaded = indexes()
        with loaded.writing(kb_id):
            with database.session() as session:
                kb = session.get_one(KnowledgeBase, kb_id)
                retired = repository.make_visible(session, version_id, moment)
            move_to_past(loaded.of(kb), kb, [retired] if retired else [])
    return len(due)


def start_due_syncs(database: Database, moment: datetime) -> list[str]:
    """Job rows for the sources whose time has come and whose last job has ended."""
    started = []
    with database.reading() as session:
        waiting = session.scalar(
            sa.select(SyncSource.id).where(SyncSource.next_at <= moment).limit(1)
        )
    if waiting is None:
        return []
    with database.session() as session:
        due = sa.select(SyncSource).where(SyncSource.next_at <= moment)
        for source in session.scalars(due):
            last = session.get(Job, source.last_job_id) if source.last_job_id else None
            if last is None or last.state in ("succeeded", "failed"):
                started.append(start_sync(session, source).id)
            source.next_at = moment + timedelta(seconds=source.every_s)
    return started


def start_sync(session: Session, source: SyncSource) -> Job:
    """A queued job that reads the sources; the caller submits it after the commit."""
    job = Job(
        workspace_id=source.workspace_id,
        kind="ingest",
        payload={
            "knowledge_base_id": source.knowledge_base_id,
            "specs": source.specs,
            "sync": source.sync,
        },
        created_by=source.created_by,
    )
    session.add(job)
    session.flush()
    source.last_job_id = job.id
    return job
