"""Record a decision from an evaluation, apply it, explain it, replay it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.tables import Decision, UseCase
from app.errors import BadInput, NotFound
from app.evaluations import reports
from app.evaluations import service as evaluations
from app.use_cases import service as use_cases
from app.workspaces.policy import Principal
from evals.decision import replay
from evals.runner import read_outputs
from evals.samples import load_samples


def decide(
    session: Session,
    principal: Principal,
    use_case_name: str,
    *,
    evaluation_id: str | None = None,
    apply: bool = True,
) -> Decision:
    """Decide from the newest (or the given) evaluation; WINNER and CHEAPEST are served at once."""
    use_case = use_cases.get(session, principal.workspace_id, use_case_name)
    if evaluation_id:
        evaluation = evaluations.find(session, principal.workspace_id, evaluation_id)
        if evaluation.use_case_id != use_case.id:
            raise BadInput(f"evaluation {evaluation_id!r} is not of use case {use_case.name!r}")
    else:
        evaluation = evaluations.latest(session, principal.workspace_id, use_case.id)
    _, made = reports.measure(Path(evaluation.path), evaluation.manifest)
    record = json.loads(made.to_json())
    decision = Decision(
        workspace_id=principal.workspace_id,
        use_case_id=use_case.id,
        evaluation_id=evaluation.id,
        status=made.status,
        arm=made.choice,
        record=record,
        created_by=principal.name,
    )
    if apply and made.choice:
        _serve(session, use_case, evaluation.manifest, made.choice)
        decision.applied = True
    session.add(decision)
    session.flush()
    return decision


def _serve(session: Session, use_case: UseCase, manifest: dict[str, Any], choice: str) -> None:
    spec = next(spec for spec in manifest["arms"] if spec["name"] == choice)
    use_cases.serve_with(session, use_case, arm=spec["arm"], adapter_id=spec["adapter"])


def find(session: Session, workspace_id: str, decision_id: str) -> Decision:
    """A decision of the workspace."""
    found = session.get(Decision, decision_id)
    if found is None or found.workspace_id != workspace_id:
        raise NotFound(f"no decision {decision_id!r} in this workspace")
    return found


def list_all(session: Session, workspace_id: str) -> list[Decision]:
    """Decisions, newest first."""
    query = sa.select(Decision).where(Decision.workspace_id == workspace_id)
    return list(session.scalars(query.order_by(Decision.created_at.desc())))


def replayed(session: Session, workspace_id: str, decision_id: str) -> dict[str, Any]:
    """Make the decision again from the stored outputs and compare bit for bit."""
    decision = find(session, workspace_id, decision_id)
    evaluation = evaluations.find(session, workspace_id, decision.evaluation_id)
    folder = Path(evaluation.path)
    samples = load_samples(folder / "samples.jsonl")
    again = replay(decision.record, samples, read_outputs(folder / "outputs.jsonl"))
    return {"identical": again.identical, "differences": list(again.differences)}


def describe(decision: Decision) -> dict[str, Any]:
    """A decision for people and programs."""
    return {
        "id": decision.id,
        "status": decision.status,
        "arm": decision.arm,
        "applied": decision.applied,
        "evaluation": decision.evaluation_id,
        "created_by": decision.created_by,
        "created_at": decision.created_at.isoformat(),
        "record": decision.record,
    }
