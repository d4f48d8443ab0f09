"""Progress events of a tuning run and their JSON Lines form."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import IO, Literal

Phase = Literal["plan", "train", "evaluate", "save", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One moment of a run; `eta_seconds` covers the remaining steps at the pace so far."""

    phase: Phase
    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    tokens: int = 0
    tokens_per_second: float = 0.0
    seconds: float = 0.0
    eta_seconds: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    message: str = ""


OnProgress = Callable[[Progress], None]


def json_lines(stream: IO[str]) -> OnProgress:
    """A callback that writes each event as one flushed JSON line."""

    def write(event: Progress) -> None:
        stream.write(json.dumps(asdict(event), ensure_ascii=False) + "\n")
        stream.flush()

    return write
