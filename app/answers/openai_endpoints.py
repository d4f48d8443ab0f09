"""`/v1`: OpenAI's protocol. The model's name is the use case's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import structlog
from fastapi import APIRouter
from fastapi.responses import JSONResponse, StreamingResponse

from app.answers.openai_schemas import ChatRequest, chunk, citation_annotations, completion, usage
from app.answers.service import as_json
from app.answers.types import AnswerResult
from app.db.base import new_id
from app.dependencies import ContainerDep, PrincipalDep
from app.errors import AppError, as_app_error
from app.use_cases import service as use_cases
from evals.errors import EvalError
from retrieval.errors import RetrievalError
from tuning.errors import TuningError

log = structlog.get_logger(__name__)
router = APIRouter()

_LIBRARY_ERRORS = (AppError, RetrievalError, TuningError, EvalError, OSError)


@router.get("/models")
def models(container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """The workspace's use cases."""
    principal.require("read")
    with container.database.session() as session:
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
def chat_completions(
    body: ChatRequest, container: ContainerDep, principal: PrincipalDep
) -> JSONResponse | StreamingResponse:
    """Answer the last user message, with citations as annotations."""
    principal.require("ask")
    request = body.to_answer_request(principal)
    if not body.stream:
        return JSONResponse(completion(container.answers.answer(request)))
    include_usage = body.stream_options is not None and body.stream_options.include_usage
    events = container.answers.stream(request)
    return StreamingResponse(
        _sse(events, body.model, include_usage),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


def _sse(events: Iterator[str | AnswerResult], model: str, include_usage: bool) -> Iterator[str]:
    """OpenAI's stream; citations come with the last delta, an error as an event of its own."""
    stream_id = new_id()
    yield _data(chunk(stream_id, model, {"role": "assistant", "content": ""}))
    try:
        for event in events:
            if isinstance(event, str):
                yield _data(chunk(stream_id, model, {"content": event}))
                continue
            last = {"annotations": citation_annotations(event)}
            final = chunk(stream_id, model, last, event.finish_reason)
            final["tandem"] = as_json(event) | {"text": event.text}
            yield _data(final)
            if include_usage:
                counted = chunk(stream_id, model, {}) | {"choices": [], "usage": usage(event)}
                yield _data(counted)
    except _LIBRARY_ERRORS as error:
        expected = as_app_error(error)
        message = expected.detail if expected else "an unexpected error; the log has it"
        log.warning("stream_failed", error=str(error))
        yield _data({"error": {"message": message, "type": type(error).__name__}})
        return
    yield "data: [DONE]\n\n"


def _data(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
