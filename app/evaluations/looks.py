"""Every look at what arms answered to a question is counted, and spends its planned share of alpha.

A line of looks is what one use case decides from questions that were partly asked before. Its
rules are registered when the first of its evaluations is started, before any output. The same
evaluation under the same rules is one look however often it is decided from; an evaluation with
a question in common is the next one; questions nobody has looked at begin a new line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.tables import Evaluation, Look, UseCase
from app.evaluations import reports
from evals.canonical import digest, jsonable
from evals.decision import Decision
from evals.decision_spec import parse_spec
from evals.hiding import is_hidden
from evals.rules import Rejection
from evals.runner import read_outputs
from evals.samples import Sample, load_samples
from evals.scoring import LATENCY

_NOT_RULES = ("expires_days",)
_WORDS = {"case": "gates", "primary": "metric", "constraints": "limits", "cost_order": "cost order"}


def rules_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What an evaluation registers: all that a decision follows from but the outputs."""
    given = payload.get("spec") or {}
    spec = parse_spec({**given, "primary": payload.get("primary", "token_f1")})
    rules: dict[str, Any] = jsonable(spec)
    if "cost_order" not in given:  # it follows from the arms that were run
        del rules["cost_order"]
    if "style_match" in (spec.primary, *(limit.metric for limit in spec.constraints)):
        rules["style"] = payload.get("style")
    return {name: value for name, value in rules.items() if name not in _NOT_RULES}


def take(session: Session, evaluation: Evaluation, payload: Mapping[str, Any]) -> Look:
    """The look that deciding from this evaluation by the payload's rules is; written down once."""
    session.execute(
        sa.select(UseCase.id).where(UseCase.id == evaluation.use_case_id).with_for_update()
    )
    rules = rules_of(payload)
    mine = sa.select(Look).where(
        Look.evaluation_id == evaluation.id, Look.rules_sha256 == digest(rules)
    )
    found = session.scalar(mine)
    if found is not None:
        return found
    folder = Path(evaluation.path)
    questions = sorted({_fingerprint(sample) for sample in load_samples(folder / "samples.jsonl")})
    made = Look(
        workspace_id=evaluation.workspace_id,
        use_case_id=evaluation.use_case_id,
        evaluation_id=evaluation.id,
        rules_sha256=digest(rules),
        rules=rules,
        samples_sha256=evaluation.samples_sha256,
        texts_sha256=reports.texts_digest(read_outputs(folder / "outputs.jsonl")),
        questions=questions,
        planned=int(rules["looks"]),
        dropped=[],
    )
    line = _line(session, evaluation.use_case_id, questions)
    _place(made, line, payload["arms"], uncounted=_uncounted(session, evaluation))
    session.add(made)
    session.flush()
    return made


def coming(
    session: Session, use_case: UseCase, samples: Sequence[Sample], payload: Mapping[str, Any]
) -> reports.LookAt:
    """Which look a run of these samples would be; nothing is written."""
    rules = rules_of(payload)
    made = Look(
        evaluation_id="",
        rules=rules,
        rules_sha256=digest(rules),
        texts_sha256="",
        questions=sorted({_fingerprint(sample) for sample in samples}),
        planned=int(rules["looks"]),
    )
    _place(made, _line(session, use_case.id, made.questions), payload["arms"])
    return context_of(made)


def note_dropped(session: Session, look: Look, decision: Decision, arms: list[Any]) -> None:
    """Write down which arms a look dropped: later looks of its line need not ask them again."""
    by_name = {spec["name"]: spec for spec in arms}
    look.dropped = [
        {**jsonable(rejection), "identity": _identity(by_name.get(rejection.arm))}
        for rejection in decision.rejected
        if rejection.kind != "gate"
    ]
    session.add(look)


def context_of(look: Look) -> reports.LookAt:
    """What a report needs to know about its look."""
    return reports.LookAt(
        number=min(look.look, look.planned),
        counted=look.look,
        planned=look.planned,
        uses_before=look.uses_before,
        seen_before=look.seen_before,
        earlier=tuple(Rejection(**item) for item in look.earlier),
        exploratory=tuple(look.exploratory),
    )


def uses_before(session: Session, evaluation: Evaluation, look: Look) -> int:
    """How many finished evaluations of the workspace asked any of these questions before."""
    same = sa.select(Evaluation.id, Evaluation.summary).where(
        Evaluation.workspace_id == evaluation.workspace_id,
        Evaluation.samples_sha256 == evaluation.samples_sha256,
        Evaluation.created_at <= evaluation.created_at,
    )
    ids = {name for name, summary in session.execute(same) if summary}
    ids |= {
        other.evaluation_id
        for other in _line(session, evaluation.use_case_id, look.questions)
        if other.created_at <= look.created_at
    }
    return len(ids - {evaluation.id})


def _line(session: Session, use_case_id: str, questions: Sequence[str]) -> list[Look]:
    """Earlier looks of the use case at any of these questions, oldest first."""
    asked = set(questions)
    query = sa.select(Look).where(Look.use_case_id == use_case_id)
    looks = session.scalars(query.order_by(Look.created_at, Look.id))
    return [look for look in looks if asked & set(look.questions)]


def _uncounted(session: Session, evaluation: Evaluation) -> int:
    """Finished evaluations of the same samples from before looks were kept."""
    query = sa.select(Evaluation.summary).where(
        Evaluation.use_case_id == evaluation.use_case_id,
        Evaluation.samples_sha256 == evaluation.samples_sha256,
        Evaluation.id != evaluation.id,
        Evaluation.created_at <= evaluation.created_at,
        Evaluation.id.not_in(sa.select(Look.evaluation_id)),
    )
    return sum(bool(summary) for summary in session.scalars(query))


def _place(made: Look, line: list[Look], arms: list[Any], *, uncounted: int = 0) -> None:
    """Number the look and say why it is exploratory, if it is."""
    before = {look.evaluation_id for look in line} - {made.evaluation_id}
    made.uses_before = len(before) + uncounted
    seen = {name for look in line for name in look.questions}
    made.seen_before = len(made.questions) if uncounted else len(seen & set(made.questions))
    changed = [look for look in line if look.rules_sha256 != made.rules_sha256]
    same = [look for look in line if look.rules_sha256 == made.rules_sha256]
    again = next((look for look in same if _says_the_same(look, made)), None)
    own = next((look for look in line if look.evaluation_id == made.evaluation_id), None)
    known = again or own
    made.look = known.look if known else 1 + (_spent(line) if line else uncounted)
    reasons = [_changed_sentence(changed[-1].rules, made.rules)] if changed else []
    if made.look > made.planned:
        reasons.append(
            f"This is look {made.look} at {made.seen_before} of its {len(made.questions)} "
            f"questions; only {made.planned} {'was' if made.planned == 1 else 'were'} planned."
        )
    made.exploratory = reasons
    identities = {spec["name"]: _identity(spec) for spec in arms}
    dropped = {
        item["arm"]: {name: item[name] for name in ("arm", "kind", "sentence")}
        for look in same
        if look is not again and not look.exploratory
        for item in look.dropped
        if identities.get(item["arm"], item["identity"]) == item["identity"]
    }
    made.earlier = again.earlier if again else list(dropped.values())


def _spent(line: Sequence[Look]) -> int:
    """How many looks a line holds; lines that new questions join had each spent their own."""
    return max(len({_data(look) for look in line}), *(look.look for look in line))


def _says_the_same(look: Look, made: Look) -> bool:
    """Whether nothing new was seen: the same words to the same samples, no clock involved."""
    return _data(look) == _data(made)


def _data(look: Look) -> tuple[str, ...]:
    """What a look saw. Other accepted answers to the same questions are other data."""
    if any(limit["metric"] == LATENCY for limit in look.rules["constraints"]):
        return (look.evaluation_id,)
    return (look.samples_sha256, look.texts_sha256)


def _changed_sentence(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
    words = [_WORDS.get(name, name.replace("_", " ")) for name in names]
    what = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    parts = [
        f"{word} {now[name]:g}, was {before[name]:g}"
        for name, word in zip(names, words, strict=True)
        if isinstance(now.get(name), int | float) and isinstance(before.get(name), int | float)
    ]
    shown = f" ({'; '.join(parts)})" if parts else ""
    return f"The {what} changed after the data were seen{shown}."


def _identity(spec: Mapping[str, Any] | None) -> str:
    """Which candidate a name stands for: another adapter under the same name is another one."""
    return "" if spec is None else f"{spec['arm']}:{spec.get('adapter') or ''}"


def _fingerprint(sample: Sample) -> str:
    """Sixteen hex digits of a question with its conversation, whatever its id is."""
    turns = [f"{turn.role}:{turn.content}" for turn in sample.history]
    asked = [" ".join(text.lower().split()) for text in (*turns, sample.question)]
    return hashlib.sha256(repr((asked, is_hidden(sample))).encode()).hexdigest()[:16]
