"""Writes answers to SQL; those that finish together share one transaction and one fsync."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from app.answers.cache import CacheKey, store
from app.answers.types import AnswerRequest, AnswerResult, Plan
from app.db.base import now
from app.db.session import Database
from app.db.tables import Answer, AnswerChunk
from app.engines.types import Generation

# The tables themselves: many rows in one statement, without the ORM's bookkeeping for each.
_ADD_ANSWERS = cast(sa.Table, Answer.__table__).insert()
_ADD_CHUNKS = cast(sa.Table, AnswerChunk.__table__).insert()


@dataclass(slots=True)
class _Item:
    answer: dict[str, Any]
    chunks: list[dict[str, Any]]
    cached: tuple[CacheKey, Generation] | None
    done: bool = False
    error: Exception | None = field(default_factory=lambda: RuntimeError("not recorded"))


class Recorder:
    """Group commit: whoever comes first writes for all who wait for the disk."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: list[_Item] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def write(self, request: AnswerRequest, plan: Plan, result: AnswerResult) -> None:
        """Store the answer with its identity and passages, and its generation if it is kept."""
        item = _Item(_answer_row(request, plan, result), _chunk_rows(result), _kept(result))
        with self._lock:
            self._pending.append(item)
        with self._writing:
            if not item.done:
                with self._lock:
                    batch, self._pending = self._pending, []
                self._commit(batch)
        if item.error is not None:
            raise item.error

    def _commit(self, batch: Sequence[_Item]) -> None:
        try:
            with self._database.writing_rows() as rows:
                _insert(rows, batch)
            for item in batch:
                item.error = None
        except SQLAlchemyError as error:
            if len(batch) == 1 and batch[0].cached is not None:
                batch[0].cached = None  # another process may have kept the same generation
                self._commit(batch)
            elif len(batch) == 1:
                batch[0].error = error
            else:  # one bad row must not lose the others
                for item in batch:
                    self._commit([item])
        finally:
            for item in batch:
                item.done = True


def _insert(rows: sa.Connection, batch: Sequence[_Item]) -> None:
    rows.execute(_ADD_ANSWERS, [item.answer for item in batch])
    chunks = [row for item in batch for row in item.chunks]
    if chunks:
        rows.execute(_ADD_CHUNKS, chunks)
    for item in batch:
        if item.cached is not None:
            store(rows, item.cached[0], str(item.answer["id"]), item.cached[1])


def _kept(result: AnswerResult) -> tuple[CacheKey, Generation] | None:
    if result.cache_key is None:
        return None
    generation = Generation(
        text=result.raw_text,
        finish_reason=result.finish_reason,
        prompt_tokens=result.prompt_tokens,
        completion_tokens=result.completion_tokens,
        prefill_s=0.0,
        decode_s=0.0,
    )
    return result.cache_key, generation


def _answer_row(request: AnswerRequest, plan: Plan, result: AnswerResult) -> dict[str, Any]:
    return {
        "id": result.id,
        "workspace_id": request.workspace_id,
        "use_case_id": plan.use_case_id,
        "question": request.question,
        "history": [dict(turn) for turn in request.history],
        "text": result.text,
        "arm": result.arm,
        "adapter_id": result.adapter_id,
        "abstained": result.abstained,
        "grounded": result.grounded,
        "finish_reason": result.finish_reason,
        "identity": result.identity,
        "identity_sha256": result.identity_sha256,
        "timings": dict(result.timings),
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "asked_by": request.asked_by,
        "coverage": result.coverage,
        "raw_text": result.raw_text,
        "request": _replayable(request, plan, result),
        "cached_from": result.cached_from,
        "created_at": now(),
    }


def _replayable(request: AnswerRequest, plan: Plan, result: AnswerResult) -> dict[str, Any]:
    """What determined the prompt besides question, history and passages."""
    return {
        "system": request.system,
        "system_prompt": plan.system_prompt,
        "abstain_sentence": plan.abstain_sentence,
        "json_schema": request.json_schema or plan.options.json_schema,
        "must_ground": plan.options.must_ground,
        "spans": [[p.hit.start_char, p.hit.end_char] for p in result.passages],
        "groups": None if request.groups is None else sorted(request.groups),
        "where": dict(request.where),
        "fallback": result.fallback and asdict(result.fallback),
    }


def _chunk_rows(result: AnswerResult) -> list[dict[str, Any]]:
    cited = {citation.number: citation for citation in result.citations}
    rows = []
    for passage in result.passages:
        citation = cited.get(passage.number)
        rows.append(
            {
                "answer_id": result.id,
                "number": passage.number,
                "chunk_id": passage.hit.chunk_id,
                "document_id": passage.hit.document_id,
                "version_id": passage.hit.version_id,
                "score": passage.hit.score,
                "cited": citation is not None,
                "quote": citation.quote if citation else None,
                "quote_start": citation.quote_start if citation else None,
                "quote_end": citation.quote_end if citation else None,
            }
        )
    return rows
