"""Durable jobs: killed, submitted twice, failing, and interrupted by an orderly shutdown."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from app.db.migrations import upgrade
from app.db.session import Database
from app.db.tables import Job
from app.errors import BadInput, StorageFull
from app.jobs.runner import JobRunner
from app.workspaces import service as workspaces

ROOT = Path(__file__).parents[3]
PROCESS = Path(__file__).parent / "job_process.py"


def run_process(home, mode):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(PROCESS), str(home), mode],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )


def test_job_killed_in_step_3_continues_at_step_3_in_a_new_process(tmp_path):
    killed = run_process(tmp_path, "die")
    assert killed.returncode == 9, killed.stderr
    finished = run_process(tmp_path, "run")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split()[-1] == "succeeded"
    executed = (tmp_path / "steps.txt").read_text().split()
    assert executed == ["1", "2", "3", "3", "4", "5", "6"]


class World:
    """A database, a workspace and runners over one job store."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.database = Database(f"sqlite:///{home / 'tandem.sqlite'}")
        upgrade(self.database)
        with self.database.session() as session:
            self.workspace = workspaces.ensure_default_workspace(session).id
        self.runners: list[JobRunner] = []

    def runner(self, handler) -> JobRunner:
        url = f"sqlite:///{self.home / 'jobs.sqlite'}"
        runner = JobRunner(self.database, url, {"ingest": handler})
        self.runners.append(runner)
        return runner

    def new_job(self) -> str:
        with self.database.session() as session:
            job = Job(workspace_id=self.workspace, kind="ingest", payload={}, created_by="t")
            session.add(job)
            session.flush()
            return job.id

    def wait(self, job_id: str, *states: str) -> Job:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with self.database.session() as session:
                job = session.get(Job, job_id)
            if job.state in (states or ("succeeded", "failed")):
                return job
            time.sleep(0.02)
        raise AssertionError(f"job is still {job.state}")


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    for runner in world.runners:
        runner.close()
    world.database.close()


def test_job_submitted_twice_runs_once(world):
    runs = []
    runner = world.runner(lambda job: (runs.append(job.job_id), {"ok": True})[1])
    job = world.new_job()
    runner.submit(job, "ingest")
    runner.submit(job, "ingest")
    assert world.wait(job).result == {"ok": True}
    runner.submit(job, "ingest")
    other = world.new_job()
    runner.submit(other, "ingest")
    world.wait(other)
    assert runs == [job, other]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (BadInput("the folder is empty: give another"), "the folder is empty: give another"),
        (StorageFull("no space left"), "no space left"),
        (ValueError("odd"), "ValueError: odd"),
        (OSError(28, "No space left on device", "x.bin"), "no space left on the disk (x.bin)"),
    ],
)
def test_failing_handler_leaves_its_sentence(world, error, sentence):
    def fail(job):
        raise error

    runner = world.runner(fail)
    job = world.new_job()
    runner.submit(job, "ingest")
    ended = world.wait(job)
    assert (ended.state, ended.error) == ("failed", sentence)
    assert ended.finished_at is not None


def test_row_whose_process_died_before_the_queue_is_submitted_at_the_next_start(world):
    job = world.new_job()
    runner = world.runner(lambda job: {"ok": True})
    assert runner.has_unfinished()
    runner.launch()
    runner.resubmit_stranded()
    assert world.wait(job).state == "succeeded"


def test_jobs_of_one_kind_run_one_after_the_other(world):
    running, most = [], []

    def handler(job):
        running.append(job.job_id)
        most.append(len(running))
        time.sleep(0.1)
        running.remove(job.job_id)
        return {}

    runner = world.runner(handler)
    jobs = [world.new_job() for _ in range(3)]
    for job in jobs:
        runner.submit(job, "ingest")
    for job in jobs:
        world.wait(job)
    assert max(most) == 1


def test_job_interrupted_by_an_orderly_shutdown_goes_on_at_the_next_start(world):
    reached, go_on = threading.Event(), threading.Event()
    executed = []

    def interrupted(job):
        job.step("one", lambda: executed.append(1))
        reached.set()
        go_on.wait(10)
        job.step("two", lambda: executed.append(2))
        return {"by": "first"}

    first = world.runner(interrupted)
    job = world.new_job()
    first.submit(job, "ingest")
    assert reached.wait(10)
    closing = threading.Thread(target=first.close)
    closing.start()
    time.sleep(0.3)
    go_on.set()
    closing.join(20)
    time.sleep(0.3)
    with world.database.session() as session:
        assert session.get(Job, job).state != "failed", session.get(Job, job).error

    def resumed(job):
        job.step("one", lambda: executed.append(1))
        job.step("two", lambda: executed.append(2))
        return {"by": "second"}

    second = world.runner(resumed)
    second.launch()
    second.resubmit_stranded()
    assert world.wait(job).state == "succeeded"
    assert executed.count(1) == 1
    assert 2 in executed


def test_progress_is_shown_while_the_job_runs(world):
    go_on = threading.Event()

    def handler(job):
        job.progress(1, 4, "quarter")
        go_on.wait(10)
        job.progress(4, 4, "whole")
        return {}

    runner = world.runner(handler)
    job = world.new_job()
    runner.submit(job, "ingest")
    deadline = time.monotonic() + 10
    seen = world.wait(job, "running")
    while seen.done == 0 and time.monotonic() < deadline:
        seen = world.wait(job, "running")
    assert (seen.done, seen.total, seen.message) == (1, 4, "quarter")
    go_on.set()
    assert world.wait(job).done == 4
