"""Support examples, parsed or refused with a reason.

JSON Lines (`messages`, or `instruction` and `output`), CSV and TSV with a header, chat logs as
JSON, FAQ pages as HTML or Markdown.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuning.atomic import canonical_json
from tuning.errors import ExampleError
from tuning.example_formats import (
    Records,
    chat_records,
    csv_records,
    html_faq_records,
    markdown_faq_records,
)
from tuning.prompt import Message

MAX_CHARS = 20_000

# What kind of source a file is, and how its records are read; JSON Lines is read line by line.
_READERS: dict[str, tuple[str, Callable[[str], Records]]] = {
    ".csv": ("csv", csv_records),
    ".tsv": ("csv", csv_records),
    ".json": ("chat", chat_records),
    ".md": ("faq", markdown_faq_records),
    ".markdown": ("faq", markdown_faq_records),
    ".html": ("faq", html_faq_records),
    ".htm": ("faq", html_faq_records),
}
_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Example:
    """One question and the answer to learn, whichever format it came in."""

    id: str
    question: str
    answer: str
    system: str | None = None
    history: tuple[Message, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that is not a usable example; `line` counts from 1."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class LoadedExamples:
    """What a file gave: examples in file order, the refused lines, and its kind of source."""

    examples: tuple[Example, ...]
    refusals: tuple[Refusal, ...]
    source_type: str = "jsonl"


def load_examples(path: Path | str) -> LoadedExamples:
    """Read a file of examples; the ending of its name says which format it has.

    Raises:
        ExampleError: If the file is missing, is not UTF-8, or has an unknown ending.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _LINES and suffix not in _READERS:
        known = ", ".join([*_LINES, *_READERS])
        raise ExampleError(f"examples file {str(path)!r} ends with {suffix!r}: choose {known}")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ExampleError(f"examples file {str(path)!r} does not exist") from error
    except UnicodeDecodeError as error:
        raise ExampleError(f"examples file {str(path)!r} is not UTF-8: {error}") from error
    if suffix in _LINES:
        return parse_lines(text.split("\n"))
    source_type, read = _READERS[suffix]
    loaded = _parse_records(read(text))
    if not loaded.examples and not loaded.refusals:
        raise ExampleError(f"examples file {str(path)!r} holds no question with an answer")
    return LoadedExamples(loaded.examples, loaded.refusals, source_type)


def parse_lines(lines: Iterable[str]) -> LoadedExamples:
    """Parse JSON Lines; blank lines are skipped, unusable and repeated ones are refused."""
    return _parse_records(_decoded(lines))


def _decoded(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            yield number, ExampleError(f"not JSON: {error.msg} at column {error.colno}")


def _parse_records(records: Records) -> LoadedExamples:
    examples: list[Example] = []
    refusals: list[Refusal] = []
    first_line: dict[str, int] = {}
    for number, record in records:
        try:
            if isinstance(record, ExampleError):
                raise record
            example = parse_example(record)
        except ExampleError as error:
            refusals.append(Refusal(number, str(error)))
            continue
        if example.id in first_line:
            refusals.append(Refusal(number, f"repeats line {first_line[example.id]}"))
            continue
        first_line[example.id] = number
        examples.append(example)
    return LoadedExamples(tuple(examples), tuple(refusals))


def parse_example(record: Any) -> Example:
    """Turn one decoded record of either format into an example.

    Raises:
        ExampleError: With the reason why the record is not usable.
    """
    if not isinstance(record, dict):
        raise ExampleError(f"an example must be a JSON object, not {type(record).__name__}")
    metadata = record.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise ExampleError("'metadata' must be a JSON object")
    if "messages" in record:
        system, history, question, answer = _from_messages(record["messages"])
    elif "instruction" in record:
        system, history, question, answer = _from_instruction(record)
    else:
        raise ExampleError("an example needs 'messages' or 'instruction' and 'output'")
    size = len(question) + len(answer) + sum(len(turn["content"]) for turn in history)
    if size > MAX_CHARS:
        raise ExampleError(f"the example has {size} characters, the limit is {MAX_CHARS}")
    identity = canonical_json([system, [dict(turn) for turn in history], question, answer])
    digest = hashlib.sha256(identity.encode("utf-8", "replace")).hexdigest()
    return Example(digest[:16], question, answer, system, tuple(history), metadata)


_Parts = tuple[str | None, list[Message], str, str]


def _from_messages(messages: Any) -> _Parts:
    if not isinstance(messages, list) or not messages:
        raise ExampleError("'messages' must be a non-empty list")
    turns: list[Message] = []
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in (
            "system",
            "user",
            "assistant",
        ):
            raise ExampleError(f"message {position} needs a role: system, user or assistant")
        content = _text(message, "content", f"message {position}")
        turns.append({"role": message["role"], "content": content})
    system = turns.pop(0)["content"] if turns[0]["role"] == "system" else None
    if any(turn["role"] == "system" for turn in turns):
        raise ExampleError("a system message may only come first")
    expected = [("user", "assistant")[i % 2] for i in range(len(turns))]
    if [turn["role"] for turn in turns] != expected or len(turns) < 2 or len(turns) % 2:
        raise ExampleError("turns must alternate user, assistant and end with the assistant")
    return system, turns[:-2], turns[-2]["content"], turns[-1]["content"]


def _from_instruction(record: dict[str, Any]) -> _Parts:
    question = _text(record, "instruction", "the example")
    extra = record.get("input")
    if extra is not None and not isinstance(extra, str):
        raise ExampleError("'input' must be text")
    if extra and extra.strip():
        question = f"{question}\n\n{extra.strip()}"
    return None, [], question, _text(record, "output", "the example")


def _text(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ExampleError(f"{where} needs a non-empty text {key!r}")
    return value.strip()
