"""A process that ingests a folder as a durable job: `python ingest_process.py HOME PAGES JOB KILL`.

It counts its moments: SQL statements of the job, and calls that embed, write to the index, flush
and flip. With KILL above 0 it dies of SIGKILL up to 20 ms after that moment, else it ends with
`finished` and the number of moments. So a kill lands on fast and slow machines alike, and the
slowed calls can be hit in their midst.
"""

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import sqlalchemy as sa
from factories import make_container

from app.db.tables import Job, KnowledgeBase
from app.knowledge import repository, service
from app.logs import configure_logs
from app.workspaces import service as workspaces


class Moments:
    """Counts what the job does; kills the process soon after one of its moments."""

    def __init__(self, kill_at: int) -> None:
        self.seen = 0
        self._kill_at = kill_at

    def one(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            return  # the main thread only waits, as long as it takes
        self.seen += 1
        if self.seen == self._kill_at:
            delay = random.uniform(0, 0.02)
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    def slowed(self, function, seconds):
        def slow(*args, **kwargs):
            self.one()
            time.sleep(seconds)
            done = function(*args, **kwargs)
            self.one()
            time.sleep(seconds)
            return done

        return slow


def main(home: Path, pages: str, job_id: str, kill_at: int) -> None:
    configure_logs("error", as_json=False)
    container = make_container(home, answers=False)
    container.prepare()
    part = container.knowledge.by_source(None)
    index = part.index
    moments = Moments(kill_at)
    sa.event.listen(container.database.engine, "before_cursor_execute", moments.one)
    part.embedder.delay_s = 0.05
    index.upsert = moments.slowed(index.upsert, 0.03)
    index.flush = moments.slowed(index.flush, 0.03)
    index.delete_version = moments.slowed(index.delete_version, 0.005)
    repository.make_visible = moments.slowed(repository.make_visible, 0.002)
    with container.database.session() as session:
        workspace = workspaces.ensure_default_workspace(session).id
        kb = session.scalar(sa.select(KnowledgeBase))
        kb = kb or service.create(session, workspace, "docs", "hashing@0")
        if session.get(Job, job_id) is None:
            session.add(
                Job(
                    id=job_id,
                    workspace_id=workspace,
                    kind="ingest",
                    payload={
                        "knowledge_base_id": kb.id,
                        "paths": [pages],
                        "sync": True,
                        "valid_from": None,
                    },
                    created_by="test",
                )
            )
    moments.seen = 0
    container.jobs.launch()
    container.jobs.resubmit_stranded()
    while container.jobs.has_unfinished():
        time.sleep(0.05)
    container.close()
    print("finished", moments.seen, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
