"""Source specifications: JSON in, checked values out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from app.errors import BadInput
from app.knowledge.sources.addresses import check_url
from app.knowledge.sources.types import (
    FilesSpec,
    GitSpec,
    RecordsSpec,
    SitemapSpec,
    SourceSpec,
    UrlSpec,
)

_KINDS: dict[str, type[SourceSpec]] = {
    spec.kind: spec for spec in (FilesSpec, UrlSpec, SitemapSpec, GitSpec, RecordsSpec)
}
KINDS = tuple(_KINDS)
_MAX_TEXT = 4096
_RANGES = {"depth": (0, 3), "max_pages": (1, 50_000)}
_MAY_BE_EMPTY = ("subdir",)


def parse_spec(given: str | Mapping[str, Any]) -> SourceSpec:
    """A checked specification from a mapping, its JSON text, a web address or a path.

    Text that starts with `{` is JSON, with `http://` or `https://` one page, else a path.

    Raises:
        BadInput: An unknown kind or field, a missing field, a wrong type, a value out of range.
    """
    if isinstance(given, str):
        given = _from_text(given)
    values = dict(given)
    kind = values.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise BadInput(f"source kind {kind!r} is unknown; valid kinds: {', '.join(KINDS)}")
    known = {item.name: item for item in fields(_KINDS[kind])}
    for name in values:
        if name not in known:
            valid = ", ".join(known)
            raise BadInput(f"a source of kind {kind!r} has no field {name!r}; valid: {valid}")
    for name, item in known.items():
        if name in values:
            _check_value(kind, name, str(item.type), values[name])
        elif item.default is MISSING:
            raise BadInput(f"a source of kind {kind!r} needs the field {name!r}")
    spec = _KINDS[kind](**values)
    return _checked(spec)


def spec_as_dict(spec: SourceSpec) -> dict[str, Any]:
    """Plain JSON; `parse_spec` reads it back."""
    return {"kind": spec.kind, **asdict(spec)}


def reads_this_machine(spec: SourceSpec) -> bool:
    """Whether it names files of this machine, which only its operator may do."""
    return not isinstance(spec, UrlSpec | SitemapSpec)


def _from_text(text: str) -> Mapping[str, Any]:
    if text.lstrip().startswith("{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"the source {text[:80]!r} is no JSON: {error}") from error
        return dict(value)
    if text.lower().startswith(("http://", "https://")):
        return {"kind": "url", "url": text}
    if "://" in text:
        raise BadInput(f"the source {text[:80]!r} has an unknown scheme; use http or https")
    return {"kind": "files", "path": text}


def _check_value(kind: str, name: str, wanted: str, value: object) -> None:
    if wanted == "str":
        if not isinstance(value, str) or "\x00" in value or len(value) > _MAX_TEXT:
            raise BadInput(f"{name!r} of a {kind!r} source must be text without NUL, not {value!r}")
        if not value.strip() and name not in _MAY_BE_EMPTY:
            raise BadInput(f"{name!r} of a {kind!r} source must not be empty")
    elif wanted == "bool" and not isinstance(value, bool):
        raise BadInput(f"{name!r} of a {kind!r} source must be true or false, not {value!r}")
    elif wanted == "int":
        low, high = _RANGES[name]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise BadInput(
                f"{name!r} of a {kind!r} source must be a number from {low} to {high}, "
                f"not {value!r}"
            )


def _checked(spec: SourceSpec) -> SourceSpec:
    if isinstance(spec, UrlSpec | SitemapSpec):
        # Which hosts and ports are allowed is the operator's, known only when it is fetched.
        check_url(spec.url)
    if isinstance(spec, GitSpec):
        _check_git(spec)
    return spec


def _check_git(spec: GitSpec) -> None:
    if spec.ref.startswith("-") or any(c.isspace() or not c.isprintable() for c in spec.ref):
        raise BadInput(f"the git ref {spec.ref!r} is refused; give a branch, a tag or a commit")
    parts = spec.subdir.strip("/").split("/") if spec.subdir else []
    if spec.subdir.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise BadInput(f"the git subdir {spec.subdir!r} must be a path inside the repository")
