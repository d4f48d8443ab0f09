"""Tandem's HTTP API and a plain FastAPI server with transformers, as processes, under load.

The plain server is the one commonly published: one endpoint, one model, one request at a time.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from pydantic import BaseModel

from app.workspaces.operator import operator_secret

Messages = list[dict[str, str]]


class Chat(BaseModel):
    """Body of the plain server's endpoint."""

    messages: Messages
    max_tokens: int


class Server:
    """A server process: where it is asked, and what to add to the body."""

    def __init__(self, url: str, body: dict[str, Any], headers: dict[str, str]) -> None:
        self.url, self.body, self.headers = url, body, headers


@contextmanager
def tandem(models: Path, home: Path, slots: int, threads: int, max_tokens: int) -> Iterator[Server]:
    """`tandem serve` on a data directory of its own, with a use case `bench` on the bare model."""
    home.mkdir(parents=True)
    (home / "models").symlink_to(models.resolve())
    settings = {
        "HOME": home,
        "SLOTS": slots,
        "THREADS": threads,
        "CONTEXT_TOKENS": 1024,
        "MAX_ANSWER_TOKENS": max_tokens,
    }
    environment = os.environ | {f"TANDEM_{name}": str(value) for name, value in settings.items()}
    port = free_port()
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port)]
    with process(command, environment, port):
        headers = {"Authorization": f"Bearer operator.{operator_secret(home)}"}
        root = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=root, headers=headers, timeout=300) as client:
            client.post("/api/v1/use-cases", json={"name": "bench"}).raise_for_status()
            client.patch("/api/v1/use-cases/bench", json={"arm": "prompt"}).raise_for_status()
        yield Server(f"{root}/v1/chat/completions", {"model": "bench"}, headers)


@contextmanager
def plain(models: Path, threads: int = 0) -> Iterator[Server]:
    """The plain server on the same weights, in the number format that is faster here."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.serve_http", str(models), str(port)]
    held = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    with process(command, os.environ | held, port):
        yield Server(f"http://127.0.0.1:{port}/chat", {}, {})


@contextmanager
def process(command: Sequence[str], environment: dict[str, str], port: int) -> Iterator[None]:
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).raise_for_status()
                break
            except httpx.HTTPError:
                if child.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"did not start: {' '.join(command)}") from None
                time.sleep(0.2)
        yield
    finally:
        child.terminate()
        child.wait(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def load(
    server: Server, prompts: Sequence[Messages], streams: int, seconds: float, max_tokens: int
) -> dict[str, float]:
    """Ask in a closed loop; answers and tokens a second, latency, failures."""
    return asyncio.run(_load(server, prompts, streams, seconds, max_tokens))


async def _load(
    server: Server, prompts: Sequence[Messages], streams: int, seconds: float, max_tokens: int
) -> dict[str, float]:
    latencies: list[float] = []
    tokens, failed = 0, 0
    numbers = iter(range(10**9))
    async with httpx.AsyncClient(timeout=600, headers=server.headers) as client:

        async def ask() -> None:
            nonlocal tokens, failed
            began = time.perf_counter()
            messages = prompts[next(numbers) % len(prompts)]
            body = server.body | {"messages": messages, "max_tokens": max_tokens}
            reply = await client.post(server.url, json=body)
            if reply.status_code == 200:
                tokens += reply.json()["usage"]["completion_tokens"]
                latencies.append(time.perf_counter() - began)
            else:
                failed += 1

        async def stream() -> None:
            while time.perf_counter() < started + seconds:
                await ask()

        started = float("inf")
        await ask()  # the first request loads the model
        latencies.clear()
        tokens, started = 0, time.perf_counter()
        await asyncio.gather(*(stream() for _ in range(streams)))
        took = time.perf_counter() - started
    return {
        "answers_s": round(len(latencies) / took, 3),
        "tokens_s": round(tokens / took, 1),
        "p50_s": round(float(np.percentile(latencies, 50)), 2) if latencies else 0.0,
        "p95_s": round(float(np.percentile(latencies, 95)), 2) if latencies else 0.0,
        "failed": failed,
    }


def faster(models: Sequence[Any]) -> Any:
    """The model that takes less time for 256 tokens in and 8 out: not every CPU has bfloat16."""
    import torch

    took = []
    for model in models:
        for _ in range(2):  # the first pass also sets the kernels up
            began = time.process_time()
            with torch.inference_mode():
                model.generate(
                    torch.arange(100, 356)[None], max_new_tokens=8, min_new_tokens=8, pad_token_id=0
                )
        took.append(time.process_time() - began)
    return models[took.index(min(took))]


def main() -> None:
    """Run the plain server."""
    import torch
    import uvicorn
    from fastapi import FastAPI
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser()
    parser.add_argument("models", type=Path)
    parser.add_argument("port", type=int)
    given = parser.parse_args()
    folder = given.models / "smollm2-135m-instruct" / "hf"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = faster(
        [
            AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
            for dtype in (torch.bfloat16, torch.float32)
        ]
    )
    app = FastAPI()

    @app.post("/chat")
    async def chat(body: Chat) -> dict[str, Any]:
        ids = tokenizer.apply_chat_template(
            body.messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        n = ids["input_ids"].shape[1]
        with torch.inference_mode():
            output = model.generate(
                **ids,
                max_new_tokens=body.max_tokens,
                do_sample=False,
                pad_token_id=tokenizer.eos_token_id,
            )
        new = output[0, n:]
        usage = {"prompt_tokens": n, "completion_tokens": len(new)}
        return {"answer": tokenizer.decode(new, skip_special_tokens=True), "usage": usage}

    @app.get("/health")
    async def health() -> dict[str, bool]:
        return {"ok": True}

    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
