"""Records: a JSONL file, one document a line. Read line by line, so its size does not matter."""

from __future__ import annotations

import html
import json
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from app.errors import NotFound
from app.knowledge.sources.files import readable
from app.knowledge.sources.store import server_name, write_whole
from app.knowledge.sources.types import FoundDocument, RecordsSpec

MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_ID_CHARS = 500
_BODIES = {"text": ".txt", "markdown": ".md", "html": ".html"}
_FIELDS = ("id", *_BODIES, "title", "url", "valid_from", "groups", "deleted")
_MAX_GROUP_CHARS = 100
_MAX_TITLE_CHARS = 1000
_MAX_URL_CHARS = 2000


class _BadRecord(Exception):
    """A line that is no document; the message says why."""


def find_records(
    spec: RecordsSpec, into: Path, *, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[FoundDocument]:
    """One document per line, its text written to a file in `into`; every bad line a problem.

    A bad line whose id can be read keeps that id, so that a sync does not take the document for
    gone; one without makes the listing incomplete.

    Raises:
        NotFound: The file does not exist.
    """
    source = Path(spec.path)
    if not source.is_file():
        raise NotFound(f"{spec.path!r} does not exist: give a JSONL file")
    label = readable(source.name)
    seen: dict[str, int] = {}
    with source.open("rb") as file:
        for number, line in _lines(file, max_line_bytes):
            place = f"{label} line {number}"
            if line is None:
                problem = f"{place} is longer than {max_line_bytes} bytes"
                yield _unnamed(place, problem)
                continue
            if not line.strip(b"\xef\xbb\xbf\r\n\t "):
                continue
            record: dict[str, Any] = {}
            try:
                record = _load(line)
                name = _id(record, seen)
                seen[name] = number
                yield _document(name, record, into)
            except _BadRecord as error:
                yield _bad(place, record, seen, number, str(error))


def _lines(file: BinaryIO, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines; None for one over the limit, of which no more than the limit is held."""
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        if len(line) <= limit or line.endswith(b"\n"):
            yield number, line
            continue
        while (rest := file.readline(limit + 1)) and not rest.endswith(b"\n"):
            continue
        yield number, None


def _load(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_no_repeats)
    except UnicodeDecodeError as error:
        raise _BadRecord(f"is not UTF-8 (byte {error.start})") from error
    except (ValueError, RecursionError) as error:
        raise _BadRecord(f"is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise _BadRecord(f"holds a {type(value).__name__}, not an object")
    return value


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _BadRecord("gives a field twice")
    return made


def _id(record: dict[str, Any], seen: dict[str, int]) -> str:
    name = record.get("id")
    if not _is_id(name):
        raise _BadRecord(f"needs an 'id': printable text of 1 to {MAX_ID_CHARS} characters")
    if str(name) in seen:
        raise _BadRecord(f"repeats the id {name!r} of line {seen[str(name)]}")
    return str(name)


def _is_id(name: object) -> bool:
    return (
        isinstance(name, str)
        and 0 < len(name) <= MAX_ID_CHARS
        and name.isprintable()
        and name == name.strip()
    )


def _document(name: str, record: dict[str, Any], into: Path) -> FoundDocument:
    for key in record:
        if key not in _FIELDS:
            # A misspelt `groups` would open the document to everyone.
            raise _BadRecord(f"has the unknown field {key[:60]!r}; valid: {', '.join(_FIELDS)}")
    deleted = record.get("deleted", False)
    if not isinstance(deleted, bool):
        raise _BadRecord(f"has 'deleted' {deleted!r}; valid: true, false")
    if deleted:
        return FoundDocument(name, name, named=True, deleted=True)
    metadata = {
        key: value
        for key, value in (
            ("title", _line_of(record, "title", _MAX_TITLE_CHARS)),
            ("url", _line_of(record, "url", _MAX_URL_CHARS)),
        )
        if value
    }
    valid_from, groups = _valid_from(record), _groups(record)
    body, extension = _body(record, metadata.get("title", ""))
    path = write_whole(into / server_name(f"record\x1f{name}", extension), body, flush=False)
    return FoundDocument(
        name, f"record{extension}", path, True, metadata, groups, valid_from=valid_from
    )


def _body(record: dict[str, Any], title: str) -> tuple[bytes, str]:
    """The file's bytes and extension. The title is part of them: it belongs to the content."""
    given = [key for key in _BODIES if record.get(key) is not None]
    if len(given) != 1:
        raise _BadRecord(f"needs exactly one of {', '.join(_BODIES)}, not {len(given)} of them")
    text = record[given[0]]
    if not isinstance(text, str) or not text.strip():
        raise _BadRecord(f"has no text in {given[0]!r}")
    if title:
        text = _titled(given[0], title, text)
    try:
        return text.encode(), _BODIES[given[0]]
    except UnicodeEncodeError as error:
        raise _BadRecord(f"holds half a surrogate pair in {given[0]!r}") from error


def _titled(kind: str, title: str, text: str) -> str:
    if kind == "text":
        return text if text.lstrip().startswith(title) else f"{title}\n\n{text}"
    if kind == "html":
        has_title = "<title" in text[:20_000].lower()
        return text if has_title else f"<title>{html.escape(title)}</title>\n{text}"
    has_front_matter = text.lstrip("\n").startswith("---")
    return text if has_front_matter else f"---\ntitle: {title}\n---\n{text}"


def _line_of(record: dict[str, Any], key: str, limit: int) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > limit:
        raise _BadRecord(f"has a {key!r} that is no text of at most {limit} characters")
    # Joiners and soft hyphens belong to titles; control characters and half pairs do not.
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in " ".join(value.split())):
        raise _BadRecord(f"has a {key!r} with control characters")
    return " ".join(value.split())


def _valid_from(record: dict[str, Any]) -> str:
    value = record.get("valid_from")
    if value is None:
        return ""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise _BadRecord(f"has 'valid_from' {value!r}; use an ISO date or date-time") from error
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return aware.astimezone(UTC).isoformat()
    except OverflowError as error:
        raise _BadRecord(f"has 'valid_from' {value!r}, which is out of range") from error


def _groups(record: dict[str, Any]) -> tuple[str, ...] | None:
    value = record.get("groups")
    if value is None:
        return None
    if not isinstance(value, list) or not all(_is_group(item) for item in value):
        raise _BadRecord(
            f"has 'groups' that are no list of names of 1 to {_MAX_GROUP_CHARS} characters"
        )
    return tuple(dict.fromkeys(value))


def _is_group(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= _MAX_GROUP_CHARS and name.isprintable()


def _bad(
    place: str, record: dict[str, Any], seen: dict[str, int], number: int, why: str
) -> FoundDocument:
    name = record.get("id")
    problem = f"{place} {why}"
    if not _is_id(name) or seen.get(str(name), number) != number:
        return _unnamed(place, problem, incomplete=not _is_id(name))
    return FoundDocument(str(name), str(name), named=True, problem=problem)


def _unnamed(place: str, problem: str, *, incomplete: bool = True) -> FoundDocument:
    return FoundDocument(place, place, named=True, problem=problem, incomplete=incomplete)
