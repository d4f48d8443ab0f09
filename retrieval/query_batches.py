"""Questions that come while others are being embedded share the next forward pass.

No question waits for company: one that comes alone is embedded at once and alone.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Embed = Callable[[list[str]], NDArray[np.float32]]


@dataclass(slots=True, eq=False)
class _Waiting:
    text: str
    taken: bool = False
    vector: NDArray[np.float32] | None = None


class QueryBatches:
    """A line in front of a model; whoever finds a pass free takes the head of the line along."""

    def __init__(self, embed: Embed, *, passes: int, most: int) -> None:
        """Nothing runs yet.

        Args:
            embed: texts to (n, dim) float32, in one forward pass.
            passes: forward passes at the same time, at least 1.
            most: texts in one pass, at least 1.
        """
        if passes < 1 or most < 1:
            raise ValueError(f"passes and most must be at least 1, got {passes} and {most}")
        self._embed = embed
        self._free = passes
        self._most = most
        self._line: deque[_Waiting] = deque()
        self._changed = threading.Condition()

    def embed(self, text: str) -> NDArray[np.float32]:
        """(dim,) float32.

        What the model raises goes to the question that ran the pass; the others of that pass go
        back to the head of the line and try without it.
        """
        mine = _Waiting(text)
        with self._changed:
            self._line.append(mine)
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: mine.vector is not None or (not mine.taken and self._free > 0)
                )
                if mine.vector is not None:
                    return mine.vector
                batch = [self._line.popleft() for _ in range(min(self._most, len(self._line)))]
                for waiting in batch:
                    waiting.taken = True
                self._free -= 1
            vectors = None
            try:
                vectors = self._embed([waiting.text for waiting in batch])
            finally:
                self._end(mine, batch, vectors)

    def _end(
        self, mine: _Waiting, batch: Sequence[_Waiting], vectors: NDArray[np.float32] | None
    ) -> None:
        with self._changed:
            self._free += 1
            if vectors is None:
                for waiting in reversed(batch):
                    waiting.taken = False
                    self._line.appendleft(waiting)
                self._line.remove(mine)
            else:
                for waiting, vector in zip(batch, vectors, strict=True):
                    waiting.vector = vector
            self._changed.notify_all()
