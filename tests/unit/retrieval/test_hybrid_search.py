"""From ingestion to visible hits with a hashing embedder; the LangChain port; scopes."""

import asyncio
import dataclasses

import numpy as np
import pytest
from retrieval_fakes import ALPHA, HashingEmbedder, hit, point

from retrieval.chunking import ChunkingOptions
from retrieval.edge import EdgeIndex
from retrieval.ingestion import DocumentVersion, prepare_document, prepare_documents
from retrieval.langchain import TandemRetriever
from retrieval.parsing import parse_bytes
from retrieval.search import HybridSearcher
from retrieval.types import Scope, WorkspaceId, make_chunk_id

OPTIONS = ChunkingOptions(max_tokens=40, min_tokens=8)


@pytest.fixture
def embedder():
    return HashingEmbedder()


@pytest.fixture
def index(tmp_path, embedder):
    made = EdgeIndex(tmp_path, dimension=64, model_identity=embedder.identity)
    yield made
    made.close()


def test_scope_cannot_be_made_without_a_workspace():
    for workspace, base in (("", "kb"), ("w", "")):
        with pytest.raises(ValueError, match="workspace id"):
            Scope(WorkspaceId(workspace), base)
    with pytest.raises(TypeError):
        Scope("kb")
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALPHA.workspace_id = "beta"


def test_chunk_ids_tell_scopes_versions_and_ordinals_apart():
    other = Scope(WorkspaceId("beta"), "kb-1")
    ids = {make_chunk_id(s, v, n) for s in (ALPHA, other) for v in ("a", "b") for n in (0, 1)}
    assert len(ids) == 8
    assert make_chunk_id(ALPHA, "a", 0) == make_chunk_id(ALPHA, "a", 0)


def test_retired_versions_never_starve_the_result(index, embedder):
    for n in range(60):
        index.upsert([point(f"refund rule {n}", version=f"old-{n}", document=f"d{n}")])
    index.upsert([point(f"refund word{n}", version="new", ordinal=n) for n in range(5)])
    searcher = HybridSearcher(index, embedder)
    asked = []

    def visible(versions):
        asked.extend(versions)
        return {v for v in versions if v == "new"}

    result = searcher.search(ALPHA, "refund rule 7", 5, visible)
    assert len(result.hits) == 5
    assert {h.version_id for h in result.hits} == {"new"}
    assert len(asked) == len(set(asked)) + asked.count("new") - 1


def test_nothing_visible_gives_nothing(index, embedder):
    index.upsert([point(f"fact {n}", version=f"v{n}") for n in range(30)])
    result = HybridSearcher(index, embedder).search(ALPHA, "fact", 3, lambda versions: set())
    assert result.hits == ()
    assert result.best_dense_score is None


def test_equal_texts_are_shown_once(index, embedder):
    index.upsert([point("Call us today.", ordinal=n) for n in range(20)])
    index.upsert([point("call  us TODAY.", ordinal=20), point("Write us today.", ordinal=21)])
    hits = HybridSearcher(index, embedder).search(ALPHA, "call us today", 3).hits
    assert sorted(h.text.lower().split()[0] for h in hits) == ["call", "write"]


def test_best_dense_score_is_the_cosine_with_the_question(index, embedder):
    index.upsert([point("red apple"), point("blue car", ordinal=1)])
    result = HybridSearcher(index, embedder).search(ALPHA, "red apple", 2)
    assert result.best_dense_score == pytest.approx(1.0, abs=1e-5)
    far = HybridSearcher(index, embedder).search(ALPHA, "quantum zebra", 2)
    assert far.best_dense_score < 0.5


@pytest.mark.parametrize("question", ["", "  \n"])
def test_blank_question_finds_nothing(index, embedder, question):
    index.upsert([point("x")])
    assert HybridSearcher(index, embedder).search(ALPHA, question, 3).hits == ()


def test_limit_below_one_is_refused(index, embedder):
    with pytest.raises(ValueError, match="limit"):
        HybridSearcher(index, embedder).search(ALPHA, "x", 0)


def test_reranker_decides_the_order(index, embedder):
    class Longest:
        def rerank(self, question, hits):
            rescored = [dataclasses.replace(h, score=float(len(h.text))) for h in hits]
            return sorted(rescored, key=lambda h: -h.score)

    index.upsert([point("apple"), point("apple and a very long story", ordinal=1)])
    hits = HybridSearcher(index, embedder, Longest()).search(ALPHA, "apple", 1).hits
    assert hits[0].ordinal == 1


def ingest(index, embedder, source, version):
    prepared = prepare_document(
        parse_bytes(source, "faq.md"),
        embedder,
        ALPHA,
        document_id="faq",
        version_id=version,
        options=OPTIONS,
        known_vectors=index.stored_vectors(ALPHA, "faq"),
    )
    index.upsert(prepared.points)
    index.flush()
    return prepared


def test_update_embeds_only_what_changed_and_leaves_no_stale_chunk(index, embedder):
    sections = [f"## Topic {n}\n\n" + f"Fact {n} holds for now and ever. " * 3 for n in range(10)]
    first = ingest(index, embedder, "\n\n".join(sections).encode(), "v1")
    assert first.n_embedded == len(first.points)
    sections[4] = sections[4].replace("now", "then")
    second = ingest(index, embedder, "\n\n".join(sections).encode(), "v2")
    assert second.n_embedded == 1
    index.delete_version(ALPHA, "v1")
    assert index.chunk_ids(ALPHA) == {p.chunk_id for p in second.points}
    hits = HybridSearcher(index, embedder).search(ALPHA, "Fact 4 holds for then", 20).hits
    assert {h.version_id for h in hits} == {"v2"}
    assert "then" in hits[0].text


def test_writing_a_version_twice_doubles_nothing(index, embedder):
    source = b"# A\n\n" + b"Words that matter. " * 30
    ingest(index, embedder, source, "v1")
    before = index.chunk_ids(ALPHA)
    again = ingest(index, embedder, source, "v1")
    assert again.n_embedded == 0
    assert index.chunk_ids(ALPHA) == before


@pytest.mark.parametrize("window", [1, 7, 1000])
def test_documents_prepared_together_equal_those_prepared_alone(embedder, window):
    versions = [
        DocumentVersion(parse_bytes(b"# T\n\n" + b"Some fact. " * 9 * n, "a.md"), f"d{n}", f"v{n}")
        for n in range(1, 6)
    ]
    together = list(prepare_documents(versions, embedder, ALPHA, options=OPTIONS, window=window))
    for version, prepared in zip(versions, together, strict=True):
        alone = prepare_document(
            version.document,
            embedder,
            ALPHA,
            document_id=version.document_id,
            version_id=version.version_id,
            options=OPTIONS,
        )
        assert prepared.chunks == alone.chunks
        assert [p.chunk_id for p in prepared.points] == [p.chunk_id for p in alone.points]
        for one, other in zip(prepared.points, alone.points, strict=True):
            assert one.vector == pytest.approx(other.vector)


def test_prepared_points_have_unit_vectors_and_their_chunk(index, embedder):
    prepared = ingest(index, embedder, b"# A\n\nSome fact is here.", "v1")
    (made,), (chunk,) = prepared.points, prepared.chunks
    assert np.linalg.norm(made.vector) == pytest.approx(1.0, abs=1e-5)
    assert (made.text, made.heading_path) == (chunk.text, ("A",))


def test_langchain_retriever_returns_documents_sync_and_async():
    calls = []

    def search(question, limit):
        calls.append((question, limit))
        return [hit("Body.", title="Guide")]

    retriever = TandemRetriever(search=search, limit=2)
    for found in (retriever.invoke("q"), asyncio.run(retriever.ainvoke("q"))):
        assert found[0].page_content == "Body."
        assert found[0].metadata["title"] == "Guide"
        assert found[0].metadata["version_id"] == "v"
    assert calls == [("q", 2), ("q", 2)]
