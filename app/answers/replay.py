"""Give a recorded answer again: the same bytes, or what has changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.answers.chain import AnswerChain
from app.answers.identity import prompt_sha256
from app.answers.joined import passage_text
from app.answers.planning import reference
from app.answers.service import find, refuse_closed
from app.answers.types import AnswerRequest, Plan
from app.db.session import Database
from app.db.tables import (
    Adapter,
    Answer,
    AnswerChunk,
    Chunk,
    Document,
    DocumentVersion,
    UseCase,
)
from app.engines.types import EngineError
from app.errors import BadInput, Conflict
from app.use_cases.options import ServingOptions
from retrieval.types import WorkspaceId, context_path
from tuning.prompt import Passage

_BASE = ("base_sha256", "file")
_OWN = (
    "adapter",
    "template",
    "prompt_sha256",
    "arm",
    "as_of",
    "chunks",
    "versions",
    "context_budget_tokens",
    "abstain_below",
    "decoding",
    "made_by",
)


@dataclass(frozen=True, slots=True)
class Change:
    """A part of the identity that is another one now. `part`: engine, base, adapter, ..."""

    part: str
    recorded: Any
    now: Any

    def as_json(self) -> dict[str, Any]:
        """As clients see it."""
        return {"part": self.part, "recorded": self.recorded, "now": self.now}


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of it. `same` is None where nothing could be generated; `changed` says why.

    `tokens` is what generating it cost, prompt and answer together.
    """

    answer_id: str
    same: bool | None
    recorded: str
    text: str | None
    changed: tuple[Change, ...]
    tokens: int = 0

    def as_json(self) -> dict[str, Any]:
        """As clients see it."""
        return {
            "answer_id": self.answer_id,
            "same": self.same,
            "recorded": self.recorded,
            "text": self.text,
            "changed": [change.as_json() for change in self.changed],
        }


def replay(
    database: Database,
    chain: AnswerChain,
    workspace_id: str,
    answer_id: str,
    groups: frozenset[str] | None = None,
    *,
    spares: Sequence[AnswerChain] = (),
) -> Replay:
    """Generate a recorded answer again from what SQL has of it.

    The passages are read as the versions that were used, retired ones too; the prompt is rendered
    and encoded anew. Texts are compared as the engine said them, before citations were checked.
    An answer that one of the `spares` made is asked of that engine again.

    Raises:
        NotFound: There is no such answer, or it was made of documents closed to these groups.
        Conflict: It was recorded by a version of Tandem that did not keep what a replay needs.
    """
    with database.reading() as session:
        answer = find(session, workspace_id, answer_id)
        refuse_closed(session, answer, groups)
        if answer.cached_from is not None:  # it was generated for that one
            answer = session.get(Answer, answer.cached_from) or answer
        if answer.raw_text is None or answer.request is None:
            raise Conflict(f"answer {answer_id!r} was recorded before replays were: ask again")
        recorded, settings = answer.raw_text, answer.request
        passages, gone = _passages(session, answer)
        adapter = session.get(Adapter, answer.adapter_id) if answer.adapter_id else None
        use_case = session.get_one(UseCase, answer.use_case_id)
    identity = answer.identity
    chain = _same_engine(identity, (chain, *spares))
    changed = _changed_engine(identity, chain.engine_identity)
    changed += _changed_adapter(identity, adapter)
    if identity.get("template") != chain.template:
        changed.append(Change("template", identity.get("template"), chain.template))
    changed += [Change("passages", name, None) for name in gone]
    missing = any(change.part in ("adapter", "passages") for change in changed)
    if missing or identity.get("made_by") != "engine":
        # Nothing generated it, or it cannot be generated any more.
        same = None if missing else not changed
        return Replay(answer_id, same, recorded, None if missing else recorded, tuple(changed))
    request, plan = _request(answer, settings, use_case, adapter)
    sent, prompt = _prompt(chain, request, plan, passages, identity["prompt_sha256"])
    if prompt != identity["prompt_sha256"]:
        changed.append(Change("prompt", identity["prompt_sha256"], prompt))
    if sent.max_tokens != identity["decoding"]["max_tokens"]:
        limit = identity["decoding"]["max_tokens"]
        changed.append(Change("decoding", {"max_tokens": limit}, {"max_tokens": sent.max_tokens}))
    try:
        made = chain.generate(sent)
    except (EngineError, BadInput) as error:
        changed.append(Change("engine", "answered", f"refuses: {error.detail}"))
        return Replay(answer_id, None, recorded, None, tuple(changed))
    tokens = made.prompt_tokens + made.completion_tokens
    return Replay(answer_id, made.text == recorded, recorded, made.text, tuple(changed), tokens)


def _same_engine(identity: Mapping[str, Any], chains: Sequence[AnswerChain]) -> AnswerChain:
    """The chain before the engine that made the answer; the first one where there is none."""
    for chain in chains:
        if all(identity.get(name) == value for name, value in chain.engine_identity.items()):
            return chain
    return chains[0]


def _changed_engine(identity: Mapping[str, Any], now: Mapping[str, str]) -> list[Change]:
    """Whatever the engine itself says determines its texts."""
    recorded = {name: value for name, value in identity.items() if name not in _OWN}
    changes = []
    for part, names in (("base", set(_BASE)), ("engine", (set(recorded) | set(now)) - set(_BASE))):
        differing = [name for name in sorted(names) if recorded.get(name) != now.get(name)]
        if differing:
            before = {name: recorded.get(name) for name in differing}
            changes.append(Change(part, before, {name: now.get(name) for name in differing}))
    return changes


def _changed_adapter(identity: Mapping[str, Any], adapter: Adapter | None) -> list[Change]:
    wanted = identity.get("adapter")
    if wanted is None:
        return []
    if adapter is None or adapter.digest != wanted:
        return [Change("adapter", wanted, adapter.digest if adapter else None)]
    return []


@dataclass(frozen=True, slots=True)
class _Shown:
    """A passage as it was put before the model, under one of these titles."""

    titles: list[str]
    heading_path: list[str]
    text: str


def _passages(session: Session, answer: Answer) -> tuple[list[_Shown], list[str]]:
    """The passages in prompt order, and the names of those that cannot be read any more."""
    spans = dict(enumerate((answer.request or {}).get("spans", ()), start=1))
    query = (
        sa.select(AnswerChunk.number, Document.external_id, DocumentVersion, Chunk)
        .join(Document, Document.id == AnswerChunk.document_id)
        .join(DocumentVersion, DocumentVersion.id == AnswerChunk.version_id)
        .outerjoin(Chunk, Chunk.id == AnswerChunk.chunk_id)
        .where(AnswerChunk.answer_id == answer.id)
        .order_by(AnswerChunk.number)
    )
    found: list[_Shown] = []
    gone: list[str] = []
    for number, external_id, version, chunk in session.execute(query):
        if chunk is None or version.state == "purged":
            gone.append(f"[{number}] {external_id} version {version.number} was deleted")
            continue
        text = passage_text(session, chunk, spans.get(number))
        if text is None:
            gone.append(f"[{number}] {external_id}: chunks that were joined to it are not there")
            continue
        # A document without a title of its own is indexed with an empty one.
        titles = [version.title, ""] if version.title == external_id else [version.title]
        found.append(_Shown(titles, chunk.heading_path, text))
    return found, gone


def _request(
    answer: Answer, settings: Mapping[str, Any], use_case: UseCase, adapter: Adapter | None
) -> tuple[AnswerRequest, Plan]:
    decoding = answer.identity["decoding"]
    request = AnswerRequest(
        workspace_id=WorkspaceId(answer.workspace_id),
        use_case=use_case.name,
        question=answer.question,
        history=tuple(answer.history),
        system=settings["system"],
        max_tokens=decoding["max_tokens"],
        temperature=decoding["temperature"],
        top_p=decoding["top_p"],
        seed=decoding["seed"],
        stop=tuple(decoding["stop"]),
        json_schema=settings["json_schema"],
    )
    plan = Plan(
        use_case_id=use_case.id,
        use_case=use_case.name,
        arm=answer.arm,
        knowledge_base_ids=(),
        system_prompt=settings["system_prompt"],
        abstain_sentence=settings["abstain_sentence"],
        adapter=reference(adapter),
        adapter_id=answer.adapter_id,
        adapter_name=adapter.name if adapter else None,
        options=ServingOptions(),
    )
    return request, plan


def _prompt(
    chain: AnswerChain,
    request: AnswerRequest,
    plan: Plan,
    passages: Sequence[_Shown],
    wanted: str,
) -> tuple[Any, str]:
    """The prompt with the recorded digest if one of the titles gives it, else the usual one."""
    for blank in (True, False):
        rendered = [
            Passage(context_path(p.titles[-1 if blank else 0], p.heading_path), p.text)
            for p in passages
        ]
        sent = chain.prompt(request, plan, rendered)
        digest = prompt_sha256(sent.prompt_ids)
        if digest == wanted:
            break
    return sent, digest
