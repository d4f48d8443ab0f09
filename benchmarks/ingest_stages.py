"""Stages of ingestion beside their floor, and retrieval quality, in one run: the library alone.

The floor encodes the very same chunks with the same weights and does nothing else; the ratio says
what parsing, chunking, token counting, indexing and flushing cost on top. Rounds alternate, so a
drifting machine moves both. Needs the shared data (`--data`) and the embedding model (`--model`).

    python -m benchmarks.ingest_stages --data ../shared/data --model MODEL_DIR
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from retrieval.chunking import ChunkingOptions, embed_text
from retrieval.edge import EdgeIndex
from retrieval.embedding import Embedder
from retrieval.index import FusionOptions
from retrieval.ingestion import DocumentVersion, prepare_documents
from retrieval.parsing import ParseWorker
from retrieval.search import HybridSearcher, SearchOptions
from retrieval.types import Scope, WorkspaceId

SCOPE = Scope(WorkspaceId("bench"), "kb")


def corpus(data: Path, folder: Path) -> list[tuple[str, Path]]:
    """(document id, file): XQuAD passages as text files, and the Let's Encrypt pages."""
    files = []
    for line in (data / "xquad_en" / "passages.jsonl").read_text().splitlines():
        row = json.loads(line)
        path = folder / f"{len(files)}.txt"
        path.write_text(row["text"])
        files.append((row["passage_id"], path))
    pages = sorted((data / "letsencrypt_docs" / "v2_2025-08-15").rglob("*.md"))
    return files + [(f"le-{path.stem}-{n}", path) for n, path in enumerate(pages)]


def ingest(files, embedder, worker, root, options, fusion, together):
    """One full ingestion; returns the index, its chunks' texts and the seconds of two stages.

    `together` embeds across documents and flushes once, as a bulk load does; otherwise every
    document is embedded and flushed by itself, as single uploads are.
    """
    index = EdgeIndex(
        root, dimension=embedder.dimension, model_identity=embedder.identity, fusion=fusion
    )
    stages = {"parse_s": 0.0, "index_s": 0.0}
    texts = []

    def versions():
        for document_id, path in files:
            start = time.perf_counter()
            document = worker.parse(path)
            stages["parse_s"] += time.perf_counter() - start
            yield DocumentVersion(document, document_id, document_id)

    window = 256 if together else 1
    for prepared in prepare_documents(versions(), embedder, SCOPE, options=options, window=window):
        start = time.perf_counter()
        index.upsert(prepared.points)
        if not together:
            index.flush()
        stages["index_s"] += time.perf_counter() - start
        title = prepared.points[0].title
        texts += [embed_text(chunk, title) for chunk in prepared.chunks]
    start = time.perf_counter()
    index.flush()
    stages["index_s"] += time.perf_counter() - start
    return index, texts, stages


def quality(index, embedder, questions, **mode: bool) -> dict[str, float]:
    """Recall@1, recall@5, MRR@10 over passages, and query latency in ms."""
    searcher = HybridSearcher(index, embedder)
    options = SearchOptions(fusion=None, **mode)  # the index's own way
    ranks, seconds = [], []
    for row in questions:
        start = time.perf_counter()
        hits = searcher.search(SCOPE, row["question"], 10, options=options).hits
        seconds.append(time.perf_counter() - start)
        found = list(dict.fromkeys(hit.document_id for hit in hits))
        ranks.append(found.index(row["gold_passage"]) + 1 if row["gold_passage"] in found else 0)
    n = len(ranks)
    seconds.sort()
    return {
        "recall@1": round(sum(r == 1 for r in ranks) / n, 4),
        "recall@5": round(sum(0 < r <= 5 for r in ranks) / n, 4),
        "mrr@10": round(sum(1 / r for r in ranks if r) / n, 4),
        "p50_ms": round(seconds[n // 2] * 1e3, 2),
        "p95_ms": round(seconds[int(n * 0.95)] * 1e3, 2),
        "n": n,
    }


def summary(rounds, n_chunks):
    """Medians over the rounds, and each round."""
    return {
        "ratio_to_encode_only": round(statistics.median(r["ratio"] for r in rounds), 3),
        "chunks_per_s": round(n_chunks / statistics.median(r["ingest_s"] for r in rounds), 1),
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", type=Path, default=Path(".tandem/models/all-minilm-l6-v2"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--lexical-weight", type=float, default=FusionOptions().lexical_weight)
    parser.add_argument("--questions", type=int, default=0, help="0 = all")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    embedder = Embedder(arguments.model)
    options = ChunkingOptions(max_tokens=arguments.max_tokens)
    fusion = FusionOptions(lexical_weight=arguments.lexical_weight)
    rounds = {False: [], True: []}
    with tempfile.TemporaryDirectory() as temporary, ParseWorker() as worker:
        folder = Path(temporary)
        files = corpus(arguments.data, folder)
        embedder.embed_passages(["warm up"] * 32)
        for number in range(arguments.rounds):
            for together in (False, True):
                start = time.perf_counter()
                index, texts, stages = ingest(
                    files, embedder, worker, folder / f"{number}-{together}", options, fusion,
                    together,
                )  # fmt: skip
                total = time.perf_counter() - start
                start = time.perf_counter()
                embedder.embed_passages(texts)
                floor = time.perf_counter() - start
                row = {"ingest_s": total, "floor_s": floor, "ratio": total / floor, **stages}
                rounds[together].append({key: round(value, 3) for key, value in row.items()})
                if not (together and number == arguments.rounds - 1):
                    index.close()
        questions = [
            json.loads(line)
            for line in (arguments.data / "xquad_en" / "questions.shared.jsonl")
            .read_text()
            .splitlines()
        ]
        questions = questions[: arguments.questions or None]
        index.optimize(SCOPE)
        result = {
            "documents": len(files),
            "chunks": len(texts),
            "mean_tokens": round(statistics.mean(map(embedder.count_tokens, texts)), 1),
            "one_by_one": summary(rounds[False], len(texts)),
            "together": summary(rounds[True], len(texts)),
            "hybrid": quality(index, embedder, questions),
            "dense": quality(index, embedder, questions, lexical=False),
            "lexical": quality(index, embedder, questions, dense=False),
        }
        index.close()
    text = json.dumps(result, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
