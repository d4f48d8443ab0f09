"""Small parts of a tuning run: what it reads, its clock, and the trainer's events passed on."""

import time
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Inputs:
    """Digests of what the run reads."""

    base_digest: str
    snapshot_id: str | None
    start_digest: str | None
    processes: int


@dataclass(slots=True)
class Clock:
    """Training time across restarts, for the budget and the speed shown."""

    before: float
    started: float
    start_tokens: int = 0

    def seconds(self) -> float:
        """Training time so far, that of earlier processes included."""
        return self.before + time.monotonic() - self.started

    def pace(self, tokens: int) -> float:
        """Tokens per second of this process."""
        passed = time.monotonic() - self.started
        return (tokens - self.start_tokens) / passed if passed > 0 else 0.0


class Watched(Protocol):
    """What hears of the trainer's events."""

    def after_log(self, step: int, logs: dict[str, Any]) -> None:
        """The trainer logged."""

    def after_step(self, step: int, model: Any, control: Any) -> None:
        """An optimiser step was made."""

    def after_save(self, step: int) -> None:
        """A checkpoint was written."""


def trainer_callback(run: Watched) -> Any:
    """A callback of the trainer that passes its events to a run."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Passes the trainer's events to the run."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            run.after_log(state.global_step, logs or {})

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            run.after_step(state.global_step, kwargs["model"], control)
            return control

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            run.after_save(state.global_step)

    return Watch()


def loss_curve(history: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The logged losses by step, with what a preference run logs beside them."""
    kept = ("step", "loss", "learning_rate", "accuracy", "margin")
    return [
        {name: entry[name] for name in kept if name in entry}
        for entry in history
        if "loss" in entry
    ]
