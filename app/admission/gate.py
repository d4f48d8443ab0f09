"""How many requests are answered at once, and how many may wait."""

from __future__ import annotations

import asyncio
from collections import deque

from app.errors import Overloaded


class Gate:
    """First come, first served; a full queue and a long wait are refused. For one event loop."""

    def __init__(self, at_once: int, waiting: int, patience_s: float) -> None:
        """Open.

        Args:
            at_once: requests answered side by side.
            waiting: requests that may wait for a place.
            patience_s: most seconds one waits.
        """
        self._free = at_once
        self._most_waiting = waiting
        self._patience_s = patience_s
        self._queue: deque[asyncio.Future[None]] = deque()
        self.at_once = at_once

    @property
    def inside(self) -> int:
        """Requests being answered."""
        return self.at_once - self._free

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    async def enter(self) -> None:
        """Take a place, waiting for one if need be.

        Raises:
            Overloaded: The queue is full, or no place became free in time.
        """
        if self._free > 0:
            self._free -= 1
            return
        if len(self._queue) >= self._most_waiting:
            raise Overloaded(f"{len(self._queue)} requests are waiting already")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            async with asyncio.timeout(self._patience_s):
                await place
        except (TimeoutError, asyncio.CancelledError) as error:
            if place.done() and not place.cancelled():
                self.leave()  # the place came in the same moment
            elif place in self._queue:
                self._queue.remove(place)
            if isinstance(error, TimeoutError):
                raise Overloaded(f"no place became free in {self._patience_s:g} s") from error
            raise

    def leave(self) -> None:
        """Give the place to who waits longest."""
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1
