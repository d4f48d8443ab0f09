"""A run's loss and dev score drawn in the terminal while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.text import Text

from app.cli.output import err
from app.tuning_runs.shown import shown

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """Values as a line of bars, the highest one full; neighbours are averaged to fit the width."""
    if not values:
        return ""
    if len(values) > width:
        cuts = [i * len(values) // width for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    low, high = min(values), max(values)
    steps = len(_BARS) - 1
    return "".join(
        _BARS[round(steps * (v - low) / (high - low))] if high > low else _BARS[0] for v in values
    )


class Curve:
    """What was seen of a run so far."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.losses: list[float] = []
        self.scores: list[float] = []
        self.line = ""

    def add(self, event: dict[str, Any]) -> None:
        """Take one progress event."""
        self.line = shown(event)[2]
        if event.get("phase") == "train" and event.get("loss") is not None:
            self.losses.append(float(event["loss"]))
        if "composite" in (event.get("scores") or {}) and event.get("phase") == "evaluate":
            self.scores.append(float(event["scores"]["composite"]))

    def __rich__(self) -> Group:
        lines = [Text.assemble((self.label, "bold"), f"  {self.line}", overflow="ellipsis")]
        if self.losses:
            ends = f" {self.losses[0]:.3f} to {self.losses[-1]:.3f}"
            lines.append(Text.assemble("loss ", (sparkline(self.losses), "cyan"), ends))
        if self.scores:
            ends = f" {self.scores[-1]:.3f}, best {max(self.scores):.3f}"
            lines.append(Text.assemble("dev  ", (sparkline(self.scores), "green"), ends))
        return Group(*lines)


@contextmanager
def live_curve(label: str, quiet: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Draw events as they come; with `quiet` nothing is drawn."""
    if quiet:
        yield lambda _event: None
        return
    curve = Curve(label)
    with Live(curve, console=err, refresh_per_second=4) as live:

        def add(event: dict[str, Any]) -> None:
            curve.add(event)
            live.refresh()

        yield add
