"""The llama.cpp engine alone: adapters mixed, adapter against base, warm prefix, cancelling."""

import gc
import json
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from app.engines.llamacpp import LlamaCppEngine
from app.engines.types import AdapterRef, Generation, GenerationRequest
from tuning.adapters import read_manifest
from tuning.base_model import load_tokenizer
from tuning.gguf_export import export_gguf
from tuning.prompt import DEFAULT_SYSTEM, Passage, encode, render_messages

READER = Path(__file__).resolve().parents[1] / "tuning" / "reader" / "adapter"
BASE = "smollm2-135m-instruct"
_SEED = 20261122


class Bench:
    """Files, prompts and the way to make an engine."""

    def __init__(self, models: Path, data: Path, scratch: Path, threads: int = 0) -> None:
        self.base = models / BASE
        self.scratch = scratch
        self.threads = threads
        self.tokenizer = load_tokenizer(self.base / "hf")
        rows = (data / "xquad_en" / "passages.jsonl").read_text("utf-8").splitlines()
        self.passages = [json.loads(row)["text"] for row in rows]
        self.reader = AdapterRef(read_manifest(READER).digest, scratch / "reader.gguf", READER)
        export_gguf(READER, str(self.base / "hf"), self.reader.gguf)

    def engine(self, **options: Any) -> LlamaCppEngine:
        """Eight slots of 1,024 tokens, unless the options say otherwise."""
        settings = {"threads": self.threads, "slots": 8, "context_tokens": 1024} | options
        file = settings.pop("file", self.base / "base-q8_0.gguf")
        return LlamaCppEngine(file, base_sha256="bench", **settings)

    def short_prompts(self, n: int) -> list[list[int]]:
        """Questions without passages, about 40 tokens each."""
        subjects = ("a parcel", "a refund", "an invoice", "my password", "the Ripple plan")
        return [
            self.encode(f"Question {i}: what should I know about {subjects[i % 5]}?")
            for i in range(n)
        ]

    def draw(self, chance: random.Random, n: int) -> list[tuple[int, str]]:
        """Some real passages with their numbers."""
        return [(i, self.passages[i]) for i in chance.sample(range(len(self.passages)), n)]

    def encode(self, question: str, passages: Sequence[Passage] = (), **options: Any) -> list[int]:
        """Token ids of a prompt."""
        return encode(self.tokenizer, render_messages(question, passages, **options))


@contextmanager
def made(bench: Bench, **options: Any) -> Iterator[LlamaCppEngine]:
    engine = bench.engine(**options)
    try:
        yield engine
    finally:
        engine.close()


def closed_loop(streams: int, seconds: float, ask: Callable[[int], Any]) -> tuple[list[Any], float]:
    """What `ask` gave, called again and again by some threads, and the seconds it took."""
    numbers, results = iter(range(10**9)), []
    started = time.perf_counter()

    def work() -> None:
        while time.perf_counter() < started + seconds:
            results.append(ask(next(numbers)))

    threads = [threading.Thread(target=work) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, time.perf_counter() - started


def tokens_per_second(
    engine: LlamaCppEngine, streams: int, seconds: float, request: Callable[[int], Any]
) -> float:
    done, took = closed_loop(streams, seconds, lambda i: engine.generate(request(i)))
    return sum(generation.completion_tokens for generation in done) / took


def mixed(bench: Bench, seconds: float) -> dict[str, Any]:
    """Eight adapters against one, eight streams, each request's adapter drawn by chance."""
    chance, prompts = random.Random(_SEED), bench.short_prompts(64)
    adapters = []
    for number in range(8):
        copy = bench.scratch / f"mixed-{number}.gguf"
        copy.write_bytes(bench.reader.gguf.read_bytes())
        adapters.append(AdapterRef(f"mixed-{number}", copy))
    draws = [chance.choice(adapters) for _ in range(4096)]
    rows: dict[str, Any] = {}
    for patience in (0.0, 1.0):
        with made(bench, patience_s=patience) as engine:
            for adapter in adapters:
                engine.load_adapter(adapter)
            waits: list[float] = []

            def one(i: int) -> GenerationRequest:
                return GenerationRequest(prompts[i % 64], 48, adapter=adapters[0])

            def any_of_eight(i: int) -> GenerationRequest:
                return GenerationRequest(prompts[i % 64], 48, adapter=draws[i % 4096])

            def timed(i: int) -> Generation:
                began = time.perf_counter()
                try:
                    return engine.generate(any_of_eight(i))
                finally:
                    waits.append(time.perf_counter() - began)  # noqa: B023

            alone = tokens_per_second(engine, 8, seconds, one)
            done, took = closed_loop(8, seconds, timed)
            several = sum(g.completion_tokens for g in done) / took
            rows[f"patience_{patience:g}s"] = {
                "one_adapter_tokens_s": round(alone, 1),
                "eight_adapters_tokens_s": round(several, 1),
                "ratio": round(several / alone, 3),
                "latency_p50_s": round(float(np.percentile(waits, 50)), 2),
                "latency_max_s": round(max(waits), 2),
            }
    return rows


def lora(bench: Bench, rounds: int) -> dict[str, Any]:
    """Tokens per second of base, adapter, and adapter merged into the base; one stream."""
    prompts = bench.short_prompts(8)
    with made(bench, slots=1) as engine, made(bench, slots=1, merged=True) as other:
        engine.load_adapter(bench.reader)
        other.load_adapter(bench.reader)
        kinds: dict[str, tuple[LlamaCppEngine, AdapterRef | None]] = {
            "base": (engine, None),
            "adapter": (engine, bench.reader),
            "merged": (other, bench.reader),
        }
        speeds: dict[str, list[float]] = {kind: [] for kind in kinds}
        prefills: dict[str, list[float]] = {kind: [] for kind in kinds}
        # The schema keeps every kind generating the same number of tokens.
        schema = {"type": "string", "minLength": 400}
        for number in range(rounds):
            for kind, (server, adapter) in kinds.items():
                request = GenerationRequest(
                    prompts[number % 8], 64, adapter=adapter, json_schema=schema
                )
                done = server.generate(request)
                speeds[kind].append(done.completion_tokens / done.decode_s)
                prefills[kind].append(done.prompt_tokens / done.prefill_s)
    medians = {kind: statistics.median(values) for kind, values in speeds.items()}
    return {
        **{f"{kind}_decode_tokens_s": round(value, 1) for kind, value in medians.items()},
        **{f"{k}_prefill_tokens_s": round(statistics.median(v), 1) for k, v in prefills.items()},
        "adapter_overhead": round(medians["base"] / medians["adapter"] - 1, 3),
        "merged_overhead": round(medians["base"] / medians["merged"] - 1, 3),
    }


def live(bench: Bench, rounds: int) -> dict[str, Any]:
    """A new adapter under traffic of four streams: seconds to its first answer, failures."""
    prompts = bench.short_prompts(16)
    seconds, failures, answered, stop = [], [], [], threading.Event()
    process = psutil.Process()
    with made(bench, max_adapters=4) as engine:

        def keep_asking(adapter: AdapterRef | None) -> None:
            while not stop.is_set():
                try:
                    request = GenerationRequest(prompts[len(answered) % 16], 24, adapter=adapter)
                    answered.append(engine.generate(request))
                except Exception as error:  # noqa: BLE001 - any failure is the finding
                    failures.append(repr(error))

        asking = [
            threading.Thread(target=keep_asking, args=(a,))
            for a in (None, None, bench.reader, bench.reader)
        ]
        for thread in asking:
            thread.start()
        before = peak = process.memory_info().rss
        for number in range(rounds):
            time.sleep(0.5)
            fresh = AdapterRef(f"live-{number}", bench.scratch / f"live-{number}.gguf")
            fresh.gguf.write_bytes(bench.reader.gguf.read_bytes())
            began = time.perf_counter()
            engine.load_adapter(fresh)
            peak = max(peak, process.memory_info().rss)
            engine.generate(GenerationRequest(prompts[0], 1, adapter=fresh))
            seconds.append(time.perf_counter() - began)
        stop.set()
        for thread in asking:
            thread.join()
    return {
        "p50_s": round(statistics.median(seconds), 2),
        "max_s": round(max(seconds), 2),
        "answered_meanwhile": len(answered),
        "failed": len(failures),
        "rss_before_mib": before >> 20,
        "rss_peak_mib": peak >> 20,
    }


def prefix(bench: Bench, rounds: int) -> dict[str, Any]:
    """System texts of about 50, 200 and 450 tokens before about 200 tokens of their own."""
    rule = "Answer in a friendly tone, name the page you used, and never promise a date. "
    rows: dict[str, Any] = {}
    for repeats in (1, 9, 24):
        prompts = []
        for number in range(rounds):
            text = bench.passages[number % len(bench.passages)][:500]
            messages = render_messages(
                f"What is this about? ({number})",
                [Passage(f"Page {number}", text)],
                system=DEFAULT_SYSTEM + " " + rule * repeats,
            )
            prompts.append(encode(bench.tokenizer, messages))
        end = bench.tokenizer.eos_token_id
        share = (prompts[0].index(end) + 1) / len(prompts[0])
        with made(bench, slots=1, turn_end=end) as kept, made(bench, slots=1) as fresh:
            warm, cold = [], []
            kept.generate(GenerationRequest(prompts[0], 1))
            for ids in prompts:
                cold.append(first_token(lambda: fresh.stream(GenerationRequest(ids, 2))))  # noqa: B023
                warm.append(first_token(lambda: kept.stream(GenerationRequest(ids, 2))))  # noqa: B023
        rows[f"{len(prompts[0])}_tokens"] = {
            "share_kept": round(share, 2),
            "cold_p50_s": round(statistics.median(cold), 3),
            "warm_p50_s": round(statistics.median(warm), 3),
            "ratio": round(statistics.median(warm) / statistics.median(cold), 3),
        }
    return rows


def first_token(stream: Callable[[], Any]) -> float:
    began = time.perf_counter()
    pieces = stream()
    next(pieces)
    took = time.perf_counter() - began
    for _ in pieces:
        pass
    return took


def cancel(bench: Bench, n: int) -> dict[str, Any]:
    """Streams closed after some tokens; slots, memory, threads and connections before and after."""
    prompts, chance = bench.short_prompts(64), random.Random(_SEED)
    process = psutil.Process()

    def state() -> dict[str, int]:
        gc.collect()
        return {
            "rss_mib": process.memory_info().rss >> 20,
            "threads": process.num_threads(),
            "connections": len(process.net_connections()),
            "files": process.num_fds(),
        }

    with made(bench, slots=8) as engine:
        asked = GenerationRequest(prompts[0], 24)
        expected = engine.generate(asked).text
        left, lock = iter(range(n)), threading.Lock()
        pauses = [chance.choice((0, 0, 1, 2, 5)) for _ in range(n)]

        def work() -> None:
            while True:
                with lock:
                    number = next(left, None)
                if number is None:
                    return
                stream = engine.stream(GenerationRequest(prompts[number % 64], 200))
                for _ in range(pauses[number]):
                    next(stream)
                stream.close()

        closed_loop(8, 5.0, lambda i: engine.generate(GenerationRequest(prompts[i % 64], 8)))
        before = state()
        began = time.perf_counter()
        threads = [threading.Thread(target=work) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
        while any(engine.load.values()):
            time.sleep(0.05)
        time.sleep(1)
        after = state()
        began = time.perf_counter()
        same = engine.generate(asked).text == expected
        last = time.perf_counter() - began
    return {
        "cancelled": n,
        "seconds": round(took, 1),
        "before": before,
        "after": after,
        "same_answer_after": same,
        "answer_after_s": round(last, 2),
    }
