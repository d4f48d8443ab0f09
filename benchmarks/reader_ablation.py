"""What each kind of reader row, and more rows or rank, bring on XQuAD.

  python -m benchmarks.xquad prepare --data XQUAD_DIR --models MODELS --out WORK
  python -m benchmarks.reader_ablation --work WORK --base HF_DIR --policyqa DIR --out FILE
      [--names full,no_sections,...] [--rows 8000]

Every run trains a reader from the bare base by the shipped recipe with fewer rows, one thing
changed, and is judged on the XQuAD articles that are not used for testing (train and dev of
`benchmarks.xquad`). `rows_X` trains on X times the rows, `rank_N` with that rank. One seed each:
three seeds of one recipe differ by about .02 in F1, so smaller differences say nothing.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import xquad

RECIPE = Path("tuning/reader/recipe.json")
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "no_articles": {"reader_mix": {"articles": 0.0}},
    "no_sections": {"reader_mix": {"sections": 0.0}},
    "no_redraws": {"reader_mix": {"redraws": 0.0}},
    "no_unanswerable": {"reader_mix": {"unanswerable": 0.0}},
    "gold_always": {"p_no_gold": 0.0},
    "no_window": {"reader_mix": {"window": 0.0}},
    "no_history": {"reader_mix": {"history": 0.0}},
    "no_noise": {"reader_mix": {"noise": 0.0}},
    "no_policyqa": {"policyqa": None},
    "rows_0.25": {"scale": 0.25},
    "rows_0.5": {"scale": 0.5},
    "rows_2": {"scale": 2.0},
    "rank_8": {"r": 8, "alpha": 16},
    "rank_16": {"r": 16, "alpha": 32},
}


def run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train one variant and judge it."""
    from tuning.config import TuneConfig
    from tuning.train import tune

    changes = dict(VARIANTS[name])
    rows = int(options.rows * changes.pop("scale", 1.0))
    recipe = json.loads(RECIPE.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        adapter = Path(folder) / "adapter"
        fixed = {
            "base": str(options.base),
            "output": str(adapter),
            "reader_rows": rows,
            "policyqa": str(options.policyqa),
            "max_tokens": None,
            "eval_rows": 0,
            "eval_steps": None,
            "workers": options.workers,
            "seed": options.seed,
        }
        started = time.perf_counter()
        tune(TuneConfig(**(recipe | fixed | changes)))
        seconds = time.perf_counter() - started
        asked = argparse.Namespace(
            work=options.work,
            base=options.base,
            adapter=adapter,
            split="train,dev",
            limit=None,
            batch=options.batch,
            arm="context",
            label=name,
        )
        result, _ = xquad.scored(asked)
    return result | {"rows": rows, "training_s": round(seconds, 1), "seed": options.seed}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--policyqa", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--names", default=",".join(VARIANTS))
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=7)
    parser.add_argument("--batch", type=int, default=192)
    options = parser.parse_args()
    names = options.names.split(",")
    for name in names:
        if name not in VARIANTS:
            raise SystemExit(f"variant {name!r} is unknown: choose {', '.join(VARIANTS)}")
    results = []
    for name in names:
        results.append(run(name, options))
        print(json.dumps(results[-1]), flush=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
