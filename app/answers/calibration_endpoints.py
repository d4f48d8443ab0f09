"""Calibrated abstention over HTTP: judge samples, fit the threshold, store it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.answers.calibration import (
    Outcome,
    calibrate,
    from_evaluation,
    from_ratings,
    judge,
    request_for,
)
from app.dependencies import ContainerDep, PrincipalDep
from app.errors import BadInput
from app.use_cases import service as use_cases
from evals.samples import parse_sample

router = APIRouter(prefix="/use-cases", tags=["use cases"])
_MOST_SAMPLES = 50


class SampleBatch(BaseModel):
    """Samples as in a samples file, few enough for one request."""

    samples: list[dict[str, Any]] = Field(min_length=1, max_length=_MOST_SAMPLES)


class JudgedOutcome(BaseModel):
    """One judged question."""

    coverage: float = Field(ge=0, le=1)
    answered: bool
    right: bool
    answerable: bool = True


class NewCalibration(BaseModel):
    """Where outcomes come from (one of three), what is promised, and whether it is stored."""

    outcomes: list[JudgedOutcome] | None = None
    evaluation: str | None = None
    rated: bool = False
    target_error: float = 0.1
    confidence: float = 0.95
    apply: bool = True


@router.post("/{name}/calibration/outcomes")
def judge_samples(
    name: str, body: SampleBatch, container: ContainerDep, principal: PrincipalDep
) -> list[dict[str, Any]]:
    """Answer samples without a threshold and say which answers are right; nothing is recorded."""
    principal.require("evaluate")
    found = []
    for given in body.samples:
        sample = parse_sample(given)
        request = request_for(principal.workspace_id, name, sample)
        outcome = judge(container.answers, request, sample)
        if outcome is None:
            raise BadInput(f"use case {name!r} answers without passages: there is no coverage")
        found.append(asdict(outcome))
    return found


@router.post("/{name}/calibration")
def fit(
    name: str, body: NewCalibration, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Fit the threshold below which the use case abstains; stored where one keeps the target."""
    principal.require("use_cases.write")
    if (body.outcomes is not None) + (body.evaluation is not None) + body.rated != 1:
        raise BadInput("give one of outcomes, evaluation and rated")
    with container.database.session() as session:
        use_case = use_cases.get(session, principal.workspace_id, name)
        if body.outcomes is not None:
            outcomes = [Outcome(**outcome.model_dump()) for outcome in body.outcomes]
        elif body.evaluation is not None:
            outcomes = from_evaluation(session, use_case, body.evaluation)
        else:
            outcomes = from_ratings(session, use_case)
        fitted = calibrate(outcomes, body.target_error, body.confidence)
        applied = body.apply and fitted.threshold is not None
        if applied:
            use_cases.set_options(session, use_case, {"abstain_below": fitted.threshold})
    return {**fitted.as_json(), "applied": applied}
