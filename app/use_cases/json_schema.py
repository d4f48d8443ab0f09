"""JSON answers: which schemas are accepted, and whether a text follows one.

The subset is what constrained decoders agree on: types, properties, items, enumerations, bounds,
patterns, unions, and references inside the schema (JSON Schema 2020-12,
https://json-schema.org/draft/2020-12/json-schema-validation).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from app.errors import BadInput

_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}
_KEYWORDS = frozenset(
    """type properties required additionalProperties items minItems maxItems enum const pattern
    minLength maxLength minimum maximum exclusiveMinimum exclusiveMaximum anyOf oneOf allOf $ref
    $defs definitions title description default examples $schema $id format strict""".split()  # noqa: SIM905
)
_KINDS = (*_TYPES, "number", "integer")
_SHAPES: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("properties", "$defs", "definitions"), (Mapping, "an object")),
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "required", "enum"), (list, "a list")),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), (int, "a whole number")),
    **dict.fromkeys(("minimum", "maximum"), (int | float, "a number")),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), (int | float, "a number")),
    **dict.fromkeys(("pattern", "$ref"), (str, "a text")),
}
_DEEPEST = 64
_MOST_STEPS = 100_000
_LONGEST_PATTERN = 200
_REPEATED_REPEAT = re.compile(r"\([^)]*[+*}|][^)]*\)\s*[+*{]")
_BOUNDS = {
    "minLength": ("characters", len, False),
    "maxLength": ("characters", len, True),
    "minItems": ("items", len, False),
    "maxItems": ("items", len, True),
}


class DoesNotFit(ValueError):
    """A JSON value that does not follow its schema; the message says where and why."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse a schema that uses what could not be checked afterwards.

    Raises:
        BadInput: naming the keyword or the reference.
    """
    pending: list[tuple[Any, int]] = [(schema, 0)]
    while pending:
        part, depth = pending.pop()
        if isinstance(part, bool):
            continue
        if not isinstance(part, Mapping) or depth > _DEEPEST:
            raise BadInput("the JSON schema is not a schema object, or nested too deeply")
        unknown = sorted(set(part) - _KEYWORDS)
        if unknown:
            raise BadInput(f"JSON schema keyword {unknown[0]!r} is not supported: leave it out")
        _check_shapes(part)
        if "$ref" in part:
            _resolve(schema, part["$ref"])
        _check_pattern(part)
        for name in ("properties", "$defs", "definitions"):
            pending += [(child, depth + 1) for child in part.get(name, {}).values()]
        for name in ("anyOf", "oneOf", "allOf"):
            pending += [(child, depth + 1) for child in part.get(name, ())]
        pending += [(part[n], depth + 1) for n in ("items", "additionalProperties") if n in part]


def parse_answer(text: str, schema: Mapping[str, Any]) -> Any:
    """The JSON value of an answer.

    Raises:
        DoesNotFit: The text is no JSON or does not follow the schema.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DoesNotFit(f"it is not JSON ({error})") from error
    _fit(value, schema, _Whole(schema), "$", 0)
    return value


class _Whole(dict[str, Any]):
    """The schema, and the steps taken so far: unions within unions could take for ever."""

    steps = 0


def _fit(value: Any, part: Any, whole: _Whole, at: str, depth: int) -> None:
    whole.steps += 1
    if whole.steps > _MOST_STEPS:
        raise DoesNotFit(f"its schema takes more than {_MOST_STEPS} steps to check: simplify it")
    if part is True or part == {}:
        return
    if part is False:
        raise DoesNotFit(f"{at} is not allowed")
    if depth > _DEEPEST:
        raise DoesNotFit(f"{at} is nested too deeply")
    if "$ref" in part:
        _fit(value, _resolve(whole, str(part["$ref"])), whole, at, depth + 1)
    _fit_kind(value, part, at)
    _fit_unions(value, part, whole, at, depth)
    if isinstance(value, dict):
        _fit_object(value, part, whole, at, depth)
    elif isinstance(value, list) and "items" in part:
        for index, item in enumerate(value):
            _fit(item, part["items"], whole, f"{at}[{index}]", depth + 1)


def _fit_kind(value: Any, part: Mapping[str, Any], at: str) -> None:
    kinds = part.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        raise DoesNotFit(f"{at} is no {' or '.join(kinds)}")
    if "enum" in part and not any(_same(value, choice) for choice in part["enum"]):
        raise DoesNotFit(f"{at} is {value!r}, not one of {part['enum']!r}")
    if "const" in part and not _same(value, part["const"]):
        raise DoesNotFit(f"{at} is {value!r}, not {part['const']!r}")
    if isinstance(value, str) and "pattern" in part and not re.search(part["pattern"], value):
        raise DoesNotFit(f"{at} does not match {part['pattern']!r}")
    _fit_bounds(value, part, at)


def _fit_bounds(value: Any, part: Mapping[str, Any], at: str) -> None:
    for keyword, (what, measure, most) in _BOUNDS.items():
        wanted = str if what == "characters" else list
        if keyword in part and isinstance(value, wanted):
            size = measure(value)
            if size > part[keyword] if most else size < part[keyword]:
                raise DoesNotFit(f"{at} has {size} {what}, {keyword} is {part[keyword]}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    wrong = (
        ("minimum", value < part.get("minimum", value)),
        ("maximum", value > part.get("maximum", value)),
        ("exclusiveMinimum", "exclusiveMinimum" in part and value <= part["exclusiveMinimum"]),
        ("exclusiveMaximum", "exclusiveMaximum" in part and value >= part["exclusiveMaximum"]),
    )
    for keyword, broken in wrong:
        if broken:
            raise DoesNotFit(f"{at} is {value}, {keyword} is {part[keyword]}")


def _fit_unions(value: Any, part: Mapping[str, Any], whole: _Whole, at: str, depth: int) -> None:
    for choice in part.get("allOf", ()):
        _fit(value, choice, whole, at, depth + 1)
    for keyword in ("anyOf", "oneOf"):
        if keyword in part:
            fitting = sum(_fits(value, c, whole, at, depth + 1) for c in part[keyword])
            if fitting == 0 or (keyword == "oneOf" and fitting > 1):
                raise DoesNotFit(f"{at} fits {fitting} of the schemas in {keyword}")


def _fits(value: Any, part: Any, whole: _Whole, at: str, depth: int) -> bool:
    try:
        _fit(value, part, whole, at, depth)
    except DoesNotFit:
        return False
    return True


def _fit_object(
    value: dict[str, Any], part: Mapping[str, Any], whole: _Whole, at: str, depth: int
) -> None:
    for name in part.get("required", ()):
        if name not in value:
            raise DoesNotFit(f"{at} lacks {name!r}")
    known = part.get("properties", {})
    for name, item in value.items():
        wanted = known.get(name, part.get("additionalProperties", True))
        _fit(item, wanted, whole, f"{at}.{name}", depth + 1)


def _is(value: Any, kind: str) -> bool:
    if kind in ("number", "integer"):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (kind == "number" or value == value // 1)
    return kind in _TYPES and isinstance(value, _TYPES[kind])


def _same(value: Any, other: Any) -> bool:
    """JSON equality: true is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _resolve(whole: Mapping[str, Any], reference: str) -> Any:
    found: Any = whole
    if reference != "#" and not reference.startswith("#/"):
        raise BadInput(f"JSON schema reference {reference!r} points outside: use #/$defs/NAME")
    for name in reference.split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or name not in found:
            raise BadInput(f"JSON schema reference {reference!r} points nowhere")
        found = found[name]
    return found


def _check_shapes(part: Mapping[str, Any]) -> None:
    for name, (shape, what) in _SHAPES.items():
        if name in part and (not isinstance(part[name], shape) or isinstance(part[name], bool)):
            raise BadInput(f"JSON schema keyword {name!r} is {part[name]!r:.80}: give {what}")
    kinds = part.get("type", [])
    for kind in [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else [0]:
        if kind not in _KINDS:
            raise BadInput(f"JSON schema type {kinds!r:.80} is unknown: choose {', '.join(_KINDS)}")


def _check_pattern(part: Mapping[str, Any]) -> None:
    pattern = str(part.get("pattern", ""))
    # A repeated group that repeats inside can take Python's matcher exponential time.
    if len(pattern) > _LONGEST_PATTERN or _REPEATED_REPEAT.search(pattern):
        raise BadInput(f"JSON schema pattern {pattern[:80]!r} is too long or repeats a repetition")
    try:
        re.compile(part.get("pattern", ""))
    except re.error as error:
        raise BadInput(f"JSON schema pattern {part['pattern']!r}: {error}") from error
