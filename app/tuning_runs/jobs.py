"""The tune job: a training process, its progress, and the admission of what it made."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from app.datasets import service as datasets
from app.db.session import Database
from app.db.tables import Adapter, DatasetSnapshot, TuningRun, UseCase
from app.errors import JobFailed
from app.jobs.runner import Interrupted, JobContext
from app.models.service import BaseModel
from app.tuning_runs import reader
from app.tuning_runs.adapters import Owner, admit
from app.tuning_runs.shown import shown
from tuning.config import TuneConfig
from tuning.run import EXIT_INTERRUPTED


class TuningJob:
    """Handler of `tune` jobs. Payload: run_id, settings, from (adapter id, 'reader' or None)."""

    def __init__(self, database: Database, root: Path, base: BaseModel) -> None:
        self._database = database
        self._root = root
        self._base = base

    def run(self, job: JobContext) -> dict[str, Any]:
        """Train in a child process (resumed from its checkpoint after a crash), then admit."""
        with self._database.session() as session:
            run = session.get_one(TuningRun, job.payload["run_id"])
            snapshot = session.get_one(DatasetSnapshot, run.dataset_id)
            use_case = session.get_one(UseCase, run.use_case_id)
        output = self._root / "adapters" / f"run-{run.id}"
        config = TuneConfig(
            base=self._base.hf,
            output=str(output),
            snapshot=snapshot.path,
            start_from=self._start_from(job.payload.get("from")),
            system=use_case.system_prompt,
            abstain_sentence=use_case.abstain_sentence,
            **job.payload["settings"],
        )
        if not (output / "manifest.json").is_file():
            # The training process has no key: what it reads is checked here.
            datasets.checked(snapshot, self._root)
            self._train(job, config, output)
        job.progress(99, 100, "probing the adapter")
        adapter = admit(
            self._database,
            self._base,
            output,
            self._root,
            Owner(
                name=f"{use_case.name}-{run.id[:6]}",
                workspace_id=use_case.workspace_id,
                use_case_id=use_case.id,
                dataset_id=snapshot.id,
            ),
        )
        with self._database.session() as session:
            session.execute(
                sa.update(TuningRun).where(TuningRun.id == run.id).values(adapter_id=adapter.id)
            )
        job.progress(100, 100, "done")
        manifest = adapter.manifest
        keys = (
            "method",
            "objective",
            "seconds",
            "estimate",
            "steps",
            "tokens",
            "best_step",
            "averaged",
            "stopped_by",
            "peak_memory_bytes",
        )
        return {
            "adapter": adapter.id,
            "name": adapter.name,
            "digest": adapter.digest,
            "dev": _chosen(manifest),
            "smoke": manifest.get("smoke"),
            **{key: manifest.get(key) for key in keys},
        }

    def _start_from(self, wanted: str | None) -> str | None:
        if wanted in (None, "none"):
            return None
        if wanted == "reader":
            digest = reader.ensure(self._database, self._base, self._root)
            return str(reader.FOLDER) if digest else None
        with self._database.session() as session:
            return session.get_one(Adapter, wanted).path

    def _train(self, job: JobContext, config: TuneConfig, output: Path) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        config_file = output.parent / f"{output.name}.json"
        config_file.write_text(json.dumps(asdict(config)), "utf-8")
        command = [sys.executable, "-u", "-m", "tuning.run", str(config_file)]
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        )
        if child.stdout is None or child.stderr is None:
            raise JobFailed("the training process has no pipes")
        errors: list[str] = []
        stderr = child.stderr
        reader_thread = threading.Thread(target=lambda: errors.extend(stderr), daemon=True)
        reader_thread.start()
        last: dict[str, Any] = {}
        with (output.parent / f"{output.name}.events.jsonl").open("a", encoding="utf-8") as events:
            for line in child.stdout:
                if line.startswith("{"):
                    last = json.loads(line)
                    events.write(line)
                    events.flush()
                    job.progress(*shown(last))
        code = child.wait()
        reader_thread.join()
        if code == EXIT_INTERRUPTED:  # it saved a checkpoint and goes on at the next launch
            raise Interrupted
        if code != 0:
            reason = last.get("message") if last.get("phase") == "failed" else None
            tail = "".join(errors[-3:]).strip()
            raise JobFailed(reason or f"training ended with code {code}: {tail}")


def _chosen(manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The dev evaluation whose weights were kept, which need not be the last one."""
    kept = (manifest.get("best_step"), manifest.get("averaged", 0))
    entries: list[dict[str, Any]] = manifest.get("dev") or []
    return next((e for e in entries if (e["step"], e.get("averaged", 0)) == kept), None)
