"""Counters, gauges and histograms in Prometheus' text format, for `/metrics`.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Counter:
    """A number that only rises, one per set of labels."""

    def __init__(self, name: str, about: str, *labels: str) -> None:
        self.name, self.about, self._labels = name, about, labels
        self._values: dict[tuple[str, ...], int] = {} if labels else {(): 0}
        self._lock = threading.Lock()

    def inc(self, by: int = 1, **labels: str) -> None:
        """Add to the count of these labels."""
        key = tuple(labels[name] for name in self._labels)
        with self._lock:
            self._values[key] = self._values.get(key, 0) + by

    def value(self, **labels: str) -> int:
        """The count of these labels."""
        return self._values.get(tuple(labels[name] for name in self._labels), 0)

    def lines(self) -> Iterator[str]:
        """The metric as Prometheus reads it."""
        yield from _head(self.name, self.about, "counter")
        with self._lock:
            rows = sorted(self._values.items())
        for key, value in rows:
            pairs = ",".join(f'{n}="{_escaped(v)}"' for n, v in zip(self._labels, key, strict=True))
            yield f"{self.name}{{{pairs}}} {value}" if pairs else f"{self.name} {value}"


class Gauge:
    """A number that is asked for when it is read."""

    def __init__(self, name: str, about: str, read: Callable[[], float]) -> None:
        self.name, self.about, self._read = name, about, read

    def lines(self) -> Iterator[str]:
        """The metric as Prometheus reads it."""
        yield from _head(self.name, self.about, "gauge")
        yield f"{self.name} {self._read():g}"


class Histogram:
    """How many values lie below each bound; seconds."""

    def __init__(self, name: str, about: str) -> None:
        self.name, self.about = name, about
        self._counts = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, seconds: float) -> None:
        """Count one value."""
        with self._lock:
            self._counts[bisect_left(_SECONDS, seconds)] += 1
            self._sum += seconds

    def lines(self) -> Iterator[str]:
        """The metric as Prometheus reads it."""
        yield from _head(self.name, self.about, "histogram")
        with self._lock:
            counts, total = list(self._counts), self._sum
        below = 0
        for bound, count in zip((*map(str, _SECONDS), "+Inf"), counts, strict=True):
            below += count
            yield f'{self.name}_bucket{{le="{bound}"}} {below}'
        yield f"{self.name}_sum {total:g}"
        yield f"{self.name}_count {below}"


class Metrics:
    """What the service counts."""

    def __init__(self) -> None:
        self.answers = Counter(
            "tandem_answers_total",
            "Finished answers by arm and by what made them.",
            "arm",
            "made_by",
        )
        self.seconds = Histogram("tandem_answer_seconds", "Time of an answer, from search to text.")
        self.tokens = Counter("tandem_tokens_total", "Tokens of prompts and answers.", "kind")
        self.cache = Counter(
            "tandem_cache_lookups_total", "Look-ups of cached generations by outcome.", "outcome"
        )
        self.stale = Counter(
            "tandem_cache_stale_total",
            "Cached generations found but not given, since a passage ended after the search.",
        )
        self.refused = Counter(
            "tandem_refused_total", "Requests refused before their body was read.", "status"
        )
        self.fallbacks = Counter("tandem_fallbacks_total", "Answers by a fallback.", "used")
        self.gauges: list[Gauge] = []

    def count_cache(self, outcome: str) -> None:
        """Count a look-up (`exact`, `semantic` or `miss`), or a `stale` find."""
        if outcome == "stale":
            self.stale.inc()
        else:
            self.cache.inc(outcome=outcome)

    def render(self) -> str:
        """All metrics as text."""
        parts: tuple[Counter | Histogram | Gauge, ...] = (
            self.answers,
            self.seconds,
            self.tokens,
            self.cache,
            self.stale,
            self.refused,
            self.fallbacks,
            *self.gauges,
        )
        return "\n".join(line for part in parts for line in part.lines()) + "\n"


def _head(name: str, about: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {about}", f"# TYPE {name} {kind}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
