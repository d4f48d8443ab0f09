"""Entry of a tuning subprocess: `python -m tuning.run CONFIG.json [--progress FILE]`.

Progress goes out as JSON lines, the last one being "done" or "failed". The process ends with
its parent; SIGTERM saves a checkpoint and exits with 143, to be run again later.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from tuning.config import load_config
from tuning.errors import TrainingInterruptedError, TuningError
from tuning.lifetime import die_with_parent, stop_on_sigterm
from tuning.progress import Progress, json_lines

EXIT_FAILED = 1
EXIT_INTERRUPTED = 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one configuration and return the exit code."""
    parser = argparse.ArgumentParser(prog="tuning.run", description="Train one adapter.")
    parser.add_argument("config", type=Path, help="configuration as JSON")
    parser.add_argument("--progress", type=Path, help="append progress here, not to stdout")
    parser.add_argument(
        "--outlive-parent", action="store_true", help="keep running when the parent ends"
    )
    options = parser.parse_args(arguments)
    if not options.outlive_parent:
        die_with_parent(os.getppid())
    stop = stop_on_sigterm()
    with _stream(options.progress) as stream:
        report = json_lines(stream)
        try:
            config = load_config(options.config)
            from tuning.train import tune

            tune(config, report, stop.is_set)
        except TrainingInterruptedError as error:
            report(Progress("failed", message=str(error)))
            return EXIT_INTERRUPTED
        except TuningError as error:
            report(Progress("failed", message=str(error)))
            sys.stderr.write(f"{error}\n")
            return EXIT_FAILED
    return 0


@contextlib.contextmanager
def _stream(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        yield sys.stdout
        return
    with path.open("a", encoding="utf-8") as stream:
        yield stream


if __name__ == "__main__":
    raise SystemExit(main())
