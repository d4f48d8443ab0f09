"""Answers run in threads; endpoints read them as they come, without holding the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class AnswerRunner:
    """A pool of threads of its own, so that waiting answers never keep `/health` waiting."""

    def __init__(self, at_once: int) -> None:
        """`at_once`: answers that run side by side."""
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="answer")

    async def call(self, work: Callable[[], T]) -> T:
        """The result of `work`."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def read(self, events: Iterator[T], beat_s: float) -> AsyncIterator[T | None]:
        """What the iterator gives, and None whenever nothing came for `beat_s` seconds.

        The iterator runs on when this is closed early: whoever closes it must tell its maker.
        """
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[T | asyncio.Future[None]] = asyncio.Queue()

        def work() -> None:
            for event in events:
                loop.call_soon_threadsafe(arrived.put_nowait, event)

        future = loop.run_in_executor(self._pool, work)
        future.add_done_callback(_retrieve)
        future.add_done_callback(arrived.put_nowait)
        while True:
            try:
                async with asyncio.timeout(beat_s):
                    event = await arrived.get()
            except TimeoutError:
                yield None
                continue
            if event is future:
                future.result()  # raises what ended the iterator
                return
            yield event  # type: ignore[misc]  # only `future` itself is a future

    def close(self) -> None:
        """Take no more answers."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _retrieve(future: asyncio.Future[None]) -> None:
    """Nobody may be left to hear of an error; asyncio would log it as forgotten."""
    if not future.cancelled():
        future.exception()
