"""The whole run laid out before it starts: every epoch's rows drawn, encoded and put in batches.

With all epochs laid out from a fixed seed, "where the run was" is one batch number, and a
resumed run sees exactly the rows it would have seen.
"""

import hashlib
import math
import multiprocessing
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from tuning.builder import EncodedRow, EncodedRows, build_rows
from tuning.config import TuneConfig
from tuning.errors import TrainingFailedError
from tuning.lifetime import die_with_parent
from tuning.snapshot import Row
from tuning.sources import RowSource, sources_of

CHUNK_ROWS = 512
_SORTED_BATCHES = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """Batches of row positions in training order.

    Attributes:
        epoch_ends: Optimiser step at which each epoch ends.
        tokens: Real (unpadded) tokens in all batches up to and including each one.
    """

    rows: list[EncodedRow]
    batches: list[list[int]]
    batches_per_step: int
    epoch_ends: tuple[int, ...]
    tokens: list[int]
    counts: dict[str, int]

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return math.ceil(len(self.batches) / self.batches_per_step)

    def tokens_at(self, step: int) -> int:
        """Training tokens seen after `step` optimiser steps."""
        batches = min(step * self.batches_per_step, len(self.batches))
        return self.tokens[batches - 1] if batches else 0


def make_plan(
    config: TuneConfig, tokenizer: Any, check_stop: Callable[[], None], *, processes: int = 1
) -> Plan:
    """Draw, encode and batch all epochs.

    Args:
        config: The run.
        tokenizer: The base model's tokenizer.
        check_stop: Called now and then; may raise to give up.
        processes: Training processes that share the batches.

    Raises:
        TrainingFailedError: If no row fits.
    """
    rows: list[EncodedRow] = []
    epochs: list[list[list[int]]] = []
    counts: Counter[str] = Counter()
    total, budget = 0, config.max_tokens or math.inf
    for epoch, encoded in enumerate(_encoded_epochs(config, tokenizer, check_stop)):
        counts.update(encoded.counts)
        offset = len(rows)
        rows.extend(encoded.rows)
        lengths = [len(row.input_ids) for row in encoded.rows]
        batches = length_grouped_batches(lengths, config, epoch)
        epochs.append([[offset + i for i in batch] for batch in batches])
        # What finished_plan will take: an epoch cut short may leave room for the next one.
        for batch in epochs[-1]:
            size = sum(len(rows[i].input_ids) for i in batch)
            if total + size > budget:
                break
            total += size
        if total + config.max_length > budget:
            break
    return finished_plan(config, rows, epochs, counts, processes)


def finished_plan(
    config: TuneConfig,
    rows: list[EncodedRow],
    epochs: Sequence[Sequence[list[int]]],
    counts: Mapping[str, int],
    processes: int,
) -> Plan:
    """A plan of batches by epoch, cut where the token budget ends.

    Raises:
        TrainingFailedError: If no batch is left.
    """
    batches: list[list[int]] = []
    running: list[int] = []
    ends: list[int] = []
    per_step = config.grad_accumulation * processes
    budget = config.max_tokens or math.inf
    seen = 0
    for epoch in epochs:
        for batch in epoch:
            size = sum(len(rows[i].input_ids) for i in batch)
            if seen + size > budget:
                break
            seen += size
            batches.append(batch)
            running.append(seen)
        ends.append(math.ceil(len(batches) / per_step))
        if seen + config.max_length > budget:
            break
    if not batches:
        raise TrainingFailedError(
            f"no row fits max_length={config.max_length} and max_tokens={config.max_tokens}"
        )
    return Plan(rows, batches, per_step, tuple(ends), running, dict(counts))


def length_grouped_batches(
    lengths: Sequence[int], config: TuneConfig, epoch: int
) -> Iterator[list[int]]:
    """Batches of rows of like length in random order; every row occurs once.

    Packed batches take rows in random order instead, since their lengths add up in one line.
    """
    rng = random.Random(f"batches:{config.seed}:{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    if config.packing:
        yield from _cut(order, lengths, config)
        return
    rows_per_batch = config.batch_rows
    if config.batch_tokens:
        mean = max(1.0, sum(lengths) / max(1, len(lengths)))
        rows_per_batch = max(1, int(config.batch_tokens / mean))
    span = rows_per_batch * _SORTED_BATCHES
    batches: list[list[int]] = []
    for start in range(0, len(order), span):
        block = sorted(order[start : start + span], key=lambda i: -lengths[i])
        batches.extend(_cut(block, lengths, config))
    rng.shuffle(batches)
    yield from batches


def _cut(block: list[int], lengths: Sequence[int], config: TuneConfig) -> Iterator[list[int]]:
    batch: list[int] = []
    longest = total = 0
    for index in block:
        longest_with = max(longest, lengths[index])
        if config.packing:
            full = total + lengths[index] > (config.batch_tokens or 0)
        elif config.batch_tokens:
            full = longest_with * (len(batch) + 1) > config.batch_tokens
        else:
            full = len(batch) >= config.batch_rows
        if full and batch:
            yield batch
            batch, longest_with, total = [], lengths[index], 0
        batch.append(index)
        longest, total = longest_with, total + lengths[index]
    if batch:
        yield batch


def _encoded_epochs(
    config: TuneConfig, tokenizer: Any, check_stop: Callable[[], None]
) -> Iterator[EncodedRows]:
    sources = sources_of(config)
    chunks = [
        (number, start, min(start + CHUNK_ROWS, source.size()))
        for number, source in enumerate(sources)
        for start in range(0, source.size(), CHUNK_ROWS)
    ]
    if config.workers < 2 or len(chunks) < 2:
        for epoch in range(config.epochs):
            parts = []
            for number, start, stop in chunks:
                check_stop()
                parts.append(_encode(config, tokenizer, sources[number], (epoch, start, stop)))
            yield _joined(parts)
        return
    pool = ProcessPoolExecutor(
        config.workers,
        # A forked child of a process with threads (torch, tokenizers) may hang.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(config, os.getpid()),
    )
    with pool:
        for epoch in range(config.epochs):
            parts = []
            for part in pool.map(_encode_in_worker, [(epoch, *chunk) for chunk in chunks]):
                check_stop()
                parts.append(part)
            yield _joined(parts)


def _joined(parts: Sequence[EncodedRows]) -> EncodedRows:
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    return EncodedRows(
        tuple(row for part in parts for row in part.rows),
        dict(counts),
        tuple(refusal for part in parts for refusal in part.refusals),
    )


def _encode(
    config: TuneConfig, tokenizer: Any, source: RowSource, where: tuple[int, int, int]
) -> EncodedRows:
    epoch, start, stop = where
    rows = [row for row in source.rows(epoch, start, stop) if _takes_part(row, config.train_share)]
    return build_rows(rows, tokenizer, config.draw_config(), seed=config.seed, epoch=epoch)


def _takes_part(row: Row, share: float) -> bool:
    """Whether a row belongs to the first `share` of the components, in an order fixed by hash."""
    if share >= 1:
        return True
    digest = hashlib.sha256(row["component"].encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


_worker: dict[str, Any] = {}


def _start_worker(config: TuneConfig, parent: int) -> None:
    from tuning.base_model import load_tokenizer

    die_with_parent(parent)
    _worker.update(config=config, tokenizer=load_tokenizer(config.base), sources=sources_of(config))


def _encode_in_worker(task: tuple[int, int, int, int]) -> EncodedRows:
    epoch, number, start, stop = task
    source: RowSource = _worker["sources"][number]
    return _encode(_worker["config"], _worker["tokenizer"], source, (epoch, start, stop))
