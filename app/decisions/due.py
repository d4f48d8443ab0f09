"""Whether a decision still holds. What fires opens a request for a new one; nothing switches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from app.db.tables import Adapter, Decision, DecisionRequest, Evaluation, TriggerCheck, UseCase
from app.decisions import repository, volatility
from app.errors import BadInput
from evals.samples import load_samples
from evals.triggers import (
    Check,
    CorrectionWatch,
    alpha_of_check,
    check_age,
    check_churn,
    check_corrections,
    check_parts,
    check_questions,
    open_watch,
)

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
_QUARTER = timedelta(days=91)
_ENOUGH = 40


def context_of(session: Session, use_case: UseCase, base: str, moment: datetime) -> dict[str, Any]:
    """What serves now and how fast its answers change, to be compared with later.

    Also how its corrections are watched, which goes on from the watch of the decision before.
    """
    context: dict[str, Any] = {"parts": parts_of(session, use_case, base)}
    context["corrections"] = _watch_from(session, use_case, moment)
    if repository.published_versions(session, use_case):
        context["changes"] = volatility.measure(session, use_case, moment).level
    return context


def parts_of(session: Session, use_case: UseCase, base: str) -> dict[str, str]:
    """The parts of the answering system with their identities."""
    prompt = f"{use_case.system_prompt}\n{use_case.abstain_sentence}"
    adapter = session.get(Adapter, use_case.adapter_id) if use_case.adapter_id else None
    return {
        "base model": base,
        "embedding model": ", ".join(repository.embedding_models(session, use_case)),
        "prompt": hashlib.sha256(prompt.encode()).hexdigest(),
        "adapter": adapter.digest if adapter else "none",
    }


def check(
    session: Session, use_case: UseCase, *, base: str, embed: Embed, moment: datetime
) -> list[Check]:
    """Look at every trigger once, write the looks down and open requests for what fired.

    Raises:
        BadInput: if nothing was ever decided for the use case.
    """
    decision = repository.latest_decision(session, use_case)
    if decision is None:
        raise BadInput(f"nothing was decided for {use_case.name!r} yet: `tandem decide`")
    done = repository.checks_since(session, use_case, moment - _QUARTER)
    checks = [
        check_age(
            (moment - decision.created_at).total_seconds() / 86_400,
            int(decision.record["spec"]["expires_days"]),
        ),
        check_parts(decision.context.get("parts", {}), parts_of(session, use_case, base)),
        _corrections(session, use_case, decision),
        _questions(session, use_case, decision, embed, done.get("questions", 0)),
    ]
    if repository.published_versions(session, use_case):
        alpha = alpha_of_check("churn", done.get("churn", 0))
        sure = 1 - alpha if alpha > 0 else 0.95
        now_at = volatility.measure(session, use_case, moment, confidence=sure)
        checks.append(check_churn(_pace(decision), now_at, alpha))
    _record(session, use_case, decision, checks)
    return checks


def _pace(decision: Decision) -> str | None:
    declared = (decision.record["spec"].get("case") or {}).get("changes")
    found = decision.context.get("changes") or declared
    return str(found) if found else None


def _watch_from(session: Session, use_case: UseCase, moment: datetime) -> dict[str, Any]:
    """The watch of a decision made now, kept with it so that no restart begins it anew."""
    before = repository.corrections(session, use_case, until=moment)
    earlier = repository.latest_decision(session, use_case)
    previous, opened = None, moment.isoformat()
    if earlier is not None and "corrections" in earlier.context:
        watch, began = _watch_of(earlier)
        if moment - datetime.fromisoformat(began) < _QUARTER:
            seen = repository.corrections(session, use_case, since=earlier.created_at, until=moment)
            previous, opened = (watch, seen), began
    made = open_watch((sum(before), len(before)), previous)
    return {"watch": asdict(made), "opened": opened}


def _watch_of(decision: Decision) -> tuple[CorrectionWatch, str]:
    kept = decision.context["corrections"]
    return CorrectionWatch(**kept["watch"]), str(kept["opened"])


def _corrections(session: Session, use_case: UseCase, decision: Decision) -> Check:
    after = repository.corrections(session, use_case, since=decision.created_at)
    if "corrections" in decision.context:
        watch, _ = _watch_of(decision)
    else:  # decided before watches were kept
        before = repository.corrections(session, use_case, until=decision.created_at)
        watch = open_watch((sum(before), len(before)))
    first = not repository.booked(session, decision, "corrections")
    return check_corrections(after, watch, first=first)


def _questions(
    session: Session, use_case: UseCase, decision: Decision, embed: Embed, done: int
) -> Check:
    before = repository.questions_asked(session, use_case, until=decision.created_at)
    evaluation = session.get(Evaluation, decision.evaluation_id) if decision.evaluation_id else None
    if len(before) < _ENOUGH and evaluation is not None:
        # Too little was asked before the decision: compare with the questions it rests on.
        samples = load_samples(Path(evaluation.path) / "samples.jsonl")
        before = list(dict.fromkeys(sample.question for sample in samples))
    after = repository.questions_asked(session, use_case, since=decision.created_at)
    nothing = np.zeros((0, 1))
    if min(len(before), len(after)) < _ENOUGH:
        short = np.zeros((len(after), 1))
        return check_questions(np.zeros((len(before), 1)) if before else nothing, short, 0.0)
    return check_questions(
        np.asarray(embed(before), dtype=np.float64),
        np.asarray(embed(after), dtype=np.float64),
        alpha_of_check("questions", done),
    )


def _record(
    session: Session, use_case: UseCase, decision: Decision, checks: Sequence[Check]
) -> None:
    waiting = {
        request.kind
        for request, _ in repository.open_requests(session, use_case.workspace_id, use_case.id)
    }
    whose = {
        "workspace_id": use_case.workspace_id,
        "use_case_id": use_case.id,
        "decision_id": decision.id,
    }
    for found in checks:
        session.add(
            TriggerCheck(
                **whose,
                kind=found.kind,
                fired=found.fired,
                alpha=found.alpha,
                value=found.value,
                sentence=found.sentence,
            )
        )
        if found.fired and found.kind not in waiting:
            session.add(DecisionRequest(**whose, kind=found.kind, sentence=found.sentence))
    session.flush()
