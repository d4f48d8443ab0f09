"""Trains the adapters of the worlds and generates the answers of their arms."""

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.worlds import WORLDS
from evals.outputs import Output, output_line
from tuning.prompt import Message, Passage, render_messages

Generate = Callable[[Sequence[list[Message]]], list[str]]
_CITATION = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Training:
    """How the adapters are trained."""

    epochs: int = 5
    rank: int = 64
    learning_rate: float = 1e-3
    batch: int = 64
    seed: int = 0


def run_worlds(work: Path, base: Path, training: Training, only: str | None) -> None:
    """Answer every prompt that has no output yet; train what that needs."""
    for world in WORLDS:
        folder = work / world.name
        if only not in (None, world.name) or not folder.is_dir():
            continue
        for arm in world.arms:
            target = folder / "outputs" / f"{arm}.jsonl"
            if target.is_file():
                continue
            rows = _read(folder / "prompts" / f"{arm}.jsonl")
            started = time.perf_counter()
            adapter = rows[0]["adapter"] and train(work, rows[0]["adapter"], base, training)
            answer(rows, arm, target, generator(base, adapter, training.batch))
            seconds = round(time.perf_counter() - started, 1)
            print(json.dumps({"world": world.name, "arm": arm, "seconds": seconds}), flush=True)


def answer(rows: list[dict[str, Any]], arm: str, target: Path, generate: Generate) -> None:
    """Write the outputs of one arm; `generate` gives one text per prompt, in order."""
    from tuning.scoring import abstains

    prompts = [
        render_messages(row["question"], [Passage(p["title"], p["text"]) for p in row["passages"]])
        for row in rows
    ]
    started = time.perf_counter()
    texts = generate(prompts)
    seconds = (time.perf_counter() - started) / max(1, len(rows))  # batched: a mean, no latency
    lines = []
    for row, text in zip(rows, texts, strict=True):
        ids = [p["id"] for p in row["passages"]]
        cited = [ids[int(n) - 1] for n in _CITATION.findall(text) if 0 < int(n) <= len(ids)]
        output = Output(
            row["id"],
            arm,
            text,
            citations=tuple(dict.fromkeys(cited)),
            retrieved=tuple(ids),
            abstained=abstains(text),
            latency_s=seconds,
        )
        lines.append(output_line(output) + "\n")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_suffix(".part")
    scratch.write_text("".join(lines), "utf-8")
    scratch.replace(target)


def train(work: Path, name: str, base: Path, training: Training) -> Path:
    """The adapter of that name, trained if it is not there."""
    from tuning.config import TuneConfig
    from tuning.train import tune

    folder = work / "adapters" / name
    out = folder / "adapter"
    if not out.is_dir():
        config = TuneConfig(
            base=str(base),
            output=str(out),
            snapshot=str(folder / "snapshot"),
            r=training.rank,
            alpha=2 * training.rank,
            learning_rate=training.learning_rate,
            epochs=training.epochs,
            batch_tokens=8192,
            eval_rows=0,
            seed=training.seed,
        )
        tune(config)
    return out


def generator(base: Path, adapter: Path | None, batch: int) -> Generate:
    """Greedy answers through transformers, on a GPU where there is one."""
    import torch

    from tuning.base_model import load_model, load_tokenizer
    from tuning.lora import load_adapted
    from tuning.prompt import encode
    from tuning.scoring import GenerationSettings, generate_answers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = load_tokenizer(base)
    model = load_model(base, device=device)
    if adapter is not None:
        model = load_adapted(model, adapter)
    settings = GenerationSettings(batch=batch, new_tokens=48, autocast=device == "cuda")

    def generate(prompts: Sequence[list[Message]]) -> list[str]:
        return generate_answers(model, tokenizer, [encode(tokenizer, p) for p in prompts], settings)

    return generate


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
