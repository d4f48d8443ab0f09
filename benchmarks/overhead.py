"""What Tandem itself costs per answer: everything but embedding and generation.

    tandem bench overhead [--seconds 20] [--rps 50] [--profile] [--json]

A server process with a stub engine and a stub encoder, real SQL, real vectors, the real tokenizer;
an open-loop client at a fixed rate (latency counts from the moment a request was due), then a
closed loop of eight. Goals: p50 <= 8 ms, p99 <= 25 ms at 50 requests a second, >= 100 answers/s on
two cores. CPU time per answer is printed beside, as wall time on a shared machine says little.
"""

import argparse
import asyncio
import cProfile
import json
import pstats
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from app.bootstrap import Container
from app.config import Settings
from app.engines.types import AdapterRef, Generation, GenerationRequest
from app.knowledge import service as knowledge
from app.knowledge.indexes import KnowledgeIndex
from app.knowledge.push import push
from app.knowledge.sources.types import FoundDocument
from app.models.service import BaseModel
from app.use_cases import service as use_cases
from app.workspaces import service as workspaces
from retrieval.chunking import ChunkingOptions
from retrieval.edge import EdgeIndex
from retrieval.search import HybridSearcher
from retrieval.words import content_words, fold
from tuning.base_model import load_tokenizer

_ROOT = Path(__file__).resolve().parents[1]
_DIMENSION = 384
_ANSWER = "The Ripple plan costs 49 euros a month [1]."


class StubEncoder:
    """Hashed bags of words: as wide as the default model's vectors, and as good as free."""

    dimension = _DIMENSION
    identity = "stub@0"

    def embed_passages(self, texts: Sequence[str], batch_size: int | None = None) -> Any:
        """(n, 384) float32."""
        if not texts:
            return np.empty((0, _DIMENSION), np.float32)
        return np.stack([self.embed_query(text) for text in texts])

    def embed_query(self, text: str) -> Any:
        """(384,) float32 of length 1."""
        vector = np.full(_DIMENSION, 1e-3, dtype=np.float32)
        for word in content_words(text):
            vector[zlib.crc32(fold(word).encode()) % _DIMENSION] += 1
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def count_tokens(self, text: str) -> int:
        """Words."""
        return len(text.split())


class StubEngine:
    """Says the same sentence to everything, at once."""

    context_tokens = 2048

    @property
    def identity(self) -> dict[str, str]:
        """A stub's."""
        return {"engine": "stub", "engine_version": "1", "base_sha256": "0" * 64, "file": "none"}

    def generate(self, request: GenerationRequest) -> Generation:
        """The sentence."""
        return Generation(_ANSWER, "stop", len(request.prompt_ids), 12, 0.0, 0.0)

    def stream(self, request: GenerationRequest) -> Iterator[str | Generation]:
        """The sentence as one piece."""
        yield _ANSWER
        yield self.generate(request)

    def load_adapter(self, adapter: AdapterRef) -> None:
        """Adapters change nothing here."""

    def close(self) -> None:
        """Nothing to free."""


def make_container(home: Path, models: Path) -> Container:
    """The service over stub models, furnished with the sample company's pages."""
    settings = Settings(_env_file=None, home=home)

    def load(_source: str | None) -> KnowledgeIndex:
        encoder = StubEncoder()
        index = EdgeIndex(
            settings.root / "index", dimension=_DIMENSION, model_identity=encoder.identity
        )
        chunking = ChunkingOptions(max_tokens=settings.chunk_tokens, min_tokens=40)
        return KnowledgeIndex(index, encoder, HybridSearcher(index, encoder), chunking)

    container = Container(settings, load_index=load)
    container.__dict__.update(
        _engine=StubEngine(),
        tokenizer=load_tokenizer(str(models / "smollm2-135m-instruct" / "hf")),
        base=BaseModel("stub", "0" * 64, str(home), None),
    )
    return container


def furnish(container: Container) -> str:
    """Documents, a use case and a key; returns the key."""
    container.prepare()
    with container.database.session() as session:
        workspace = workspaces.ensure_default_workspace(session)
        kb = knowledge.create(session, workspace.id, "docs", container.embedder_name)
        use_cases.create(session, workspace.id, "support", knowledge_bases=["docs"])
        use_case = use_cases.get(session, workspace.id, "support")
        use_cases.serve_with(session, use_case, arm="rag")
        key = workspaces.create_key(session, workspace.id, "bench", "client")
    for page in sorted((_ROOT / "samples" / "knowledge" / "v1").iterdir()):
        push(
            container.database,
            container.knowledge,
            kb,
            FoundDocument(page.name, page.name, page, named=True),
        )
    return key


def serve(home: Path, models: Path, port_file: Path) -> None:
    """Run the server until killed; its port and key go to a file."""
    import uvicorn

    from app.main import create_app

    container = make_container(home, models)
    key = furnish(container)
    container.answers  # noqa: B018 - load before the first request
    config = uvicorn.Config(create_app(container), port=0, log_level="warning")
    server = uvicorn.Server(config)

    async def run() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        port_file.write_text(json.dumps({"port": port, "key": key}), "utf-8")
        await serving

    asyncio.run(run())


def questions() -> list[str]:
    """The sample company's questions."""
    lines = (_ROOT / "samples" / "questions.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["question"] for line in lines]


class Connection:
    """One kept-alive HTTP/1.1 connection; far cheaper than a client library."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\n"
            "Content-Type: application/json\r\n"
            f"Authorization: Bearer {key}\r\nContent-Length: "
        )
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, question: str) -> int:
        """The status of one answer."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        turn = {"role": "user", "content": question}
        body = json.dumps({"model": "support", "messages": [turn]}).encode()
        self._writer.write(f"{self._head}{len(body)}\r\n\r\n".encode() + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        length = next(int(ln.partition(":")[2]) for ln in lines if ln.startswith("content-length"))
        await self._reader.readexactly(length)
        return int(lines[0].split()[1])


async def at_rate(port: int, key: str, rps: float, seconds: float) -> list[tuple[float, int]]:
    """(latency in ms from the due moment, status) of every request of an open loop."""
    asked, free = questions(), [Connection(port, key) for _ in range(64)]
    done: list[tuple[float, int]] = []
    start = time.perf_counter() + 0.1

    async def one(number: int) -> None:
        due = start + number / rps
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        connection = free.pop() if free else Connection(port, key)
        status = await connection.ask(asked[number % len(asked)])
        free.append(connection)
        done.append(((time.perf_counter() - due) * 1000, status))

    await asyncio.gather(*(one(number) for number in range(int(rps * seconds))))
    return done


async def closed_loop(port: int, key: str, workers: int, seconds: float) -> float:
    """Answers a second with so many clients that ask again at once."""
    asked = questions()
    end = time.perf_counter() + seconds
    counts = [0] * workers

    async def one(worker: int) -> None:
        connection = Connection(port, key)
        while time.perf_counter() < end:
            status = await connection.ask(asked[(counts[worker] * workers + worker) % len(asked)])
            counts[worker] += status == 200

    await asyncio.gather(*(one(worker) for worker in range(workers)))
    return sum(counts) / seconds


def measure(home: Path, models: Path, rps: float, seconds: float) -> dict[str, Any]:
    """Start the server, load it, and say what it cost."""
    port_file = home / "port.json"
    command = [sys.executable, "-m", "benchmarks.overhead", "--serve", str(home)]
    process = subprocess.Popen([*command, "--models", str(models)], cwd=_ROOT)
    try:
        deadline = time.monotonic() + 300
        while not port_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server did not start")
            time.sleep(0.1)
        told = json.loads(port_file.read_text("utf-8"))
        server = psutil.Process(process.pid)
        asyncio.run(at_rate(told["port"], told["key"], rps, 2))  # warm
        before = sum(server.cpu_times()[:2])
        done = asyncio.run(at_rate(told["port"], told["key"], rps, seconds))
        cpu = sum(server.cpu_times()[:2]) - before
        capacity = asyncio.run(closed_loop(told["port"], told["key"], 8, seconds / 2))
    finally:
        process.terminate()
        process.wait(30)
    latencies = np.array([latency for latency, _ in done])
    return {
        "rps": rps,
        "answers": len(done),
        "failed": sum(status != 200 for _, status in done),
        "p50_ms": round(float(np.percentile(latencies, 50)), 2),
        "p95_ms": round(float(np.percentile(latencies, 95)), 2),
        "p99_ms": round(float(np.percentile(latencies, 99)), 2),
        "server_cpu_ms_per_answer": round(cpu / len(done) * 1000, 2),
        "answers_per_second": round(capacity, 1),
        "load_average": round(psutil.getloadavg()[0], 1),
    }


def profile(home: Path, models: Path, n: int = 300) -> None:
    """Where the time of an answer goes, without HTTP."""
    from app.answers.types import AnswerRequest
    from retrieval.types import WorkspaceId

    container = make_container(home, models)
    furnish(container)
    with container.database.session() as session:
        workspace = WorkspaceId(workspaces.ensure_default_workspace(session).id)
    service, asked = container.answers, questions()

    def run() -> None:
        for number in range(n):
            service.answer(AnswerRequest(workspace, "support", asked[number % len(asked)]))

    run()
    started = time.process_time()
    run()
    print(f"{(time.process_time() - started) / n * 1000:.2f} ms of CPU per answer, all threads")
    profiler = cProfile.Profile(time.process_time)
    profiler.runcall(run)
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(60)
    container.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=_ROOT / ".tandem" / "models")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rps", type=float, default=50.0)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve, options.models, options.serve / "port.json")
        return
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        if options.profile:
            profile(home, options.models)
            return
        result = measure(home, options.models, options.rps, options.seconds)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:26} {value}")


if __name__ == "__main__":
    main()
