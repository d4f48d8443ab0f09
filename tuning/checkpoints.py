"""What a killed run needs to go on: complete checkpoints, the best adapter so far, the scores.

The trainer's checkpoint folders are not written atomically, so each gets a marker once it is
whole on disk; only marked ones are resumed from.
"""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tuning.atomic import sync, write_json, write_text
from tuning.errors import TuneConfigError, TuningError

COMPLETE_MARKER = "COMPLETE"
_PREFIX = "checkpoint-"


@dataclass(slots=True)
class RunState:
    """Everything a run knows beyond the trainer's checkpoint.

    Attributes:
        seconds: Training time by checkpoint step, so that a resumed run keeps its budget.
        dev: One entry per evaluation: step, epoch, scores, their intervals, and `averaged` (a
            number of steps) where the weights were the mean of the run's last steps.
        estimate: What a probe before the first step foretold.
    """

    started: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    dev: list[dict[str, Any]] = field(default_factory=list)
    estimate: dict[str, Any] = field(default_factory=dict)

    def best(self) -> dict[str, Any] | None:
        """The evaluation with the highest composite; the earliest of equals."""
        return max(self.dev, key=lambda entry: entry["scores"]["composite"], default=None)

    def evaluations_since_best(self) -> int:
        """How many evaluations in a row brought no better score."""
        best = self.best()
        return len(self.dev) - 1 - self.dev.index(best) if best else 0


class WorkFolder:
    """The work folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            TuningError: If another process trains into it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TuningError(f"another process is training into {self.path}") from error
            yield

    def claim(self, identity: dict[str, Any], defaults: dict[str, Any]) -> None:
        """Record the run's settings and inputs, or check that the folder belongs to the same run.

        Settings that an earlier edition did not record count as their defaults.

        Raises:
            TuneConfigError: If the folder holds a run with other settings.
        """
        file = self.path / "config.json"
        identity = json.loads(json.dumps(identity))
        try:
            recorded = {**defaults, **json.loads(file.read_text(encoding="utf-8"))}
        except FileNotFoundError:
            write_json(file, identity)
            return
        changed = [key for key in identity if recorded.get(key) != identity[key]]
        if changed:
            raise TuneConfigError(
                f"{self.path} holds an unfinished run with another {changed[0]}: "
                f"{recorded.get(changed[0])!r}, not {identity[changed[0]]!r}; "
                "remove it or choose another output"
            )

    def last_complete(self) -> tuple[Path | None, int]:
        """The newest complete checkpoint and its step; every other one is removed."""
        found: list[tuple[int, Path]] = []
        for folder in self.checkpoints.glob(f"{_PREFIX}*"):
            number = folder.name.removeprefix(_PREFIX)
            if number.isdigit() and (folder / COMPLETE_MARKER).is_file():
                found.append((int(number), folder))
        step, newest = max(found) if found else (0, None)
        for folder in self.checkpoints.glob(f"{_PREFIX}*"):
            if folder != newest:
                shutil.rmtree(folder)
        return newest, step

    def checkpoint(self, step: int) -> Path:
        """The trainer's checkpoint folder of a step."""
        return self.checkpoints / f"{_PREFIX}{step}"

    def mark_complete(self, step: int) -> None:
        """Sync a checkpoint to disk, then mark it complete."""
        folder = self.checkpoint(step)
        for file in folder.iterdir():
            sync(file)
        write_text(folder / COMPLETE_MARKER, f"{step}\n")

    def read_state(self, step: int) -> RunState:
        """The state as it was at a step; what came after it will be done again."""
        try:
            record = json.loads((self.path / "state.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return RunState()
        state = RunState(**record)
        # The mean of the last steps is scored when they are over, so it comes again as well.
        state.dev = [e for e in state.dev if e["step"] <= step and not e.get("averaged")]
        state.seconds = {s: value for s, value in state.seconds.items() if int(s) <= step}
        return state

    def write_state(self, state: RunState) -> None:
        """Replace the recorded state."""
        write_json(self.path / "state.json", asdict(state))

    def best_folder(self, entry: dict[str, Any]) -> Path:
        """Where the adapter of an evaluation is kept while it is the best."""
        return self.path / f"best-{entry['step']}{'-averaged' if entry.get('averaged') else ''}"

    def keep_only_best(self, entry: dict[str, Any]) -> None:
        """Remove the adapters of evaluations that are no longer the best."""
        for folder in self.path.glob("best-*"):
            if folder != self.best_folder(entry):
                shutil.rmtree(folder)
