"""Do our own measurements have the shapes that the literature reports (P1 to P10)?

  python -m benchmarks.shapes --work WORK [--evaluation FOLDER]... [--flip BEFORE AFTER] [--json]
  python -m benchmarks.shapes --stub [--seed 0] [--json]

WORK is a folder of `benchmarks.worlds` with outputs. FOLDER is the folder of an evaluation
(samples.jsonl and outputs.jsonl), for P10 one with hidden gold (`tandem eval run --hidden-twins`).
BEFORE and AFTER are evaluations of the same questions around a change of the knowledge, for P7.

Each shape is a set of paired differences on the same questions, with intervals over independent
groups. It is reproduced when all of them are shown; otherwise it is said whether the opposite is
shown or nothing is. What the outputs cannot tell is "not measurable here", with the reason.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import worlds
from benchmarks.shapes_measure import Data, Folders, Shape, all_shapes
from evals.outputs import Output, parse_output
from evals.runner import read_outputs
from evals.samples import load_samples


def read_work(work: Path) -> Folders:
    """Every world of a work folder, with the outputs there are."""
    found: Folders = {}
    for folder in sorted(path.parent for path in work.glob("*/samples.jsonl")):
        about = folder / "world.json"
        primary = json.loads(about.read_text("utf-8"))["primary"] if about.is_file() else "token_f1"
        outputs = [
            parse_output(json.loads(line))
            for file in sorted((folder / "outputs").glob("*.jsonl"))
            for line in file.read_text("utf-8").splitlines()
            if line.strip()
        ]
        if outputs:
            samples = load_samples(folder / "samples.jsonl")
            found[folder.name] = Data(samples, _with_passages(folder, outputs), primary)
    return found


def _with_passages(folder: Path, outputs: Sequence[Output]) -> tuple[Output, ...]:
    """Outputs with the passages of their prompts, which routing reads."""
    shown: dict[tuple[str, str], list[dict[str, str]]] = {}
    for file in sorted((folder / "prompts").glob("*.jsonl")):
        for line in file.read_text("utf-8").splitlines():
            row = json.loads(line)
            passages = [{"id": p["id"], "text": p["text"]} for p in row.get("passages", [])]
            shown[file.stem, row["id"]] = passages
    return tuple(
        replace(o, meta={**o.meta, "passages": shown.get((o.arm, o.sample_id), [])})
        if not o.passages
        else o
        for o in outputs
    )


def read_evaluation(folder: Path) -> Data:
    """The folder of an evaluation."""
    outputs = tuple(read_outputs(folder / "outputs.jsonl"))
    return Data(load_samples(folder / "samples.jsonl"), outputs)


def stub_work(seed: int) -> Folders:
    """The worlds with dice instead of models."""
    found: Folders = {}
    for world in worlds.WORLDS:
        samples, outputs = worlds.stub(world, seed)
        found[world.name] = Data(tuple(samples), tuple(outputs), world.primary)
    return found


def record(made: Shape) -> dict[str, Any]:
    """One shape for programs."""
    return {
        "shape": made.name,
        "claim": made.claim,
        "verdict": made.verdict,
        "warns_only": made.warn,
        "why": made.why,
        "differences": [
            {
                "what": d.what,
                "estimate": d.interval.estimate,
                "low": d.interval.low,
                "high": d.interval.high,
                "questions": d.interval.n,
                "clusters": d.interval.clusters,
                "wanted": d.wanted,
                "shown": d.shown,
            }
            for d in made.differences
        ],
    }


def _print(rows: Sequence[dict[str, Any]]) -> None:
    table = Table(show_lines=True)
    for column in ("shape", "claim", "verdict", "measured"):
        table.add_column(column, overflow="fold")
    for row in rows:
        lines = [
            f"{d['what']}: {d['estimate']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f}), "
            f"{d['questions']} questions in {d['clusters']} groups, wanted {d['wanted']}"
            for d in row["differences"]
        ]
        table.add_row(row["shape"], row["claim"], row["verdict"], "\n".join([*lines, row["why"]]))
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--work", type=Path, help="work folder of benchmarks.worlds")
    source.add_argument("--stub", action="store_true", help="dice instead of models")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluation", type=Path, action="append", default=[])
    parser.add_argument("--flip", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path, help="write the JSON here")
    options = parser.parse_args()
    work = stub_work(options.seed) if options.stub else read_work(options.work)
    evaluations = [read_evaluation(folder) for folder in options.evaluation]
    around = None
    if options.flip:
        before, after = (read_evaluation(folder) for folder in options.flip)
        around = (before, after)
    rows = [record(made) for made in all_shapes(work, evaluations, around)]
    text = json.dumps(rows, indent=1)
    if options.out:
        options.out.write_text(text + "\n", "utf-8")
    if options.json:
        print(text)
    else:
        _print(rows)


if __name__ == "__main__":
    main()
