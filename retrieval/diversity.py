"""Fewer passages that say the same: maximal marginal relevance over dense vectors."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def mmr(
    relevance: Sequence[float], vectors: NDArray[np.float32], limit: int, balance: float
) -> list[int]:
    """Places of up to `limit` items, each the best of `balance` x relevance - rest x likeness.

    Args:
        relevance: one score an item on any scale; its range is mapped to [0, 1].
        vectors: (n, dim) of length 1; likeness is the highest cosine with an item chosen before.
        limit: the most items to choose.
        balance: 1 keeps the order of relevance, 0 looks at likeness alone.

    Ties go to the earlier item, so the most relevant one is always first.

    Source: Carbonell, Goldstein (1998), "The use of MMR, diversity-based reranking for reordering
    documents and producing summaries", SIGIR.
    """
    if not 0 <= balance <= 1:
        raise ValueError(f"balance must be between 0 and 1, got {balance}")
    scores = np.asarray(relevance, dtype=np.float64)
    if scores.shape != (len(vectors),):
        raise ValueError(f"{len(scores)} scores need as many vectors, got {len(vectors)}")
    if not len(scores):
        return []
    finite = np.isfinite(scores)
    # A reranker marks what it could not score with -inf; such items come last, not nowhere.
    scores = np.where(finite, scores, scores[finite].min() if finite.any() else 0.0)
    spread = float(scores.max() - scores.min())
    scaled = (scores - scores.min()) / spread if spread > 0 else np.ones_like(scores)
    chosen = [int(np.argmax(scaled))]
    likeness = vectors @ vectors[chosen[0]]
    while len(chosen) < min(limit, len(scores)):
        gain = balance * scaled - (1 - balance) * likeness
        gain[chosen] = -np.inf
        best = int(np.argmax(gain))
        chosen.append(best)
        likeness = np.maximum(likeness, vectors @ vectors[best])
    return chosen[:limit]
