"""A stream of pieces made by a worker thread, which any thread may close at any moment."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from app.engines.types import EngineError, Generation
from app.errors import AppError

STALL_S = 300.0


class Cancellation:
    """Set once; what must hear of it at once registers a callback."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._callbacks: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        """Whether nobody wants the answer any more."""
        return self._set

    def set(self) -> None:
        """Cancel; every callback runs once."""
        with self._lock:
            self._set = True
            waiting, self._callbacks = self._callbacks, []
        for callback in waiting:
            callback()

    def on_set(self, callback: Callable[[], None]) -> None:
        """Run the callback when cancelled, now if that was before."""
        with self._lock:
            if not self._set:
                self._callbacks.append(callback)
                return
        callback()


class Cancelled(Exception):
    """Ends a worker whose stream was closed; nobody sees it."""


Emit = Callable[[str], None]
Work = Callable[[Emit, Cancellation], Generation]


class PieceStream(Iterator[str | Generation]):
    """Pieces of text as they come, then one `Generation`.

    Unlike a generator it can be closed by another thread while one waits for the next piece: the
    waiting one then gets `StopIteration`, and the worker is told to stop.
    """

    def __init__(self, work: Work, name: str, *, stall_s: float = STALL_S) -> None:
        """Start `work(emit, cancellation)` in a thread of its own."""
        self._events: queue.SimpleQueue[str | Generation | Exception | None] = queue.SimpleQueue()
        self._cancellation = Cancellation()
        self._stall_s = stall_s
        self._ended = False
        # The thread must not hold this object, or an abandoned stream would never be collected.
        events, cancellation = self._events, self._cancellation

        def run() -> None:
            try:
                events.put(work(events.put, cancellation))
            except Cancelled:
                events.put(None)
            except Exception as error:  # noqa: BLE001 - or its reader would wait for nothing
                events.put(error)

        self._thread = threading.Thread(target=run, name=name, daemon=True)
        self._thread.start()

    def __next__(self) -> str | Generation:
        if self._ended:
            raise StopIteration
        try:
            event = self._events.get(timeout=self._stall_s)
        except queue.Empty as error:
            self.close()
            raise EngineError(f"no token for {self._stall_s:.0f} s") from error
        if isinstance(event, str):
            return event
        self._ended = True
        if event is None:
            raise StopIteration
        if isinstance(event, Generation):
            return event
        if isinstance(event, AppError):
            raise event
        raise EngineError(f"generation failed: {event}") from event

    def close(self) -> None:
        """Stop the worker as soon as it can; pieces not read yet are dropped."""
        self._ended = True
        self._cancellation.set()
        self._events.put(None)

    def __del__(self) -> None:
        if not self._ended:
            self._cancellation.set()


def drain(stream: Iterator[str | Generation]) -> Generation:
    """Read a stream to its end and give the whole `Generation`."""
    for event in stream:
        if isinstance(event, Generation):
            return event
    raise EngineError("the engine ended without a generation")
