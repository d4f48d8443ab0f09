"""Two training processes of one run, as `accelerate launch` starts them, on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tiny_model import make_job

from tuning import adapters

ROOT = Path(__file__).parents[2]


def test_two_processes_make_one_adapter_and_one_stream_of_events(tmp_path):
    make_job(
        tmp_path,
        rows=24,
        dev=3,
        epochs=2,
        batch_rows=3,
        eval_new_tokens=3,
        eval_rows=2,
        checkpoint_steps=2,
        max_seconds=600,
        average=0.3,
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    command += ["-m", "tuning.run", str(tmp_path / "config.json"), "--outlive-parent"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [e["phase"] for e in events].count("done") == 1
    manifest = adapters.verify(tmp_path / "adapter", base_folder=tmp_path / "hf")
    # 21 rows in batches of 3: 7 batches an epoch, two at a time over both epochs.
    assert manifest.steps == 7
    assert [e["step"] for e in events if e["phase"] == "train"][-1] == 7
    assert manifest.dev[-1]["averaged"] == 3
    assert manifest.curve[-1]["loss"] < manifest.curve[0]["loss"]
    assert not (tmp_path / "adapter.work").exists()
