"""Record a decision from an evaluation, apply it, explain it, replay it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.base import now
from app.db.tables import Decision, DecisionRequest, Evaluation, UseCase
from app.decisions import due, repository
from app.errors import BadInput, NotFound
from app.evaluations import looks, reports
from app.evaluations import service as evaluations
from app.use_cases import service as use_cases
from app.workspaces.policy import Principal
from evals.arms import COST_ORDER
from evals.decision import Decision as Made
from evals.decision import assume, replay
from evals.decision_spec import DecisionSpec, parse_spec
from evals.gates import CaseFacts, parse_case
from evals.planning import Plan, plan_comparison
from evals.runner import read_outputs
from evals.samples import load_samples


def decide(
    session: Session,
    principal: Principal,
    use_case_name: str,
    *,
    base: str,
    evaluation_id: str | None = None,
    apply: bool | None = None,
) -> tuple[Decision, bool]:
    """Decide from the newest (or the given) evaluation; WINNER and CHEAPEST are served at once.

    The same data under the same rules give the decision already made. A look beyond those planned,
    or rules that changed after the data were seen, make it exploratory: recorded, said, and not
    served unless `apply` says so. Without any finished evaluation the advice for similar use
    cases is recorded as ASSUMED and not served, nor is a choice that the questions held back
    refute. A new decision answers every open request for one.

    Args:
        session: an open transaction.
        principal: who decides.
        use_case_name: for which use case.
        base: identity of the base model that serves, to notice later that it changed.
        evaluation_id: instead of the newest.
        apply: serve a WINNER or CHEAPEST at once; None serves it unless it is exploratory.

    Returns:
        The decision, and whether it is one made before from the same data.
    """
    use_case = use_cases.get(session, principal.workspace_id, use_case_name)
    evaluation = _evaluation(session, principal, use_case, evaluation_id)
    if evaluation is None:
        made = assume(_assumed_spec(use_case))
    else:
        made = _measured(session, evaluation, use_case)
    record = json.loads(made.to_json())
    known = repository.decision_from(session, evaluation, record) if evaluation else None
    decision = known or Decision(
        workspace_id=principal.workspace_id,
        use_case_id=use_case.id,
        evaluation_id=evaluation.id if evaluation else None,
        status=made.status,
        arm=made.choice,
        record=record,
        created_by=principal.name,
        created_at=now(),
    )
    if evaluation is not None and made.choice and _may_serve(made, apply):
        _serve(session, use_case, evaluation.manifest, made.choice)
        decision.applied = True
    if known is None:
        decision.context = due.context_of(session, use_case, base, decision.created_at)
        session.add(decision)
        session.flush()
        repository.answer_requests(session, decision)
    return decision, known is not None


def _may_serve(made: Made, apply: bool | None) -> bool:
    wanted = not made.exploratory if apply is None else apply
    refuted = made.confirmation is not None and made.confirmation.refutes(made.spec.margin)
    return wanted and not refuted


def _evaluation(
    session: Session, principal: Principal, use_case: UseCase, evaluation_id: str | None
) -> Evaluation | None:
    if evaluation_id is None:
        if not evaluations.any_finished(session, principal.workspace_id, use_case.id):
            return None
        return evaluations.latest(session, principal.workspace_id, use_case.id)
    found = evaluations.find(session, principal.workspace_id, evaluation_id)
    if found.use_case_id != use_case.id:
        raise BadInput(f"evaluation {evaluation_id!r} is not of use case {use_case.name!r}")
    return found


def _measured(session: Session, evaluation: Evaluation, use_case: UseCase) -> Made:
    """Decide by the gates that hold now; if they are not those registered, the look says so."""
    rules = dict(evaluation.manifest.get("spec") or {})
    declared = use_case.options.get("case")
    registered = evaluation.manifest.get("registered")
    follows = not rules.get("case") if registered is None else registered["gates_of_use_case"]
    if follows and parse_case(declared or {}) != parse_case(rules.get("case") or {}):
        rules["case"] = declared or {}
    payload = evaluation.manifest | {"spec": rules}
    look = looks.take(session, evaluation, payload)
    _, made = reports.measure(Path(evaluation.path), payload, looks.context_of(look))
    looks.note_dropped(session, look, made, payload["arms"])
    return made


def _assumed_spec(use_case: UseCase) -> DecisionSpec:
    return DecisionSpec(case=case_of(use_case), cost_order=COST_ORDER)


def case_of(use_case: UseCase) -> CaseFacts:
    """The hard facts declared for a use case; what was not declared keeps its default."""
    return parse_case(use_case.options.get("case") or {})


def set_case(
    session: Session, principal: Principal, use_case_name: str, facts: dict[str, Any]
) -> UseCase:
    """Declare the hard facts of a use case: they are checked before any statistics."""
    use_case = use_cases.get(session, principal.workspace_id, use_case_name)
    parse_case(facts)  # an unknown field or value is refused now
    use_cases.set_options(session, use_case, {"case": facts})
    return use_case


def plan(
    questions: int, clusters: int, arms: tuple[str, ...], rules: dict[str, Any], discordance: float
) -> Plan:
    """What a comparison of so many questions can show, before it is run."""
    return plan_comparison(parse_spec(rules), arms, questions, clusters, discordance=discordance)


def due_requests(session: Session, workspace_id: str, use_case: str | None) -> list[dict[str, Any]]:
    """Decisions that are due again, oldest first."""
    found = use_cases.get(session, workspace_id, use_case) if use_case else None
    rows = repository.open_requests(session, workspace_id, found.id if found else None)
    return [_describe_request(request, name) for request, name in rows]


def _describe_request(request: DecisionRequest, use_case: str) -> dict[str, Any]:
    return {
        "id": request.id,
        "use_case": use_case,
        "decision": request.decision_id,
        "trigger": request.kind,
        "why": request.sentence,
        "since": request.created_at.isoformat(),
    }


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
    if decision.evaluation_id is None:
        again = replay(decision.record, (), ())
    else:
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
        "look": decision.record["look"],
        "planned_looks": decision.record["spec"]["looks"],
        "exploratory": decision.record.get("exploratory", []),
        "record": decision.record,
    }


def why(decision: Decision) -> list[str]:
    """The decision in plain sentences, the most important first."""
    record = decision.record
    lines = [record["headline"], *record["reason"]]
    changed = [v for v in record["sensitivity"] if v["choice"] != record["choice"]]
    if changed:
        shown = "; ".join(
            f"{v['change']}: {v['choice'] or v['status'].lower()}" for v in changed[:4]
        )
        lines.append(f"Another rule would have led elsewhere ({shown}).")
    elif record["status"] in ("WINNER", "CHEAPEST") and record["sensitivity"]:
        lines.append("Somewhat other margins and limits would have led to the same choice.")
    lines += [f"Careful: {warning}" for warning in record["warnings"]]
    if record.get("expiry"):
        lines.append(f"It is due again as soon as one of these holds. {' '.join(record['expiry'])}")
    return lines
