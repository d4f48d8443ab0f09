"""Start evaluations and look at them; decide on the newest one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.base import new_id, now
from app.db.tables import Evaluation, Job, UseCase
from app.errors import BadInput, NotFound
from app.evaluations import judge, known, looks, reports
from app.evaluations.jobs import arms_from
from app.use_cases import service as use_cases
from app.workspaces.policy import Principal
from evals.canonical import digest
from evals.gates import parse_case
from evals.hiding import hide_gold, is_hidden, with_hidden_twins
from evals.linking import link_samples
from evals.loaders import load
from evals.samples import Sample, sample_record, samples_digest

# Parts of a payload that follow from the samples and the use case.
_NOT_ASKED = {"evaluation_id", "samples_name", "style", "remove_gold", "registered"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """What to compare on which samples; `options` go into the job's payload as they are."""

    samples: Path
    arms: tuple[str, ...]
    adapter: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A comparison that can be run: its rules are complete and its samples read.

    Attributes:
        rules: the parts of the job's payload that were asked for, gates included.
        loaded: the samples as given; `asked` those to be run.
        gates_follow: whether the gates are the use case's own (and not given with the rules).
    """

    use_case: UseCase
    samples_name: str
    rules: dict[str, Any]
    loaded: tuple[Sample, ...]
    asked: tuple[Sample, ...]
    gates_follow: bool

    @property
    def payload(self) -> dict[str, Any]:
        """What the job and the manifest hold, but for the id of the evaluation."""
        asked = self.asked
        style = self.use_case.options.get("style_pattern")
        return {
            "samples_name": self.samples_name,
            "style": style,
            # Fixed now, before any output: changing it later shows in the decision.
            "registered": {
                "rules_sha256": digest(looks.rules_of(self.rules | {"style": style})),
                "gates_of_use_case": self.gates_follow,
                "at": now().isoformat(),
            },
            **self.rules,
            # Refusing alone says nothing about answering: such a run decides only when named.
            "remove_gold": any(map(is_hidden, asked)) and not any(s.answerable for s in asked),
        }


def prepare(
    session: Session, principal: Principal, use_case_name: str, comparison: Comparison
) -> Prepared:
    """Read and check everything a run needs; nothing is written."""
    use_case = use_cases.get(session, principal.workspace_id, use_case_name)
    specs = arms_from(list(comparison.arms), comparison.adapter or use_case.adapter_id)
    for spec in specs:
        if spec["adapter"]:
            spec["adapter"] = use_cases.find_adapter(
                session, principal.workspace_id, spec["adapter"]
            ).id
    rules = {"arms": specs, **_checked(session, principal, comparison.options)}
    follow = _register_gates(use_case, rules)
    loaded = load(comparison.samples, str(rules.pop("samples_format", "auto")))
    asked = _asked(loaded, rules)
    reports.spec_for(rules)  # an unknown metric or rule is refused now, not after hours of work
    return Prepared(use_case, comparison.samples.name, rules, loaded, asked, follow)


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
    ready = prepare(session, principal, use_case_name, comparison)
    use_case, sha256 = ready.use_case, samples_digest(ready.loaded)
    unfinished = _unfinished(session, use_case.id, sha256, ready.rules)
    if unfinished is not None:
        return unfinished
    evaluation_id = new_id()
    folder = root / "evaluations" / evaluation_id
    folder.mkdir(parents=True)
    lines = (json.dumps(sample_record(sample)) for sample in ready.asked)
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    job = Job(
        workspace_id=principal.workspace_id,
        kind="evaluate",
        payload={"evaluation_id": evaluation_id, **ready.payload},
        created_by=principal.name,
    )
    session.add(job)
    session.flush()
    evaluation = Evaluation(
        id=evaluation_id,
        workspace_id=principal.workspace_id,
        use_case_id=use_case.id,
        job_id=job.id,
        samples_sha256=sha256,
        path=str(folder),
        summary={},
        manifest=job.payload,
    )
    session.add(evaluation)
    session.flush()
    return evaluation, job


def _register_gates(use_case: UseCase, rules: dict[str, Any]) -> bool:
    """Freeze the use case's hard facts with the rules; whether the rules hold those."""
    declared = use_case.options.get("case")
    given = rules.get("spec", {}).get("case")
    if declared and not given:
        rules["spec"] = {**rules.get("spec", {}), "case": declared}
        return True
    if not given:
        return True
    return bool(declared) and parse_case(given) == parse_case(declared or {})


def _checked(session: Session, principal: Principal, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without those that are not set, refused now if they cannot be used."""
    rules = {name: value for name, value in options.items() if value not in (None, False, {})}
    if rules.get("remove_gold") and rules.get("hidden_twins"):
        raise BadInput("choose one of remove_gold (only hidden) and hidden_twins (both)")
    usual = "abstention" if rules.get("remove_gold") else "token_f1"
    registered = rules.get("spec", {}).get("primary")
    if rules.setdefault("primary", registered or usual) != (registered or rules["primary"]):
        raise BadInput(
            f"the rules are for {registered!r}, the evaluation for {rules['primary']!r}: "
            "name one primary metric"
        )
    known.rates_from(rules.get("costs") or {})
    if "before" in rules:
        known.find_earlier(session, principal.workspace_id, rules["before"])
    repeats, temperature = rules.get("repeats", 1), rules.get("temperature", 0.0)
    if repeats > 1 and temperature <= 0:
        raise BadInput("repeats need a temperature above 0: without one all answers are the same")
    return rules


def _asked(loaded: tuple[Sample, ...], rules: Mapping[str, Any]) -> tuple[Sample, ...]:
    if rules.get("remove_gold"):
        return link_samples(hide_gold(loaded))
    if rules.get("hidden_twins"):
        return link_samples(with_hidden_twins(loaded))
    return loaded


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
        if all(
            job.payload.get(key) == rules.get(key)
            for key in (set(rules) | set(job.payload)) - _NOT_ASKED
        ):
            return evaluation, job
    return None


def start_judge(
    session: Session, principal: Principal, evaluation_id: str, given: dict[str, Any]
) -> Job:
    """A queued judgement of a finished evaluation; the caller submits it."""
    evaluation = find(session, principal.workspace_id, evaluation_id)
    verdicts = judge.parse_labels(given["verdicts"]) if given.get("verdicts") else None
    judge.check_labels(Path(evaluation.path), judge.parse_labels(given["labels"]), verdicts)
    job = Job(
        workspace_id=principal.workspace_id,
        kind="judge",
        payload={"evaluation_id": evaluation.id, **given},
        created_by=principal.name,
    )
    session.add(job)
    session.flush()
    return job


def find(session: Session, workspace_id: str, evaluation_id: str) -> Evaluation:
    """A finished evaluation of the workspace."""
    found = session.get(Evaluation, evaluation_id)
    if found is None or found.workspace_id != workspace_id:
        raise NotFound(f"no evaluation {evaluation_id!r} in this workspace")
    if not found.summary:
        raise BadInput(f"evaluation {evaluation_id!r} has not finished")
    return found


def any_finished(session: Session, workspace_id: str, use_case_id: str) -> bool:
    """Whether there is an evaluation to decide from."""
    query = sa.select(Evaluation).where(
        Evaluation.workspace_id == workspace_id, Evaluation.use_case_id == use_case_id
    )
    return any(e.summary and not e.manifest.get("remove_gold") for e in session.scalars(query))


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
