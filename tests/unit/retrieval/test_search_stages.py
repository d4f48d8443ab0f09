"""Every switch of `SearchOptions`, each seen to do something, and what they leave alone."""

import dataclasses

import pytest
from retrieval_fakes import ALPHA, EMBEDDER, HashingEmbedder, point

from retrieval.coverage import CoverageModel
from retrieval.edge import EdgeIndex
from retrieval.index import FusionOptions, IndexQuery, Narrowing
from retrieval.search import DEFAULTS, HybridSearcher, SearchOptions
from retrieval.server import ServerIndex
from retrieval.types import Chunk, Scope, WorkspaceId

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")

OTHER = Scope(WorkspaceId("alpha"), "kb-2")
IDENTITY = {"dimension": EMBEDDER.dimension, "model_identity": EMBEDDER.identity}
TEXTS = ["zebra zebra", "zebra lion tiger bear", "lion tiger bear wolf", "unrelated words here"]


@pytest.fixture(params=["edge", "server"])
def index(request, tmp_path):
    if request.param == "edge":
        made = EdgeIndex(tmp_path / "index", **IDENTITY)
    else:
        from qdrant_client import QdrantClient

        made = ServerIndex(QdrantClient(":memory:"), **IDENTITY)
    made.upsert(point(text, ordinal=n, document=f"d{n}") for n, text in enumerate(TEXTS))
    yield made
    made.close()


class CountingEmbedder(HashingEmbedder):
    def __init__(self):
        super().__init__()
        self.asked = []

    def embed_query(self, text):
        self.asked.append(text)
        return super().embed_query(text)


def search(index, question, limit=4, scope=ALPHA, **switches):
    searcher = HybridSearcher(index, EMBEDDER)
    return searcher.search(scope, question, limit, options=SearchOptions(**switches))


def orders(result):
    return [hit.ordinal for hit in result.hits]


def test_one_side_alone(index):
    lexical = search(index, "zebra", dense=False)
    assert orders(lexical) == [0, 1]
    assert lexical.best_dense_score is None
    assert lexical.coverage is None
    dense = search(index, "zebra", lexical=False)
    assert len(dense.hits) == 4
    assert dense.hits[0].score == pytest.approx(dense.hits[0].dense_score, abs=1e-5)


def test_fusion_by_scores_is_the_weighted_mean_of_cosine_and_scaled_bm25(index):
    fusion = FusionOptions(dense_weight=0.6, lexical_weight=0.4, method="scores")
    question = "zebra tiger"
    bm25 = {h.chunk_id: h.score for h in search(index, question, dense=False).hits}
    for hit in search(index, question, fusion=fusion).hits:
        scaled = bm25.get(hit.chunk_id, 0.0) / max(bm25.values())
        assert hit.score == pytest.approx(0.6 * hit.dense_score + 0.4 * scaled, abs=1e-5)


def test_fusion_none_is_the_indexs_own(index):
    own = search(index, "zebra lion", fusion=None)
    ranks = search(index, "zebra lion", fusion=FusionOptions())
    assert own == ranks
    assert own.hits[0].score < 0.1 < search(index, "zebra lion").hits[0].score


def test_unknown_fusion_is_refused():
    with pytest.raises(ValueError, match="rrf, scores, dbsf"):
        FusionOptions(method="best")


def test_candidates_carry_bm25_scores_and_vectors(index):
    query = IndexQuery("zebra", EMBEDDER.embed_query("zebra"))
    found = {c.hit.ordinal: c for c in index.candidates(ALPHA, query, 4)}
    assert found[0].lexical_score > found[1].lexical_score > 0
    assert found[3].lexical_score is None
    for n, text in enumerate(TEXTS):
        assert found[n].vector == pytest.approx(EMBEDDER.embed_query(text), abs=1e-6)
    blind = index.candidates(ALPHA, IndexQuery("zebra", None, dense=False), 4)
    assert [c.vector for c in blind] == [None, None]


def test_exact_search_finds_the_same_in_a_small_index(index):
    vector = EMBEDDER.embed_query("lion bear")
    query = IndexQuery("lion bear", vector, lexical=False)
    exact = dataclasses.replace(query, exact=True)
    assert [c.hit for c in index.candidates(ALPHA, query, 4)] == [
        c.hit for c in index.candidates(ALPHA, exact, 4)
    ]


def test_diversity_takes_a_repetition_out(index):
    index.upsert([point("zebra zebra zebra", ordinal=9, document="d9")])
    assert set(orders(search(index, "zebra", 2))) == {0, 9}
    varied = orders(search(index, "zebra", 2, diversity=0.3))
    assert len({0, 9} & set(varied)) == 1


def test_neighbours_are_joined_only_where_asked_and_given(index):
    def chunk(ordinal, text, start):
        headings = ("Section",)
        return Chunk(ordinal, text, headings, 2, 3, start, start + len(text), 1, "")

    text = TEXTS[0]
    beside = {("doc-v1", 1): chunk(1, "Next.", 11 + len(text))}

    def neighbours(places):
        return {place: beside[place] for place in places if place in beside}

    searcher = HybridSearcher(index, EMBEDDER)
    on = SearchOptions(neighbours=1)
    assert searcher.search(ALPHA, "zebra", 1, options=on).hits[0].text == text
    assert searcher.search(ALPHA, "zebra", 1, neighbours=neighbours).hits[0].text == text
    (wide,) = searcher.search(ALPHA, "zebra", 1, neighbours=neighbours, options=on).hits
    assert wide.text == f"{text} Next."


def test_reranking_can_be_switched_off(index):
    class Backwards:
        def rerank(self, question, hits):
            return list(reversed(hits))

    searcher = HybridSearcher(index, EMBEDDER, Backwards())
    plain = searcher.search(ALPHA, "zebra", 4, options=SearchOptions(rerank=False))
    assert searcher.search(ALPHA, "zebra", 4).hits == tuple(reversed(plain.hits))


def test_the_searchers_own_options_are_its_defaults(index):
    searcher = HybridSearcher(index, EMBEDDER, options=SearchOptions(dense=False))
    assert searcher.search(ALPHA, "zebra", 4).best_dense_score is None
    assert searcher.search(ALPHA, "zebra", 4, options=DEFAULTS).best_dense_score is not None


def test_several_scopes_are_searched_with_one_embedding(index):
    index.upsert([point("zebra of the other base", scope=OTHER, document="o")])
    embedder = CountingEmbedder()
    found = HybridSearcher(index, embedder).search([ALPHA, OTHER], "zebra", 3)
    assert embedder.asked == ["zebra"]
    assert {h.knowledge_base_id for h in found.hits} == {"kb-1", "kb-2"}
    assert [h.score for h in found.hits] == sorted((h.score for h in found.hits), reverse=True)
    alone = HybridSearcher(index, embedder).search([OTHER], "zebra", 3)
    assert [h.document_id for h in alone.hits] == ["o"]
    assert HybridSearcher(index, embedder).search([], "zebra", 3).hits == ()


def test_narrowing_and_visibility_hold_together(index):
    searcher = HybridSearcher(index, EMBEDDER)
    index.upsert([point("zebra again", version="v9", document="d0")])
    only = Narrowing(only_documents=frozenset({"d0", "d1"}))
    found = searcher.search(
        ALPHA, "zebra", 5, lambda versions: set(versions) - {"v9"}, narrowing=only
    )
    assert {h.document_id for h in found.hits} == {"d0", "d1"}
    assert {h.version_id for h in found.hits} == {"doc-v1"}
    none = searcher.search(ALPHA, "zebra", 5, narrowing=Narrowing(only_documents=frozenset()))
    assert none.hits == ()
    assert none.coverage == 0.0


def test_coverage_is_higher_for_what_the_knowledge_base_says(index):
    covered = search(index, "lion tiger bear").coverage
    strange = search(index, "mortgage interest").coverage
    assert 0 <= strange < covered <= 1
    assert search(index, "lion", coverage=False).coverage is None


def test_a_model_of_ones_own_replaces_the_shipped_one(index):
    constant = CoverageModel((0.0,) * 5, (1.0,) * 5, (0.0,) * 5, 0.0)
    searcher = HybridSearcher(index, EMBEDDER, coverage=constant)
    assert searcher.search(ALPHA, "zebra", 1).coverage == 0.5


@pytest.mark.parametrize(
    "switches", [{"candidates": 0}, {"neighbours": -1}, {"diversity": 1.5}, {"diversity": -0.5}]
)
def test_impossible_switches_are_refused(switches):
    with pytest.raises(ValueError, match="got"):
        SearchOptions(**switches)


def test_stages_never_return_more_than_the_limit_nor_unknown_hits(index):
    for switches in ({}, {"diversity": 0.5}, {"lexical": False}, {"dense": False}):
        for limit in (1, 2, 3):
            hits = search(index, "zebra lion", limit, **switches).hits
            assert len(hits) <= limit
            assert len({hit.chunk_id for hit in hits}) == len(hits)
