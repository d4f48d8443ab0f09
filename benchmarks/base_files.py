"""What each quantisation of the base model costs and saves: speed and answers, interleaved.

  python -m benchmarks.base_files --data DATA --models MODELS --work WORK
  [--kinds Q8_0,Q4_1,Q4_0,BF16,F16] [--questions 60] [--threads 1] [--without-merged]

Every question of XQuAD's test articles is asked of every file in turn, with the three passages
that the product's own search finds and the shipped reader: as LoRA beside the file, and merged
into it. Greedy, one slot. Files and passages are kept in WORK for the next run.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from app.engines.llamacpp import LlamaCppEngine
from app.engines.types import AdapterRef, GenerationRequest
from benchmarks import xquad
from benchmarks.serve_engine import BASE, READER
from tuning.adapters import read_manifest
from tuning.base_model import load_tokenizer, requantise
from tuning.gguf_export import export_gguf
from tuning.prompt import Passage, encode, render_messages

_NEW_TOKENS = 48
_WINDOW = 1280
_DRAWS = 4000


def files(base: Path, work: Path, kinds: list[str]) -> dict[str, Path]:
    """One file of each kind, made from the one that ships."""
    made = {}
    for kind in kinds:
        made[kind] = work / f"base-{kind.lower()}.gguf"
        if not made[kind].exists():
            requantise(base / "base-q4_1.gguf", made[kind], kind)
    return made


def ask(
    engines: dict[str, LlamaCppEngine], prompts: list[list[int]], reader: AdapterRef, say: Console
) -> dict[str, list[dict[str, Any]]]:
    """Every prompt to every engine in turn: text, speeds, CPU seconds."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
    for number, ids in enumerate(prompts, 1):
        for name, engine in engines.items():
            began = time.process_time()
            done = engine.generate(GenerationRequest(ids, _NEW_TOKENS, adapter=reader))
            rows[name].append(
                {
                    "text": done.text,
                    "cpu_s": time.process_time() - began,
                    "prefill": done.prompt_tokens / done.prefill_s,
                    "decode": done.completion_tokens / done.decode_s,
                }
            )
        say.print(f"\r{number} of {len(prompts)}", end="")
    say.print()
    return rows


def compared(
    cases: list[dict[str, Any]], rows: dict[str, list[dict[str, Any]]]
) -> dict[str, dict[str, Any]]:
    """Speed and quality of each; differences in F1 to the first, paired, with 95 % intervals."""
    chance = np.random.default_rng(7)
    draws = chance.integers(0, len(cases), (_DRAWS, len(cases)))
    each = {
        name: np.array(
            [
                xquad.measured([case], [row["text"]], True)["f1"]
                for case, row in zip(cases, found, strict=True)
            ]
        )
        for name, found in rows.items()
    }
    first = next(iter(rows))
    table = {}
    for name, found in rows.items():
        difference = each[name] - each[first]
        low, high = np.percentile(difference[draws].mean(axis=1), [2.5, 97.5])
        table[name] = xquad.measured(cases, [row["text"] for row in found], True) | {
            "f1_to_first": [round(float(v), 3) for v in (difference.mean(), low, high)],
            "prefill_tokens_s": round(statistics.median(row["prefill"] for row in found)),
            "decode_tokens_s": round(statistics.median(row["decode"] for row in found)),
            "cpu_s_per_answer": round(statistics.median(row["cpu_s"] for row in found), 2),
        }
    return table


def main() -> None:
    """Print one JSON object, a row for each file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kinds", default="Q8_0,Q4_1,Q4_0,BF16,F16")
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--without-merged", action="store_true")
    given = parser.parse_args()
    say = Console(stderr=True, highlight=False)
    if not (given.work / "cases.jsonl").exists():
        say.print("finding passages …")
        options = {"data": given.data / "xquad_en", "models": given.models, "out": given.work}
        xquad.prepare(argparse.Namespace(**options))
    cases = [case for case in xquad.read(given.work / "cases.jsonl") if case["split"] == "test"]
    cases = cases[:: max(1, len(cases) // given.questions)][: given.questions]
    base = given.models / BASE
    tokenizer = load_tokenizer(base / "hf")
    reader = AdapterRef(read_manifest(READER).digest, given.work / "reader.gguf", READER)
    export_gguf(READER, base / "hf", reader.gguf)
    prompts = []
    for case in cases:
        shown = [Passage(passage["title"], passage["text"]) for passage in case["passages"]]
        prompts.append(encode(tokenizer, render_messages(case["question"], shown)))
    engines = {}
    for kind, file in files(base, given.work, given.kinds.split(",")).items():
        say.print(f"loading {file.name}")
        for merged in (False,) if given.without_merged else (False, True):
            engines[f"{kind} merged" if merged else kind] = LlamaCppEngine(
                file,
                base_sha256="bench",
                threads=given.threads,
                slots=1,
                context_tokens=_WINDOW,
                merged=merged,
            )
    for engine in engines.values():
        engine.load_adapter(reader)
    json.dump(compared(cases, ask(engines, prompts, reader, say)), sys.stdout, indent=1)
    sys.stdout.write("\n")
    for engine in engines.values():
        engine.close()


if __name__ == "__main__":
    main()
