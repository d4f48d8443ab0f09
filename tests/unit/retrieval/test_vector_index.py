"""The contract of `VectorIndex`, held by the embedded and the server index alike."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from retrieval_fakes import ALPHA, EMBEDDER, point

from retrieval.edge import EdgeIndex
from retrieval.errors import IndexBusy, IndexUnreadable, VectorIndexError
from retrieval.fusion import rrf
from retrieval.index import FusionOptions, Narrowing
from retrieval.server import ServerIndex
from retrieval.types import Scope, WorkspaceId

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")

BETA_SAME_KB = Scope(WorkspaceId("beta"), "kb-1")
ALPHA_OTHER_KB = Scope(WorkspaceId("alpha"), "kb-2")
IDENTITY = {"dimension": EMBEDDER.dimension, "model_identity": EMBEDDER.identity}
FACTS = [
    "Refunds are paid within five days.",
    "Shipping to France takes three days.",
    "Our office is in Lyon.",
    "Refunds need the receipt.",
]


@pytest.fixture(params=["edge", "server"])
def index(request, tmp_path):
    if request.param == "edge":
        made = EdgeIndex(tmp_path / "index", **IDENTITY)
    else:
        from qdrant_client import QdrantClient

        made = ServerIndex(QdrantClient(":memory:"), **IDENTITY)
    yield made
    made.close()


def fill(index, scope=ALPHA, facts=FACTS, version="doc-v1", document="doc"):
    index.upsert(
        point(text, scope=scope, ordinal=n, version=version, document=document)
        for n, text in enumerate(facts)
    )
    index.flush()


def search(index, question, scope=ALPHA, limit=10, **options):
    return index.search(scope, question, EMBEDDER.embed_query(question), limit, **options)


def test_unknown_knowledge_base_is_empty(index):
    assert search(index, "refunds") == []
    assert index.count(ALPHA) == 0
    assert index.chunk_ids(ALPHA) == set()
    assert index.stored_vectors(ALPHA, "doc") == {}
    index.delete_version(ALPHA, "v")
    index.delete_document(ALPHA, "d")
    index.drop(ALPHA)
    assert index.count(ALPHA) == 0


@pytest.mark.parametrize("mode", [{}, {"lexical": False}, {"dense": False}])
def test_the_matching_fact_comes_first(index, mode):
    fill(index)
    assert search(index, "shipping to France", **mode)[0].text == FACTS[1]


def test_every_field_comes_back(index):
    fill(index)
    hit = search(index, "office Lyon")[0]
    assert (hit.title, hit.heading_path, hit.page_start, hit.page_end) == (
        "Title",
        ("Section",),
        2,
        3,
    )
    assert (hit.document_id, hit.version_id, hit.ordinal) == ("doc", "doc-v1", 2)
    assert (hit.start_char, hit.end_char) == (10, 10 + len(FACTS[2]))
    assert hit.content_hash == f"hash of {FACTS[2]}"
    cosine = float(EMBEDDER.embed_query("office Lyon") @ EMBEDDER.embed_query(FACTS[2]))
    assert hit.dense_score == pytest.approx(cosine, abs=1e-5)


def test_lexical_search_needs_no_vector(index):
    fill(index)
    hits = index.search(ALPHA, "receipt", None, 5, dense=False)
    assert [h.text for h in hits] == [FACTS[3]]
    assert hits[0].dense_score is None


def test_question_of_stop_words_finds_nothing_by_words_alone(index):
    fill(index)
    assert search(index, "the of and", dense=False) == []
    assert len(search(index, "the of and")) == len(FACTS)


def test_same_ids_overwrite(index):
    fill(index)
    fill(index, facts=[*FACTS[:3], "Refunds need no receipt."])
    assert index.count(ALPHA) == 4
    assert search(index, "receipt")[0].text == "Refunds need no receipt."


def test_deleted_version_and_document_are_gone(index):
    fill(index, version="v1")
    fill(index, version="v2")
    fill(index, version="x1", document="other")
    index.delete_version(ALPHA, "v1")
    assert {h.version_id for h in search(index, "refunds")} == {"v2", "x1"}
    index.delete_document(ALPHA, "doc")
    index.flush()
    assert {h.document_id for h in search(index, "refunds")} == {"other"}
    assert index.count(ALPHA) == len(index.chunk_ids(ALPHA)) == 4


def test_excluded_versions_take_no_place(index):
    fill(index, version="old")
    fill(index, version="new")
    hits = search(
        index, "refunds", limit=4, narrowing=Narrowing(without_versions=frozenset({"old"}))
    )
    assert len(hits) == 4
    assert {h.version_id for h in hits} == {"new"}


def test_narrowing_by_document(index):
    for name in ("a", "b", "c"):
        fill(index, version=f"{name}1", document=name)

    def found(**narrowing):
        sets = {key: frozenset(value) for key, value in narrowing.items()}
        return {h.document_id for h in search(index, "refunds", narrowing=Narrowing(**sets))}

    assert found(only_documents={"a", "c"}) == {"a", "c"}
    assert found(without_documents={"a"}) == {"b", "c"}
    assert found(only_documents={"a", "b"}, without_documents={"b"}) == {"a"}
    assert found(only_documents=set()) == set()


def test_a_versions_points_come_back_as_written(index):
    fill(index, version="v1")
    fill(index, version="v2")
    chunks = index.chunks_of_version(ALPHA, "v1")
    assert [c.text for c in chunks] == FACTS
    assert chunks[0].vector == pytest.approx(EMBEDDER.embed_query(FACTS[0]), abs=1e-6)
    hashes = index.chunk_hashes(ALPHA)
    assert set(hashes) == index.chunk_ids(ALPHA)
    assert {hashes[c.chunk_id] for c in chunks} == {f"hash of {t}" for t in FACTS}
    index.delete_chunks(ALPHA, [chunks[0].chunk_id, "00000000-0000-0000-0000-000000000000"])
    assert index.count(ALPHA) == 2 * len(FACTS) - 1
    assert len(index.chunks_of_version(ALPHA, "v1")) == len(FACTS) - 1


def test_stored_vectors_are_those_written(index):
    fill(index)
    stored = index.stored_vectors(ALPHA, "doc")
    assert set(stored) == {f"hash of {t}" for t in FACTS}
    for text in FACTS:
        assert stored[f"hash of {text}"] == pytest.approx(EMBEDDER.embed_query(text), abs=1e-6)


@pytest.mark.parametrize("mode", [{}, {"lexical": False}, {"dense": False}])
def test_scopes_never_see_each_other(index, mode):
    for scope in (ALPHA, BETA_SAME_KB, ALPHA_OTHER_KB):
        name = f"{scope.workspace_id}/{scope.knowledge_base_id}"
        fill(index, scope, [f"{t} Canary {name}." for t in FACTS])
    for scope in (ALPHA, BETA_SAME_KB, ALPHA_OTHER_KB):
        hits = search(index, "canary beta kb-2 refunds", scope, **mode)
        assert len(hits) == 4
        assert {(h.workspace_id, h.knowledge_base_id) for h in hits} == {
            (scope.workspace_id, scope.knowledge_base_id)
        }
        assert index.count(scope) == 4
    index.delete_document(ALPHA, "doc")
    assert (index.count(ALPHA), index.count(BETA_SAME_KB), index.count(ALPHA_OTHER_KB)) == (0, 4, 4)


def test_other_tenants_words_do_not_move_bm25_scores(index):
    fill(index)
    before = [h.score for h in search(index, "refunds receipt", dense=False)]
    fill(index, BETA_SAME_KB, ["receipt receipt"] * 30)
    assert [h.score for h in search(index, "refunds receipt", dense=False)] == before


def test_hybrid_scores_are_rrf_of_both_rankings(index):
    fill(index)
    question = "refunds receipt days"
    dense = [h.chunk_id for h in search(index, question, lexical=False)]
    lexical = [h.chunk_id for h in search(index, question, dense=False)]
    hybrid = {h.chunk_id: h.score for h in search(index, question)}
    assert hybrid == pytest.approx(dict(rrf([dense, lexical], k=60)), abs=1e-6)


def test_equal_searches_give_equal_lists(index):
    fill(index, facts=["same words here"] * 8)
    first = search(index, "same words", limit=8)
    assert first == search(index, "same words", limit=8)
    assert len(first) == 8


def test_drop_removes_one_knowledge_base(index):
    fill(index)
    fill(index, ALPHA_OTHER_KB)
    index.drop(ALPHA)
    assert (index.count(ALPHA), index.count(ALPHA_OTHER_KB)) == (0, 4)
    fill(index)
    assert index.count(ALPHA) == 4


@pytest.mark.parametrize(("limit", "options"), [(0, {}), (3, {"dense": False, "lexical": False})])
def test_impossible_searches_are_refused(index, limit, options):
    with pytest.raises(ValueError, match=r"limit|dense"):
        search(index, "x", limit=limit, **options)


def test_dense_search_without_vector_is_refused(index):
    with pytest.raises(ValueError, match="query vector"):
        index.search(ALPHA, "x", None, 3)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(0, 2), st.integers(1, 4)),
            st.tuples(st.just("delete"), st.integers(0, 2), st.just(0)),
        ),
        max_size=8,
    )
)
def test_index_holds_what_a_plain_set_would(index, steps):
    index.drop(ALPHA)
    model = {}
    for action, version, n in steps:
        if action == "write":
            fill(index, facts=FACTS[:n], version=f"v{version}")
            model |= {(version, i): FACTS[i] for i in range(n)}
        else:
            index.delete_version(ALPHA, f"v{version}")
            model = {k: t for k, t in model.items() if k[0] != version}
    assert index.count(ALPHA) == len(model)
    hits = search(index, "refunds shipping", limit=50)
    assert sorted((h.version_id, h.text) for h in hits) == sorted(
        (f"v{v}", text) for (v, _), text in model.items()
    )


def test_edge_keeps_points_over_a_restart(tmp_path):
    first = EdgeIndex(tmp_path, **IDENTITY)
    fill(first)
    first.close()
    again = EdgeIndex(tmp_path, **IDENTITY)
    assert again.count(ALPHA) == 4
    assert search(again, "Lyon")[0].text == FACTS[2]
    again.close()


def test_edge_shard_in_use_elsewhere_is_busy(tmp_path):
    first = EdgeIndex(tmp_path, **IDENTITY)
    fill(first)
    with pytest.raises(IndexBusy, match="kb-1"):
        EdgeIndex(tmp_path, **IDENTITY).count(ALPHA)
    first.close()


def test_edge_refuses_vectors_of_another_model(tmp_path):
    first = EdgeIndex(tmp_path, **IDENTITY)
    fill(first)
    first.close()
    other = EdgeIndex(tmp_path, dimension=64, model_identity="other@1")
    with pytest.raises(IndexUnreadable, match="tandem kb rebuild kb-1"):
        search(other, "x")
    other.drop(ALPHA)
    fill(other)
    assert other.count(ALPHA) == 4
    other.close()


@pytest.mark.parametrize("victim", ["tandem.json", "edge_config.json", "segment.json"])
@pytest.mark.parametrize("damage", [b"", b"\x00garbage{"])
def test_damaged_shard_names_the_mending_command(tmp_path, victim, damage):
    first = EdgeIndex(tmp_path, **IDENTITY)
    fill(first)
    first.close()
    for path in tmp_path.rglob(victim):
        path.write_bytes(damage)
    broken = EdgeIndex(tmp_path, **IDENTITY)
    with pytest.raises(IndexUnreadable, match="tandem kb rebuild kb-1"):
        search(broken, "refunds")
    broken.drop(ALPHA)
    assert broken.count(ALPHA) == 0


@pytest.mark.parametrize("bad", ["../up", "a/b", ".", "", "a\x00b", "x" * 200, "ü"])
def test_edge_never_makes_a_path_of_a_strange_id(tmp_path, bad):
    index = EdgeIndex(tmp_path / "in", **IDENTITY)
    with pytest.raises((VectorIndexError, ValueError)):
        fill(index, Scope(WorkspaceId("alpha"), bad))
    assert list(tmp_path.rglob("*")) == []


def test_wrong_dimension_is_refused(tmp_path):
    index = EdgeIndex(tmp_path, dimension=8, model_identity="x")
    with pytest.raises(VectorIndexError, match="64"):
        fill(index)
    index.close()


def test_fusion_weights_move_the_ranking(tmp_path):
    def first(weight):
        options = FusionOptions(k=0, lexical_weight=weight, dense_weight=1 / weight)
        index = EdgeIndex(tmp_path / str(weight), **IDENTITY, fusion=options)
        index.upsert([
            point("zebra zebra", ordinal=0),
            point("zebra lion tiger bear wolf fox owl cat dog", ordinal=1),
        ])  # fmt: skip
        vector = EMBEDDER.embed_query("zebra lion tiger bear wolf fox owl cat dog")
        hits = index.search(ALPHA, "zebra", vector, 2)
        index.close()
        return hits[0].ordinal

    assert first(20.0) == 0
    assert first(0.05) == 1


def test_nearly_full_disk_is_refused_before_edge_can_be_hurt_by_it(tmp_path, monkeypatch):
    import errno
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    made = EdgeIndex(tmp_path / "index", **IDENTITY)
    fill(made)
    free = 10**6
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**9, 10**9 - free, free))
    with pytest.raises(OSError, match="MiB free") as refused:
        fill(made, version="v2")
    assert refused.value.errno == errno.ENOSPC
    assert search(made, "refunds")  # what is open goes on answering
    fresh = EdgeIndex(tmp_path / "index", **IDENTITY)
    made.close()
    with pytest.raises(OSError, match="MiB free"):
        search(fresh, "refunds")
    free = 10**9
    fill(fresh, version="v2")
    assert fresh.count(ALPHA) == 2 * len(FACTS)
    fresh.close()
