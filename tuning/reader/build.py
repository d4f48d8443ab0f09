"""Seal a snapshot of generated reader rows: `python -m tuning.reader.build --rows N --out DIR`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tuning.errors import TuningError
from tuning.reader.generator import reader_rows
from tuning.reader.templates import load_templates
from tuning.snapshot import SnapshotManifest, seal


def build(
    out: Path | str, *, rows: int, dev_rows: int, seed: int, policyqa: str | None = None
) -> SnapshotManifest:
    """Generate and seal rows; the dev split comes from templates that training never uses."""
    train = reader_rows(seed, 0, rows, policyqa=policyqa)
    dev = reader_rows(seed, 0, dev_rows, split="dev")
    templates = load_templates()
    provenance = {
        "source": "reader templates",
        "seed": seed,
        "templates": len(templates),
        "held_out_templates": sum(template.held_out for template in templates),
        "policyqa": policyqa is not None,
    }
    return seal([*train, *dev], out, provenance=provenance)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; prints the manifest as JSON."""
    parser = argparse.ArgumentParser(prog="tuning.reader.build", description=__doc__)
    parser.add_argument("--rows", type=int, required=True, help="training rows")
    parser.add_argument("--dev-rows", type=int, default=200, help="rows of held-out templates")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="snapshot folder to make")
    parser.add_argument("--policyqa", help="folder of the PolicyQA data set")
    options = parser.parse_args(arguments)
    try:
        manifest = build(
            options.out,
            rows=options.rows,
            dev_rows=options.dev_rows,
            seed=options.seed,
            policyqa=options.policyqa,
        )
    except TuningError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    record = {"id": manifest.id, "rows": manifest.rows, "counts": manifest.counts}
    sys.stdout.write(json.dumps(record) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
