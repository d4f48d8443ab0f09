"""How a use case serves: the options that the answer chain reads, checked when they are set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from app.errors import BadInput
from evals.arms import COST_ORDER

CacheMode = Literal["off", "exact", "semantic"]
PASSAGE = "passage"
"""Last step of a fallback chain: the best passage, quoted without a model."""


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """What a request is served with besides arm, adapter and prompt.

    Attributes:
        max_answer_tokens: bound of an answer's length; None takes the service's.
        abstain_below: abstain unasked where the search's coverage is below it, in [0, 1].
        must_ground: abstain where a value or name of the answer stands in no cited passage (of a
            JSON answer: in no passage and not in the question).
        correct_citations: point a sentence to the one passage that holds it, where the model cited
            another one that lacks a value or name of it.
        cache: whether generations are given again to the same (exact) or to the same meaning.
        cache_similarity: least cosine of two questions of the same meaning, in [0.8, 1].
        cache_seconds: how long a cached generation may be given again.
        fallback: arms to try in order when generating fails, `passage` quotes the best passage.
        timeout_s: most seconds for an answer; None takes the service's.
        json_schema: the schema every answer follows; None is free text.
    """

    max_answer_tokens: int | None = None
    abstain_below: float | None = None
    must_ground: bool = False
    correct_citations: bool = True
    cache: CacheMode = "off"
    cache_similarity: float = 0.95
    cache_seconds: int = 86_400
    fallback: tuple[str, ...] = ()
    timeout_s: float | None = None
    json_schema: Mapping[str, Any] | None = None


_KNOWN = frozenset(field.name for field in fields(ServingOptions))
_RANGES: dict[str, tuple[float, float]] = {
    "max_answer_tokens": (1, 100_000),
    "abstain_below": (0, 1),
    "cache_similarity": (0.8, 1),
    "cache_seconds": (1, 31_536_000),
    "timeout_s": (0.1, 3_600),
}
_WHOLE = ("max_answer_tokens", "cache_seconds")


def serving_options(options: Mapping[str, Any]) -> ServingOptions:
    """The serving options among a use case's options; what others read is left alone.

    Raises:
        BadInput: A value that cannot be used; the message names the valid ones.
    """
    given = {name: value for name, value in options.items() if name in _KNOWN and value is not None}
    for name, (low, high) in _RANGES.items():
        if name in given:
            _check_number(name, given[name], low, high)
    if given.get("cache", "off") not in get_args(CacheMode):
        choices = ", ".join(get_args(CacheMode))
        raise BadInput(f"option cache is {given['cache']!r}: choose {choices}")
    for name in ("must_ground", "correct_citations"):
        if not isinstance(given.get(name, False), bool):
            raise BadInput(f"option {name} is {given[name]!r}: choose true or false")
    if "fallback" in given:
        given["fallback"] = _fallback(given["fallback"])
    if not isinstance(given.get("json_schema", {}), Mapping):
        raise BadInput("option json_schema must be a JSON schema object")
    return ServingOptions(**given)


def _check_number(name: str, value: Any, low: float, high: float) -> None:
    kinds = int if name in _WHOLE else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise BadInput(f"option {name} is {value!r}: choose a number from {low} to {high}")


def _fallback(steps: Any) -> tuple[str, ...]:
    choices = (*COST_ORDER, PASSAGE)
    if not isinstance(steps, list | tuple):
        raise BadInput(f"option fallback is {steps!r}: give a list of {', '.join(choices)}")
    for step in steps:
        if step not in choices:
            raise BadInput(f"fallback {step!r} is unknown: choose {', '.join(choices)}")
    if PASSAGE in steps[:-1]:
        raise BadInput("fallback 'passage' cannot fail: put it last")
    return tuple(steps)
