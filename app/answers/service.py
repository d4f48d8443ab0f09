"""Answer a question for a principal, record it, and tell later where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.answers.chain import AnswerChain
from app.answers.types import AnswerRequest, AnswerResult, Plan
from app.db.session import Database
from app.db.tables import (
    Adapter,
    Answer,
    AnswerChunk,
    UseCase,
)
from app.engines.types import AdapterRef
from app.errors import BadInput, NotFound
from app.knowledge import service as knowledge
from app.knowledge.view import VersionName
from app.use_cases import service as use_cases
from retrieval.types import Hit


class AnswerService:
    """The answer chain with plan and record around it."""

    def __init__(self, database: Database, chain: AnswerChain, reader_digest: str | None) -> None:
        self._database = database
        self._chain = chain
        self._reader_digest = reader_digest

    def answer(self, request: AnswerRequest) -> AnswerResult:
        """A finished answer, recorded unless the request says otherwise."""
        plan = self.plan_for(request)
        result = self._chain.invoke(request, plan=plan)
        if request.record:
            self.record(request, plan, result)
        return result

    def retrieve(self, request: AnswerRequest) -> tuple[Hit, ...]:
        """The hits an answer would be given, best first."""
        return self._chain.retrieve(request, self.plan_for(request))

    def stream(self, request: AnswerRequest) -> Iterator[str | AnswerResult]:
        """Plan now (errors come at once), then pieces of text and the recorded answer."""
        plan = self.plan_for(request)
        return self._stream(request, plan)

    def _stream(self, request: AnswerRequest, plan: Plan) -> Iterator[str | AnswerResult]:
        for event in self._chain.events(request, plan):
            if isinstance(event, AnswerResult) and request.record:
                self.record(request, plan, event)
            yield event

    def plan_for(self, request: AnswerRequest) -> Plan:
        """Which arm and adapter serve the request.

        Raises:
            NotFound: Use case or adapter.
            BadInput: An arm that does not exist or cannot serve this use case.
        """
        with self._database.session() as session:
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
            adapter=_reference(adapter),
            adapter_id=adapter.id if adapter else None,
            adapter_name=adapter.name if adapter else None,
            max_answer_tokens=use_case.options.get("max_answer_tokens"),
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

    def record(self, request: AnswerRequest, plan: Plan, result: AnswerResult) -> None:
        """Store the answer with its identity and passages."""
        cited = {citation.number: citation for citation in result.citations}
        with self._database.session() as session:
            session.add(
                Answer(
                    id=result.id,
                    workspace_id=request.workspace_id,
                    use_case_id=plan.use_case_id,
                    question=request.question,
                    history=[dict(turn) for turn in request.history],
                    text=result.text,
                    arm=plan.arm,
                    adapter_id=plan.adapter_id,
                    abstained=result.abstained,
                    grounded=result.grounded,
                    finish_reason=result.finish_reason,
                    identity=result.identity,
                    identity_sha256=result.identity_sha256,
                    timings=dict(result.timings),
                    prompt_tokens=result.prompt_tokens,
                    completion_tokens=result.completion_tokens,
                    asked_by=request.asked_by,
                )
            )
            session.flush()
            for passage in result.passages:
                citation = cited.get(passage.number)
                session.add(
                    AnswerChunk(
                        answer_id=result.id,
                        number=passage.number,
                        chunk_id=passage.hit.chunk_id,
                        document_id=passage.hit.document_id,
                        version_id=passage.hit.version_id,
                        score=passage.hit.score,
                        cited=citation is not None,
                        quote=citation.quote if citation else None,
                        quote_start=citation.quote_start if citation else None,
                        quote_end=citation.quote_end if citation else None,
                    )
                )


def _reference(adapter: Adapter | None) -> AdapterRef | None:
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
        "citations": [asdict(citation) for citation in result.citations],
        "identity": result.identity,
        "identity_sha256": result.identity_sha256,
        "timings": dict(result.timings),
    }
