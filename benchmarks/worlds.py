"""Six worlds whose best arm is known: does the decision find it?

  python -m benchmarks.worlds --stub [--seeds 20] [--json]
  python -m benchmarks.worlds build --data DATA --models MODELS --out WORK [--only WORLD]
  python -m benchmarks.worlds run --work WORK --base HF_DIR [--only WORLD]
  python -m benchmarks.worlds judge --work WORK [--json]

`--stub` answers with dice whose odds follow from dials (seconds, no model). The other three use
real data: `build` retrieves and writes samples, prompts and training snapshots; `run` trains the
adapters and generates, best on a GPU; `judge` decides from the outputs, wherever they were made.

A work folder holds one folder per world: `world.json` (arms, expected winners, rules),
`samples.jsonl` (`evals.samples`), `prompts/ARM.jsonl` (id, question, passages, adapter) and, made
by `run` or by anything else, `outputs/ARM.jsonl` (`evals.outputs`, one JSON object a line).
Snapshots to train on lie in `adapters/NAME/snapshot` of the work folder.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from evals.decision import decide
from evals.decision_spec import DecisionSpec
from evals.evaluation import IntervalSettings, evaluate
from evals.outputs import Output, parse_output
from evals.samples import Sample, load_samples

_FAST = IntervalSettings(resamples=200)


@dataclass(frozen=True, slots=True)
class Dials:
    """What a simulated world is like; all shares in [0, 1].

    Attributes:
        known: questions the base model can answer by itself.
        learned: questions a tuned model has learned the answer of.
        stale: learned answers that have changed since.
        recall: questions whose passage is retrieved.
        untrained_reader, crossed_reader, trained_reader: passages that the bare model, one tuned
            without passages, and one tuned with them answer from.
        strict: answers of an untrained model that miss the wanted form.
    """

    known: float
    learned: float
    stale: float
    recall: float
    untrained_reader: float
    crossed_reader: float
    trained_reader: float
    strict: float

    def quality(self, arm: str) -> float:
        """The chance that an arm's answer is right in fact and form."""
        weights = self.known + (1 - self.known) * self.learned * (1 - self.stale)
        form = 1.0 if arm in ("tuned", "crossed", "hybrid") else 1 - self.strict
        reader = {
            "rag": self.untrained_reader,
            "crossed": self.crossed_reader,
            "hybrid": self.trained_reader,
        }
        alone = {"prompt": self.known, "tuned": weights, "crossed": weights}.get(arm, self.known)
        read = self.recall * reader[arm] if arm in reader else 0.0
        return form * (read + (1 - read) * alone)


@dataclass(frozen=True, slots=True)
class World:
    """A world and the arms that are right in it."""

    name: str
    about: str
    arms: tuple[str, ...]
    expected: tuple[str, ...]
    primary: str
    margin: float
    dials: Dials


_FOUR = ("prompt", "tuned", "rag", "hybrid")
WORLDS: tuple[World, ...] = (
    World(
        "new_facts",
        "the facts stand in documents nobody was trained on: retrieval wins",
        _FOUR,
        ("rag", "hybrid"),
        "token_f1",
        0.05,
        Dials(0.05, 0.03, 0.0, 0.95, 0.55, 0.40, 0.75, 0.0),
    ),
    World(
        "paraphrases",
        "the facts were trained in other words: weights recall some, retrieval more",
        _FOUR,
        ("rag", "hybrid"),
        "token_f1",
        0.05,
        Dials(0.05, 0.35, 0.0, 0.95, 0.58, 0.40, 0.78, 0.0),
    ),
    World(
        "reader",
        "a small model reads passages only if it was tuned with them",
        ("prompt", "rag", "crossed", "hybrid"),
        ("hybrid",),
        "token_f1",
        0.05,
        Dials(0.03, 0.04, 0.0, 0.95, 0.10, 0.20, 0.45, 0.0),
    ),
    World(
        "strict_form",
        "labels in a strict form: tuning wins",
        _FOUR,
        ("tuned", "hybrid"),
        "exact_match",
        0.05,
        Dials(0.20, 0.85, 0.0, 0.90, 0.40, 0.05, 0.10, 0.90),
    ),
    World(
        "volatile_form",
        "values changed after tuning, in a strict form: both are needed",
        _FOUR,
        ("hybrid",),
        "exact_match",
        0.05,
        Dials(0.02, 0.90, 0.80, 0.95, 0.60, 0.10, 0.90, 0.80),
    ),
    World(
        "known_task",
        "the bare model can do it: nothing is gained by more",
        _FOUR,
        ("prompt",),
        "contains_answer",
        0.10,
        Dials(0.93, 0.10, 0.0, 0.90, 0.05, 0.05, 0.05, 0.0),
    ),
)


def find_world(name: str) -> World:
    """A world by name."""
    for world in WORLDS:
        if world.name == name:
            return world
    raise SystemExit(f"no world {name!r}: there are {', '.join(w.name for w in WORLDS)}")


def stub(world: World, seed: int, questions: int = 600) -> tuple[list[Sample], list[Output]]:
    """Samples in clusters of four, and what dice answer."""
    rng = np.random.default_rng((seed, len(world.name)))
    difficulty = rng.uniform(-0.1, 0.1, questions // 4 + 1)
    samples, outputs = [], []
    for i in range(questions):
        sample = Sample(f"q{i:04d}", f"Question {i}?", (f"value {i}",), cluster=f"c{i // 4}")
        samples.append(sample)
        for arm in world.arms:
            right = rng.random() < np.clip(world.dials.quality(arm) + difficulty[i // 4], 0, 1)
            text = f"value {i}" if right else "something else"
            outputs.append(Output(sample.id, arm, text, latency_s=0.1))
    return samples, outputs


def judge(world: World, samples: list[Sample], outputs: list[Output]) -> dict[str, Any]:
    """Decide by the world's rules and compare with what is known to be right."""
    spec = DecisionSpec(primary=world.primary, margin=world.margin, cost_order=world.arms)
    evaluation = evaluate(samples, outputs, primary=world.primary, settings=_FAST)
    decision = decide(evaluation, spec)
    verdict = "undecided" if decision.choice is None else "wrong"
    if decision.choice in world.expected:
        verdict = "right"
    means = {arm: decision.evidence.mean(arm) for arm in decision.evidence.arms}
    return {
        "world": world.name,
        "expected": " or ".join(world.expected),
        "status": decision.status,
        "choice": decision.choice,
        "verdict": verdict,
        "questions": len(samples),
        "clusters": decision.evidence.clusters,
        "means": {arm: None if mean is None else round(mean, 3) for arm, mean in means.items()},
        "headline": decision.headline,
    }


def judge_folder(work: Path) -> list[dict[str, Any]]:
    """Judge every world of a work folder that has outputs of all its arms."""
    rows = []
    for world in WORLDS:
        folder = work / world.name
        if not (folder / "samples.jsonl").is_file():
            continue
        files = {arm: folder / "outputs" / f"{arm}.jsonl" for arm in world.arms}
        missing = [arm for arm, file in files.items() if not file.is_file()]
        if missing:
            print(f"{world.name}: no outputs of {', '.join(missing)}, left out", file=sys.stderr)
            continue
        outputs = [
            parse_output(json.loads(line))
            for file in files.values()
            for line in file.read_text("utf-8").splitlines()
            if line.strip()
        ]
        rows.append(judge(world, list(load_samples(folder / "samples.jsonl")), outputs))
    return rows


def run_stub(seeds: int) -> list[dict[str, Any]]:
    """Every world with every seed: how often the decision is right, open and wrong."""
    rows = []
    for world in WORLDS:
        made = [judge(world, *stub(world, seed)) for seed in range(seeds)]
        count = {v: sum(m["verdict"] == v for m in made) for v in ("right", "undecided", "wrong")}
        truth = {arm: round(world.dials.quality(arm), 3) for arm in world.arms}
        rows.append(
            {
                "world": world.name,
                "expected": " or ".join(world.expected),
                "truth": truth,
                **count,
                "choices": sorted({str(m["choice"]) for m in made}),
            }
        )
    return rows


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(show_lines=False)
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(
            *(
                " ".join(f"{k} {v}" for k, v in value.items())
                if isinstance(value, dict)
                else str(value)
                for value in row.values()
            )
        )
    Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--stub", action="store_true", help="dice instead of models")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    commands = parser.add_subparsers(dest="command")
    build = commands.add_parser("build", help="samples, prompts and snapshots from real data")
    build.add_argument("--data", type=Path, required=True)
    build.add_argument("--models", type=Path, required=True)
    build.add_argument("--out", type=Path, required=True)
    build.add_argument("--questions", type=int, default=400, help="most questions of a world")
    build.add_argument("--only")
    run = commands.add_parser("run", help="train and generate")
    run.add_argument("--work", type=Path, required=True)
    run.add_argument("--base", type=Path, required=True)
    run.add_argument("--only")
    run.add_argument("--epochs", type=int, default=5)
    run.add_argument("--rank", type=int, default=64)
    run.add_argument("--lr", type=float, default=1e-3)
    run.add_argument("--batch", type=int, default=64)
    run.add_argument("--seed", type=int, default=0, help="of the training; one work folder each")
    last = commands.add_parser("judge", help="decide from the outputs")
    last.add_argument("--work", type=Path, required=True)
    last.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    if options.command == "build":
        from benchmarks.worlds_build import build_worlds

        build_worlds(options.data, options.models, options.out, options.questions, options.only)
        return 0
    if options.command == "run":
        from benchmarks.worlds_run import Training, run_worlds

        rates = (options.epochs, options.rank, options.lr, options.batch)
        training = Training(*rates, seed=options.seed)
        run_worlds(options.work, options.base, training, options.only)
        return 0
    if options.command == "judge":
        rows = judge_folder(options.work)
        failed = any(row["verdict"] == "wrong" for row in rows)
    elif options.stub:
        rows = run_stub(options.seeds)
        failed = any(row["wrong"] for row in rows)
    else:
        parser.error("give --stub, build, run or judge")
    if options.json or getattr(options, "as_json", False):
        print(json.dumps(rows, indent=1))
    elif rows:
        _print(rows)
    return int(failed or not rows)


if __name__ == "__main__":
    sys.exit(main())
