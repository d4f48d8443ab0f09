"""Questions that come at the same time: alone in a forward pass, or several in one.

  python -m benchmarks.query_load --data DATA --models MODELS [--threads 1,4,16] [--out FILE]

Torch is held to one thread and as many passes run as there are cores, as in the service. Threads
ask without pause, the same questions for every setting, settings in turn. Beside the speed: how
near the vectors stay to those of a question alone, and how often one of its 5 nearest real
passages changes.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.search import material
from retrieval.embedding import Embedder, Passes

Matrix = NDArray[np.float32]
_NEAREST = 5


def asked(embedder: Embedder, questions: Sequence[str], threads: int) -> dict[str, Any]:
    """Everything asked once by so many threads: vectors, questions a second, waiting times."""

    def one(question: str) -> tuple[Matrix, float]:
        started = time.perf_counter()
        return embedder.embed_query(question), time.perf_counter() - started

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(one, questions))
    seconds = time.perf_counter() - started
    waits = np.array([wait for _, wait in found]) * 1e3
    return {
        "vectors": np.stack([vector for vector, _ in found]),
        "per_second": len(questions) / seconds,
        "p50_ms": float(np.percentile(waits, 50)),
        "p95_ms": float(np.percentile(waits, 95)),
    }


def nearest(passages: Matrix, vectors: Matrix) -> list[tuple[int, ...]]:
    return [tuple(np.argsort(-scores)[:_NEAREST]) for scores in vectors @ passages.T]


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    cores = os.cpu_count() or 1
    model = options.models / "all-minilm-l6-v2"
    plain = Embedder(model, passes=Passes(cores, 1))
    source = material(options.data, plain, options.questions)
    passages = np.stack([chunk.vector for chunk in source.chunks])
    alone = asked(plain, source.questions, 1)["vectors"]
    usual = nearest(passages, alone)
    embedders = {most: Embedder(model, passes=Passes(cores, most)) for most in (1, 4, 8, 16)}
    rows = []
    for threads in (int(n) for n in options.threads.split(",")):
        base = None
        for most, embedder in embedders.items():
            asked(embedder, source.questions[:50], threads)
            result = asked(embedder, source.questions, threads)
            vectors = result.pop("vectors")
            base = base or result["per_second"]
            now = nearest(passages, vectors)
            changed = sum(set(a) != set(b) for a, b in zip(usual, now, strict=True))
            cosines = (vectors * alone).sum(axis=1)
            rows.append(
                {"threads": threads, "questions_per_pass": most}
                | {name: round(value, 2) for name, value in result.items()}
                | {
                    "over_one_per_pass": round(result["per_second"] / base, 2),
                    "least_cosine": round(float(cosines.min()), 5),
                    "other_nearest_5": round(changed / len(now), 4),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--threads", default="1,4,16")
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = measure(options)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
