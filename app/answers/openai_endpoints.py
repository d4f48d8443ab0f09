"""`/v1`: OpenAI's protocol. The model's name is the use case's."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Send

from app.admission.service import Ticket
from app.answers.openai_schemas import ChatRequest, chunk, citation_annotations, completion, usage
from app.answers.service import as_json
from app.answers.types import AnswerRequest, AnswerResult, Progress
from app.bootstrap import Container
from app.db.base import new_id
from app.dependencies import ContainerDep, PrincipalDep
from app.errors import as_app_error
from app.use_cases import service as use_cases

log = structlog.get_logger(__name__)
router = APIRouter()

_HEARTBEAT = ": waiting for the model\n\n"
_GONE_S = 1.0
_CLIENT_CLOSED = 499


@router.get("/models")
def models(container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """The workspace's use cases."""
    principal.require("read")
    with container.database.reading() as session:
        found = use_cases.list_all(session, principal.workspace_id)
    data = [
        {
            "id": use_case.name,
            "object": "model",
            "created": int(use_case.created_at.timestamp()),
            "owned_by": principal.workspace,
        }
        for use_case in found
    ]
    return {"object": "list", "data": data}


@router.post("/chat/completions", response_model=None)
async def chat_completions(
    body: ChatRequest, request: Request, container: ContainerDep, principal: PrincipalDep
) -> Response:
    """Answer the last user message, with citations as annotations."""
    principal.require("ask")
    asked = body.to_answer_request(principal)
    run = await _start(container, asked, body.stream, request.scope.get("tandem.ticket"))
    if not body.stream:
        result = await _finished(run, request)
        if result is None:
            return Response(status_code=_CLIENT_CLOSED)
        return JSONResponse(completion(result))
    include_usage = body.stream_options is not None and body.stream_options.include_usage
    return _EventStream(
        _sse(run, body.model, include_usage),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """An answer under way."""

    container: Container
    events: AsyncIterator[str | AnswerResult | None]
    progress: Progress
    ticket: Ticket | None

    def end(self, result: AnswerResult | None) -> None:
        """Stop what still runs; charge what was used, also where nobody waited for the end."""
        self.progress.cancelled.set()
        tokens = self.progress.prompt_tokens + self.progress.pieces
        if result is not None:
            tokens = result.prompt_tokens + result.completion_tokens
            tokens = 0 if result.cached_from else tokens
            _count(self.container, result)
        if self.ticket is not None:
            self.ticket.tokens += tokens


class _EventStream(StreamingResponse):
    """Closes its events with the response: a client that hung up unread is charged too."""

    async def stream_response(self, send: Send) -> None:
        """Send the events, and close them before the request counts as ended."""
        events = cast("AsyncGenerator[str]", self.body_iterator)
        async with aclosing(events):
            await super().stream_response(send)


async def _start(
    container: Container, asked: AnswerRequest, stream: bool, ticket: Ticket | None
) -> _Run:
    """Plan the answer and let it run; errors of a stream's plan come before its 200 is out."""
    progress = Progress()
    if stream:
        events = await container.runner.call(
            lambda: container.answers.stream(asked, progress=progress)
        )
        beat_s = container.settings.heartbeat_s
    else:
        events = _planned(container, asked, progress)
        beat_s = _GONE_S
    return _Run(container, container.runner.read(events, beat_s), progress, ticket)


def _planned(
    container: Container, asked: AnswerRequest, progress: Progress
) -> Iterator[str | AnswerResult]:
    """A whole answer, planned in the thread that makes it."""
    yield from container.answers.stream(asked, pieces=False, progress=progress)


async def _finished(run: _Run, request: Request) -> AnswerResult | None:
    """The whole answer; None where the client hung up meanwhile."""
    result = None
    try:
        async for event in run.events:
            if isinstance(event, AnswerResult):
                result = event
            elif event is None and await request.is_disconnected():
                return None
    finally:
        run.end(result)
    return result


async def _sse(run: _Run, model: str, include_usage: bool) -> AsyncGenerator[str]:
    """OpenAI's stream; citations come with the last delta, an error as an event of its own."""
    stream_id = new_id()
    result: AnswerResult | None = None
    yield _data(chunk(stream_id, model, {"role": "assistant", "content": ""}))
    try:
        async for event in run.events:
            if event is None:
                yield _HEARTBEAT
            elif isinstance(event, AnswerResult):
                result = event
            else:
                yield _data(chunk(stream_id, model, {"content": event}))
    except Exception as error:  # no handler can answer any more: 200 is out
        expected = as_app_error(error)
        message = expected.detail if expected else "an unexpected error; the log has it"
        if expected is None:
            log.error("stream_failed", exc_info=error)
        else:
            log.warning("stream_failed", error=expected.detail)
        status = str(expected.status if expected else 500)
        told = {"message": message, "type": type(error).__name__, "code": status}
        yield _data({"error": told})
        return
    finally:
        run.end(result)
    if result is None:
        return
    shown = as_json(result)
    last = {"annotations": citation_annotations(result, shown["citations"])}
    final = chunk(stream_id, model, last, result.finish_reason)
    final["tandem"] = shown | {"text": result.text}
    yield _data(final)
    if include_usage:
        yield _data(chunk(stream_id, model, {}) | {"choices": [], "usage": usage(result)})
    yield "data: [DONE]\n\n"


def _count(container: Container, result: AnswerResult) -> None:
    metrics = container.metrics
    metrics.answers.inc(arm=result.arm, made_by="cache" if result.cached_from else result.made_by)
    metrics.seconds.observe(result.timings["total_s"])
    if not result.cached_from:
        metrics.tokens.inc(result.prompt_tokens, kind="prompt")
        metrics.tokens.inc(result.completion_tokens, kind="answer")
    if result.fallback is not None:
        metrics.fallbacks.inc(used=result.fallback.used)


def _data(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
