"""One DBOS workflow runs every kind of job; a handler per kind does the work in named steps.

A job that was under way when the process died is continued by the next process that launches the
runner: finished steps are not repeated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pysqlite3
import sqlalchemy as sa
import structlog
from dbos import DBOS, DBOSConfig, SetWorkflowID
from sqlalchemy import event

from app.db.base import now
from app.db.session import Database
from app.db.tables import Job
from app.errors import as_app_error

log = structlog.get_logger(__name__)

T = TypeVar("T")
Handler = Callable[["JobContext"], dict[str, Any]]

QUEUES = {
    "ingest": "ingest",
    "migrate": "migration",
    "tune": "tuning",
    "evaluate": "evaluation",
    "judge": "evaluation",
}
_PROGRESS_PERIOD_S = 0.25
_active: JobRunner | None = None


class Interrupted(BaseException):
    """The process ends; the job goes on at the next launch.

    Not an `Exception`: DBOS would record one as the workflow's failure and never continue it.
    """


class JobContext:
    """What a handler gets: the payload, named durable steps, and a place to report progress."""

    def __init__(self, database: Database, job: Job, closing: threading.Event) -> None:
        self.job_id = job.id
        self.workspace_id = job.workspace_id
        self.created_by = job.created_by
        self.payload = job.payload
        self._database = database
        self._closing = closing
        self._reported = 0.0

    def step(self, name: str, work: Callable[[], T]) -> T:
        """Run `work` once; after a restart its stored result is returned instead."""
        self._stop_if_closing()
        return DBOS.run_step({"name": name}, work)

    def progress(self, done: int, total: int, message: str = "") -> None:
        """Show progress; at most four writes a second reach the database."""
        self._stop_if_closing()
        moment = time.monotonic()
        if done < total and moment - self._reported < _PROGRESS_PERIOD_S:
            return
        self._reported = moment
        with self._database.session() as session:
            session.execute(
                sa.update(Job)
                .where(Job.id == self.job_id)
                .values(done=done, total=total, message=message)
            )

    def _stop_if_closing(self) -> None:
        if self._closing.is_set():
            raise Interrupted


class JobRunner:
    """Launches DBOS at most once per process and runs jobs on its queues."""

    def __init__(self, database: Database, jobs_url: str, handlers: dict[str, Handler]) -> None:
        self._database = database
        self._jobs_url = jobs_url
        self._handlers = handlers
        self._lock = threading.Lock()
        self._launched = False
        self._closing = threading.Event()

    def launch(self) -> None:
        """Start executing, and continue what a dead process left."""
        global _active  # DBOS is one per process; its workflow function finds the runner here
        with self._lock:
            if self._launched:
                return
            config: DBOSConfig = {
                "name": "tandem",
                "application_version": "1",  # recover across code changes; handlers stay compatible
                "executor_id": "local",
                "log_level": "ERROR",
                "run_migrations": True,
                "notification_listener_polling_interval_sec": 0.2,
            }
            if self._jobs_url.startswith("sqlite"):
                config["system_database_engine"] = _sqlite_job_store(self._jobs_url)
                config["system_database_url"] = self._jobs_url
            else:
                config["system_database_url"] = self._jobs_url
            DBOS(config=config)
            self._closing = threading.Event()
            _active = self
            DBOS.launch()
            for queue in sorted(set(QUEUES.values())):
                DBOS.register_queue(queue, worker_concurrency=1, polling_interval_sec=0.2)
            self._launched = True

    def submit(self, job_id: str, kind: str) -> None:
        """Hand a committed job row to its queue; submitting twice runs it once."""
        self.launch()
        with SetWorkflowID(job_id):
            DBOS.enqueue_workflow(QUEUES[kind], run_job, job_id)

    def resubmit_stranded(self) -> None:
        """Submit rows whose process died between the commit and the queue."""
        with self._database.session() as session:
            rows = session.execute(
                sa.select(Job.id, Job.kind).where(Job.state.in_(("queued", "running")))
            ).all()
        for job_id, kind in rows:
            self.submit(job_id, kind)

    def has_unfinished(self) -> bool:
        """Whether any job still waits or runs."""
        with self._database.session() as session:
            found = session.scalar(
                sa.select(Job.id).where(Job.state.in_(("queued", "running"))).limit(1)
            )
        return found is not None

    def close(self) -> None:
        """Stop executing; unfinished jobs continue at the next launch."""
        global _active
        with self._lock:
            if self._launched:
                self._closing.set()
                DBOS.destroy(workflow_completion_timeout_sec=0)
                _active = None
                self._launched = False

    def execute(self, job_id: str) -> None:
        """Run one job to its end and record the outcome."""
        with self._database.session() as session:
            job = session.get(Job, job_id)
            if job is None or job.state in ("succeeded", "failed"):
                return
            job.state = "running"
            job.started_at = job.started_at or now()
        closing = self._closing
        context = JobContext(self._database, job, closing)
        try:
            result = self._handlers[job.kind](context)
        except Exception as error:
            if closing.is_set():  # the store closed under the handler
                raise Interrupted from error
            expected = as_app_error(error)
            if expected is None:
                log.exception("job_crashed", job=job_id, kind=job.kind)
            reason = expected.detail if expected else f"{type(error).__name__}: {error}"
            self._finish(job_id, "failed", error=reason)
        else:
            self._finish(job_id, "succeeded", result=result)

    def _finish(
        self,
        job_id: str,
        state: str,
        result: dict[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        with self._database.session() as session:
            session.execute(
                sa.update(Job)
                .where(Job.id == job_id)
                .values(state=state, result=result, error=error, finished_at=now())
            )
        log.info("job_finished", job=job_id, state=state, error=error)


def _sqlite_job_store(url: str) -> sa.Engine:
    """DBOS opens and commits its own transactions; it only needs the fixed SQLite and WAL."""
    engine = sa.create_engine(url, module=pysqlite3.dbapi2)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "busy_timeout=30000",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    return engine


@DBOS.workflow(name="tandem.job", max_recovery_attempts=100)
def run_job(job_id: str) -> None:
    """The one workflow: everything else is in the handler of the job's kind."""
    if _active is None:
        raise Interrupted
    _active.execute(job_id)
