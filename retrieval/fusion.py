"""Reciprocal rank fusion in Python: the oracle for Qdrant's own and the way to fuse other lists."""

from collections.abc import Sequence


def rrf(
    rankings: Sequence[Sequence[str]],
    *,
    k: int = 60,
    weights: Sequence[float] | None = None,
) -> list[tuple[str, float]]:
    """Fuse ranked lists of ids into (id, score), best first, ties by id.

    score(d) = sum over lists r with d of 1 / (k + rank_r(d) / w_r), rank counted from 1. With all
    weights 1 this is the published formula; dividing the rank by the weight is how Qdrant weighs,
    whose `Rrf(k + 1)` gives the same scores. An id twice in a list counts at its better rank.

    Source: Cormack, Clarke, Buettcher (2009), "Reciprocal rank fusion outperforms Condorcet and
    individual rank learning methods", SIGIR, where k = 60.
    """
    weights = [1.0] * len(rankings) if weights is None else weights
    if len(weights) != len(rankings):
        raise ValueError(f"{len(rankings)} rankings need as many weights, got {len(weights)}")
    if k < 0 or any(weight <= 0 for weight in weights):
        raise ValueError(f"k must not be negative and weights above 0, got {k} and {weights}")
    scores: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, item in enumerate(dict.fromkeys(ranking), start=1):
            scores[item] = scores.get(item, 0.0) + 1.0 / (k + rank / weight)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
