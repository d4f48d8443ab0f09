"""Start tuning runs and look at them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.db.tables import Job, TuningRun
from app.errors import BadInput
from app.use_cases import service as use_cases
from app.workspaces.policy import Principal

SETTINGS = (
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
    "patience",
    "seed",
    "checkpoint_steps",
)

# A second stage at the first stage's learning rate overwrites it (docs/LOG.md, XQuAD); its rank
# must be at least the first stage's.
_FROM_ADAPTER = {"r": 32, "alpha": 64, "learning_rate": 5e-4}


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
    defaults = {} if origin == "none" else _FROM_ADAPTER
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
