"""The four arms that are compared, and what they cost relative to one another."""

from collections.abc import Iterable

PROMPT = "prompt"
TUNED = "tuned"
RAG = "rag"
HYBRID = "hybrid"

COST_ORDER: tuple[str, ...] = (PROMPT, TUNED, RAG, HYBRID)
"""Cheapest first: no context and no adapter, an adapter, retrieved context, both."""


def sort_by_cost(arms: Iterable[str], cost_order: tuple[str, ...] = COST_ORDER) -> tuple[str, ...]:
    """Sort arm names cheapest first; names outside `cost_order` follow, by name."""
    rank = {arm: i for i, arm in enumerate(cost_order)}
    return tuple(sorted(set(arms), key=lambda arm: (rank.get(arm, len(rank)), arm)))
