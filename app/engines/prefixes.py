"""Reusing the evaluated start of a prompt without changing the answer by a bit.

llama.cpp can keep what a slot evaluated and go on from the longest common start. But where a
prompt is split decides in which batches its tokens are computed, and so the last bits of the
logits: one greedy prompt gave three answers, depending on what its slot had seen before. Here a
prompt is always split at the same place, the end of its first turn (the system text), whether the
start is kept from an earlier request or computed now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

MIN_TOKENS = 32
"""A shorter start is not worth a request of its own."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a slot has evaluated last."""

    adapter: str | None
    boundary: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Priming:
    """A request sent first, so that the slot holds the start and nothing more that fits.

    Attributes:
        ids: The start and one token that does not follow it in the prompt.
        keep: Whether the slot's evaluated start may be used for it.
    """

    ids: list[int]
    keep: bool


def boundary(ids: Sequence[int], turn_end: int | None) -> int:
    """Where a prompt is split: behind its first turn, 0 for not at all."""
    if turn_end is None or turn_end not in ids:
        return 0
    end = ids.index(turn_end) + 1
    return end if MIN_TOKENS <= end < len(ids) - 1 else 0


def priming(ids: Sequence[int], at: int, adapter: str | None, held: Held | None) -> Priming | None:
    """What must go before a prompt split at `at` > 0; None when the slot is just right."""
    same = held is not None and held.adapter == adapter and held.boundary == at
    common = common_start(ids, held.ids) if same and held is not None else 0
    if common == at:
        return None
    stranger = next(token for token in (*ids[:at], ids[at] + 1) if token != ids[at])
    return Priming([*ids[:at], stranger], keep=common > at)


def common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many leading items are equal."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
