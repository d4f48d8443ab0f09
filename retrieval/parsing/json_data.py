"""JSON and JSON Lines as text: `key: value` lines, and tables for lists of equal objects."""

import json
import re
from typing import Any, TypeAlias

from retrieval.errors import EmptyDocument, ParseFailed, ParseLimit
from retrieval.parsing.grid import CellBudget, file_stem
from retrieval.parsing.text import (
    DocumentBuilder,
    clean,
    collapse,
    collapse_lines,
    decode,
    table_text,
)
from retrieval.types import ParsedDocument

Value: TypeAlias = Any  # dict, list, str, bool or None; numbers stay the text that was written

MAX_JSON_BYTES = 32 * 1024 * 1024
MAX_VALUES = 3_000_000
MAX_CONTAINERS = 750_000
MAX_RECORDS = 300_000
MAX_DEPTH = 60

_SURROGATE = re.compile("[\ud800-\udfff]")
_TITLE_KEYS = ("title", "name", "headline", "question", "subject", "heading")
_MAX_TITLE_CHARS = 200
_MAX_TABLE_COLUMNS = 64


def parse_json(data: bytes, name: str) -> ParsedDocument:
    """Parse a JSON file: an object as lines, a list of objects with the same keys as a table.

    Raises:
        EmptyDocument: it holds no text, number or truth value.
        ParseFailed: it is no JSON.
        ParseLimit: larger or deeper than is allowed.
    """
    value = load_json(decode(data, name), name)
    builder = DocumentBuilder(name, "application/json")
    _add(builder, value, CellBudget(name))
    return builder.build(title=_title_of(value) or file_stem(name))


def parse_jsonl(data: bytes, name: str) -> ParsedDocument:
    """Parse JSON Lines: a paragraph for each record, under a heading where it has a title.

    Raises:
        EmptyDocument: no record holds text.
        ParseFailed: a line is no JSON; the message has its number.
        ParseLimit: more records than `MAX_RECORDS`, or a record too large or deep.
    """
    builder = DocumentBuilder(name, "application/jsonl")
    budget = CellBudget(name)
    records = 0
    for number, line in enumerate(decode(data, name).split("\n"), start=1):
        if not line.strip():
            continue
        records += 1
        if records > MAX_RECORDS:
            raise ParseLimit(f"{name} has more than {MAX_RECORDS} records; split it")
        value = load_json(line, f"line {number} of {name}")
        title = _title_of(value)
        if title:
            builder.add("heading", title, level=1)
        _add(builder, value, budget)
    return builder.build(title=file_stem(name))


def load_json(text: str, what: str) -> Value:
    """The value of a JSON text, its numbers as written; `what` names it in messages.

    Raises:
        EmptyDocument: only blanks.
        ParseFailed: no JSON.
        ParseLimit: too large or too deep.
    """
    if not text.strip():
        raise EmptyDocument(f"{what} holds no text; nothing was indexed")
    # Counted in the text, before any object exists: an empty list of 2 bytes takes 60.
    containers = text.count("{") + text.count("[")
    values = containers + text.count(",")
    if len(text) > MAX_JSON_BYTES or values > MAX_VALUES or containers > MAX_CONTAINERS:
        raise ParseLimit(
            f"{what} is too large as one JSON value ({len(text)} characters, {values} values); "
            f"the limits are {MAX_JSON_BYTES} and {MAX_VALUES}, so save it as JSON Lines"
        )
    try:
        # Numbers stay text: "1e999999999" and 10,000 digits cost nothing, and 1.50 stays 1.50.
        return json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except json.JSONDecodeError as error:
        raise ParseFailed(
            f"{what} is no JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from error
    except RecursionError as error:
        raise ParseLimit(f"{what} is nested too deeply; the limit is {MAX_DEPTH} levels") from error


def plain(text: str) -> str:
    """A JSON string as clean text; halves of surrogate pairs become the replacement sign."""
    return clean(_SURROGATE.sub("\ufffd", text))


def _add(builder: DocumentBuilder, value: Value, budget: CellBudget) -> None:
    flattener = _Flattener(builder, budget)
    flattener.add(value, "", 0)
    flattener.flush()


class _Flattener:
    """Lays values out as lines; a list of objects ends the paragraph before it."""

    def __init__(self, builder: DocumentBuilder, budget: CellBudget) -> None:
        self._builder = builder
        self._budget = budget
        self._lines: list[str] = []

    def flush(self) -> None:
        self._builder.add("paragraph", "\n".join(self._lines))
        self._lines.clear()

    def add(self, value: Value, path: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ParseLimit(
                f"{self._builder.name} is nested too deeply; the limit is {MAX_DEPTH} levels"
            )
        if isinstance(value, dict):
            for key, item in value.items():
                label = collapse(plain(key))
                self.add(item, f"{path}.{label}" if path else label, depth + 1)
        elif isinstance(value, list):
            self._add_list(value, path, depth)
        else:
            self._line(path, _scalar(value))

    def _add_list(self, items: list[Value], path: str, depth: int) -> None:
        if not any(isinstance(item, dict | list) for item in items):
            texts = [text for item in items if (text := _scalar(item))]
            # At the top there is no key: each entry then is a line of its own.
            for text in [", ".join(texts)] if path else texts:
                self._line(path, text)
            return
        columns = _table_columns(items)
        if columns:
            self._table(items, columns, path)
            return
        for number, item in enumerate(items, start=1):
            if isinstance(item, dict):
                self.flush()
            self.add(item, f"{path} {number}" if path else "", depth + 1)
            if isinstance(item, dict):
                self.flush()

    def _table(self, items: list[dict[str, Value]], columns: list[str], path: str) -> None:
        self._line(path, " ")
        self.flush()
        rows = [[plain(column) for column in columns]]
        rows += [[_cell(item.get(column)) for column in columns] for item in items]
        self._builder.add("table", table_text(rows))

    def _line(self, path: str, text: str) -> None:
        if text:
            line = f"{path}: {text}".rstrip() if path else text
            # Every value repeats the keys above it, so long keys multiply.
            self._budget.spend_many(0, len(line))
            self._lines.append(line)


def _table_columns(items: list[Value]) -> list[str]:
    """The keys that all objects of a list share, empty where the list is no table."""
    first = items[0]
    if len(items) < 2 or not isinstance(first, dict) or not 1 < len(first) <= _MAX_TABLE_COLUMNS:
        return []
    for item in items:
        if not isinstance(item, dict) or item.keys() != first.keys():
            return []
        if any(isinstance(v, dict) or not _is_cell(v) for v in item.values()):
            return []
    return list(first)


def _is_cell(value: Value) -> bool:
    return not isinstance(value, list) or not any(isinstance(v, dict | list) for v in value)


def _cell(value: Value) -> str:
    if isinstance(value, list):
        return ", ".join(text for item in value if (text := _scalar(item)))
    return _scalar(value)


def _scalar(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return collapse_lines(plain(str(value)))


def _title_of(value: Value) -> str:
    if not isinstance(value, dict):
        return ""
    for key in _TITLE_KEYS:
        text = value.get(key)
        if isinstance(text, str) and text.strip() and len(text) <= _MAX_TITLE_CHARS:
            return collapse(plain(text))
    return ""
