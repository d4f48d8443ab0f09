"""Citations for an answer that came without: the passage that says what the sentence says."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from app.answers.names import unsupported_names
from evals.metrics.values import unsupported_values
from retrieval.context import Passage
from retrieval.words import content_words, fold

_LEAST_SHARE = 0.6
_LEAST_WORDS = 2
# A point inside a number or a version ends no sentence.
_SENTENCE = re.compile(r"(?:[^.!?\n]|[.!?](?!\s|\Z))+[.!?]*")


@dataclass(frozen=True, slots=True)
class Aligned:
    """A sentence of the answer, `text[start:end]`, and the passage that supports it."""

    passage: Passage
    start: int
    end: int


def align(text: str, question: str, passages: Sequence[Passage]) -> tuple[Aligned, ...]:
    """The supporting passage of every sentence that has one.

    A passage supports a sentence when it holds all values and names of it and at least 60 % of its
    content words, each weighed by its rarity among the passages. The best passage wins; with an
    equal share the one that was retrieved first. Sentences of one content word are left alone.
    """
    bags = [{fold(word) for word in content_words(passage.text)} for passage in passages]
    spread = Counter(word for bag in bags for word in bag)
    found = []
    for match in _SENTENCE.finditer(text):
        said = {fold(word) for word in content_words(match.group())}
        if len(said) < _LEAST_WORDS:
            continue
        weight = {word: math.log(1 + (len(bags) + 1) / (spread[word] + 1)) for word in said}
        whole = sum(weight.values())
        shares = [sum(weight[word] for word in said & bag) / whole for bag in bags]
        for index in sorted(range(len(bags)), key=lambda i: -shares[i]):
            if shares[index] < _LEAST_SHARE:
                break
            if _holds(passages[index], match.group(), question):
                lead = len(match.group()) - len(match.group().lstrip())
                found.append(Aligned(passages[index], match.start() + lead, match.end()))
                break
    return tuple(found)


def _holds(passage: Passage, sentence: str, question: str) -> bool:
    missing = unsupported_values(sentence, [passage.text])
    return not missing and not unsupported_names(sentence, [passage.text, question])
