"""Start tuning runs and look at them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.db.tables import Job, TuningRun
from app.errors import BadInput, NotFound
from app.use_cases import service as use_cases
from app.workspaces.policy import Principal
from tuning.methods import METHODS

SETTINGS = (
    "method",
    "objective",
    "beta",
    "sft_weight",
    "train_share",
    "gradient_checkpointing",
    "track",
    "virtual_tokens",
    "r",
    "alpha",
    "learning_rate",
    "epochs",
    "batch_rows",
    "max_seconds",
    "max_tokens",
    "grad_accumulation",
    "dropout",
    "max_distractors",
    "p_no_gold",
    "max_length",
    "eval_rows",
    "probe_steps",
    "patience",
    "seed",
    "checkpoint_steps",
    "average",
    "composite_weights",
)

# A second stage at the first stage's learning rate overwrites it (docs/LOG.md, XQuAD); its rank
# must be at least the first stage's.
_FROM_ADAPTER = {"r": 32, "alpha": 64, "learning_rate": 5e-4}
# A preference run is held to where it starts; large steps only wear it off.
_PREFERENCE = {"learning_rate": 5e-5, "epochs": 1, "batch_rows": 4}
_PROBE_STEPS = 2


def start(
    session: Session,
    principal: Principal,
    use_case_name: str,
    dataset: str,
    *,
    settings: dict[str, Any],
    start_from: str | None,
) -> tuple[TuningRun, Job]:
    """A queued tuning run, or the same one still unfinished; the caller submits its job."""
    use_case = use_cases.get(session, principal.workspace_id, use_case_name)
    snapshot = datasets.find(session, principal.workspace_id, dataset)
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        raise BadInput(f"unknown tuning setting {unknown[0]!r}: choose {', '.join(SETTINGS)}")
    origin = start_from or "reader"
    if origin not in ("reader", "none"):
        origin = use_cases.find_adapter(session, principal.workspace_id, origin).id
    defaults = _defaults(settings, origin)
    wanted = {"settings": defaults | settings, "from": origin}
    unfinished = _unfinished(session, use_case.id, snapshot.id, wanted)
    if unfinished is not None:
        return unfinished
    job = Job(
        workspace_id=principal.workspace_id, kind="tune", payload={}, created_by=principal.name
    )
    session.add(job)
    session.flush()
    run = TuningRun(
        workspace_id=principal.workspace_id,
        use_case_id=use_case.id,
        dataset_id=snapshot.id,
        job_id=job.id,
        config=settings,
    )
    session.add(run)
    session.flush()
    job.payload = {"run_id": run.id, **wanted}
    session.flush()
    return run, job


def _defaults(settings: dict[str, Any], origin: str) -> dict[str, Any]:
    """Settings that the method, the objective and the start call for.

    Raises:
        BadInput: The method is unknown, or cannot start from a LoRA.
    """
    method = settings.get("method", "lora")
    if method not in METHODS:
        raise BadInput(f"method {method!r} is unknown: choose {', '.join(METHODS)}")
    if origin == "reader" and method not in ("lora", "rslora", "qlora"):
        raise BadInput(
            f"method {method!r} cannot start from the reader, a LoRA: say --from none, or choose "
            "lora, rslora, qlora"
        )
    defaults: dict[str, Any] = {"probe_steps": _PROBE_STEPS}
    if origin != "none":
        defaults |= _FROM_ADAPTER
    else:
        defaults["learning_rate"] = METHODS[method].learning_rate
    return defaults | (_PREFERENCE if settings.get("objective", "sft") != "sft" else {})


def find(session: Session, workspace_id: str, run_id: str) -> TuningRun:
    """A run of the workspace."""
    run = session.get(TuningRun, run_id)
    if run is None or run.workspace_id != workspace_id:
        raise NotFound(f"no tuning run {run_id!r} in this workspace")
    return run


def events_file(root: Path, run_id: str) -> Path:
    """Where a run's progress events are kept, one JSON object a line."""
    return root / "adapters" / f"run-{run_id}.events.jsonl"


def read_events(root: Path, run_id: str) -> list[dict[str, Any]]:
    """A run's progress events so far; a line still being written is left out."""
    try:
        text = events_file(root, run_id).read_text("utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.split("\n")[:-1] if line]


def _unfinished(
    session: Session, use_case_id: str, dataset_id: str, wanted: dict[str, Any]
) -> tuple[TuningRun, Job] | None:
    """The same run, interrupted or still going: asking again continues it."""
    query = (
        sa.select(TuningRun, Job)
        .join(Job, Job.id == TuningRun.job_id)
        .where(
            TuningRun.use_case_id == use_case_id,
            TuningRun.dataset_id == dataset_id,
            Job.state.in_(("queued", "running")),
        )
    )
    for run, job in session.execute(query):
        if all(job.payload.get(key) == value for key, value in wanted.items()):
            return run, job
    return None


def list_all(session: Session, workspace_id: str) -> list[dict[str, Any]]:
    """Runs, newest first, with the state of their jobs."""
    query = (
        sa.select(TuningRun, Job)
        .join(Job, Job.id == TuningRun.job_id)
        .where(TuningRun.workspace_id == workspace_id)
        .order_by(TuningRun.created_at.desc())
    )
    return [
        {
            "id": run.id,
            "state": job.state,
            "message": job.message,
            "dataset": run.dataset_id,
            "adapter": run.adapter_id,
            "config": run.config,
            "error": job.error,
        }
        for run, job in session.execute(query)
    ]
