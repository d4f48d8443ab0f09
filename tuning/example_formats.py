"""Examples out of CSV files, chat logs and FAQ pages, as the records that `parse_example` takes.

Each reader gives (place, record) pairs; `place` is the line or the number in the file, counted
from 1. Nothing is judged here: what is not usable is refused by `parse_example` with its reason.
"""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from tuning.errors import ExampleError

_QUESTION = ("question", "instruction", "prompt", "query", "input", "utterance", "text")
_ANSWER = ("answer", "output", "response", "completion", "reply", "category", "label", "intent")
_ROLE_OF = {
    "user": "user",
    "customer": "user",
    "human": "user",
    "client": "user",
    "assistant": "assistant",
    "agent": "assistant",
    "bot": "assistant",
    "gpt": "assistant",
    "support": "assistant",
    "system": "system",
}
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6", "summary", "dt")
_BLOCKS = ("p", "li", "pre", "td", "th", "blockquote", "dd")

Records = Iterator[tuple[int, Any]]


def csv_records(text: str) -> Records:
    """Rows of a CSV or TSV file with a header; other columns become metadata.

    Raises:
        ExampleError: If no column holds questions or none holds answers.
    """
    first_line = text.split("\n", 1)[0]
    delimiter = max((",", ";", "\t"), key=first_line.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    names = [name.strip().lower() for name in reader.fieldnames or ()]
    reader.fieldnames = names
    asked = next((name for name in _QUESTION if name in names), None)
    answered = next((name for name in _ANSWER if name in names and name != asked), None)
    if asked is None or answered is None:
        raise ExampleError(
            f"columns {', '.join(names) or 'none'}: a CSV file needs one of "
            f"{', '.join(_QUESTION)} and one of {', '.join(_ANSWER)}"
        )
    for row in reader:
        metadata: dict[str, Any] = {
            name: value
            for name, value in row.items()
            if name and name not in (asked, answered) and value
        }
        if isinstance(metadata.get("sources"), str):
            metadata["sources"] = [s.strip() for s in metadata["sources"].split("|") if s.strip()]
        record = {"instruction": row[asked], "output": row[answered], "metadata": metadata}
        yield reader.line_num, record


def chat_records(text: str) -> Records:
    """Conversations of a JSON file: a list, or an object with `conversations` or `messages`.

    Turns are `{"role", "content"}` or `{"from", "value"}`. Every assistant turn that follows a
    user turn becomes one example, with the turns before it as history. All examples of a
    conversation share the source `conversation:N`, so that no split tears it apart.

    Raises:
        ExampleError: If the file is not JSON or holds no conversations.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ExampleError(f"a chat log must be JSON: {error}") from error
    if isinstance(data, dict):
        data = data.get("conversations") or data.get("data") or [data]
    if not isinstance(data, list):
        raise ExampleError("a chat log must hold a list of conversations")
    for number, conversation in enumerate(data, start=1):
        metadata: dict[str, Any] = {}
        turns = conversation
        if isinstance(conversation, dict):
            turns = conversation.get("messages") or conversation.get("conversations")
            given = conversation.get("metadata")
            metadata = dict(given) if isinstance(given, dict) else {}
            name = conversation.get("id", number)
        else:
            name = number
        metadata.setdefault("conversation", str(name))
        if not isinstance(turns, list):
            yield number, {"messages": None}
            continue
        yield from ((number, record) for record in _turn_records(turns, metadata))


def _turn_records(turns: list[Any], metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    messages = [_message(turn) for turn in turns]
    merged: list[dict[str, Any]] = []
    for message in messages:
        last = merged[-1] if merged else None
        if last and last["role"] == message["role"] and last["role"] != "system":
            last["content"] = f"{last['content']}\n{message['content']}"
        else:
            merged.append(message)
    # A greeting by the house before anything was asked answers nothing.
    while len(merged) > 0 and merged[0]["role"] == "assistant":
        merged.pop(0)
    ends = [i for i, message in enumerate(merged) if message["role"] == "assistant"]
    if not ends:
        yield {"messages": merged, "metadata": metadata}
    for end in ends:
        yield {"messages": merged[: end + 1], "metadata": metadata}


def _message(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, dict):
        return {"role": None, "content": ""}
    said = str(turn.get("role") or turn.get("from") or turn.get("speaker") or "").lower()
    content = next((turn[k] for k in ("content", "value", "text") if k in turn), "")
    return {"role": _ROLE_OF.get(said, said), "content": content}


def markdown_faq_records(text: str) -> Records:
    """Headings that are questions, each with the text below it up to the next heading."""
    from markdown_it import MarkdownIt

    lines = text.split("\n")
    starts: list[tuple[int, int, str]] = []
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for index, token in enumerate(tokens):
        if token.type == "heading_open" and token.map:
            starts.append((token.map[0], token.map[1], tokens[index + 1].content))
    bounds = [start for start, _, _ in starts[1:]] + [len(lines)]
    for (line, body, heading), end in zip(starts, bounds, strict=True):
        if _is_question(heading):
            yield line + 1, _faq_record(heading, "\n".join(lines[body:end]))


def html_faq_records(text: str) -> Records:
    """Headings, `<summary>` and `<dt>` that are questions, each with the text up to the next one.

    Raises:
        ExampleError: If the page holds no markup at all.
    """
    from lxml import etree, html  # type: ignore[import-untyped]

    try:
        page = html.document_fromstring(
            text.encode("utf-8"), parser=html.HTMLParser(encoding="utf-8")
        )
    except etree.ParserError as error:
        raise ExampleError(f"the page holds no HTML: {error}") from error
    for unwanted in page.xpath("//script|//style|//nav|//footer"):
        unwanted.drop_tree()
    heading, line, parts = "", 0, list[str]()
    for element in page.iter(*_HEADINGS, *_BLOCKS):
        said = " ".join(element.text_content().split())
        if element.tag in _HEADINGS:
            if _is_question(heading):
                yield line, _faq_record(heading, "\n\n".join(parts))
            heading, line, parts = said, element.sourceline or 0, []
        elif said and not any(parent.tag in _BLOCKS for parent in element.iterancestors()):
            parts.append(f"- {said}" if element.tag == "li" else said)
    if _is_question(heading):
        yield line, _faq_record(heading, "\n\n".join(parts))


def _faq_record(heading: str, body: str) -> dict[str, Any]:
    return {"instruction": heading, "output": body.strip(), "metadata": {}}


def _is_question(heading: str) -> bool:
    return heading.strip().endswith("?")
