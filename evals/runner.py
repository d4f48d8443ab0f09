"""Asks every arm every question, arms interleaved, and keeps each answer so a run can resume."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from evals.errors import OutputError, RunStoreError
from evals.metrics.score import find_metric
from evals.outputs import Output, output_line, parse_output
from evals.samples import Sample, clusters, samples_digest
from evals.scoring import score_output
from evals.statistics.clustered import cluster_t

Solve = Callable[[Sample], Output]
_STORE_VERSION = 1


@dataclass(frozen=True, slots=True)
class ArmProgress:
    """The primary metric of one arm so far.

    The interval lies within the metric's scale, 0 to 1, and is not adjusted for repeated looks.
    """

    arm: str
    n: int
    mean: float | None
    low: float | None
    high: float | None
    errors: int


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Where a run stands.

    Attributes:
        resumed: answers found in the store at the start, part of `done`.
        rate_per_s: answers per second since this start; None before the first.
        eta_s: seconds left at that rate.
    """

    done: int
    total: int
    resumed: int
    rate_per_s: float | None
    eta_s: float | None
    arms: tuple[ArmProgress, ...]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run behaves.

    Attributes:
        primary: metric shown while the run goes on.
        sync_every: answers between two fsyncs; at most that many are lost with the power.
        retry_errors: ask again where the stored answer is an error.
        repeat: which answer to every sample this pass asks for. With sampled decoding, run one
            pass per repeat into the same store; `evals.repeats` then splits the variance.
    """

    primary: str = "token_f1"
    sync_every: int = 1
    retry_errors: bool = False
    repeat: int = 0


def run_arms(
    samples: Sequence[Sample],
    arms: Mapping[str, Solve],
    *,
    store: str | Path,
    progress: Callable[[RunProgress], None] | None = None,
    expected_errors: tuple[type[Exception], ...] = (),
    options: RunOptions | None = None,
) -> tuple[Output, ...]:
    """Run all arms on all samples and give the outputs, by sample, then arm.

    The arms take turns on every sample and the first one rotates, so that drift of the machine
    falls on all alike. Every answer is appended to `store` (JSONL) before the next question; a
    run that was killed goes on where it stopped, and a torn last line is dropped.

    Args:
        samples: questions, in the order they are asked.
        arms: solver by arm name. A solver's output must carry the sample's id and the arm's name.
        store: file to write to; made when missing.
        progress: called after every answer.
        expected_errors: exceptions of a solver that become an output with an error; any other
            exception ends the run and leaves the store usable.
        options: see `RunOptions`.

    Raises:
        RunStoreError: if the store belongs to other samples or is damaged before its last line.
        OutputError: if a solver answers for another sample or arm.
    """
    options = options or RunOptions()
    if not arms:
        raise OutputError("there are no arms to run")
    path = Path(store)
    wanted = {sample.id for sample in samples}
    outputs = {
        (output.arm, output.sample_id): output
        for output in _open_store(path, samples)
        if output.repeat == options.repeat
        and output.arm in arms
        and output.sample_id in wanted
        and not (options.retry_errors and output.error is not None)
    }
    tracker = _Tracker(samples, tuple(arms), options.primary)
    for output in outputs.values():
        tracker.add(output)
    tracker.start(len(outputs))
    with path.open("ab") as file:
        writer = _Writer(file, options.sync_every)
        try:
            for sample, arm in _schedule(samples, tuple(arms)):
                if (arm, sample.id) in outputs:
                    continue
                output = _ask(sample, arm, arms[arm], expected_errors)
                output = replace(output, repeat=options.repeat)
                writer.append(output)
                outputs[arm, sample.id] = output
                tracker.add(output)
                if progress is not None:
                    progress(tracker.progress())
        finally:
            writer.sync()
    return tuple(outputs[arm, sample.id] for sample in samples for arm in arms)


def read_outputs(store: str | Path) -> tuple[Output, ...]:
    """Read the outputs of a store without changing it; the last answer of an arm counts.

    Raises:
        RunStoreError: if the file cannot be read or is damaged before its last line.
    """
    path = Path(store)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunStoreError(f"cannot read {path}: {error.strerror}") from error
    lines, _ = _complete_lines(path, data)
    found = (parse_output(line) for line in lines[1:])
    outputs = {(output.arm, output.sample_id, output.repeat): output for output in found}
    return tuple(outputs.values())


def _schedule(samples: Sequence[Sample], arms: tuple[str, ...]) -> Iterator[tuple[Sample, str]]:
    for i, sample in enumerate(samples):
        first = i % len(arms)
        for arm in arms[first:] + arms[:first]:
            yield sample, arm


def _ask(
    sample: Sample, arm: str, solve: Solve, expected_errors: tuple[type[Exception], ...]
) -> Output:
    started = time.perf_counter()
    try:
        output = solve(sample)
    except expected_errors as error:
        reason = f"{type(error).__name__}: {error}"
        return Output(sample.id, arm, "", latency_s=time.perf_counter() - started, error=reason)
    if (output.sample_id, output.arm) != (sample.id, arm):
        raise OutputError(
            f"arm {arm!r} was asked sample {sample.id!r} but answered as arm {output.arm!r} "
            f"for sample {output.sample_id!r}"
        )
    return output


def _open_store(path: Path, samples: Sequence[Sample]) -> tuple[Output, ...]:
    """Make the store, or read it, check its header and cut a torn tail off."""
    header = {"store": _STORE_VERSION, "samples_digest": samples_digest(samples)}
    data = path.read_bytes() if path.exists() else b""
    lines, kept_bytes = _complete_lines(path, data)
    if not lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(json.dumps(header).encode() + b"\n")
        return ()
    if lines[0] != header:
        raise RunStoreError(f"{path} was written for other samples; use another file")
    if kept_bytes < len(data):
        os.truncate(path, kept_bytes)
    return tuple(parse_output(line) for line in lines[1:])


def _complete_lines(path: Path, data: bytes) -> tuple[list[Any], int]:
    """Decode all whole lines; a broken last one is left out and not counted in the bytes kept."""
    raw = data.split(b"\n")
    torn = raw.pop()  # empty when the file ends with a newline
    lines: list[Any] = []
    kept_bytes = 0
    for number, line in enumerate(raw, start=1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            if number == len(raw) and not torn:
                break
            raise RunStoreError(f"{path}: line {number} is damaged") from error
        kept_bytes += len(line) + 1
    return lines, kept_bytes


class _Writer:
    def __init__(self, file: IO[bytes], sync_every: int) -> None:
        self._file = file
        self._sync_every = max(1, sync_every)
        self._unsynced = 0

    def append(self, output: Output) -> None:
        self._file.write(output_line(output).encode() + b"\n")
        self._file.flush()
        self._unsynced += 1
        if self._unsynced >= self._sync_every:
            self.sync()

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unsynced = 0


@dataclass(slots=True)
class _Seen:
    values: list[float] = field(default_factory=list)
    clusters: list[int] = field(default_factory=list)
    n: int = 0
    errors: int = 0


class _Tracker:
    def __init__(self, samples: Sequence[Sample], arms: tuple[str, ...], primary: str) -> None:
        find_metric(primary)
        self._samples = {sample.id: sample for sample in samples}
        self._clusters = dict(zip(self._samples, clusters(samples), strict=True))
        self._seen = {arm: _Seen() for arm in arms}
        self._primary = primary
        self._total = len(samples) * len(arms)
        self._resumed = 0
        self._started = 0.0

    def start(self, resumed: int) -> None:
        self._resumed = resumed
        self._started = time.monotonic()

    def add(self, output: Output) -> None:
        seen = self._seen[output.arm]
        seen.n += 1
        seen.errors += output.error is not None
        sample = self._samples[output.sample_id]
        value = score_output(sample, output)[self._primary].value
        if value is not None:
            seen.values.append(value)
            seen.clusters.append(self._clusters[sample.id])

    def progress(self) -> RunProgress:
        done = sum(seen.n for seen in self._seen.values())
        elapsed = time.monotonic() - self._started
        fresh = done - self._resumed
        rate = fresh / elapsed if fresh and elapsed > 0 else None
        arms = tuple(self._arm(arm, seen) for arm, seen in self._seen.items())
        eta = None if rate is None else (self._total - done) / rate
        return RunProgress(done, self._total, self._resumed, rate, eta, arms)

    @staticmethod
    def _arm(arm: str, seen: _Seen) -> ArmProgress:
        ids = np.asarray(seen.clusters, dtype=np.int64)
        found = cluster_t(np.asarray(seen.values, dtype=np.float64), ids)
        # With few clusters the t interval reaches beyond the scale of the metric.
        low = None if found.low is None else max(0.0, found.low)
        high = None if found.high is None else min(1.0, found.high)
        return ArmProgress(arm, seen.n, found.estimate, low, high, seen.errors)
