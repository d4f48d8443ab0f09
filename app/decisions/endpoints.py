"""Decisions over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.db.base import now
from app.decisions import due, routing, service, volatility
from app.dependencies import ContainerDep, PrincipalDep
from app.use_cases import service as use_cases
from evals.canonical import jsonable
from evals.volatility import Level

router = APIRouter(prefix="/decisions", tags=["decisions"])


class NewDecision(BaseModel):
    """Decide from the newest (or the given) evaluation.

    `apply` serves a winner at once; left out, it does so unless the decision is exploratory.
    """

    use_case: str
    evaluation: str | None = None
    apply: bool | None = None


@router.post("", status_code=201)
def decide(body: NewDecision, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """Record which arm serves and why."""
    principal.require("decide")
    with container.database.session() as session:
        decision, before = service.decide(
            session,
            principal,
            body.use_case,
            base=container.settings.base_model,
            evaluation_id=body.evaluation,
            apply=body.apply,
        )
        return service.describe(decision) | {"made_before": before}


@router.get("")
def list_decisions(container: ContainerDep, principal: PrincipalDep) -> list[dict[str, Any]]:
    """Decisions, newest first."""
    principal.require("read")
    with container.database.session() as session:
        found = service.list_all(session, principal.workspace_id)
        return [service.describe(decision) for decision in found]


class Case(BaseModel):
    """Hard facts of a use case (see `evals.gates.CaseFacts`)."""

    use_case: str
    facts: dict[str, Any]


class NewPlan(BaseModel):
    """A comparison that is planned."""

    questions: int = Field(ge=2)
    clusters: int | None = Field(default=None, ge=2)
    arms: list[str] = Field(default=["prompt", "tuned", "rag", "hybrid"], min_length=2)
    discordance: float = 0.3
    spec: dict[str, Any] = Field(default_factory=dict)


class RouterCase(BaseModel):
    """Where choosing per question is judged; costs in units of one right answer."""

    use_case: str
    evaluation: str | None = None
    arms: list[str] = Field(default_factory=list)
    costs: dict[str, float] = Field(default_factory=dict)


class UseCaseName(BaseModel):
    """Which use case."""

    use_case: str


@router.put("/case")
def set_case(body: Case, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """Declare the hard facts of a use case."""
    principal.require("decide")
    with container.database.session() as session:
        use_case = service.set_case(session, principal, body.use_case, body.facts)
        return {"use_case": use_case.name, "case": jsonable(service.case_of(use_case))}


@router.post("/plan")
def plan(body: NewPlan, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """What a comparison can show, before it is run."""
    principal.require("read")
    clusters = body.clusters or body.questions
    made = service.plan(body.questions, clusters, tuple(body.arms), body.spec, body.discordance)
    shown: dict[str, Any] = jsonable(made)
    return shown


@router.post("/router")
def judge_router(
    body: RouterCase, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Train and calibrate a router per question, and say whether it pays."""
    principal.require("decide")
    with container.database.session() as session:
        return routing.router_of(
            session,
            principal,
            body.use_case,
            evaluation_id=body.evaluation,
            arms=body.arms,
            costs=body.costs,
        )


@router.get("/due")
def due_decisions(
    container: ContainerDep, principal: PrincipalDep, use_case: str | None = None
) -> list[dict[str, Any]]:
    """Decisions that are due again, oldest first."""
    principal.require("read")
    with container.database.session() as session:
        return service.due_requests(session, principal.workspace_id, use_case)


@router.post("/check")
def check(
    body: UseCaseName, container: ContainerDep, principal: PrincipalDep
) -> list[dict[str, Any]]:
    """Look at every trigger of a use case's newest decision once."""
    principal.require("decide")
    with container.database.session() as session:
        use_case = use_cases.get(session, principal.workspace_id, body.use_case)
        checks = due.check(
            session,
            use_case,
            base=container.settings.base_model,
            embed=lambda texts: container.knowledge.by_source(None).embedder.embed_passages(texts),
            moment=now(),
        )
        return [jsonable(found) for found in checks]


@router.get("/volatility/{use_case}")
def measure_volatility(
    use_case: str, container: ContainerDep, principal: PrincipalDep, level: Level | None = None
) -> dict[str, Any]:
    """How fast the answers of a use case change, from its knowledge base's log."""
    principal.require("read")
    with container.database.session() as session:
        found = use_cases.get(session, principal.workspace_id, use_case)
        return volatility.describe(volatility.measure(session, found, now(), level))


@router.get("/{decision_id}/why")
def why(decision_id: str, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """The reasons of a decision in plain sentences."""
    principal.require("read")
    with container.database.session() as session:
        decision = service.find(session, principal.workspace_id, decision_id)
        return {"id": decision.id, "status": decision.status, "sentences": service.why(decision)}


@router.get("/{decision_id}")
def show(decision_id: str, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """One decision with its record."""
    principal.require("read")
    with container.database.session() as session:
        return service.describe(service.find(session, principal.workspace_id, decision_id))


@router.post("/{decision_id}/replay")
def replay(decision_id: str, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """Make the decision again from the stored outputs and compare."""
    principal.require("read")
    with container.database.session() as session:
        return service.replayed(session, principal.workspace_id, decision_id)
