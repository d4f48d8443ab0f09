"""Ranked ids against relevance judgements: recall@k, reciprocal rank, nDCG@k.

A repeated id counts at its first rank only. A query without a relevant id is unscored.
"""

from collections.abc import Collection, Mapping, Sequence
from math import log2

from evals.errors import MetricError
from evals.metrics.score import Score

Judgements = Mapping[str, int] | Collection[str]
"""Relevance by id (0 is not relevant), or just the relevant ids."""


def recall_at_k(relevant: Judgements, ranked: Sequence[str], k: int) -> Score:
    """Give the share of relevant ids among the first k ranked ids."""
    grades = _grades(relevant)
    if not grades:
        return Score.unscored("no relevant ids")
    return Score(sum(item in grades for item in _top(ranked, k)) / len(grades))


def mrr(relevant: Judgements, ranked: Sequence[str], k: int | None = None) -> Score:
    """Give 1 / rank of the first relevant id, 0 if there is none (within k, when given)."""
    grades = _grades(relevant)
    if not grades:
        return Score.unscored("no relevant ids")
    for rank, item in enumerate(_top(ranked, len(ranked) or 1 if k is None else k), start=1):
        if item in grades:
            return Score(1.0 / rank)
    return Score(0.0)


def ndcg_at_k(relevant: Judgements, ranked: Sequence[str], k: int) -> Score:
    """Give the discounted gain of the first k over that of the best order.

    Linear gain and log2(rank + 1) discount, as trec_eval's ndcg_cut.
    Source: Järvelin and Kekäläinen 2002.
    """
    grades = _grades(relevant)
    if not grades:
        return Score.unscored("no relevant ids")
    gains = [grades.get(item, 0) for item in _top(ranked, k)]
    best = sorted(grades.values(), reverse=True)[:k]
    return Score(min(1.0, _discounted(gains) / _discounted(best)))


def score_run(
    qrels: Mapping[str, Judgements], run: Mapping[str, Sequence[str]], k: int = 10
) -> dict[str, dict[str, Score]]:
    """Score a run: query id -> metric name -> score, for every query of the qrels.

    A query missing from the run counts as retrieved nothing.

    Raises:
        MetricError: if the run holds a query that the qrels do not.
    """
    unknown = sorted(set(run) - set(qrels))
    if unknown:
        raise MetricError(f"the run holds query {unknown[0]!r}, which has no judgements")
    return {
        query: {
            "recall_at_k": recall_at_k(relevant, run.get(query, ()), k),
            "mrr": mrr(relevant, run.get(query, ())),
            "ndcg_at_k": ndcg_at_k(relevant, run.get(query, ()), k),
        }
        for query, relevant in qrels.items()
    }


def _grades(relevant: Judgements) -> dict[str, int]:
    if isinstance(relevant, Mapping):
        return {item: grade for item, grade in relevant.items() if grade > 0}
    return dict.fromkeys(relevant, 1)


def _top(ranked: Sequence[str], k: int) -> list[str]:
    if k < 1:
        raise MetricError(f"k must be at least 1, got {k}")
    return list(dict.fromkeys(ranked))[:k]


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, start=1))
