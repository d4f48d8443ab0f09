"""A larger model behind an OpenAI-compatible server, as the callable that distillation takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.errors import BadInput, DependencyDown
from tuning.distill import Asked, Origin
from tuning.prompt import Message, Passage

_TIMEOUT_S = 120.0


@contextmanager
def ask_server(
    url: str, model: str, key: str, max_tokens: int
) -> Iterator[Callable[[Sequence[Message]], str]]:
    """A callable that sends messages to the server and returns the greedy answer.

    Raises:
        DependencyDown: If the server does not answer or answers something else.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=_TIMEOUT_S) as http:

        def generate(messages: Sequence[Message]) -> str:
            body = {
                "model": model,
                "messages": list(messages),
                "temperature": 0,
                "max_tokens": max_tokens,
            }
            try:
                response = http.post("/chat/completions", json=body)
                response.raise_for_status()
                return str(response.json()["choices"][0]["message"]["content"] or "")
            except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
                raise DependencyDown(f"the server at {url} did not answer: {error}") from error

        yield generate


def read_asked(path: Path) -> list[Asked]:
    """Questions with their passages from JSON lines.

    Raises:
        BadInput: Naming the first line that is not usable.
    """
    asked = []
    for number, line in enumerate(path.read_text("utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            given = record.get("passages", ())
            passages = tuple(Passage(p["title"], p["text"]) for p in given)
            origins = tuple(
                Origin(str(p.get("document") or ""), str(p.get("version") or "")) for p in given
            )
            asked.append(Asked(str(record["question"]), passages, origins))
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{path.name} line {number} is not a question: {error}") from error
    return asked
