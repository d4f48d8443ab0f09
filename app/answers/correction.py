"""Citations that point to the wrong passage, where only one other passage says what is said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.answers.names import unsupported_names
from evals.metrics.values import unsupported_values
from retrieval.context import Passage
from retrieval.words import content_words, fold

_MARKER = re.compile(r"\s?\[([0-9]{1,3})\]")
# A point inside a number or a version ends no sentence; markers behind the point belong to it.
_SENTENCE = re.compile(r"(?:[^.!?\n]|[.!?](?!\s|\Z))+[.!?]*(?:\s?\[[0-9]{1,3}\])*")
_LEAST_WORDS = 2


@dataclass(frozen=True, slots=True)
class Corrected:
    """`text` with the right markers; `instead_of` gives the model's own number by the new one."""

    text: str
    instead_of: dict[int, int]


def correct(text: str, question: str, passages: Sequence[Passage]) -> Corrected:
    """Point every sentence that cites one wrong passage to the one that holds it.

    The marker is changed only where the cited passage lacks a value or a name of the sentence,
    and exactly one other passage holds all its content words, values and names. Missing words
    alone prove nothing: a passage may say it in others, and one with all the words may say the
    contrary. Sentences of one content word, with several markers, or with words that no passage
    has stay as they are.
    """
    bags = {p.number: {fold(word) for word in content_words(p.text)} for p in passages}
    known = {passage.number: passage for passage in passages}
    instead_of: dict[int, int] = {}

    def mended(match: re.Match[str]) -> str:
        sentence = match.group()
        cited = {int(number) for number in _MARKER.findall(sentence)}
        said = _MARKER.sub("", sentence)
        words = {fold(word) for word in content_words(said)}
        if len(cited) != 1 or len(words) < _LEAST_WORDS:
            return sentence
        (number,) = cited
        if number not in known or _holds(known[number], said, question):
            return sentence
        holding = [
            n for n, bag in bags.items() if words <= bag and _holds(known[n], said, question)
        ]
        if len(holding) != 1:
            return sentence
        instead_of.setdefault(holding[0], number)
        return _MARKER.sub(lambda m: m.group().replace(m.group(1), str(holding[0])), sentence)

    return Corrected(_SENTENCE.sub(mended, text), instead_of)


def _holds(passage: Passage, sentence: str, question: str) -> bool:
    """Whether every value and name of the sentence stands in the passage."""
    missing = unsupported_values(sentence, [passage.text])
    return not missing and not unsupported_names(sentence, [passage.text, question])
