"""What tuned adapters reach on real tasks, with the spread over seeds.

  python -m benchmarks.quality prepare --data DATA --models MODELS --out WORK
  python -m benchmarks.quality run --work WORK --base HF_DIR --reader ADAPTER [--tasks ...]
      [--seeds 0,1,2] [--out FILE]

Tasks: `xquad` (reading, 3 retrieved passages, unseen articles; see `benchmarks.xquad`),
`banking77` (label as JSON), `bitext_short` (canned replies on unseen request templates; then with
a knowledge base that contradicts the trained replies). The seeds of a task train side by side, on
a GPU if there is one. `prepare` needs the service's environment, `run` only that of `tuning`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import xquad
from benchmarks.quality_tasks import LABEL_SYSTEM, banking77, bitext, label_of, macro_f1

TASKS = ("xquad", "banking77", "bitext_short")
_EXTRA = ("fact", "trained_fact")
# Chosen on dev rows; the reading task starts from the reader, the others from the base.
_SETTINGS: dict[str, dict[str, Any]] = {
    "xquad": {"epochs": 5, "learning_rate": 5e-4},
    "banking77": {"epochs": 4, "learning_rate": 1e-3, "p_style_passages": 0.0},
    "bitext_short": {"epochs": 2, "learning_rate": 1e-3, "p_style_passages": 0.0},
}
_CASES = 500
_CITED = re.compile(r"\s*\[\d+\]")


def prepare(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    work = options.out / "xquad"
    xquad.prepare(
        argparse.Namespace(data=options.data / "xquad_en", models=options.models, out=work)
    )
    _seal("banking77", banking77(options.data), options.out)
    _seal("bitext_short", bitext(options.data), options.out)


def _seal(task: str, rows: list[dict[str, Any]], out: Path) -> None:
    from tuning.snapshot import seal

    folder = out / task
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tests = [row for row in rows if row["split"] == "test"]
    random.Random(0).shuffle(tests)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in tests[: 2 * _CASES])
    (folder / "cases.jsonl").write_text(text, "utf-8")
    plain = [{k: v for k, v in row.items() if k not in _EXTRA} for row in rows]
    seal([row for row in plain if row["split"] != "test"], folder / "snapshot")  # type: ignore[arg-type]
    counts = {s: sum(row["split"] == s for row in rows) for s in ("train", "dev", "test")}
    print(task, json.dumps(counts), flush=True)


def run(options: argparse.Namespace) -> None:
    results: dict[str, Any] = {}
    for task in options.tasks.split(","):
        if task not in TASKS:
            raise SystemExit(f"task {task!r} is unknown: choose {', '.join(TASKS)}")
        seeds = [int(seed) for seed in options.seeds.split(",")]
        adapters = _train(task, seeds, options)
        ask = _Asker(options.base)
        results[task] = {"untuned": _score(task, options.work / task, ask)}
        for seed, adapter in zip(seeds, adapters, strict=True):
            results[task][f"seed {seed}"] = _score(task, options.work / task, ask.adapted(adapter))
        if task == "xquad":
            reader = ask.adapted(options.reader)
            results[task]["reader"] = _score(task, options.work / task, reader)
        results[task]["mean"], results[task]["sd"] = _spread(results[task])
        print(json.dumps({task: results[task]}), flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def _train(task: str, seeds: Sequence[int], options: argparse.Namespace) -> list[Path]:
    """Train one adapter a seed, side by side; existing ones of the same settings are kept."""
    processes, adapters = [], []
    for seed in seeds:
        folder = options.work / task / f"seed-{seed}"
        folder.mkdir(exist_ok=True)
        config = {
            "base": str(options.base),
            "output": str(folder / "adapter"),
            "snapshot": str(options.work / task / "snapshot"),
            "start_from": str(options.reader) if task == "xquad" else None,
            "r": 64,
            "alpha": 128,
            "batch_tokens": 8192,
            "eval_rows": 60,
            "eval_batch": 64,
            "patience": 0,
            "seed": seed,
            "workers": 3,
        } | _SETTINGS[task]
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        command = [sys.executable, "-m", "tuning.run", str(folder / "config.json")]
        log = (folder / "progress.jsonl").open("w", encoding="utf-8")
        processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        adapters.append(folder / "adapter")
    for seed, process in zip(seeds, processes, strict=True):
        if process.wait():
            log = options.work / task / f"seed-{seed}" / "progress.jsonl"
            raise SystemExit(f"{task}, seed {seed}: {log.read_text('utf-8')[-2000:]}")
    return adapters


class _Asker:
    """Greedy answers of the base, or of the base with an adapter."""

    def __init__(self, base: str, adapter: Path | None = None) -> None:
        import torch

        from tuning.base_model import load_model, load_tokenizer
        from tuning.lora import load_adapted

        self._base, self.is_plain = base, adapter is None
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = load_tokenizer(base)
        self._model: Any = load_model(base, device=self._device)
        if adapter:
            self._model = load_adapted(self._model, adapter)

    def adapted(self, adapter: Path) -> _Asker:
        return _Asker(self._base, adapter)

    def __call__(
        self,
        cases: Sequence[dict[str, Any]],
        show: Callable[[dict[str, Any]], list[dict[str, str]]],
    ) -> list[str]:
        from tuning.prompt import DEFAULT_SYSTEM, Passage, encode, render_messages
        from tuning.scoring import GenerationSettings, generate_answers

        prompts = []
        for case in cases:
            passages = [Passage(p["title"], p["text"]) for p in show(case)]
            system = case.get("system") or DEFAULT_SYSTEM
            prompts.append(
                encode(self._tokenizer, render_messages(case["question"], passages, system=system))
            )
        settings = GenerationSettings(192, 72, self._device == "cuda")
        return generate_answers(self._model, self._tokenizer, prompts, settings)


def _score(task: str, work: Path, ask: _Asker) -> dict[str, float]:
    cases = xquad.read(work / "cases.jsonl")
    scores = {"xquad": _xquad, "banking77": _banking77, "bitext_short": _bitext}[task](cases, ask)
    return {name: round(value, 4) for name, value in scores.items()}


def _xquad(cases: list[dict[str, Any]], ask: _Asker) -> dict[str, float]:
    from tuning.scoring import abstains

    tests = [case for case in cases if case["split"] == "test"]
    scores = xquad.measured(tests, ask(tests, lambda case: case["passages"]), True)
    gone = ask(tests, lambda case: case["without_gold"])
    return scores | {"abstains_without_gold": sum(map(abstains, gone)) / len(gone)}


def _banking77(cases: list[dict[str, Any]], ask: _Asker) -> dict[str, float]:
    cases = cases[:_CASES]
    truth = [case["provenance"]["label"] for case in cases]
    if ask.is_plain:
        # The bare model is told the labels, else it could not know them.
        names = ", ".join(sorted(set(truth)))
        cases = [case | {"system": f"{LABEL_SYSTEM} Labels: {names}."} for case in cases]
    said = [label_of(text) for text in ask(cases, lambda case: [])]
    valid = sum(label is not None for label in said) / len(said)
    return {"macro_f1": macro_f1(truth, said), "valid_json": valid}


def _bitext(cases: list[dict[str, Any]], ask: _Asker) -> dict[str, float]:
    plain = [case for case in cases if "fact" not in case][:_CASES]
    said = ask(plain, lambda case: [])
    right = [s.strip() == case["answer"] for s, case in zip(said, plain, strict=True)]
    contradicted = [case for case in cases if "fact" in case][:_CASES]
    hybrid = ask(contradicted, _shuffled)
    tuned = ask(contradicted, lambda case: [])
    n = len(contradicted)

    def share(answers: list[str], key: str) -> float:
        return sum(c[key] in a for a, c in zip(answers, contradicted, strict=True)) / n

    whole = [
        _CITED.sub("", a).strip() == c["answer"] for a, c in zip(hybrid, contradicted, strict=True)
    ]
    return {
        "right_reply": sum(right) / len(right),
        "hybrid_new_fact": share(hybrid, "fact"),
        "hybrid_old_fact": share(hybrid, "trained_fact"),
        "hybrid_whole_reply": sum(whole) / n,
        "tuned_new_fact": share(tuned, "fact"),
        "tuned_old_fact": share(tuned, "trained_fact"),
    }


def _shuffled(case: dict[str, Any]) -> list[dict[str, str]]:
    """The article and two others, in an order of the case's own."""
    shown = [*case["gold"], *case["distractors"][:2]]
    random.Random(case["id"]).shuffle(shown)
    return shown


def _spread(result: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    runs = [scores for name, scores in result.items() if name.startswith("seed")]
    means = {k: round(statistics.fmean(r[k] for r in runs), 4) for k in runs[0]}
    if len(runs) < 2:
        return means, {}
    return means, {k: round(statistics.stdev(r[k] for r in runs), 4) for k in runs[0]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("prepare")
    first.add_argument("--data", type=Path, required=True)
    first.add_argument("--models", type=Path, required=True)
    first.add_argument("--out", type=Path, required=True)
    first.set_defaults(run=prepare)
    second = commands.add_parser("run")
    second.add_argument("--work", type=Path, required=True)
    second.add_argument("--base", required=True)
    second.add_argument("--reader", type=Path, required=True)
    second.add_argument("--tasks", default=",".join(TASKS))
    second.add_argument("--seeds", default="0,1,2")
    second.add_argument("--out", type=Path)
    second.set_defaults(run=run)
    options = parser.parse_args()
    options.run(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
