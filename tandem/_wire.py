"""What both clients send and how both read what comes back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

Turn = Mapping[str, str]


class TandemError(Exception):
    """A problem the service reported, or no service at all.

    Attributes:
        detail: the service's sentence.
        status: the HTTP status; 0 where a stream broke or nothing answered.
        retry_after: seconds after which to try again, where the service names them.
    """

    def __init__(self, detail: str, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage that an answer points to.

    `attached` tells that the service attached it; otherwise the model cited it itself.
    """

    number: int
    document: str
    version: int
    heading: str
    page: int | None
    quote: str
    superseded_by: int | None
    attached: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer. `raw` is the whole reply; times are in seconds."""

    id: str
    text: str
    arm: str
    abstained: bool
    grounded: bool | None
    unsupported_values: tuple[str, ...]
    coverage: float | None
    citations: tuple[Citation, ...]
    fallback: Mapping[str, str] | None
    cached: bool
    timings: Mapping[str, float]
    raw: Mapping[str, Any] = field(repr=False)

    def data(self) -> Any:
        """The value of a JSON answer."""
        return json.loads(self.text)


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a search found."""

    document: str
    version: int
    title: str
    heading: str
    page: int | None
    score: float
    cosine: float | None
    text: str


def chat_body(
    use_case: str,
    question: str,
    *,
    history: Sequence[Turn] = (),
    system: str = "",
    schema: Mapping[str, Any] | None = None,
    stream: bool = False,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The body of a chat completion; `options` are the request's `tandem` fields."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [dict(turn) for turn in history]
    body: dict[str, Any] = {
        "model": use_case,
        "messages": [*messages, {"role": "user", "content": question}],
        "stream": stream,
    }
    if options:
        body["tandem"] = dict(options)
    if schema is not None:
        named = {"name": "answer", "schema": dict(schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    return body


def document_path(knowledge_base: str, document: str = "") -> str:
    """Where a document of a knowledge base is addressed."""
    base = f"/api/v1/knowledge-bases/{quote(knowledge_base, safe='')}/documents"
    return f"{base}/{quote(document)}" if document else base


def document_params(
    groups: Iterable[str] | None, attributes: Mapping[str, str] | None, valid_from: str | None
) -> list[tuple[str, str | int | float | bool | None]]:
    """The query of a pushed document."""
    params: list[tuple[str, str | int | float | bool | None]] = [
        ("group", group) for group in groups or ()
    ]
    params += [("attribute", f"{key}:{value}") for key, value in (attributes or {}).items()]
    return [*params, ("valid_from", valid_from)] if valid_from else params


def read_answer(reply: Mapping[str, Any]) -> Answer:
    """The answer of a whole completion."""
    return _answer(reply["tandem"], reply["choices"][0]["message"]["content"], reply)


def read_event(line: str) -> str | Answer | None:
    """A piece of text, the finished answer, or None for what says nothing.

    Raises:
        TandemError: The stream reports an error.
    """
    if not line.startswith("data: ") or line == "data: [DONE]":
        return None
    event = json.loads(line.removeprefix("data: "))
    if "error" in event:
        error = event["error"]
        raise TandemError(error["message"], int(error.get("code") or 0))
    if "tandem" in event:
        return _answer(event["tandem"], event["tandem"]["text"], event)
    choices = event.get("choices") or [{"delta": {}}]
    return choices[0]["delta"].get("content") or None


def read_hits(reply: Mapping[str, Any]) -> tuple[Hit, ...]:
    """The hits of a search, best first."""
    names = Hit.__slots__
    return tuple(Hit(**{name: hit[name] for name in names}) for hit in reply["hits"])


def raise_for(response: httpx.Response) -> None:
    """Raise the service's own sentence where it refused."""
    if response.is_success:
        return
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"the service answered {response.status_code}: {response.text[:200]}"
    wait = response.headers.get("retry-after", "")
    seconds = float(wait) if wait.isdigit() else None  # a proxy may name a date instead
    raise TandemError(detail, response.status_code, seconds)


def _answer(info: Mapping[str, Any], text: str, raw: Mapping[str, Any]) -> Answer:
    return Answer(
        id=info["answer_id"],
        text=text,
        arm=info["arm"],
        abstained=info["abstained"],
        grounded=info["grounded"],
        unsupported_values=tuple(info["unsupported_values"]),
        coverage=info["coverage"],
        citations=tuple(
            Citation(
                number=c["number"],
                document=c["document"],
                version=c["version"],
                heading=c["heading"],
                page=c["page"],
                quote=c["quote"],
                superseded_by=c["superseded_by"],
                attached=c["attached_at"] is not None,
            )
            for c in info["citations"]
        ),
        fallback=info["fallback"],
        cached=info["cached_from"] is not None,
        timings=info["timings"],
        raw=raw,
    )
