"""Two training processes of one run, as `accelerate launch` starts them, on the CPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from tuning import adapters

ROOT = Path(__file__).parents[2]


def tiny_model():
    path = ROOT / "tests" / "unit" / "tuning" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tuning_tiny_model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_processes_make_one_adapter_and_one_stream_of_events(tmp_path):
    from tuning.snapshot import seal

    tiny = tiny_model()
    tiny.make_base(tmp_path / "hf")
    seal(tiny.make_rows(24, dev=3), tmp_path / "snapshot")
    config = {
        "base": str(tmp_path / "hf"),
        "output": str(tmp_path / "adapter"),
        "snapshot": str(tmp_path / "snapshot"),
        "r": 4,
        "epochs": 2,
        "batch_rows": 3,
        "dtype": "float32",
        "device": "cpu",
        "eval_new_tokens": 3,
        "eval_rows": 2,
        "patience": 0,
        "log_steps": 1,
        "checkpoint_steps": 2,
        "max_seconds": 600,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
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
    assert manifest.curve[-1]["loss"] < manifest.curve[0]["loss"]
    assert not (tmp_path / "adapter.work").exists()
