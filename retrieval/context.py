"""Packing hits into a prompt's token budget: numbered, whole, best at the edges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from retrieval.types import Hit, located_text

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Passage:
    """A hit as the model sees it; `number` (from 1) is what a citation `[n]` refers to."""

    number: int
    hit: Hit
    text: str


@dataclass(frozen=True, slots=True)
class PackedContext:
    """Passages in prompt order, and the hits that were left out (budget or repetition)."""

    passages: tuple[Passage, ...]
    dropped: tuple[Hit, ...]


def pack(
    hits: Sequence[Hit], budget_tokens: int, count_tokens: Callable[[str], int]
) -> PackedContext:
    """Choose hits, best first, while their passages fit into `budget_tokens` together.

    A hit that does not fit is dropped whole and the next one is tried; none is ever cut. A text
    that is contained in a better hit's text is dropped. The best passage stands first and the
    second best last, the weaker ones between them, where models attend least.
    The caller counts the `[n]` markers and what it puts around passages, if it adds any.

    Source: Liu et al. (2024), "Lost in the Middle: How Language Models Use Long Contexts", TACL.
    """
    chosen: list[tuple[Hit, str]] = []
    dropped: list[Hit] = []
    seen: list[str] = []
    left = budget_tokens
    for hit in hits:
        text = passage_text(hit)
        key = _normalised(hit.text)
        cost = count_tokens(text)
        if cost > left or any(key in other for other in seen):
            dropped.append(hit)
            continue
        left -= cost
        seen.append(key)
        chosen.append((hit, text))
    ordered = edges_first(chosen)
    passages = tuple(Passage(n, hit, text) for n, (hit, text) in enumerate(ordered, start=1))
    return PackedContext(passages, tuple(dropped))


def passage_text(hit: Hit) -> str:
    """What the model reads of a hit: title and headings on a line, then the chunk."""
    return located_text(hit.title, hit.heading_path, hit.text)


def edges_first(ranked: Sequence[Item]) -> list[Item]:
    """Best first, second best last, third second, fourth last but one, and so on."""
    return [*ranked[0::2], *reversed(ranked[1::2])]


def _normalised(text: str) -> str:
    return " ".join(text.lower().split())
