"""Are decisions right as often as they promise? Arms and intervals with known truth.

  python -m benchmarks.decisions [--cases 1500] [--runs 4000] [--only bank|coverage|speed] [--json]

`bank`: random use cases of four arms with known quality and latency, clustered questions, five
looks at up to 1,000 questions; every rule for choosing is counted for wrong commitments and for
the answers it needed. `coverage`: how often each 95 % interval holds the truth, with clusters and
under peeking. `speed`: 10,000 samples, 4 arms, 10,000 bootstrap draws.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.decisions_bank import advice, bank, same_arms
from benchmarks.decisions_coverage import coverage
from evals.statistics.clustered import ClusterBootstrap, sign_flip_tests
from evals.statistics.intervals import cluster_totals


def speed(samples: int = 10_000, draws: int = 10_000) -> dict[str, Any]:
    """All intervals and tests of four arms: 4 means, 6 paired differences, 6 sign-flip tests."""
    rng = np.random.default_rng(0)
    columns = rng.random((samples, 4))
    clusters = np.arange(samples)
    start = time.perf_counter()
    pairs = [(i, j) for i in range(4) for j in range(i)]
    table = np.concatenate(
        [columns, np.stack([columns[:, i] - columns[:, j] for i, j in pairs], axis=1)], axis=1
    )
    found = ClusterBootstrap(draws).intervals(table, clusters, support=(-1.0, 1.0))
    bootstrap = time.perf_counter() - start
    totals = np.stack([cluster_totals(column, clusters) for column in table.T[4:]], axis=1)
    tests = sign_flip_tests(totals, draws=draws)
    return {
        "samples": samples,
        "draws": draws,
        "intervals": len(found),
        "tests": len(tests),
        "bootstrap_s": round(bootstrap, 2),
        "total_s": round(time.perf_counter() - start, 2),
    }


def _print(result: dict[str, Any]) -> None:
    console = Console()
    for name, rows in result.items():
        rows = rows if isinstance(rows, list) else [rows]
        table = Table(title=name, title_justify="left")
        for column in rows[0]:
            table.add_column(column)
        for row in rows:
            table.add_row(*(f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()))
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=1500)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--only", choices=("bank", "coverage", "speed"))
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--out", type=Path, help="write the JSON here")
    options = parser.parse_args()
    show, seed = not options.json, options.seed
    result: dict[str, Any] = {}
    if options.only in (None, "speed"):
        result["speed"] = speed()
    if options.only in (None, "bank"):
        result["bank"] = bank(options.cases, seed, show)
        result["same_arm"] = same_arms(options.cases, seed, show)
        result["advice"] = advice(max(1, options.cases // 5), seed, show)
    if options.only in (None, "coverage"):
        result["coverage"] = coverage(options.runs, seed, show)
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n", "utf-8")
    if options.json:
        print(text)
    else:
        _print(result)


if __name__ == "__main__":
    main()
