"""Sentences against the passages they cite: support without a model.

A sentence counts as supported when the rare words of it occur in what it cites, every value of it
does too, and it does not say "not" where the passage does not (or the other way round).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log

from evals.metrics.answers import normalise_answer, strip_citations
from evals.metrics.score import Score
from evals.metrics.values import extract_values, is_supported, values_of

THRESHOLD = 0.6
_END = re.compile(r"[.!?]+(?:\s*\[[\d,;\s]+\])*(?=\s|$)")
_CITED = re.compile(r"\[\s*(\d+(?:\s*[,;]\s*\d+)*)\s*\]")
_NEGATION = re.compile(r"\b(?:not|no|never|none|cannot|without|neither|nor)\b|n't\b")
_STOP = frozenset(
    [
        "of",
        "to",
        "in",
        "on",
        "for",
        "and",
        "or",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "it",
        "its",
        "this",
        "that",
        "with",
        "by",
        "as",
        "at",
        "from",
        "you",
        "your",
        "we",
        "our",
        "they",
        "their",
        "i",
        "he",
        "she",
        "his",
        "her",
        "will",
        "can",
        "may",
        "do",
        "does",
        "did",
        "have",
        "has",
        "had",
        "if",
    ]
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence of an answer and the passage numbers it cites, from 1."""

    text: str
    cited: tuple[int, ...]


def statements(text: str) -> tuple[Statement, ...]:
    """Split an answer into sentences with their own citations; empty ones are left out."""
    found = []
    for sentence in _split(text):
        numbers = [int(n) for group in _CITED.findall(sentence) for n in re.findall(r"\d+", group)]
        plain = strip_citations(sentence).strip()
        if normalise_answer(plain):
            found.append(Statement(plain, tuple(dict.fromkeys(numbers))))
    return tuple(found)


def support(sentence: str, passages: Sequence[str], rarity: Mapping[str, float]) -> float:
    """Give how far passages together support a sentence, in [0, 1].

    The share of the sentence's words, weighted by rarity, that occur in the passages; 0 when a
    value of the sentence occurs in none, or when only one side negates.
    """
    if not passages:
        return 0.0
    evidence = values_of(tuple(passages))
    if not all(is_supported(value, evidence) for value in extract_values(sentence)):
        return 0.0
    words = _words(sentence)
    if not words:
        return 1.0
    weights = {word: rarity.get(word, 1.0) for word in words}
    held = words & frozenset().union(*map(_words, passages))
    share = sum(weights[word] for word in sorted(held)) / sum(weights[w] for w in sorted(words))
    return 0.0 if _negations_differ(sentence, passages) else share


def support_recall(text: str, passages: Sequence[str], threshold: float = THRESHOLD) -> Score:
    """Give the share of sentences supported by the passages they cite.

    Source: Gao et al. 2023 (ALCE), citation recall, with `support` in the place of its model.
    Unscored without sentences or passages.
    """
    said = statements(text)
    if not said or not passages:
        return Score.unscored("no statement" if not said else "no passages kept")
    rarity = word_rarity(tuple(passages))
    held = [support(s.text, _texts(s.cited, passages), rarity) >= threshold for s in said]
    return Score(sum(held) / len(held))


def support_precision(text: str, passages: Sequence[str], threshold: float = THRESHOLD) -> Score:
    """Give the share of citations that matter.

    A citation matters if its sentence is supported by all it cites, and it supports the sentence
    alone or the others do not without it. Source: Gao et al. 2023 (ALCE), citation precision.
    Unscored when nothing is cited.
    """
    rarity = word_rarity(tuple(passages))
    matters: list[bool] = []
    for said in statements(text):
        whole = support(said.text, _texts(said.cited, passages), rarity) >= threshold
        for number in said.cited:
            others = tuple(n for n in said.cited if n != number)
            alone = support(said.text, _texts((number,), passages), rarity) >= threshold
            without = support(said.text, _texts(others, passages), rarity) >= threshold
            matters.append(whole and (alone or not without))
    if not matters or not passages:
        return Score.unscored("nothing cited" if passages else "no passages kept")
    return Score(sum(matters) / len(matters))


@lru_cache(maxsize=2048)
def word_rarity(passages: tuple[str, ...]) -> dict[str, float]:
    """Give a weight per word, larger for words in fewer of the passages."""
    counts = Counter(word for passage in passages for word in _words(passage))
    return {word: log(1 + len(passages) / count) for word, count in counts.items()}


@lru_cache(maxsize=8192)
def _split(text: str) -> tuple[str, ...]:
    """Sentences; markers that follow a full stop belong to the sentence before it."""
    sentences: list[str] = []
    for part in re.split(r"\n+", text):
        start = 0
        for match in _END.finditer(part):
            sentences.append(part[start : match.end()])
            start = match.end()
        sentences.append(part[start:])
    return tuple(sentence for sentence in sentences if sentence.strip())


def _texts(numbers: Sequence[int], passages: Sequence[str]) -> list[str]:
    return [passages[n - 1] for n in numbers if 1 <= n <= len(passages)]


@lru_cache(maxsize=65536)
def _words(text: str) -> frozenset[str]:
    return frozenset(normalise_answer(text).split()) - _STOP


def _negations_differ(sentence: str, passages: Sequence[str]) -> bool:
    """Compare with the passage sentence that shares most words, the one the claim is about."""
    words = _words(sentence)
    candidates = [part for passage in passages for part in _split(passage)]
    if not candidates:
        return False
    closest = max(candidates, key=lambda part: len(words & _words(part)))
    return bool(_NEGATION.search(sentence.lower())) != bool(_NEGATION.search(closest.lower()))
