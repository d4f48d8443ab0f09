"""Check an answer against its passages: citations, quotes, values, abstention."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.answers.alignment import Aligned, align
from app.answers.correction import correct
from app.answers.names import unsupported_names
from evals.metrics.values import unsupported_values
from retrieval.context import Passage
from tuning.prompt import DEFAULT_ABSTAIN

_MARKER = re.compile(r"\s?\[([0-9]{1,3})\]")
# A point inside a number or a version ends no sentence.
_SENTENCE = re.compile(r"(?:[^.!?\n]|[.!?](?!\s|\Z))+[.!?]*")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Quote:
    """A cited passage and the span of it that supports the answer, in document characters.

    `attached` is the span of the answer that the passage was attached to by alignment; None where
    the model cited it itself. `instead_of` is the number that the model cited, where that passage
    lacked a value or name of the sentence and this one alone held all of it.
    """

    passage: Passage
    text: str
    start: int
    end: int
    attached: tuple[int, int] | None = None
    instead_of: int | None = None


@dataclass(frozen=True, slots=True)
class Grounding:
    """`text` without markers that point nowhere; `grounded` is None where nothing is cited."""

    text: str
    abstained: bool
    quotes: tuple[Quote, ...]
    grounded: bool | None
    unsupported: tuple[str, ...]


def ground(
    text: str,
    question: str,
    passages: tuple[Passage, ...],
    abstain: str,
    *,
    mend: bool = True,
) -> Grounding:
    """Parse citations; check every value and name of the answer against the passages it cites.

    Where the model cited nothing, passages are attached to the sentences that they support; the
    text stays as it was said. Where it cited a passage that lacks a value or name of the sentence
    while one other alone holds all of it, the marker is corrected, unless `mend` is False.
    """
    text = text.strip()
    if is_abstention(text, abstain):
        return Grounding(_MARKER.sub("", text), True, (), None, ())
    known = {passage.number: passage for passage in passages}
    text = _without_unknown(text, known)
    instead_of: dict[int, int] = {}
    if mend and _MARKER.search(text):
        mended = correct(text, question, passages)
        text, instead_of = mended.text, mended.instead_of
    numbers = list(dict.fromkeys(int(number) for number in _MARKER.findall(text)))
    plain = _MARKER.sub("", text)
    if numbers:
        quotes = tuple(
            replace(_quote(known[n], plain, question), instead_of=instead_of.get(n))
            for n in numbers
        )
    else:
        quotes = _attached(text, question, align(text, question, passages))
    if not quotes:
        return Grounding(text, False, (), None, ())
    missing = _unsupported(plain, question, [quote.passage.text for quote in quotes])
    return Grounding(text, False, quotes, not missing, missing)


def ground_data(
    text: str,
    question: str,
    passages: tuple[Passage, ...],
    schema: Mapping[str, Any] | None = None,
) -> Grounding:
    """Check a JSON answer: its values must stand in a passage or in what was asked.

    What the schema itself offers to choose from (`enum`, `const`) is a label, not a claim.
    """
    offered = set(_offered(schema or {}))
    leaves = _leaves(json.loads(text))
    said = "\n".join(leaf for leaf in leaves if leaf not in offered)
    missing = _unsupported(said, "", [question, *(passage.text for passage in passages)])
    return Grounding(text.strip(), False, (), not missing, missing)


def _leaves(data: Any) -> list[str]:
    """What a JSON value says, without its keys; truth values hold nothing to look up."""
    if isinstance(data, dict):
        return [leaf for value in data.values() for leaf in _leaves(value)]
    if isinstance(data, list):
        return [leaf for value in data for leaf in _leaves(value)]
    if isinstance(data, float) and data.is_integer():
        data = int(data)  # JSON's 49.0 is the passage's 49
    return [] if data is None or isinstance(data, bool) else [str(data)]


def _offered(schema: Any) -> list[str]:
    """The values that a schema names itself, wherever they stand in it."""
    if isinstance(schema, list):
        return [value for part in schema for value in _offered(part)]
    if not isinstance(schema, Mapping):
        return []
    found = _leaves([*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])])
    return found + [value for part in schema.values() for value in _offered(part)]


def _unsupported(plain: str, question: str, evidence: list[str]) -> tuple[str, ...]:
    values = [value.surface for value in unsupported_values(plain, evidence)]
    names = unsupported_names(plain, [*evidence, question])
    return tuple(dict.fromkeys([*values, *names]))


def _attached(text: str, question: str, aligned: tuple[Aligned, ...]) -> tuple[Quote, ...]:
    """One quote per passage, at the first sentence that it supports."""
    first: dict[int, Quote] = {}
    for item in aligned:
        quote = _quote(item.passage, text[item.start : item.end], question)
        first.setdefault(item.passage.number, replace(quote, attached=(item.start, item.end)))
    return tuple(first.values())


def is_abstention(text: str, abstain: str) -> bool:
    """Whether the answer is the use case's (or the default) abstention sentence."""
    said = _plain(text)
    return any(said.startswith(_plain(s)) for s in (abstain, DEFAULT_ABSTAIN))


def without_markers(text: str) -> str:
    """The answer as people read it aloud."""
    return _MARKER.sub("", text).strip()


def _without_unknown(text: str, known: Container[int]) -> str:
    """Drop markers that point nowhere, also those that only appear when an inner one is gone."""
    while True:
        kept = _MARKER.sub(lambda m: _canonical(m) if int(m.group(1)) in known else "", text)
        if kept == text:
            return text.strip()
        text = kept


def _canonical(marker: re.Match[str]) -> str:
    return marker.group().replace(marker.group(1), str(int(marker.group(1))))


def _plain(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _quote(passage: Passage, answer: str, question: str) -> Quote:
    """The sentence of the chunk that shares most with the answer, then with the question."""
    body = passage.hit.text
    wanted, asked = set(_WORD.findall(answer.lower())), set(_WORD.findall(question.lower()))
    best = (-1.0, 0, len(body))
    for match in _SENTENCE.finditer(body):
        words = set(_WORD.findall(match.group().lower()))
        if not words:
            continue
        score = len(words & wanted) + 0.3 * len(words & asked) - 0.01 * len(words)
        if score > best[0]:
            best = (score, match.start(), match.end())
    _, start, end = best
    text = body[start:end]
    start += len(text) - len(text.lstrip())
    text = text.strip()
    # A table chunk repeats its header in front of its own span; offsets count from the span.
    lead = len(body) - (passage.hit.end_char - passage.hit.start_char)
    offset = passage.hit.start_char + max(0, start - max(0, lead))
    return Quote(passage, text, offset, offset + len(text))
