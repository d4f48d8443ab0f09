"""OpenAI's chat wire format, as far as Tandem speaks it; everything of ours is under `tandem`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.answers.service import as_json
from app.answers.types import AnswerRequest, AnswerResult, Citation
from app.db.base import aware
from app.errors import BadInput
from app.use_cases.json_schema import check_schema
from app.workspaces.policy import Principal
from tuning.prompt import Message


class TextPart(BaseModel):
    """One part of a message's content."""

    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    """One turn."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None

    def plain(self) -> str:
        """The text of the turn."""
        if isinstance(self.content, str):
            return self.content
        parts = self.content or []
        for part in parts:
            if part.type != "text":
                raise BadInput(f"content of type {part.type!r} is not supported: send text")
        return "\n".join(part.text or "" for part in parts)


class TandemOptions(BaseModel):
    """Our extension of the request.

    Another arm or adapter than the use case serves with; `groups`, `as_of` and `where` narrow what
    the answer comes from (document groups, the knowledge of a past moment, attributes).
    """

    arm: str | None = None
    adapter: str | None = None
    groups: list[str] | None = None
    as_of: datetime | None = None
    where: dict[str, str] = Field(default_factory=dict)


class StreamOptions(BaseModel):
    """OpenAI's options of a stream."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class NamedSchema(BaseModel):
    """OpenAI's `json_schema` object."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    name: str = "answer"
    wanted: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """What the answer must be: text, any JSON object, or JSON that follows a schema."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: NamedSchema | None = None

    def schema_wanted(self) -> dict[str, Any] | None:
        """The schema to follow.

        Raises:
            BadInput: It is missing, or uses what cannot be checked.
        """
        if self.type == "text":
            return None
        if self.type == "json_object":
            return {"type": "object"}
        if self.json_schema is None:
            raise BadInput("response_format json_schema needs a json_schema with a schema in it")
        check_schema(self.json_schema.wanted)
        return self.json_schema.wanted


class ChatRequest(BaseModel):
    """A chat completion request; `model` is the use case."""

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    response_format: ResponseFormat | None = None
    tandem: TandemOptions = Field(default_factory=TandemOptions)

    def to_answer_request(self, principal: Principal) -> AnswerRequest:
        """The request of the answer pipeline.

        Raises:
            BadInput: The last turn is not the user's, or more than one choice is wanted.
        """
        if self.n not in (None, 1):
            raise BadInput(f"n is {self.n}: one choice per request is supported")
        turns = [message for message in self.messages if message.role in ("user", "assistant")]
        if not turns or turns[-1].role != "user":
            raise BadInput("the last message must be the user's question")
        system = [m.plain() for m in self.messages if m.role in ("system", "developer")]
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return AnswerRequest(
            workspace_id=principal.workspace_id,
            use_case=self.model,
            question=turns[-1].plain(),
            history=tuple(_turn(message) for message in turns[:-1]),
            system="\n".join(text for text in system if text.strip()),
            arm=self.tandem.arm,
            adapter=self.tandem.adapter,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature or 0.0,
            top_p=self.top_p or 1.0,
            seed=self.seed or 0,
            stop=tuple(stop),
            asked_by=principal.name,
            groups=principal.groups_for(self.tandem.groups),
            as_of=aware(self.tandem.as_of),
            where=self.tandem.where,
            json_schema=self.response_format.schema_wanted() if self.response_format else None,
        )


def completion(result: AnswerResult) -> dict[str, Any]:
    """A whole chat completion."""
    told = as_json(result)
    return {
        "id": f"chatcmpl-{result.id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": result.use_case,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": result.text,
                    "annotations": citation_annotations(result, told["citations"]),
                },
                "finish_reason": result.finish_reason,
                "logprobs": None,
            }
        ],
        "usage": usage(result),
        "tandem": told,
    }


def chunk(
    answer_id: str, model: str, delta: dict[str, Any], finish_reason: str | None = None
) -> dict[str, Any]:
    """One event of a streamed completion."""
    return {
        "id": f"chatcmpl-{answer_id}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}],
    }


def usage(result: AnswerResult) -> dict[str, int]:
    """Token counts."""
    return {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "total_tokens": result.prompt_tokens + result.completion_tokens,
    }


def citation_annotations(
    result: AnswerResult, shown: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Citations as OpenAI's `url_citation`; `shown` is `as_json`'s form of them.

    They stand at their markers in the text; those attached by alignment at the sentence that they
    support.
    """
    found = []
    for citation, whole in zip(result.citations, shown, strict=True):
        marker = f"[{citation.number}]"
        start = result.text.find(marker)
        end = start + len(marker)
        if citation.attached_at is not None:
            start, end = citation.attached_at
        found.append(
            {
                "type": "url_citation",
                "url_citation": {
                    "start_index": start,
                    "end_index": end,
                    "title": _title(citation),
                    "url": f"tandem://{citation.document}?version={citation.version}"
                    f"#{citation.quote_start}-{citation.quote_end}",
                },
                "tandem": whole,
            }
        )
    return found


def _title(citation: Citation) -> str:
    path = dict.fromkeys(part for part in (citation.title, citation.heading) if part)
    page = f", page {citation.page}" if citation.page else ""
    return " > ".join(path) + page


def _turn(message: ChatMessage) -> Message:
    role: Literal["user", "assistant"] = "user" if message.role == "user" else "assistant"
    return {"role": role, "content": message.plain()}
