"""Fusion against hand-worked scores and Qdrant's own, and what every method keeps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.fusion import dbsf, fuse, rrf, weighted_scores
from retrieval.index import FusionOptions


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


def test_weighted_scores_equal_the_hand_worked_mean():
    fused = dict(weighted_scores([("a", 0.9), ("b", 0.5)], [("b", 8.0), ("c", 4.0)], 0.75, 0.25))
    assert fused == pytest.approx({
        "a": 0.75 * 0.9,
        "b": 0.75 * 0.5 + 0.25,
        "c": 0.75 * 0.5 + 0.25 * 0.5,
    })  # fmt: skip


@pytest.mark.parametrize("weights", [(-1.0, 1.0), (0.0, 0.0)])
def test_weighted_scores_refuse_impossible_weights(weights):
    with pytest.raises(ValueError, match="weights"):
        weighted_scores([("a", 1.0)], [], *weights)


def test_dbsf_equals_the_hand_worked_sum():
    # Mean 2 and standard deviation 1: the list's ends stand a sixth from the middle.
    fused = dict(dbsf([[("a", 3.0), ("b", 2.0), ("c", 1.0)], [("a", 7.0)]], [1.0, 2.0]))
    assert fused == pytest.approx({"a": 0.5 + 1 / 6 + 2 * 0.5, "b": 0.5, "c": 0.5 - 1 / 6})


def test_dbsf_equals_what_qdrants_client_computes():
    from qdrant_client.hybrid.fusion import distribution_based_score_fusion
    from qdrant_client.models import ScoredPoint

    sides = [
        [("a", 0.9), ("b", 0.7), ("c", 0.1)],
        [("d", 12.0), ("b", 11.0), ("a", 2.0), ("e", 1.5)],
    ]
    theirs = distribution_based_score_fusion(
        [[ScoredPoint(id=i, version=0, score=s) for i, s in side] for side in sides], limit=9
    )
    assert dict(dbsf(sides, [1.0, 1.0])) == pytest.approx({p.id: p.score for p in theirs}, abs=1e-6)


SIDES = st.lists(
    st.tuples(st.sampled_from("abcdefg"), st.integers(-100, 100).map(lambda n: n / 100)),
    unique_by=lambda pair: pair[0],
)


@given(SIDES, SIDES, st.sampled_from(["rrf", "scores", "dbsf"]))
def test_every_method_keeps_each_candidate_once_in_a_fixed_order(dense, lexical, method):
    words = [(item, 10 * abs(score)) for item, score in lexical]
    fused = fuse(dense, words, FusionOptions(method=method))
    assert sorted(r.id for r in fused) == sorted({i for i, _ in [*dense, *words]})
    assert [(-r.score, r.id) for r in fused] == sorted((-r.score, r.id) for r in fused)
    assert {r.id: r.lexical_score for r in fused if r.lexical_score is not None} == dict(words)
    shuffled = fuse(sorted(dense), sorted(words), FusionOptions(method=method))
    if method != "rrf":
        assert [r.id for r in shuffled] == [r.id for r in fused]


@given(SIDES, SIDES)
def test_a_candidate_better_on_both_sides_is_never_behind(dense, lexical):
    words = {item: 10 * abs(score) for item, score in lexical}
    cosines = dict(dense)
    places = {
        r.id: n for n, r in enumerate(fuse(dense, [*words.items()], FusionOptions(method="scores")))
    }
    both = cosines.keys() & words.keys()
    for one in both:
        for other in both:
            if cosines[one] > cosines[other] and words[one] > words[other]:
                assert places[one] < places[other]


@given(SIDES)
def test_one_side_keeps_its_own_scores(side):
    for fused in (fuse(side, None, FusionOptions()), fuse(None, side, FusionOptions())):
        assert {r.id: r.score for r in fused} == dict(side)
