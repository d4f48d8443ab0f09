"""A value against a JSON Schema: the keywords that output contracts use.

Source: JSON Schema draft 2020-12. A schema with a keyword that is not checked here is refused, so
that nothing counts as valid unseen.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from evals.errors import MetricError

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, Mapping),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "integer": lambda v: (
        not isinstance(v, bool)
        and (isinstance(v, int) or (isinstance(v, float) and v.is_integer()))
    ),
}
_REMARKS = {"$schema", "$id", "title", "description", "default", "examples", "format", "$comment"}
_PARTS = ("items", "additionalProperties", "not")
_LISTS = ("anyOf", "allOf", "oneOf")


def schema_errors(value: Any, schema: Mapping[str, Any] | bool, where: str = "$") -> list[str]:
    """Give what is wrong with a value, as sentences; an empty list means valid.

    Raises:
        MetricError: if the schema uses a keyword that is not checked, or is malformed.
    """
    if isinstance(schema, bool):
        return [] if schema else [f"{where}: no value is allowed here"]
    check_schema(schema, where)
    errors: list[str] = []
    for keyword, rule in schema.items():
        if keyword in _CHECKS:
            errors += _CHECKS[keyword](value, rule, schema, where)
    return errors


def check_schema(schema: Any, where: str = "$") -> None:
    """Refuse a schema that cannot be checked in full.

    Raises:
        MetricError: naming the place and the keyword.
    """
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise MetricError(f"schema at {where} must be an object, got {type(schema).__name__}")
    for keyword in schema:
        if keyword not in _CHECKS and keyword not in _REMARKS:
            choices = ", ".join(_CHECKS)
            raise MetricError(
                f"schema at {where}: keyword {keyword!r} is not checked; valid choices are "
                f"{choices}"
            )
    unknown = [name for name in _as_list(schema.get("type", [])) if name not in _TYPES]
    if unknown:
        raise MetricError(
            f"schema at {where}: no type {unknown[0]!r}; valid choices are {', '.join(_TYPES)}"
        )
    for name, part in _parts(schema):
        check_schema(part, f"{where}.{name}")


def _parts(schema: Mapping[str, Any]) -> list[tuple[str, Any]]:
    inner = [(name, schema[name]) for name in _PARTS if name in schema]
    inner += schema.get("properties", {}).items()
    return inner + [(name, part) for name in _LISTS for part in schema.get(name, ())]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _type(value: Any, rule: Any, _: Mapping[str, Any], where: str) -> list[str]:
    names = _as_list(rule)
    fits = any(_TYPES[name](value) for name in names)
    return [] if fits else [f"{where}: {value!r} is not of type {' or '.join(names)}"]


def _enum(value: Any, rule: Any, _: Mapping[str, Any], where: str) -> list[str]:
    fits = any(_same(value, choice) for choice in rule)
    return [] if fits else [f"{where}: {value!r} is not one of {list(rule)}"]


def _const(value: Any, rule: Any, _: Mapping[str, Any], where: str) -> list[str]:
    return [] if _same(value, rule) else [f"{where}: {value!r} is not {rule!r}"]


def _same(a: Any, b: Any) -> bool:
    """JSON equality: 1 equals 1.0 but not true, at any depth."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _required(value: Any, rule: Any, _: Mapping[str, Any], where: str) -> list[str]:
    if not isinstance(value, Mapping):
        return []
    return [f"{where}: field {name!r} is missing" for name in rule if name not in value]


def _properties(value: Any, rule: Any, _: Mapping[str, Any], where: str) -> list[str]:
    if not isinstance(value, Mapping):
        return []
    return [
        error
        for name, part in rule.items()
        if name in value
        for error in schema_errors(value[name], part, f"{where}.{name}")
    ]


def _additional(value: Any, rule: Any, schema: Mapping[str, Any], where: str) -> list[str]:
    if not isinstance(value, Mapping):
        return []
    others = [name for name in value if name not in schema.get("properties", {})]
    return [
        f"{where}: field {name!r} is not allowed"
        if rule is False
        else f"{where}.{name}: {'; '.join(wrong)}"
        for name in others
        if (wrong := schema_errors(value[name], rule, f"{where}.{name}"))
    ]


def _items(value: Any, rule: Any, _: Mapping[str, Any], where: str) -> list[str]:
    if not isinstance(value, list):
        return []
    return [e for i, item in enumerate(value) for e in schema_errors(item, rule, f"{where}[{i}]")]


def _pattern(value: Any, rule: Any, _: Mapping[str, Any], where: str) -> list[str]:
    if not isinstance(value, str) or re.search(rule, value):
        return []
    return [f"{where}: {value!r} does not match {rule!r}"]


def _bound(
    kind: type | tuple[type, ...],
    size: Callable[[Any], float],
    fits: Callable[[float, float], bool],
) -> Callable[[Any, Any, Mapping[str, Any], str], list[str]]:
    def check(value: Any, rule: Any, _: Mapping[str, Any], where: str) -> list[str]:
        applies = isinstance(value, kind) and not isinstance(value, bool)
        return (
            [f"{where}: {value!r} breaks the bound {rule}"]
            if (applies and not fits(size(value), rule))
            else []
        )

    return check


def _unique(value: Any, rule: Any, _: Mapping[str, Any], where: str) -> list[str]:
    if not rule or not isinstance(value, list):
        return []
    twice = any(_same(a, b) for i, a in enumerate(value) for b in value[:i])
    return [f"{where}: an item occurs twice"] if twice else []


def _count(value: Any, rule: Any, where: str) -> int:
    return sum(not schema_errors(value, part, where) for part in rule)


_AT_LEAST: Callable[[float, float], bool] = lambda size, bound: size >= bound  # noqa: E731
_AT_MOST: Callable[[float, float], bool] = lambda size, bound: size <= bound  # noqa: E731
_CHECKS: dict[str, Callable[[Any, Any, Mapping[str, Any], str], list[str]]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "pattern": _pattern,
    "minimum": _bound((int, float), float, _AT_LEAST),
    "maximum": _bound((int, float), float, _AT_MOST),
    "exclusiveMinimum": _bound((int, float), float, lambda size, bound: size > bound),
    "exclusiveMaximum": _bound((int, float), float, lambda size, bound: size < bound),
    "minLength": _bound(str, len, _AT_LEAST),
    "maxLength": _bound(str, len, _AT_MOST),
    "minItems": _bound(list, len, _AT_LEAST),
    "maxItems": _bound(list, len, _AT_MOST),
    "uniqueItems": _unique,
    "anyOf": lambda v, rule, _, where: (
        [] if _count(v, rule, where) else [f"{where}: {v!r} fits none of the choices"]
    ),
    "oneOf": lambda v, rule, _, where: (
        [] if _count(v, rule, where) == 1 else [f"{where}: {v!r} does not fit exactly one choice"]
    ),
    "allOf": lambda v, rule, _, where: [e for part in rule for e in schema_errors(v, part, where)],
    "not": lambda v, rule, _, where: (
        [] if schema_errors(v, rule, where) else [f"{where}: {v!r} is excluded"]
    ),
}
