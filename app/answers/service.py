"""Answer a question for a principal, record it, and tell later where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from app.answers.chain import AnswerChain
from app.answers.planning import read_plan
from app.answers.recorder import Recorder
from app.answers.types import AnswerRequest, AnswerResult, Citation, Fallback, Plan, Progress
from app.db.session import Database
from app.db.tables import Answer, AnswerChunk
from app.errors import DependencyDown, NotFound
from app.knowledge import service as knowledge
from app.knowledge.view import VersionName
from app.use_cases.options import PASSAGE
from retrieval.types import Hit

log = structlog.get_logger(__name__)

# All values are flat: `asdict` would copy each of them.
_CITATION = tuple(field.name for field in fields(Citation))


class AnswerService:
    """The answer chain with plan, fallback and record around it."""

    def __init__(
        self,
        database: Database,
        chain: AnswerChain,
        reader_digest: str | None,
        spares: Sequence[AnswerChain] = (),
    ) -> None:
        """Wire the service.

        Args:
            database: the application database.
            chain: makes the answers.
            reader_digest: the reader that ships with Tandem, where it fits the base model.
            spares: the same chain before other engines, tried in turn where the first one fails.
        """
        self._database = database
        self.chain = chain
        self.spares = tuple(spares)
        self._chains = (chain, *spares)
        self._reader_digest = reader_digest
        self._recorder = Recorder(database)

    def answer(self, request: AnswerRequest, *, fall_back: bool = True) -> AnswerResult:
        """A finished answer, recorded unless the request says otherwise.

        Without `fall_back` only the plan's arm on the first engine answers, or fails: whoever
        measures an arm must not be given another one's answer.
        """
        plan = self.plan_for(request)
        for event in self._answered(request, plan, False, Progress(), fall_back=fall_back):
            if isinstance(event, AnswerResult):
                return event
        raise RuntimeError("the answer chain ended without a result")

    def retrieve(self, request: AnswerRequest) -> tuple[Hit, ...]:
        """The hits an answer would be given, best first."""
        return self.chain.retrieve(request, self.plan_for(request))

    def stream(
        self,
        request: AnswerRequest,
        *,
        pieces: bool = True,
        progress: Progress | None = None,
    ) -> Iterator[str | AnswerResult]:
        """Plan now (errors come at once), then pieces of text and the recorded answer.

        Args:
            request: what is asked.
            pieces: False gives the finished answer alone.
            progress: told what the answer costs; when it is cancelled the iterator ends with
                `Abandoned`.
        """
        plan = self.plan_for(request)
        return self._answered(request, plan, pieces, progress or Progress())

    def _answered(
        self,
        request: AnswerRequest,
        plan: Plan,
        pieces: bool,
        progress: Progress,
        *,
        fall_back: bool = True,
    ) -> Iterator[str | AnswerResult]:
        """The plan's answer; where that fails before its first word, the next of the fallback.

        Every arm is asked of all engines before the next arm is tried.
        """
        arms = (plan.arm, *(step for step in plan.options.fallback if step != plan.arm))
        attempts = [
            (step, chain)
            for step in arms
            for chain in self._chains[: 1 if step == PASSAGE else None]
        ][: None if fall_back else 1]
        reason = ""
        for index, (step, chain) in enumerate(attempts):
            said = False
            try:
                used = plan if step == plan.arm else self._plan_of_step(request, plan, step)
                for event in _events(chain, request, used, step, pieces, progress):
                    said = said or (isinstance(event, str) and bool(event))
                    if isinstance(event, AnswerResult):
                        if index:
                            engine = None if chain is self.chain else _name(chain)
                            told = Fallback(plan.arm, step, reason, engine)
                            event = replace(event, fallback=told)
                        if request.record:
                            self._recorder.write(request, used, event)
                    yield event
                return
            except DependencyDown as error:
                if said or index == len(attempts) - 1:
                    raise
                reason = error.detail
                log.warning("fell_back", use_case=plan.use_case, failed=step, reason=reason)

    def close(self) -> None:
        """Take no more work."""
        for chain in self._chains:
            chain.close()

    def _plan_of_step(self, request: AnswerRequest, plan: Plan, step: str) -> Plan:
        return plan if step == PASSAGE else self.plan_for(replace(request, arm=step))

    def plan_for(self, request: AnswerRequest) -> Plan:
        """Which arm and adapter serve the request.

        Raises:
            NotFound: Use case or adapter.
            BadInput: An arm that does not exist or cannot serve this use case.
        """
        return read_plan(self._database, request, self._reader_digest)


def _events(
    chain: AnswerChain,
    request: AnswerRequest,
    plan: Plan,
    step: str,
    pieces: bool,
    progress: Progress,
) -> Iterator[str | AnswerResult]:
    if step != PASSAGE:
        yield from chain.events(request, plan, stream=pieces, progress=progress)
        return
    result = chain.quote(request, plan)
    if pieces:
        yield result.text
    yield result


def _name(chain: AnswerChain) -> str:
    identity = chain.engine_identity
    return f"{identity['engine']} {identity['engine_version']}"


def describe_versions(database: Database, version_ids: Sequence[str]) -> dict[str, VersionName]:
    """How versions are called, by their ids."""
    with database.rows() as rows:
        return knowledge.version_names(rows, version_ids)


def find(session: Session, workspace_id: str, answer_id: str) -> Answer:
    """An answer of the workspace."""
    answer = session.get(Answer, answer_id)
    if answer is None or answer.workspace_id != workspace_id:
        raise NotFound(f"no answer {answer_id!r} in this workspace")
    return answer


def refuse_closed(session: Session, answer: Answer, groups: frozenset[str] | None) -> None:
    """Raise NotFound where the answer was made of documents that are closed to these groups."""
    used = sa.select(AnswerChunk.document_id).where(AnswerChunk.answer_id == answer.id)
    if knowledge.any_closed(session, list(session.scalars(used)), groups):
        raise NotFound(f"no answer {answer.id!r} in this workspace")


def as_json(result: AnswerResult) -> dict[str, Any]:
    """The parts of an answer that go to clients beside its text."""
    return {
        "answer_id": result.id,
        "use_case": result.use_case,
        "arm": result.arm,
        "adapter": result.adapter_id,
        "abstained": result.abstained,
        "grounded": result.grounded,
        "unsupported_values": list(result.unsupported),
        "coverage": None if result.coverage is None else round(result.coverage, 4),
        "made_by": result.made_by,
        "cached_from": result.cached_from,
        "fallback": result.fallback and asdict(result.fallback),
        "citations": [
            {name: getattr(citation, name) for name in _CITATION} for citation in result.citations
        ],
        "identity": result.identity,
        "identity_sha256": result.identity_sha256,
        "timings": dict(result.timings),
    }
