"""Answer a question for a principal, record it, and tell later where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from app.answers.chain import AnswerChain
from app.answers.recorder import Recorder
from app.answers.types import AnswerRequest, AnswerResult, Fallback, Plan, Progress
from app.db.session import Database
from app.db.tables import Adapter, Answer, AnswerChunk, UseCase
from app.engines.types import AdapterRef
from app.errors import BadInput, DependencyDown, NotFound
from app.knowledge import service as knowledge
from app.knowledge.view import VersionName
from app.use_cases import service as use_cases
from app.use_cases.options import PASSAGE, serving_options
from retrieval.types import Hit

log = structlog.get_logger(__name__)


class AnswerService:
    """The answer chain with plan, fallback and record around it."""

    def __init__(self, database: Database, chain: AnswerChain, reader_digest: str | None) -> None:
        self._database = database
        self.chain = chain
        self._reader_digest = reader_digest
        self._recorder = Recorder(database)

    def answer(self, request: AnswerRequest) -> AnswerResult:
        """A finished answer, recorded unless the request says otherwise."""
        for event in self._answered(request, self.plan_for(request), False, Progress()):
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
        self, request: AnswerRequest, plan: Plan, pieces: bool, progress: Progress
    ) -> Iterator[str | AnswerResult]:
        """The plan's answer; where that fails before its first word, the next of the fallback."""
        steps = (plan.arm, *(step for step in plan.options.fallback if step != plan.arm))
        reason = ""
        for index, step in enumerate(steps):
            said = False
            try:
                used = plan if index == 0 else self._plan_of_step(request, plan, step)
                for event in self._events(request, used, step, pieces, progress):
                    said = said or (isinstance(event, str) and bool(event))
                    if isinstance(event, AnswerResult):
                        if index:
                            event = replace(event, fallback=Fallback(plan.arm, step, reason))
                        if request.record:
                            self._recorder.write(request, used, event)
                    yield event
                return
            except DependencyDown as error:
                if said or index == len(steps) - 1:
                    raise
                reason = error.detail
                log.warning("fell_back", use_case=plan.use_case, failed=step, reason=reason)

    def _events(
        self,
        request: AnswerRequest,
        plan: Plan,
        step: str,
        pieces: bool,
        progress: Progress,
    ) -> Iterator[str | AnswerResult]:
        if step != PASSAGE:
            yield from self.chain.events(request, plan, stream=pieces, progress=progress)
            return
        result = self.chain.quote(request, plan)
        if pieces:
            yield result.text
        yield result

    def _plan_of_step(self, request: AnswerRequest, plan: Plan, step: str) -> Plan:
        return plan if step == PASSAGE else self.plan_for(replace(request, arm=step))

    def plan_for(self, request: AnswerRequest) -> Plan:
        """Which arm and adapter serve the request.

        Raises:
            NotFound: Use case or adapter.
            BadInput: An arm that does not exist or cannot serve this use case.
        """
        with self._database.reading() as session:
            use_case = use_cases.get(session, request.workspace_id, request.use_case)
            arm = request.arm or use_case.arm
            use_cases.check_arm(arm)
            if arm in ("rag", "hybrid") and not use_case.knowledge_base_ids:
                raise BadInput(
                    f"use case {use_case.name!r} has no knowledge base: arm {arm!r} needs one"
                )
            adapter = None
            if arm in ("tuned", "hybrid"):
                adapter = self._adapter(session, use_case, request.adapter)
        return Plan(
            use_case_id=use_case.id,
            use_case=use_case.name,
            arm=arm,
            knowledge_base_ids=tuple(use_case.knowledge_base_ids),
            system_prompt=use_case.system_prompt,
            abstain_sentence=use_case.abstain_sentence,
            adapter=reference(adapter),
            adapter_id=adapter.id if adapter else None,
            adapter_name=adapter.name if adapter else None,
            options=serving_options(use_case.options),
        )

    def _adapter(self, session: Session, use_case: UseCase, wanted: str | None) -> Adapter:
        if wanted or use_case.adapter_id:
            name = wanted or str(use_case.adapter_id)
            return use_cases.find_adapter(session, use_case.workspace_id, name)
        reader = session.scalar(
            sa.select(Adapter).where(
                Adapter.digest == self._reader_digest, Adapter.workspace_id.is_(None)
            )
        )
        if reader is None:
            raise NotFound(
                "no adapter to serve with: the reader that ships with Tandem was made for the "
                "default base model, tune one with `tandem tune`"
            )
        return reader


def reference(adapter: Adapter | None) -> AdapterRef | None:
    """An adapter as engines are told of it."""
    if adapter is None:
        return None
    return AdapterRef(adapter.digest, Path(adapter.gguf_path), Path(adapter.path))


def describe_versions(database: Database, version_ids: Sequence[str]) -> dict[str, VersionName]:
    """How versions are called, by their ids."""
    with database.reading() as session:
        return knowledge.version_names(session, version_ids)


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
        "citations": [asdict(citation) for citation in result.citations],
        "identity": result.identity,
        "identity_sha256": result.identity_sha256,
        "timings": dict(result.timings),
    }
