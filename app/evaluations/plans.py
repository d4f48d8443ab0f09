"""What a run can show and what it takes, said before its first answer."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.tables import Evaluation, UseCase
from app.evaluations import looks, reports
from app.evaluations.service import Prepared
from evals.canonical import jsonable
from evals.planning import plan_comparison
from evals.samples import clusters

_LAST_RUNS = 5


def plan_of(session: Session, ready: Prepared) -> dict[str, Any]:
    """The plan of a prepared run.

    Returns:
        `generations`, `seconds` (None where no earlier run tells), `look` and `planned_looks`,
        `seen_before` (questions looked at before), `plan` (see `evals.planning.Plan`; None with
        one arm) and `sentences`.
    """
    arms = [spec["name"] for spec in ready.rules["arms"]]
    repeats = int(ready.rules.get("repeats", 1))
    generations = len(ready.asked) * len(arms) * repeats
    seconds = _seconds(session, ready.use_case, arms, len(ready.asked) * repeats)
    spec = reports.spec_for(ready.rules)
    coming = looks.coming(session, ready.use_case, ready.asked, ready.payload)
    groups = len(set(clusters(ready.asked)))
    made = None
    if len(arms) > 1 and groups > 1:
        made = plan_comparison(spec, arms, len(ready.asked), groups)
    lines = list(made.sentences) if made else [f"{generations} answers of one arm."]
    if repeats > 1:
        lines.append(f"Each question is answered {repeats} times: {generations} generations.")
    if not coming.exploratory:
        asked = f"; {coming.seen_before} of its questions were asked before."
        fresh = " at questions nobody has looked at."
        lines.append(
            f"This is look {coming.counted} of {coming.planned} planned"
            + (asked if coming.seen_before else fresh)
        )
    lines += coming.exploratory
    lines.append(
        f"It will take about {_duration(seconds)}, as earlier runs did."
        if seconds is not None
        else "How long it takes is not known yet: no earlier run has timed all of its arms."
    )
    return {
        "arms": arms,
        "questions": len(ready.asked),
        "clusters": groups,
        "generations": generations,
        "seconds": seconds,
        "margin": spec.margin,
        "look": coming.counted,
        "planned_looks": coming.planned,
        "seen_before": coming.seen_before,
        "exploratory": list(coming.exploratory),
        "plan": jsonable(made) if made else None,
        "sentences": lines,
    }


def _seconds(session: Session, use_case: UseCase, arms: list[str], answers: int) -> float | None:
    """Time by the median of each arm in the latest runs; None if one was never timed."""
    query = sa.select(Evaluation).where(Evaluation.use_case_id == use_case.id)
    latest = session.scalars(query.order_by(Evaluation.created_at.desc()).limit(_LAST_RUNS))
    known: dict[str, float] = {}
    for evaluation in latest:
        for arm in (evaluation.summary or {}).get("evaluation", {}).get("arms", []):
            took = arm["latency_p50_s"]["estimate"]
            if took is not None:
                known.setdefault(arm["arm"], float(took))
    if any(arm not in known for arm in arms):
        return None
    return round(answers * sum(known[arm] for arm in arms), 1)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
