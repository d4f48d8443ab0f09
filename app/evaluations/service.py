"""Start evaluations and look at them; decide on the newest one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.tables import Evaluation, Job
from app.errors import BadInput, NotFound
from app.evaluations import reports
from app.evaluations.jobs import arms_from
from app.use_cases import service as use_cases
from app.workspaces.policy import Principal
from evals.samples import load_samples, samples_digest


@dataclass(frozen=True, slots=True)
class Comparison:
    """What to compare on which samples; `options` go into the job's payload as they are."""

    samples: Path
    arms: tuple[str, ...]
    adapter: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def start(
    session: Session,
    principal: Principal,
    use_case_name: str,
    comparison: Comparison,
    root: Path,
) -> tuple[Evaluation, Job]:
    """A queued evaluation with its own copy of the samples, or the same one still unfinished.

    The caller submits its job.
    """
    use_case = use_cases.get(session, principal.workspace_id, use_case_name)
    samples = comparison.samples
    specs = arms_from(list(comparison.arms), comparison.adapter or use_case.adapter_id)
    for spec in specs:
        if spec["adapter"]:
            spec["adapter"] = use_cases.find_adapter(
                session, principal.workspace_id, spec["adapter"]
            ).id
    rules = {"arms": specs, **comparison.options}
    loaded = load_samples(samples)
    reports.spec_for(rules)  # an unknown metric or rule is refused now, not after hours of work
    unfinished = _unfinished(session, use_case.id, samples_digest(loaded), rules)
    if unfinished is not None:
        return unfinished
    evaluation_id = new_id()
    folder = root / "evaluations" / evaluation_id
    folder.mkdir(parents=True)
    shutil.copyfile(samples, folder / "samples.jsonl")
    job = Job(
        workspace_id=principal.workspace_id,
        kind="evaluate",
        payload={
            "evaluation_id": evaluation_id,
            "samples_name": samples.name,
            "style": use_case.options.get("style_pattern"),
            **rules,
        },
        created_by=principal.name,
    )
    session.add(job)
    session.flush()
    evaluation = Evaluation(
        id=evaluation_id,
        workspace_id=principal.workspace_id,
        use_case_id=use_case.id,
        job_id=job.id,
        samples_sha256=samples_digest(loaded),
        path=str(folder),
        summary={},
        manifest=job.payload,
    )
    session.add(evaluation)
    session.flush()
    return evaluation, job


def _unfinished(
    session: Session, use_case_id: str, digest: str, rules: dict[str, Any]
) -> tuple[Evaluation, Job] | None:
    """The same evaluation, interrupted or still going: asking again continues it."""
    query = (
        sa.select(Evaluation, Job)
        .join(Job, Job.id == Evaluation.job_id)
        .where(
            Evaluation.use_case_id == use_case_id,
            Evaluation.samples_sha256 == digest,
            Job.state.in_(("queued", "running")),
        )
    )
    for evaluation, job in session.execute(query):
        if all(job.payload.get(key) == value for key, value in rules.items()):
            return evaluation, job
    return None


def find(session: Session, workspace_id: str, evaluation_id: str) -> Evaluation:
    """A finished evaluation of the workspace."""
    found = session.get(Evaluation, evaluation_id)
    if found is None or found.workspace_id != workspace_id:
        raise NotFound(f"no evaluation {evaluation_id!r} in this workspace")
    if not found.summary:
        raise BadInput(f"evaluation {evaluation_id!r} has not finished")
    return found


def latest(session: Session, workspace_id: str, use_case_id: str) -> Evaluation:
    """The newest finished evaluation of a use case, but for those with their documents hidden."""
    query = (
        sa.select(Evaluation)
        .where(Evaluation.workspace_id == workspace_id, Evaluation.use_case_id == use_case_id)
        .order_by(Evaluation.created_at.desc())
    )
    for evaluation in session.scalars(query):
        if evaluation.summary and not evaluation.manifest.get("remove_gold"):
            return evaluation
    raise BadInput("there is no finished evaluation: `tandem eval run USE_CASE --samples FILE`")


def list_all(session: Session, workspace_id: str) -> list[dict[str, Any]]:
    """Evaluations, newest first."""
    query = sa.select(Evaluation).where(Evaluation.workspace_id == workspace_id)
    return [
        {
            "id": row.id,
            "use_case": row.use_case_id,
            "arms": [spec["name"] for spec in row.manifest["arms"]],
            "finished": bool(row.summary),
            "path": row.path,
            "created_at": row.created_at.isoformat(),
        }
        for row in session.scalars(query.order_by(Evaluation.created_at.desc()))
    ]
