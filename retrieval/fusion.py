"""One list out of a dense and a lexical one: by ranks, by scores, by standardised scores."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from retrieval.index import (
    Candidate,
    FusionOptions,
    IndexQuery,
    Ranked,
    in_order,
    to_candidate,
)

Scored = tuple[str, float]

_SPREAD = 3.0


def _by_score(pair: Scored) -> tuple[float, str]:
    return -pair[1], pair[0]


def fuse(
    dense: Sequence[Scored] | None, lexical: Sequence[Scored] | None, options: FusionOptions
) -> list[Ranked]:
    """Fuse (id, cosine) and (id, BM25 score) lists, each best first; ties by id.

    None stands for a side that was not searched; the other side then keeps its own scores.
    """
    bm25 = dict(lexical or ())
    if dense is None or lexical is None:
        fused = sorted(dense or lexical or (), key=_by_score)
    elif options.method == "rrf":
        rankings = [[item for item, _ in side] for side in (dense, lexical)]
        weights = [options.dense_weight, options.lexical_weight]
        fused = rrf(rankings, k=options.k, weights=weights)
    elif options.method == "scores":
        fused = weighted_scores(dense, lexical, options.dense_weight, options.lexical_weight)
    else:
        fused = dbsf([dense, lexical], [options.dense_weight, options.lexical_weight])
    return [Ranked(item, score, bm25.get(item)) for item, score in fused]


def fuse_points(
    found: Sequence[Sequence[Any]], query: IndexQuery, options: FusionOptions
) -> list[Ranked]:
    """Fuse Qdrant's answers (points with `id` and `score`), the dense one first if there is one."""
    sides = iter(
        [sorted(((str(p.id), float(p.score)) for p in points), key=_by_score) for points in found]
    )
    dense = next(sides) if query.dense else None
    lexical = next(sides) if query.lexical else None
    return fuse(dense, lexical, options)


def join_records(
    ranked: Sequence[Ranked], records: Sequence[Any], query: IndexQuery
) -> list[Candidate]:
    """Ranked points with what Qdrant stores of them; one deleted in between is left out."""
    stored = {str(record.id): record for record in records}
    return in_order(
        to_candidate(point, stored[point.id].payload or {}, stored[point.id].vector, query.vector)
        for point in ranked
        if point.id in stored
    )


def rrf(
    rankings: Sequence[Sequence[str]],
    *,
    k: int = 60,
    weights: Sequence[float] | None = None,
) -> list[Scored]:
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
    return _best_first(scores)


def weighted_scores(
    dense: Sequence[Scored], lexical: Sequence[Scored], dense_weight: float, lexical_weight: float
) -> list[Scored]:
    """The weighted mean of cosine and BM25 score, the latter divided by the list's highest.

    Cosines keep their scale, so a clear dense winner stays clear. A missing BM25 score counts 0; a
    missing cosine counts as the lowest in the dense list, above which it cannot lie.

    Source: the convex combination of Bruch, Gai, Ingber (2023), "An Analysis of Fusion Functions
    for Hybrid Retrieval", ACM TOIS 42(1), with the theoretical lowest scores as the zero points.
    """
    total = dense_weight + lexical_weight
    if dense_weight < 0 or lexical_weight < 0 or total <= 0:
        raise ValueError(
            f"weights must not be negative nor both 0, got {dense_weight} and {lexical_weight}"
        )
    cosines, bm25 = dict(dense), dict(lexical)
    lowest = min(cosines.values(), default=0.0)
    highest = max(bm25.values(), default=0.0)
    scale = 1.0 / highest if highest > 0 else 0.0
    return _best_first(
        {
            item: (
                dense_weight * cosines.get(item, lowest)
                + lexical_weight * scale * bm25.get(item, 0.0)
            )
            / total
            for item in cosines.keys() | bm25.keys()
        }
    )


def dbsf(rankings: Sequence[Sequence[Scored]], weights: Sequence[float]) -> list[Scored]:
    """Distribution-based score fusion: each list's mean +- 3 standard deviations become 0 and 1.

    Source: Mazzeschi (2023), "Distribution-Based Score Fusion (DBSF), a new approach to vector
    search ranking", the method behind Qdrant's `Fusion.Dbsf`.
    """
    scores: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        values = [score for _, score in ranking]
        mean = statistics.fmean(values) if values else 0.0
        width = 2 * _SPREAD * (statistics.stdev(values) if len(values) > 1 else 0.0)
        for item, score in ranking:
            # A list of equal scores tells nothing: all stand in the middle.
            scaled = 0.5 if width < math.ulp(1.0) else (score - mean) / width + 0.5
            scores[item] = scores.get(item, 0.0) + weight * min(max(scaled, 0.0), 1.0)
    return _best_first(scores)


def _best_first(scores: dict[str, float]) -> list[Scored]:
    return sorted(scores.items(), key=_by_score)
