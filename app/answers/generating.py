"""One generation under a deadline that anybody may cancel."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from app.engines.streams import Cancellation
from app.engines.types import Engine, EngineError, Generation, GenerationRequest
from app.errors import TooSlow
from app.use_cases.json_schema import DoesNotFit, parse_answer


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


class Generator:
    """Runs an engine in threads of its own, so that a caller never waits longer than it wants."""

    def __init__(self, engine: Engine, at_once: int) -> None:
        """`at_once`: the most generations side by side; more wait for one to end."""
        self.engine = engine
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="generate")

    def run(
        self,
        request: GenerationRequest,
        *,
        stream: bool,
        timeout_s: float,
        cancelled: Cancellation,
    ) -> Iterator[str | Generation]:
        """Pieces of text as they come (with `stream`), then the whole `Generation`.

        Closing the iterator ends the engine's stream too.

        Raises:
            TooSlow: Not done within `timeout_s` seconds.
            Abandoned: `cancelled` was set.
        """
        events: queue.SimpleQueue[str | Generation | Future[None] | None] = queue.SimpleQueue()
        stopped = Cancellation()
        cancelled.on_set(lambda: events.put(None))
        deadline = time.monotonic() + timeout_s
        future = self._pool.submit(self._work, request, stream, events, stopped)
        future.add_done_callback(events.put)
        try:
            while True:
                try:
                    event = events.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty as error:
                    raise TooSlow(f"no answer within {timeout_s:g} s") from error
                if event is None:
                    raise Abandoned
                if isinstance(event, Future):
                    event.result()  # raises what the engine raised
                    return
                yield event
        finally:
            stopped.set()
            future.cancel()

    def _work(
        self,
        request: GenerationRequest,
        stream: bool,
        events: queue.SimpleQueue[str | Generation | Future[None] | None],
        stopped: Cancellation,
    ) -> None:
        # Streamed also where nobody reads the pieces: only a stream can be stopped midway.
        pieces = self.engine.stream(request)
        close = getattr(pieces, "close", None)
        if close is not None and not hasattr(pieces, "gi_running"):
            stopped.on_set(close)  # a generator cannot be closed while it runs
        for piece in pieces:
            if stopped.is_set():
                break
            if stream or isinstance(piece, Generation):
                events.put(piece)
        if close is not None:
            close()

    def close(self) -> None:
        """Take no more work; what runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def require_fit(generation: Generation, schema: Mapping[str, Any]) -> None:
    """Raise EngineError unless the text follows the schema."""
    try:
        parse_answer(generation.text, schema)
    except DoesNotFit as error:
        cut = generation.finish_reason == "length"
        why = f"it was cut at {generation.completion_tokens} tokens" if cut else str(error)
        raise EngineError(f"the answer does not follow the JSON schema: {why}") from error
