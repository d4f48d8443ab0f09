"""Search speed beside the query embedding, in one run: ratios, recall of the graph, memory, disk.

  python -m benchmarks.search --data DATA --models MODELS [--sizes 10000,100000] [--out FILE]

The chunks are synthetic: the first half of one real chunk and the second half of another (from the
four sets of `benchmarks.retrieval_sets`) with a number behind them; the vector is the mean of
both real vectors, jittered by noise of length 0.5 and renormalised. Real collections repeat
themselves less, so the graph has it harder here. 20 chunks make a version, 1 in 50 versions is
retired, and every search asks a real SQLite file which versions are visible.

Each question is embedded alone and then searched whole (embedding, both sides, fusion, visibility,
coverage), so both distributions meet the same machine. Sizes beyond those measured are
extrapolated: memory and disk by the line through the last two sizes, search time by their power
law.
"""

import argparse
import json
import math
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.retrieval_quality import KnownQuestions
from benchmarks.retrieval_sets import NAMES, load
from retrieval.edge import EdgeIndex
from retrieval.embedding import Embedder
from retrieval.index import NO_NARROWING, IndexQuery, Narrowing
from retrieval.ingestion import DocumentVersion, prepare_documents
from retrieval.search import HybridSearcher, SearchOptions, Visible
from retrieval.types import IndexedChunk, Scope, WorkspaceId, make_chunk_id

SCOPE = Scope(WorkspaceId("bench"), "speed")
_PER_VERSION = 20
_RETIRED_EVERY = 50
_NOISE = 0.5
_SEED = 20261122
_LIMIT = 5


@dataclass(frozen=True, slots=True)
class Material:
    """Real chunks to build from, and questions."""

    chunks: list[IndexedChunk]
    questions: list[str]


def material(data: Path, embedder: Embedder, n_questions: int) -> Material:
    chunks: list[IndexedChunk] = []
    questions: list[str] = []
    for name in NAMES:
        source = load(name, data)
        versions = [DocumentVersion(d, key, key) for _, key, d in source.documents]
        for made in prepare_documents(versions, embedder, SCOPE, options=source.chunking):
            chunks += made.points
        questions += [case.question for case in source.cases]
    chance = random.Random(_SEED)
    return Material(chunks, chance.sample(sorted(set(questions)), n_questions))


def synthetic(real: Sequence[IndexedChunk], n: int) -> Iterator[IndexedChunk]:
    chance = np.random.default_rng(_SEED)
    for number in range(n):
        one, two = (real[i] for i in chance.integers(0, len(real), 2))
        mean = (one.vector + two.vector) / np.linalg.norm(one.vector + two.vector)
        noise = chance.standard_normal(len(mean)) * _NOISE / math.sqrt(len(mean))
        vector = (mean + noise) / np.linalg.norm(mean + noise)
        half = len(one.text) // 2
        text = f"{one.text[:half]} {two.text[len(two.text) // 2 :]} {number}"
        version, ordinal = f"v{number // _PER_VERSION}", number % _PER_VERSION
        yield IndexedChunk(
            chunk_id=make_chunk_id(SCOPE, version, ordinal),
            document_id=f"d{number // _PER_VERSION}",
            version_id=version,
            workspace_id=SCOPE.workspace_id,
            knowledge_base_id=SCOPE.knowledge_base_id,
            text=text,
            title=one.title,
            heading_path=one.heading_path,
            page_start=1,
            page_end=1,
            start_char=0,
            end_char=len(text),
            ordinal=ordinal,
            vector=vector.astype(np.float32),
        )


def visibility(path: Path, n_versions: int) -> Visible:
    """A lookup like the service's: state and validity of version ids in an SQLite file."""
    database = sqlite3.connect(path)
    database.execute("pragma journal_mode=wal")
    database.execute(
        "create table versions (id text primary key, workspace_id text, state text, valid_to text)"
    )
    rows = (
        (f"v{n}", "bench", "retired" if n % _RETIRED_EVERY == 0 else "current", None)
        for n in range(n_versions)
    )
    database.executemany("insert into versions values (?, ?, ?, ?)", rows)
    database.commit()

    def visible(ids: Sequence[str]) -> set[str]:
        marks = ",".join("?" * len(ids))
        found = database.execute(
            "select id from versions where workspace_id = ? and state = 'current'"
            f" and (valid_to is null or valid_to > datetime('now')) and id in ({marks})",
            ["bench", *ids],
        )
        return {row[0] for row in found}

    return visible


Time = tuple[float, float]
"""Seconds of the clock and of the processor, all threads of this process together."""


def spread(times: Sequence[Time]) -> dict[str, float]:
    """Percentiles in milliseconds; `cpu` is what other processes cannot slow down."""
    clock, processor = (np.array(side) * 1e3 for side in zip(*times, strict=True))
    rows = [(f"p{p}_ms", np.percentile(clock, p)) for p in (50, 95, 99)]
    rows += [(f"cpu_p{p}_ms", np.percentile(processor, p)) for p in (50, 95)]
    return {name: round(float(value), 3) for name, value in rows}


def timed(action: Callable[[], object]) -> Time:
    clock, processor = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - clock, time.process_time() - processor


def ratios(part: dict[str, float], base: dict[str, float]) -> dict[str, float]:
    return {key.removesuffix("_ms"): round(part[key] / base[key], 3) for key in base}


def measure(
    index: EdgeIndex, embedder: Embedder, questions: Sequence[str], visible: Visible
) -> dict[str, Any]:
    """Whole searches beside the embedding alone, question by question."""
    searcher = HybridSearcher(index, embedder)
    looked_up = HybridSearcher(index, KnownQuestions(embedder, questions))
    plain = SearchOptions(coverage=False)

    def whole(question: str) -> Time:
        return timed(lambda: searcher.search(SCOPE, question, _LIMIT, visible))

    def without_embedding(question: str, options: SearchOptions) -> Time:
        found = looked_up.search
        return timed(lambda: found(SCOPE, question, _LIMIT, visible, options=options))

    for question in questions[:20]:
        whole(question)
    embed, all_of_it, search, no_coverage = [], [], [], []
    for question in questions:
        embed.append(timed(lambda q=question: embedder.embed_query(q)))
        all_of_it.append(whole(question))
        search.append(without_embedding(question, SearchOptions()))
        no_coverage.append(without_embedding(question, plain))
    base, total = spread(embed), spread(all_of_it)
    return {
        "embed_only": base,
        "embed_search_visibility": total,
        "search_visibility": spread(search),
        "search_visibility_without_coverage": spread(no_coverage),
        "ratio_to_embedding": ratios(total, base),
    }


def filtered(
    index: EdgeIndex, known: KnownQuestions, questions: Sequence[str], n_documents: int
) -> dict[str, Any]:
    """Narrowed searches against the unfiltered one, question by question, without embedding."""
    chance = random.Random(_SEED)
    names = [f"d{n}" for n in range(n_documents)]

    def some(n: int) -> frozenset[str]:
        return frozenset(chance.sample(names, min(n, n_documents)))

    versions = frozenset(f"v{n}" for n in range(0, n_documents, _RETIRED_EVERY))
    cases = {
        "unfiltered": NO_NARROWING,
        "only_half_the_documents": Narrowing(only_documents=some(n_documents // 2)),
        "only_a_tenth_of_the_documents": Narrowing(only_documents=some(n_documents // 10)),
        "only_one_document": Narrowing(only_documents=some(1)),
        "without_20_documents": Narrowing(without_documents=some(20)),
        "without_retired_versions": Narrowing(without_versions=versions),
    }
    searcher = HybridSearcher(index, known)
    seconds: dict[str, list[Time]] = {name: [] for name in cases}
    for question in questions:
        for name, narrowing in cases.items():
            ask = searcher.search
            seconds[name].append(
                timed(lambda q=question, n=narrowing, a=ask: a(SCOPE, q, _LIMIT, narrowing=n))
            )
    spreads = {name: spread(values) for name, values in seconds.items()}
    base = spreads["unfiltered"]
    return {n: s | {"ratio_to_unfiltered": ratios(s, base)} for n, s in spreads.items()}


def graph_recall(index: EdgeIndex, known: KnownQuestions, questions: Sequence[str]) -> float:
    """Share of the 10 exact nearest that the graph finds, mean over questions."""
    shares = []
    for question in questions:
        vector = known.embed_query(question)
        exact, walked = (
            {
                c.hit.chunk_id
                for c in index.candidates(
                    SCOPE, IndexQuery(question, vector, lexical=False, exact=exact), 10
                )
            }
            for exact in (True, False)
        )
        shares.append(len(exact & walked) / len(exact))
    return round(float(np.mean(shares)), 4)


def one_size(n: int, source: Material, embedder: Embedder) -> dict[str, Any]:
    known = KnownQuestions(embedder, source.questions)
    n_versions = -(-n // _PER_VERSION)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shape = {"dimension": embedder.dimension, "model_identity": embedder.identity}
        index = EdgeIndex(folder / "index", **shape)  # type: ignore[arg-type]
        write = timed(lambda: (index.upsert(synthetic(source.chunks, n)), index.flush()))
        optimise = timed(lambda: index.optimize(SCOPE))
        index.close()
        before = psutil.Process().memory_info().rss
        index = EdgeIndex(folder / "index", **shape)  # type: ignore[arg-type]
        visible = visibility(folder / "versions.sqlite", n_versions)
        result: dict[str, Any] = {"chunks": index.count(SCOPE)}
        result |= measure(index, embedder, source.questions, visible)
        result["filtered"] = filtered(index, known, source.questions, n_versions)
        result["graph_recall@10"] = graph_recall(index, known, source.questions)
        result |= {
            "rss_mib": round((psutil.Process().memory_info().rss - before) / 2**20, 1),
            "disk_mib": round(
                sum(p.stat().st_blocks * 512 for p in folder.rglob("*") if p.is_file()) / 2**20, 1
            ),
            "write_s": round(write[0], 1),
            "optimise_s": round(optimise[0], 1),
        }
        index.close()
    return result


def extrapolate(sizes: Sequence[dict[str, Any]], n: int) -> dict[str, Any]:
    small, large = sizes[-2:]
    step = math.log(n / large["chunks"]) / math.log(large["chunks"] / small["chunks"])
    share = (n - large["chunks"]) / (large["chunks"] - small["chunks"])
    search = {
        key: round(value * max(value / small["search_visibility"][key], 1.0) ** step, 3)
        for key, value in large["search_visibility"].items()
    }
    grown = {
        key: round(large[key] + share * (large[key] - small[key]), 1)
        for key in ("rss_mib", "disk_mib")
    }
    embed = large["embed_only"]
    whole = {key: embed[key] + search[key] for key in embed}
    result = {"chunks": n, "search_visibility": search, "ratio_to_embedding": ratios(whole, embed)}
    return result | grown


def threads(embedder: Embedder, questions: Sequence[str]) -> dict[str, Any]:
    """The query embedding on one thread and on as many as torch takes by itself, in turn."""
    default = torch.get_num_threads()
    seconds: dict[int, list[Time]] = {1: [], max(default, 2): []}
    for question in questions:
        for n, values in seconds.items():
            torch.set_num_threads(n)
            values.append(timed(lambda q=question: embedder.embed_query(q)))
    torch.set_num_threads(default)
    return {str(n): spread(values) for n, values in seconds.items()} | {"used": default}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    embedder = Embedder(options.models / "all-minilm-l6-v2")
    source = material(options.data, embedder, options.questions)
    result: dict[str, Any] = {
        "questions": len(source.questions),
        "embedding_threads": threads(embedder, source.questions[:100]),
        "sizes": [],
    }
    for n in sorted(int(size) for size in options.sizes.split(",")):
        result["sizes"].append(one_size(n, source, embedder))
        print(json.dumps(result["sizes"][-1]), flush=True)
    if len(result["sizes"]) > 1:
        result["extrapolated"] = extrapolate(result["sizes"], 1_000_000)
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
