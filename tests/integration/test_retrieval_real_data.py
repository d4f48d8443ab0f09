"""Real weights and real files: recall on XQuAD, messy files, freshness, precision of bfloat16."""

import json
import os
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from retrieval.chunking import chunk_document
from retrieval.edge import EdgeIndex
from retrieval.embedding import Embedder, cpu_computes_bfloat16
from retrieval.errors import EmbeddingError, RetrievalError
from retrieval.ingestion import prepare_document
from retrieval.parsing import ParseWorker, parse_bytes
from retrieval.search import HybridSearcher
from retrieval.types import Scope, WorkspaceId

ROOT = Path(__file__).resolve().parents[2]
SCOPE = Scope(WorkspaceId("w"), "kb")


def data_folder() -> Path:
    folder = Path(os.environ.get("TANDEM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no shared data: set TANDEM_DATA to its folder")
    return folder


def model_folder() -> Path:
    home = Path(os.environ.get("TANDEM_HOME", ROOT / ".tandem"))
    folder = home / "models" / "all-minilm-l6-v2"
    if not folder.is_dir():
        pytest.skip(f"no embedding model at {folder}: run `tandem models pull`")
    return folder


@pytest.fixture(scope="module")
def embedder():
    return Embedder(model_folder())


@pytest.fixture
def index(tmp_path, embedder):
    made = EdgeIndex(tmp_path, dimension=embedder.dimension, model_identity=embedder.identity)
    yield made
    made.close()


def ingest(index, embedder, source: bytes, name: str, version: str):
    prepared = prepare_document(
        parse_bytes(source, name),
        embedder,
        SCOPE,
        document_id=name,
        version_id=version,
        known_vectors=index.stored_vectors(SCOPE, name),
    )
    index.upsert(prepared.points)
    index.flush()
    return prepared


@pytest.mark.needs_models
def test_vectors_have_length_one_and_the_order_of_the_texts(embedder):
    texts = ["long " * 80, "cat", "How do I return an order?", "cat"]
    vectors = embedder.embed_passages(texts, batch_size=2)
    assert vectors.shape == (4, embedder.dimension)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert vectors[1] @ vectors[3] > 0.999
    for text, vector in zip(texts, vectors, strict=True):
        assert embedder.embed_query(text) @ vector > 0.999
    assert embedder.embed_passages([]).shape == (0, embedder.dimension)


@pytest.mark.needs_models
def test_passes_are_small_and_hold_little_padding(embedder, monkeypatch):
    # Sorted by characters, these would meet in the same passes: 1 to 5 characters a token.
    words = ["a ", "of ", "the ", "with ", "order "]
    texts = [words[n % 5] * (8 + n) + f"number {n}" for n in range(120)]
    alone = np.concatenate([embedder.embed_passages([text]) for text in texts[::17]])
    shapes, real = [], 0
    preprocess = embedder._model.preprocess

    def watched(some):
        nonlocal real
        features = preprocess(some)
        shapes.append(features["input_ids"].shape)
        real += int(features["attention_mask"].sum())
        return features

    monkeypatch.setattr(embedder._model, "preprocess", watched)
    vectors = embedder.embed_passages(texts)
    computed = sum(rows * width for rows, width in shapes)
    assert all(rows * width <= 1_024 for rows, width in shapes)
    assert real <= computed <= 1.1 * real
    assert (vectors[::17] * alone).sum(axis=1).min() > 0.9998


@pytest.mark.needs_models
def test_bfloat16_vectors_agree_with_float32(embedder):
    if not cpu_computes_bfloat16():
        pytest.skip("this CPU has no bfloat16 instructions")
    exact = Embedder(model_folder(), precision="float32")
    assert exact.identity == embedder.identity
    texts = ["The fee is 24 euros.", "Wie lange dauert der Versand?", "refund " * 100, "x"]
    cosines = (exact.embed_passages(texts) * embedder.embed_passages(texts)).sum(axis=1)
    assert cosines.min() > 0.999


@pytest.mark.needs_models
def test_threads_get_the_same_vectors_and_counts(embedder):
    texts = [f"Question number {n} about " + "returns " * (n % 7) for n in range(24)]
    wanted = [embedder.embed_query(t) for t in texts]
    counts = [embedder.count_tokens(t) for t in texts]
    errors: list[str] = []

    def run():
        vectors = embedder.embed_passages(texts)
        for n, text in enumerate(texts):
            if vectors[n] @ wanted[n] < 0.999 or embedder.count_tokens(text) != counts[n]:
                errors.append(text)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_missing_model_is_named():
    for name in ("/no/such/model", "./none", "no-such-org/no-such-model-here"):
        with pytest.raises(EmbeddingError, match="no"):
            Embedder(name)


@pytest.mark.needs_models
def test_hybrid_recall_on_xquad_is_that_of_the_reference(index, embedder):
    folder = data_folder() / "xquad_en"
    passages = [json.loads(x) for x in (folder / "passages.jsonl").read_text().splitlines()]
    questions = [
        json.loads(x) for x in (folder / "questions.shared.jsonl").read_text().splitlines()
    ][::5]
    for row in passages:
        source = row["text"].encode()
        ingest(
            index, embedder, source, row["passage_id"].replace("#", "-") + ".txt", row["passage_id"]
        )
    searcher = HybridSearcher(index, embedder)
    ranks = Counter()
    for row in questions:
        hits = searcher.search(SCOPE, row["question"], 10).hits
        found = list(dict.fromkeys(h.version_id for h in hits))[:5]
        ranks[found.index(row["gold_passage"]) if row["gold_passage"] in found else 9] += 1
    assert ranks[0] / len(questions) >= 0.88
    assert sum(ranks[r] for r in range(5)) / len(questions) >= 0.97


@pytest.mark.needs_models
def test_real_update_reembeds_little_and_leaves_nothing_stale(index, embedder):
    folder = data_folder() / "letsencrypt_docs"
    name = "docs/rate-limits.md"
    old = (folder / "v1_2024-10-01" / name).read_bytes()
    new = old.replace(b"(50 per week)", b"(75 per week)")
    assert new != old
    ingest(index, embedder, old, "rate-limits.md", "v1")
    second = ingest(index, embedder, new, "rate-limits.md", "v2")
    assert second.n_embedded == 1
    index.delete_version(SCOPE, "v1")
    index.flush()
    hits = HybridSearcher(index, embedder).search(
        SCOPE, "How many certificates per registered domain per week?", 20
    )
    texts = " ".join(h.text for h in hits.hits)
    assert "75 per week" in texts
    assert "50 per week" not in texts
    assert index.chunk_ids(SCOPE) == {p.chunk_id for p in second.points}


def real_files() -> list[Path]:
    folder = data_folder()
    names = [*(folder / "messy_files").rglob("*"), *(folder / "northwind" / "docs").glob("*")]
    return sorted(p for p in names if p.is_file())


def test_every_messy_file_parses_or_is_refused_in_words():
    refused, parsed = {}, {}
    with ParseWorker() as worker:
        for path in real_files():
            try:
                document = worker.parse(path)
            except RetrievalError as error:
                refused[path.name] = str(error)
            else:
                parsed[path.name] = document
    assert all(name in message for name, message in refused.items())
    readable = (".html", ".md", ".pdf", ".txt")
    assert not [name for name in refused if name.endswith(readable)]
    for document in parsed.values():
        assert all(document.text[b.start : b.end] == b.text for b in document.blocks)
        chunks = chunk_document(document, lambda text: len(text.split()))
        covered = sum(len(c.text) for c in chunks)
        assert covered > 0.8 * len(document.text)


def test_benefit_pdfs_keep_pages_and_lose_running_lines():
    path = data_folder() / "northwind" / "docs" / "PerksPlus.pdf"
    document = parse_bytes(path.read_bytes(), path.name)
    assert document.pages == 4
    assert {b.page for b in document.blocks} <= {1, 2, 3, 4}
    assert "What is Covered?" in [b.text for b in document.blocks if b.kind == "heading"]
