"""Time and memory of each station of the demo."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

_PERIOD_S = 0.2


@dataclass(frozen=True, slots=True)
class Station:
    """One part of the loop: wall-clock seconds, and the peak of this process and its children."""

    name: str
    seconds: float
    peak_mib: int


class Stations:
    """Measures stations one after another; memory is sampled, so short peaks may be missed."""

    def __init__(self) -> None:
        self.finished: list[Station] = []
        self._peak = 0
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measure one station."""
        self._peak = _resident_bytes()
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self.finished.append(Station(name, round(seconds, 1), self._peak // 2**20))

    def close(self) -> None:
        """Stop sampling."""
        self._stop.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            self._peak = max(self._peak, _resident_bytes())


def _resident_bytes() -> int:
    """Resident memory of this process and all its children; shared pages count once per process."""
    own = psutil.Process()
    total = 0
    for process in (own, *own.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return int(total)
