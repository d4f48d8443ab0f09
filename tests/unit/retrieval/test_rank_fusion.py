"""Reciprocal rank fusion against hand-worked scores and Qdrant Edge's own."""

import pytest

from retrieval.fusion import rrf


def test_rrf_equals_the_hand_worked_sum():
    fused = dict(rrf([["a", "b"], ["b", "c"]], k=60))
    assert fused == pytest.approx({"a": 1 / 61, "b": 1 / 62 + 1 / 61, "c": 1 / 62})


def test_rrf_breaks_ties_by_id():
    assert [item for item, _ in rrf([["b"], ["a"]])] == ["a", "b"]


def test_rrf_counts_a_repeated_id_once():
    assert dict(rrf([["a", "a", "b"]], k=0)) == pytest.approx({"a": 1.0, "b": 0.5})


@pytest.mark.parametrize("arguments", [{"k": -1}, {"weights": [1.0]}, {"weights": [1.0, 0.0]}])
def test_rrf_refuses_impossible_parameters(arguments):
    with pytest.raises(ValueError, match=r"weights|negative"):
        rrf([["a"], ["b"]], **arguments)


@pytest.mark.parametrize("weights", [None, [1.0, 3.0], [0.5, 2.0]])
def test_rrf_equals_what_qdrant_edge_computes(tmp_path, weights):
    from qdrant_edge import (
        Distance,
        EdgeConfig,
        EdgeShard,
        EdgeVectorParams,
        Fusion,
        Point,
        Prefetch,
        Query,
        QueryRequest,
        UpdateOperation,
    )

    params = EdgeVectorParams(size=1, distance=Distance.Dot)
    shard = EdgeShard.create(str(tmp_path), EdgeConfig(vectors={"a": params, "b": params}))
    left = {n: float(20 - n) for n in range(20)}
    right = {n: float(n * 7 % 23) for n in range(20)}
    points = [Point(id=n, vector={"a": [left[n]], "b": [right[n]]}) for n in range(20)]
    shard.update(UpdateOperation.upsert_points(points))
    stages = [Prefetch(limit=10, query=Query.Nearest([1.0], using=name)) for name in "ab"]
    found = shard.query(
        QueryRequest(limit=30, prefetches=stages, query=Fusion.Rrf(k=61, weights=weights))
    )
    shard.close()
    rankings = [
        [str(n) for n in sorted(scores, key=scores.get, reverse=True)[:10]]
        for scores in (left, right)
    ]
    assert {str(p.id): p.score for p in found} == pytest.approx(
        dict(rrf(rankings, k=60, weights=weights)), abs=1e-6
    )
