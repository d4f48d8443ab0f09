"""Evaluations over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from app.dependencies import ContainerDep, PrincipalDep
from app.evaluations import judge, logged, plans, service, style
from app.jobs import service as jobs

router = APIRouter(prefix="/evaluations", tags=["evaluations"])


class Verdict(BaseModel):
    """Whether one answer is good; None where nobody said."""

    arm: str
    id: str
    good: bool | None = None


class NewJudgement(BaseModel):
    """People's labels, and a judge's verdicts where it is not the service's model."""

    labels: list[Verdict]
    verdicts: list[Verdict] | None = None


class HouseTexts(BaseModel):
    """Texts in the house style, and texts that are not."""

    house: list[str] = Field(min_length=1)
    others: list[str] | None = None


class NewEvaluation(BaseModel):
    """Arms to compare on a samples file of this machine (the operator only)."""

    use_case: str
    samples: str
    arms: list[str] = Field(default=["prompt", "rag", "tuned", "hybrid"], min_length=1)
    adapter: str | None = None
    samples_format: Literal["auto", "samples", "squad", "faq"] = "auto"
    remove_gold: bool = False
    hidden_twins: bool = False
    primary: str | None = None
    spec: dict[str, Any] = Field(default_factory=dict)
    repeats: int = Field(default=1, ge=1, le=20)
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    task: Literal["classification"] | None = None
    before: str | None = None
    costs: dict[str, Any] = Field(default_factory=dict)


@router.post("", status_code=202)
def start(body: NewEvaluation, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """Compare arms as a job."""
    principal.require("evaluate")
    principal.require("local_paths")
    if "reader" in body.arms:
        container.admit_reader()
    with container.database.session() as session:
        evaluation, job = service.start(
            session,
            principal,
            body.use_case,
            _comparison(body),
            container.settings.root,
        )
        described = jobs.describe(job) | {"evaluation": evaluation.id}
    container.jobs.submit(job.id, "evaluate")
    return described


@router.post("/plan")
def plan(body: NewEvaluation, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """What a run would show and take: to be read before it is started."""
    principal.require("evaluate")
    principal.require("local_paths")
    with container.database.session() as session:
        ready = service.prepare(session, principal, body.use_case, _comparison(body))
        return plans.plan_of(session, ready)


def _comparison(body: NewEvaluation) -> service.Comparison:
    return service.Comparison(
        Path(body.samples),
        tuple(body.arms),
        body.adapter,
        body.model_dump(exclude={"use_case", "samples", "arms", "adapter"}),
    )


@router.get("")
def list_evaluations(container: ContainerDep, principal: PrincipalDep) -> list[dict[str, Any]]:
    """Evaluations, newest first."""
    principal.require("read")
    with container.database.session() as session:
        return service.list_all(session, principal.workspace_id)


@router.get("/samples/{use_case}")
def logged_samples(
    use_case: str, container: ContainerDep, principal: PrincipalDep
) -> list[dict[str, Any]]:
    """Samples made of the use case's approved corrections."""
    principal.require("evaluate")
    with container.database.session() as session:
        samples = logged.corrected_samples(session, principal.workspace_id, use_case)
    return logged.as_records(samples)


@router.post("/{evaluation_id}/judge", status_code=202)
def judge_answers(
    evaluation_id: str, body: NewJudgement, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Let a judge see every answer, calibrate it on people's labels, write the report again."""
    principal.require("evaluate")
    with container.database.session() as session:
        job = service.start_judge(
            session, principal, evaluation_id, body.model_dump(exclude_none=True)
        )
        described = jobs.describe(job)
    container.jobs.submit(job.id, "judge")
    return described


@router.get("/{evaluation_id}/judge")
def judge_card(
    evaluation_id: str, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Sensitivity, specificity and the corrected mean of each arm."""
    principal.require("read")
    with container.database.session() as session:
        return judge.card_of(service.find(session, principal.workspace_id, evaluation_id))


@router.get("/{evaluation_id}/to-label")
def to_label(
    evaluation_id: str, container: ContainerDep, principal: PrincipalDep, number: int = 100
) -> list[dict[str, Any]]:
    """Answers for people to label, the same number of each arm."""
    principal.require("evaluate")
    with container.database.session() as session:
        found = service.find(session, principal.workspace_id, evaluation_id)
    return judge.to_label(Path(found.path), number)


@router.post("/{evaluation_id}/style")
def measure_style(
    evaluation_id: str, body: HouseTexts, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Learn the house style from texts and score every arm by it."""
    principal.require("evaluate")
    with container.database.session() as session:
        found = service.find(session, principal.workspace_id, evaluation_id)
    return style.style_of(found, body.house, body.others)


@router.get("/{evaluation_id}")
def show(evaluation_id: str, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """The whole result as JSON."""
    principal.require("read")
    with container.database.session() as session:
        found = service.find(session, principal.workspace_id, evaluation_id)
        return {"id": found.id, "path": found.path, "result": found.summary}


@router.get("/{evaluation_id}/report")
def report(evaluation_id: str, container: ContainerDep, principal: PrincipalDep) -> HTMLResponse:
    """The report page."""
    principal.require("read")
    with container.database.session() as session:
        found = service.find(session, principal.workspace_id, evaluation_id)
    return HTMLResponse((Path(found.path) / "report.html").read_text("utf-8"))
