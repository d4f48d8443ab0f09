"""Names in an answer that its evidence does not hold. For languages that write nouns small."""

from __future__ import annotations

import re
from collections.abc import Iterable

from retrieval.words import STOP_WORDS, fold, words

_TOKEN = re.compile(r"[^\W\d_][\w'’&-]*")
_NOT_NAMES = frozenset(
    """january february march april may june july august september october november december
    monday tuesday wednesday thursday friday saturday sunday mr mrs ms dr ok""".split()  # noqa: SIM905
)


def unsupported_names(answer: str, evidence: Iterable[str]) -> tuple[str, ...]:
    """Capitalised words of the answer that occur nowhere in the evidence, in their order.

    The first word of a sentence is capitalised anyhow: it counts only where another capitalised
    word follows it, or where it has capitals inside. Months and days are values, not names.

    Args:
        answer: text without citation markers.
        evidence: the cited passages and the question.
    """
    known = {fold(word) for text in evidence for word in _parts(text)}
    missing: dict[str, None] = {}
    for sentence in re.split(r"(?<=[.!?:\n])\s+|\n", answer):
        tokens = _TOKEN.findall(sentence)
        for index, token in enumerate(tokens):
            if not _is_name(tokens, index):
                continue
            if not any(fold(part) in known for part in _parts(token)):
                missing.setdefault(token)
    return tuple(missing)


def _is_name(tokens: list[str], index: int) -> bool:
    token = tokens[index]
    lowered = token.lower().removesuffix("'s").removesuffix("’s")
    if not token[:1].isupper() or len(lowered) < 2 or lowered in _NOT_NAMES | STOP_WORDS:
        return False
    if index or any(letter.isupper() for letter in token[1:]):
        return True
    return len(tokens) > 1 and tokens[1][:1].isupper() and tokens[1].lower() not in STOP_WORDS


def _parts(text: str) -> list[str]:
    """Words, and the parts of joined ones: `Harbour-Street` holds both of its names."""
    found = words(text)
    return [*found, *(part for word in found for part in re.split(r"[-.'’]", word) if part)]
