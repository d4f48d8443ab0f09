"""Serving speed; every ratio comes from one run on one machine.

  python -m benchmarks.serve --data DATA --models MODELS
  [--only http,peer,mixed,lora,prefix,live,cancel] [--seconds 8] [--out FILE]

http    tokens per second through the HTTP API over the bare engine, at 1, 8 and 32 streams
peer    against a plain FastAPI and transformers server: short prompts at 8 streams, prompts of 550
        to 750 tokens at 1 and 8 streams; every answer ends by itself or after --tokens
mixed   eight adapters against one at 8 streams, by the scheduler's patience
lora    base against adapter beside it and adapter merged into it, one stream
prefix  time to the first token with the system text kept over without, by its share of the prompt
live    a new adapter under traffic: seconds to its first answer, failures, memory
cancel  closed streams, and what they leave behind (only when named; --cancelled 5000)
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console

from app.engines.types import GenerationRequest
from benchmarks import serve_engine as engine_parts
from benchmarks.serve_engine import Bench, made, tokens_per_second
from benchmarks.serve_http import Messages, Server, load, plain, tandem
from tuning.prompt import DEFAULT_SYSTEM

_SLOTS = 8


def short_messages() -> list[Messages]:
    subjects = ("a parcel", "a refund", "an invoice", "my password", "a contract")
    asked = (f"Question {i}: what should I know about {subjects[i % 5]}?" for i in range(64))
    return [[{"role": "user", "content": text}] for text in asked]


def long_messages(bench: Bench) -> list[Messages]:
    """A user turn with three passages; the whole prompt has 550 to 750 tokens."""
    chance, found = random.Random(1), []
    while len(found) < 32:
        passages = "\n\n".join(text for _, text in bench.draw(chance, 3))
        text = f"{passages}\n\nQuestion: What is this about? Answer from the text above."
        if 550 <= len(bench.encode(text)) <= 750:
            found.append([{"role": "user", "content": text}])
    return found


def with_system(prompts: list[Messages]) -> list[Messages]:
    """What Tandem puts before every prompt itself, for the plain server."""
    return [[{"role": "system", "content": DEFAULT_SYSTEM}, *messages] for messages in prompts]


def served(bench: Bench, part: str, tokens: int) -> AbstractContextManager[Server]:
    home = bench.scratch / f"home-{part}"
    return tandem(bench.base.parent, home, _SLOTS, bench.threads, tokens)


def http(bench: Bench, seconds: float, levels: Sequence[int], tokens: int) -> dict[str, Any]:
    prompts, rows = short_messages(), {}
    ids = [bench.encode(messages[0]["content"]) for messages in prompts]
    with served(bench, "http", tokens) as server:
        through = {n: load(server, prompts, n, seconds, tokens) for n in levels}
    with made(bench, slots=_SLOTS) as bare:
        for streams, measured in through.items():
            alone = tokens_per_second(
                bare, streams, seconds, lambda i: GenerationRequest(ids[i % 64], tokens)
            )
            rows[f"{streams}_streams"] = measured | {
                "bare_tokens_s": round(alone, 1),
                "ratio": round(measured["tokens_s"] / alone, 3),
            }
    return rows


def peer(bench: Bench, seconds: float, tokens: int) -> dict[str, Any]:
    cases = {
        "short_8_streams": (short_messages(), 8),
        "retrieval_1_stream": (long_messages(bench), 1),
        "retrieval_8_streams": (long_messages(bench), 8),
    }
    ours, theirs = {}, {}
    with served(bench, "peer", tokens) as server:
        for name, (prompts, streams) in cases.items():
            ours[name] = load(server, prompts, streams, seconds, tokens)
    with plain(bench.base.parent, bench.threads) as server:
        for name, (prompts, streams) in cases.items():
            theirs[name] = load(server, with_system(prompts), streams, seconds, tokens)
    return {
        name: {
            "tandem": ours[name],
            "plain": theirs[name],
            "answers_ratio": round(ours[name]["answers_s"] / theirs[name]["answers_s"], 2),
            "tokens_ratio": round(ours[name]["tokens_s"] / theirs[name]["tokens_s"], 2),
        }
        for name in cases
    }


def main() -> None:
    """Run the parts asked for and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", default="http,peer,mixed,lora,prefix,live")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each measured load")
    parser.add_argument("--streams", default="1,8,32", help="of part http")
    parser.add_argument("--rounds", type=int, default=8, help="for each measured pair")
    parser.add_argument("--cancelled", type=int, default=5000)
    parser.add_argument("--tokens", type=int, default=64, help="of an answer, http and peer")
    parser.add_argument("--threads", type=int, default=0, help="of both servers; 0 = all cores")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    levels = [int(n) for n in given.streams.split(",")]
    parts: dict[str, Callable[[Bench], dict[str, Any]]] = {
        "http": lambda bench: http(bench, given.seconds, levels, given.tokens),
        "peer": lambda bench: peer(bench, given.seconds, given.tokens),
        "mixed": lambda bench: engine_parts.mixed(bench, given.seconds),
        "lora": lambda bench: engine_parts.lora(bench, given.rounds),
        "prefix": lambda bench: engine_parts.prefix(bench, given.rounds),
        "live": lambda bench: engine_parts.live(bench, given.rounds),
        "cancel": lambda bench: engine_parts.cancel(bench, given.cancelled),
    }
    unknown = set(given.only.split(",")) - set(parts)
    if unknown:
        parser.error(f"part {sorted(unknown)[0]!r} is unknown: choose {', '.join(parts)}")
    say = Console(stderr=True)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(given.models.resolve(), given.data, Path(scratch), given.threads)
        for name in given.only.split(","):
            began = time.perf_counter()
            say.print(f"{name} …")
            results[name] = parts[name](bench)
            say.print(f"{name}: {time.perf_counter() - began:.0f} s", results[name])
            if given.out:
                given.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    json.dump(results, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
