"""A process that ingests a folder as a durable job: `python ingest_process.py HOME PAGES JOB`.

Says `ready` before the work starts; embedding, flush and flip are slowed down so that a kill at a
random moment can hit each of them.
"""

import sys
import time
from pathlib import Path

import sqlalchemy as sa
from factories import make_container

from app.db.tables import Job, KnowledgeBase
from app.knowledge import repository, service
from app.logs import configure_logs
from app.workspaces import service as workspaces


def slowed(function, seconds):
    def slow(*args, **kwargs):
        time.sleep(seconds)
        done = function(*args, **kwargs)
        time.sleep(seconds)
        return done

    return slow


def main(home: Path, pages: str, job_id: str) -> None:
    configure_logs("error", as_json=False)
    container = make_container(home, answers=False)
    container.prepare()
    part = container.knowledge.by_source(None)
    index = part.index
    part.embedder.delay_s = 0.05
    index.upsert = slowed(index.upsert, 0.03)
    index.flush = slowed(index.flush, 0.03)
    index.delete_version = slowed(index.delete_version, 0.005)
    repository.make_visible = slowed(repository.make_visible, 0.002)
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
    print("ready", flush=True)
    container.jobs.launch()
    container.jobs.resubmit_stranded()
    while container.jobs.has_unfinished():
        time.sleep(0.05)
    container.close()
    print("finished", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
