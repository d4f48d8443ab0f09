# ruff: noqa: D102 - the methods are described once, at `ingest_measure.System`
"""Ingestion through the whole service beside three peers and the encode-only floor, in one run.

  python -m benchmarks.ingest --data DATA --model MODEL_DIR [--documents N] [--out FILE]
      [--peers none|langchain,llamaindex,haystack] [--peer-python PEERS/bin/python]

Every system gets the same documents in a process of its own, one after the other. Right behind it
another process encodes the very chunks it embedded, in float32 and bfloat16, and does nothing
else: that is the floor its ratio refers to. Ours is the service in this process (HTTP, SQL, jobs,
fsync, sandboxed parsing, index), with `sync`; the peers as their documentation shows, see
`benchmarks.ingest_peers` for what to install where. `benchmarks.ingest_stages` times our library
alone. Absence is seen by a reader that searches for the changed documents while they are
ingested again, so it is no finer than a few searches.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.ingest_measure import Doc, corpus, measure, xquad_questions

PEERS = ("langchain", "llamaindex", "haystack")
KB = "/api/v1/knowledge-bases/bench"


class Tandem:
    """The service, asked through its HTTP interface; the documents lie in a folder."""

    def __init__(self, api: Any, folder: Path) -> None:
        self._api = api
        self._folder = folder
        self._written: dict[str, str] = {}
        for name in ("warm", "bench"):
            api.call("POST", "/api/v1/knowledge-bases", json={"name": name})
        warm = folder.with_name("warm.md")
        warm.write_text("# Warm up\n\nThe model and the parser are loaded now.\n", "utf-8")
        self._job("/api/v1/knowledge-bases/warm", {"paths": [str(warm)]})
        self.counts: list[dict[str, int]] = []

    def prepare(self, docs: Sequence[Doc]) -> None:
        """Bring the folder up to date; the peers get their documents in memory."""
        for doc in docs:
            path = self._folder / doc.id
            if self._written.get(doc.id) != doc.text:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(doc.text, "utf-8")
        for gone in set(self._written) - {doc.id for doc in docs}:
            (self._folder / gone).unlink()
        self._written = {doc.id: doc.text for doc in docs}

    def ingest(self, docs: Sequence[Doc]) -> None:
        done = self._job(KB, {"paths": [str(self._folder)], "sync": True})
        self.counts.append(done["result"]["counts"])

    def search(self, query: str, limit: int) -> list[tuple[str, str]]:
        found = self._api.call("POST", f"{KB}/search", json={"query": query, "limit": limit})
        return [(hit["document"], hit["text"]) for hit in found["hits"]]

    def delete(self, doc_id: str) -> None:
        self._api.call("DELETE", f"{KB}/documents/{quote(doc_id)}")

    def chunks(self, doc_id: str) -> list[str]:
        document = self._api.call("GET", f"{KB}/documents/{quote(doc_id)}")
        return [chunk["text"] for chunk in document["chunks"]]

    def expected(self, doc: Doc) -> list[str]:
        return self.chunks(doc.id)

    def count(self) -> int:
        rows = self._api.call("GET", "/api/v1/knowledge-bases")
        return int(next(row["chunks"] for row in rows if row["name"] == "bench"))

    def _job(self, kb: str, body: dict[str, Any]) -> dict[str, Any]:
        job: dict[str, Any] = self._api.call("POST", f"{kb}/ingest", json=body)
        while job["state"] not in ("succeeded", "failed"):
            # Finer than the command line waits: its quarter of a second would count as ours.
            time.sleep(0.02)
            job = self._api.call("GET", f"/api/v1/jobs/{job['id']}")
        if job["state"] == "failed":
            raise RuntimeError(f"the ingest job failed: {job['error']}")
        return job


def record_embedder() -> list[str]:
    """A list that gets every passage our embedder embeds from now on."""
    from retrieval.embedding import Embedder

    texts: list[str] = []
    plain = Embedder.embed_passages

    def embed_passages(self: Embedder, some: Sequence[str], *args: Any, **kwargs: Any) -> Any:
        texts.extend(some)
        return plain(self, some, *args, **kwargs)

    Embedder.embed_passages = embed_passages  # type: ignore[method-assign, assignment]
    return texts


def run_tandem(data: Path, model: Path, documents: int, texts: Path) -> dict[str, Any]:
    from app.cli.client import Api
    from app.config import Settings

    docs = corpus(data, documents)
    with tempfile.TemporaryDirectory() as folder:
        home, source = Path(folder) / "home", Path(folder) / "documents"
        home.mkdir()
        source.mkdir()
        (home / "models").symlink_to(model.resolve().parent)
        embedded = record_embedder()
        settings = Settings(home=home, embedding_model=model.name)
        with Api(settings) as api:
            system = Tandem(api, source)
            questions = xquad_questions(data, docs)
            result, chunks = measure(system, docs, questions, embedded, system.prepare)
            result["outcomes"] = system.counts
    texts.write_text(json.dumps(chunks), "utf-8")
    return result


def child(python: str, arguments: list[str]) -> dict[str, Any]:
    """Run a part in its own process; the last line it prints is its result."""
    done = subprocess.run(
        [python, "-m", *arguments], capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"skipped": f"it failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}"}
    made: dict[str, Any] = json.loads(lines[-1])
    return made


def run_system(options: argparse.Namespace, name: str, texts: Path) -> dict[str, Any]:
    """One system and, right behind it, the floor of its own chunks."""
    shared = ["--data", str(options.data), "--model", str(options.model.resolve())]
    shared += ["--documents", str(options.documents), "--texts", str(texts)]
    if name == "tandem":
        result = child(sys.executable, ["benchmarks.ingest", "--only", *shared])
    else:
        result = child(options.peer_python, ["benchmarks.ingest_peers", name, *shared])
    if "skipped" in result:
        return result
    floor = child(sys.executable, ["benchmarks.ingest_peers", "floor", *shared])
    result["floor_s"] = floor
    result["ratio"] = {key: round(result["ingest_s"] / value, 3) for key, value in floor.items()}
    return result


def line(name: str, result: dict[str, Any]) -> str:
    """A row of the table; ours computes in bfloat16, the peers in float32."""
    if "skipped" in result:
        return f"{name:11} skipped: {result['skipped']}"
    again, life = result["resync"], result["life"]
    return (
        f"{name:11} {result['chunks']:6} {result['ingest_s']:8.1f}"
        f" {result['ratio']['fp32']:6.2f} {result['ratio']['bf16']:6.2f}"
        f" {result['recall@1']:8.3f} {result['recall@5']:8.3f}"
        f" {again['share_of_first']:8.3f} {again['chunks_to_change']:5}"
        f" {again['embedded_again']:7} {again['stale_chunks_found']:5}"
        f" {again['longest_absence_s']:7.2f} {life['comes_back_with_the_source']!s:>5}"
        f" {life['goes_with_the_source']!s:>5}"
    )


HEAD = (
    f"{'system':11} {'chunks':>6} {'seconds':>8} {'/fp32':>6} {'/bf16':>6} {'recall@1':>8}"
    f" {'recall@5':>8} {'re-sync':>8} {'edit':>5} {'embed':>7} {'stale':>5} {'absent':>7}"
    f" {'back':>5} {'drop':>5}"
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", type=Path, default=Path(".tandem/models/all-minilm-l6-v2"))
    parser.add_argument("--documents", type=int, default=0, help="about so many; 0 = all")
    parser.add_argument("--peers", default=",".join(PEERS), help="none, or names with commas")
    parser.add_argument("--peer-python", default=sys.executable, help="where the peers are")
    parser.add_argument("--out", type=Path, help="write everything here")
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--texts", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        logging.disable(logging.WARNING)
        made = run_tandem(options.data, options.model, options.documents, options.texts)
        print(json.dumps(made))
        return 0
    peers = [] if options.peers == "none" else options.peers.split(",")
    unknown = set(peers) - set(PEERS)
    if unknown:
        parser.error(f"unknown peer {min(unknown)!r}; valid: none, {', '.join(PEERS)}")
    results = {}
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("tandem", *peers):
            results[name] = run_system(options, name, Path(folder) / "texts.json")
            print(line(name, results[name]), flush=True)
            if options.out:
                options.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
