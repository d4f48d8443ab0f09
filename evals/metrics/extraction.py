"""Answers that are JSON objects: fields right, fields missed, fields made up, schema kept."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from evals.metrics.answers import normalise_answer
from evals.metrics.json_schema import schema_errors
from evals.metrics.score import Score

_FENCE = re.compile(r"^\s*```(?:json)?\s*\n(?P<body>.*?)\n?\s*```\s*$", re.DOTALL | re.IGNORECASE)
_UNSET: tuple[Any, ...] = (None, "", [], {})


def read_object(text: str) -> dict[str, Any] | None:
    """Read a JSON object, also one in a code fence; None when the text is nothing but one."""
    fenced = _FENCE.match(text)
    try:
        record = json.loads(fenced["body"] if fenced else text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def field_f1(text: str, answers: Sequence[str]) -> Score:
    """Give the F1 over fields, the best over accepted answers that are JSON objects.

    Nested objects are compared field by field, lists as sets of values. A field is right if its
    value is equal after normalisation; null and empty count as not given. Text that is no JSON
    object scores 0. Unscored when no accepted answer is an object.
    """
    return _best(text, answers, _f1)


def field_match(text: str, answers: Sequence[str]) -> Score:
    """Give 1 if every field is right and none was made up, else 0."""
    return _best(text, answers, lambda said, wanted: float(said == wanted))


def schema_valid(text: str, schema: Mapping[str, Any]) -> Score:
    """Give 1 if the text is one JSON object that keeps the schema, else 0 with the reason.

    Raises:
        MetricError: if the schema holds a keyword that is not checked.
    """
    record = read_object(text)
    if record is None:
        return Score(0.0, "not a JSON object")
    errors = schema_errors(record, schema)
    return Score(0.0, errors[0]) if errors else Score(1.0)


def field_scores(pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[int, int, int]]:
    """Count by field name over (text, accepted answer) pairs: right, given, wanted."""
    counts: dict[str, list[int]] = {}
    for text, answer in pairs:
        said, wanted = _fields(read_object(text) or {}), _fields(read_object(answer) or {})
        for name, value in said | wanted:
            row = counts.setdefault(name, [0, 0, 0])
            row[0] += (name, value) in said and (name, value) in wanted
            row[1] += (name, value) in said
            row[2] += (name, value) in wanted
    return {name: (row[0], row[1], row[2]) for name, row in sorted(counts.items())}


def _best(text: str, answers: Sequence[str], compare: Any) -> Score:
    wanted = [record for answer in answers if (record := read_object(answer)) is not None]
    if not wanted:
        return Score.unscored("no accepted answer is a JSON object")
    said = read_object(text)
    if said is None:
        return Score(0.0, "not a JSON object")
    fields = _fields(said)
    return Score(max(float(compare(fields, _fields(record))) for record in wanted))


def _f1(said: set[tuple[str, str]], wanted: set[tuple[str, str]]) -> float:
    if not said and not wanted:
        return 1.0
    return 2 * len(said & wanted) / (len(said) + len(wanted))


def _fields(record: Any, name: str = "") -> set[tuple[str, str]]:
    if isinstance(record, Mapping):
        return {
            found
            for key, value in record.items()
            for found in _fields(value, f"{name}.{key}" if name else str(key))
        }
    if isinstance(record, list):
        return {found for value in record for found in _fields(value, name)}
    if record in _UNSET:
        return set()
    return {(name, _plain(record))}


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return format(value, ".12g")
    text = str(value)
    # Punctuation carries meaning in numbers and ids: "1.5" is not "15".
    if any(character.isdigit() for character in text):
        return " ".join(text.lower().split())
    return normalise_answer(text)
