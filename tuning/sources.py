"""Where training rows come from: sealed snapshots and the reader generator, by epoch and range."""

import functools
from dataclasses import dataclass, field
from typing import Protocol

from tuning.config import TuneConfig
from tuning.reader.mix import ReaderMix, reader_mix
from tuning.snapshot import Row, Snapshot, load


class RowSource(Protocol):
    """Rows by epoch; any range can be asked for alone, so that processes can share the work."""

    def size(self) -> int:
        """Rows per epoch."""

    def rows(self, epoch: int, start: int, stop: int) -> list[Row]:
        """Rows `start` to `stop` (excluded) of an epoch."""

    def dev_rows(self, most: int) -> list[Row]:
        """At most so many rows of the dev split."""


@dataclass(frozen=True, slots=True)
class SnapshotSource:
    """Train and dev rows of a sealed snapshot."""

    directory: str

    def size(self) -> int:
        """Rows per epoch."""
        return len(_train_rows(self.directory))

    def rows(self, epoch: int, start: int, stop: int) -> list[Row]:
        """The same rows in every epoch; the draws from them differ."""
        return _train_rows(self.directory)[start:stop]

    def dev_rows(self, most: int) -> list[Row]:
        """Dev rows spread evenly over the snapshot's order."""
        return _spread(_snapshot(self.directory).split("dev"), most)


@dataclass(frozen=True, slots=True)
class ReaderSource:
    """Generated rows, new ones in every epoch; dev rows come from held-out templates."""

    rows_per_epoch: int
    seed: int
    policyqa: str | None = None
    mix: ReaderMix = field(default_factory=ReaderMix)

    def size(self) -> int:
        """Rows per epoch."""
        return self.rows_per_epoch

    def rows(self, epoch: int, start: int, stop: int) -> list[Row]:
        """Rows of an epoch; each depends only on seed, epoch and its position."""
        from tuning.reader.generator import reader_rows

        seed = self.seed + 7919 * epoch
        return reader_rows(seed, start, stop, policyqa=self.policyqa, mix=self.mix)

    def dev_rows(self, most: int) -> list[Row]:
        """Rows from templates that training never sees."""
        from tuning.reader.generator import reader_rows

        return reader_rows(self.seed, 0, most, split="dev")


def sources_of(config: TuneConfig) -> list[RowSource]:
    """The row sources a configuration names; the first one gives the dev rows."""
    sources: list[RowSource] = []
    if config.snapshot:
        sources.append(SnapshotSource(config.snapshot))
    if config.reader_rows:
        mix = reader_mix(config.reader_mix)
        sources.append(ReaderSource(config.reader_rows, config.reader_seed, config.policyqa, mix))
    return sources


@functools.lru_cache(maxsize=2)
def _snapshot(directory: str) -> Snapshot:
    return load(directory)


@functools.lru_cache(maxsize=2)
def _train_rows(directory: str) -> list[Row]:
    return _snapshot(directory).split("train")


def _spread(rows: list[Row], most: int) -> list[Row]:
    if len(rows) <= most:
        return rows
    return [rows[i * len(rows) // most] for i in range(most)]
