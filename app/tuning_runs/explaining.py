"""What to tune with: the snapshot's numbers, this machine's, and a measured pace."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from app.datasets import service as datasets
from app.db.session import Database
from app.errors import BadInput
from app.models.service import BaseModel
from app.tuning_runs import reader
from app.workspaces.policy import Principal
from tuning.base_model import load_tokenizer
from tuning.builder import build_rows
from tuning.config import TuneConfig
from tuning.snapshot import load

_SAMPLE_ROWS = 64
_PROBE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Asked:
    """A use case's snapshot, where to start from, and hints that override what is found."""

    use_case: str
    dataset: str
    start_from: str | None = None
    hints: dict[str, Any] | None = None


def explain(
    database: Database, base: BaseModel, principal: Principal, asked: Asked
) -> dict[str, Any]:
    """Recommend a method; the pace is measured in a process of its own, as training runs.

    Raises:
        BadInput: A hint is unknown, or the probe failed, with its reason.
    """
    with database.session() as session:
        snapshot = Path(datasets.find(session, principal.workspace_id, asked.dataset).path)
    config = TuneConfig(base=base.hf, output="unused", snapshot=str(snapshot))
    starts = asked.start_from not in (None, "none") or (
        asked.start_from is None and (reader.FOLDER / "manifest.json").is_file()
    )
    situation = _found(config, snapshot) | {"has_adapter": starts} | (asked.hints or {})
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "config.json", Path(folder) / "situation.json"]
        for file, record in zip(files, (asdict(config), situation), strict=True):
            file.write_text(json.dumps(record), "utf-8")
        command = [sys.executable, "-m", "tuning.explain", *map(str, files)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise BadInput(f"the probe did not end within {_PROBE_SECONDS} s") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BadInput(f"no recommendation: {reason}")
    made: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return made | {"situation": situation}


def _found(config: TuneConfig, folder: Path) -> dict[str, Any]:
    import torch

    rows = load(folder).split("train")
    tokenizer = load_tokenizer(config.base)
    some = rows[:: max(1, len(rows) // _SAMPLE_ROWS)]
    encoded = build_rows(some, tokenizer, config.draw_config(), seed=0, epoch=0).rows
    tokens = sum(len(row.input_ids) for row in encoded) / max(1, len(encoded))
    ratings = [json.loads(line)["label"] for line in _lines(folder / "ratings.jsonl")]
    gpu = torch.cuda.is_available()
    memory = torch.cuda.mem_get_info()[0] if gpu else psutil.virtual_memory().available
    weights = sum(file.stat().st_size for file in Path(config.base).glob("*.safetensors"))
    return {
        "rows": len(rows),
        "tokens_per_row": round(tokens, 1),
        "pairs": len(_lines(folder / "pairs.jsonl")),
        "ratings_up": sum(bool(label) for label in ratings),
        "ratings_down": sum(not label for label in ratings),
        "memory_bytes": int(memory),
        "base_parameters": weights // 2,
        "has_gpu": gpu,
        "has_bitsandbytes": find_spec("bitsandbytes") is not None,
    }


def _lines(path: Path) -> list[str]:
    # Not splitlines: JSON leaves U+2028 and its like as they are.
    return path.read_text("utf-8").split("\n")[:-1] if path.is_file() else []
