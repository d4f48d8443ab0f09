"""A process that runs jobs: `python job_process.py HOME MODE`, MODE = die | run | sleepy.

The handler has six steps and writes the number of each one it executes to HOME/steps.txt.
"""

import os
import sys
import time
from pathlib import Path

import sqlalchemy as sa

from app.db.migrations import upgrade
from app.db.session import Database
from app.db.tables import Job
from app.jobs.runner import JobRunner
from app.workspaces import service as workspaces


def six_steps(home: Path, mode: str):
    def handler(job):
        total = 0
        for number in range(1, 7):

            def work(number=number):
                with (home / "steps.txt").open("a") as file:
                    file.write(f"{number}\n")
                if mode == "die" and number == 3:
                    os._exit(9)
                return number * 10

            total += job.step(f"step {number}", work)
            job.progress(number, 6, f"step {number}")
        return {"total": total, "payload": job.payload}

    return handler


def main(home: Path, mode: str) -> None:
    database = Database(f"sqlite:///{home / 'tandem.sqlite'}")
    upgrade(database)
    with database.session() as session:
        workspace = workspaces.ensure_default_workspace(session)
        if session.get(Job, "the-job") is None:
            session.add(
                Job(
                    id="the-job",
                    workspace_id=workspace.id,
                    kind="ingest",
                    payload={"x": 1},
                    created_by="test",
                )
            )
    runner = JobRunner(
        database, f"sqlite:///{home / 'jobs.sqlite'}", {"ingest": six_steps(home, mode)}
    )
    if mode == "die":
        runner.submit("the-job", "ingest")
    else:
        runner.launch()
        runner.resubmit_stranded()
    deadline = time.monotonic() + 30
    while runner.has_unfinished() and time.monotonic() < deadline:
        time.sleep(0.05)
    runner.close()
    with database.session() as session:
        print(session.scalar(sa.select(Job.state)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
