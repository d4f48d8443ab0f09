"""Whether choosing the arm per question pays for a use case, judged on an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.errors import BadInput
from app.evaluations import reports
from app.evaluations import service as evaluations
from app.use_cases import service as use_cases
from app.workspaces.policy import Principal
from evals.canonical import jsonable
from evals.evaluation import IntervalSettings, evaluate
from evals.routing import FEATURES, route, router_record
from evals.runner import read_outputs
from evals.samples import load_samples

_ROUTER = "router.json"
_FEW_DRAWS = IntervalSettings(resamples=50)  # its intervals are not shown here


def router_of(
    session: Session,
    principal: Principal,
    use_case_name: str,
    *,
    evaluation_id: str | None,
    arms: list[str],
    costs: dict[str, float],
) -> dict[str, Any]:
    """Train and calibrate a router on the newest (or the given) evaluation and judge it.

    Only a router that is shown to beat every single arm is written (`router.json` in the folder
    of the evaluation); serving does not change.

    Raises:
        BadInput: if the evaluation is of another use case.
        EvalError: on an unknown arm or too few independent groups.
    """
    use_case = use_cases.get(session, principal.workspace_id, use_case_name)
    evaluation = (
        evaluations.find(session, principal.workspace_id, evaluation_id)
        if evaluation_id
        else evaluations.latest(session, principal.workspace_id, use_case.id)
    )
    if evaluation.use_case_id != use_case.id:
        raise BadInput(f"evaluation {evaluation_id!r} is not of use case {use_case.name!r}")
    folder = Path(evaluation.path)
    samples = load_samples(folder / "samples.jsonl")
    outputs = read_outputs(folder / "outputs.jsonl")
    payload = evaluation.manifest
    made = evaluate(
        samples,
        outputs,
        primary=payload.get("primary", "token_f1"),
        baselines=[name for name in reports.BASELINES if any(o.arm == name for o in outputs)],
        style=payload.get("style"),
        settings=_FEW_DRAWS,
    )
    found = route(made, samples, outputs, arms=arms, costs=costs)
    path = folder / _ROUTER
    if found.router is None:
        path.unlink(missing_ok=True)  # of an earlier call with other arms or costs
    else:
        record = router_record(found.router) | {"evaluation": evaluation.id}
        path.write_text(json.dumps(record) + "\n", "utf-8")
    return {
        "use_case": use_case.name,
        "evaluation": evaluation.id,
        "questions": found.questions,
        "clusters": found.clusters,
        "features": list(FEATURES),
        "weights": found.weights,
        "file": None if found.router is None else str(path),
        **jsonable(found.report),
    }
