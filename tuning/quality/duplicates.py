"""Exact and near duplicates. A text with another number, date, name or negation is no duplicate.

Candidates come from MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of
Massive Datasets, ch. 3); each is confirmed by the Jaccard similarity of the texts themselves.
"""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuning.splits import normalise_question
from tuning.values import fingerprint

THRESHOLD = 0.8
_SHINGLE_CHARS = 5
_PERMUTATIONS = 128
_BAND_ROWS = 4  # 32 bands of 4: a pair at 0.8 is a candidate with probability above 0.9999


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two texts by their positions, first before second, and their Jaccard similarity in [0, 1]."""

    first: int
    second: int
    similarity: float


@dataclass(frozen=True, slots=True)
class Duplicates:
    """For each repeated text, by position: the position of the one that is kept."""

    exact: dict[int, int]
    near: dict[int, int]


def find_duplicates(
    questions: Sequence[str], answers: Sequence[str], *, threshold: float = THRESHOLD
) -> Duplicates:
    """Find rows that repeat an earlier one, exactly (but for form) or nearly.

    Near means that questions and answers alike have a Jaccard similarity of character 5-grams of
    at least `threshold` and equal values. A new question with a known answer is no duplicate.
    """
    first_of: dict[tuple[str, str], int] = {}
    exact: dict[int, int] = {}
    for position, both in enumerate(zip(questions, answers, strict=True)):
        key = (normalise_question(both[0]), normalise_question(both[1]))
        first = first_of.setdefault(key, position)
        if first != position:
            exact[position] = first
    distinct = [position for position in range(len(questions)) if position not in exact]
    near: dict[int, int] = {}
    for pair in near_pairs([questions[position] for position in distinct], threshold=threshold):
        first, second = distinct[pair.first], distinct[pair.second]
        if _alike(answers[first], answers[second], threshold):
            near.setdefault(second, near.get(first, first))
    return Duplicates(exact, near)


def _alike(one: str, two: str, threshold: float) -> bool:
    first, second = shingles(one), shingles(two)
    similar = len(first & second) >= threshold * len(first | second)
    return similar and fingerprint(one) == fingerprint(two)


def near_pairs(
    texts: Sequence[str], *, threshold: float = THRESHOLD, names: bool = True
) -> list[NearPair]:
    """Pairs of texts with a Jaccard similarity of at least `threshold` and equal values.

    Args:
        texts: The texts.
        threshold: In (0, 1].
        names: Whether other names make other texts; numbers always do.

    Returns:
        Sorted by the second position, then the first.
    """
    sets = [shingles(text) for text in texts]
    marks = [_frozen(fingerprint(text, names=names)) for text in texts]
    found = []
    for first, second in sorted(candidates(sets, marks)):
        one, two = sets[first], sets[second]
        if len(two) * threshold > len(one) or len(one) * threshold > len(two):
            continue
        similarity = len(one & two) / len(one | two)
        if similarity >= threshold:
            found.append(NearPair(first, second, similarity))
    return sorted(found, key=lambda pair: (pair.second, pair.first))


def shingles(text: str) -> frozenset[str]:
    """Character 5-grams of the text, case and punctuation removed; never empty."""
    plain = normalise_question(text)
    last = max(1, len(plain) - _SHINGLE_CHARS + 1)
    return frozenset(plain[start : start + _SHINGLE_CHARS] for start in range(last))


def candidates(
    sets: Sequence[frozenset[str]], marks: Sequence[Hashable] | None = None
) -> set[tuple[int, int]]:
    """Pairs of positions that share a band of their MinHash signatures and, if given, a mark.

    Marks keep the texts of one template, which differ in their values alone, from pairing up.
    """
    pairs: set[tuple[int, int]] = set()
    signatures = _signatures(sets)
    for start in range(0, _PERMUTATIONS, _BAND_ROWS):
        buckets: dict[Hashable, list[int]] = defaultdict(list)
        for position, signature in enumerate(signatures):
            band = signature[start : start + _BAND_ROWS].tobytes()
            buckets[band, marks[position] if marks else None].append(position)
        for members in buckets.values():
            pairs.update(_pairs_of(members))
    return pairs


def _pairs_of(members: list[int]) -> Iterator[tuple[int, int]]:
    for index, first in enumerate(members):
        for second in members[index + 1 :]:
            yield first, second


def _signatures(sets: Sequence[frozenset[str]]) -> NDArray[np.uint32]:
    """MinHash signatures, shape (n, 128)."""
    generator = np.random.default_rng(20111)
    factors = generator.integers(1, 2**63, _PERMUTATIONS, dtype=np.uint64) | np.uint64(1)
    offsets = generator.integers(0, 2**63, _PERMUTATIONS, dtype=np.uint64)
    signatures = np.empty((len(sets), _PERMUTATIONS), np.uint32)
    known: dict[str, int] = {}
    for position, grams in enumerate(sets):
        hashes = np.array([known.setdefault(g, _hash(g)) for g in grams], np.uint64)
        # Multiply-shift hashing: the upper bits of an odd multiple, modulo 2 to the 64th.
        mixed = (hashes[:, None] * factors + offsets) >> np.uint64(32)
        signatures[position] = mixed.min(axis=0)
    return signatures


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _frozen(marks: dict[str, int]) -> frozenset[tuple[str, int]]:
    return frozenset(marks.items())
