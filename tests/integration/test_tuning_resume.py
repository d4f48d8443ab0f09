"""Tuning subprocesses killed, stopped and orphaned, on a tiny random model."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_model import make_job

from tuning import adapters

ROOT = Path(__file__).parents[2]
# More by hand: TANDEM_TEST_KILLS=20 pytest tests/integration/test_tuning_resume.py
KILLS = int(os.environ.get("TANDEM_TEST_KILLS", "2"))


@pytest.fixture
def job(tmp_path):
    make_job(
        tmp_path,
        rows=60,
        dev=6,
        epochs=4,
        batch_rows=2,
        eval_new_tokens=4,
        eval_rows=3,
        checkpoint_steps=5,
        average=0.5,
    )
    return tmp_path


def start(job, *more):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tuning.run", str(job / "config.json"), *more]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=job,
    )


def events(process):
    for line in process.stdout:
        yield json.loads(line)


def until_step(process, step):
    for event in events(process):
        if event["phase"] == "train" and event["step"] >= step:
            return
    raise AssertionError(f"the run ended before step {step}")


def finish(process):
    seen = list(events(process))
    return process.wait(timeout=120), seen


def test_a_run_killed_at_random_steps_finishes_as_if_it_had_not_been(job):
    whole = dict(json.loads((job / "config.json").read_text()), output=str(job / "whole"))
    steps = sorted(random.Random(KILLS).sample(range(3, 104), KILLS))
    for step in steps:
        process = start(job)
        until_step(process, step)
        process.kill()
        process.wait()
    code, seen = finish(start(job))
    assert code == 0
    resumed_at = seen[1]["step"]
    # A checkpoint lies at most 5 steps back, the one being written when the kill came 5 more.
    assert resumed_at > steps[-1] - 10
    assert resumed_at % 5 == 0 or resumed_at % 27 == 0
    (job / "config.json").write_text(json.dumps(whole))
    assert finish(start(job))[0] == 0
    one, two = adapters.verify(job / "adapter"), adapters.verify(job / "whole")
    assert one.steps == two.steps == 108
    assert one.digest == two.digest
    assert one.dev == two.dev
    assert not (job / "adapter.work").exists()


def test_sigterm_saves_and_exits_with_143(job):
    process = start(job)
    until_step(process, 7)
    process.send_signal(signal.SIGTERM)
    code, seen = finish(process)
    assert code == 143
    assert seen[-1]["phase"] == "failed"
    stopped = int(seen[-1]["message"].split("step ")[1].split()[0])
    code, seen = finish(start(job))
    assert code == 0
    assert seen[1]["message"] == f"resuming at step {stopped}"


def test_a_bad_configuration_is_one_clear_line(job):
    config = json.loads((job / "config.json").read_text())
    (job / "config.json").write_text(json.dumps({**config, "snapshot": str(job / "none")}))
    code, seen = finish(start(job))
    assert code == 1
    assert seen[-1]["phase"] == "failed"
    assert "has no manifest.json" in seen[-1]["message"]
    assert not (job / "adapter").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel call is Linux's")
def test_the_run_ends_with_its_parent(job):
    progress = job / "progress.jsonl"
    script = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-m', 'tuning.run', *sys.argv[1:]])\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(job / "config.json"), "--progress", str(progress)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    child = int(parent.stdout.readline())
    deadline = time.monotonic() + 90
    while not (progress.exists() and progress.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    while _alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
