"""Small parts of a tuning run: what it reads, its clock, and the trainer's events passed on."""

import datetime as dt
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tuning.adapters import MANIFEST_FILE, AdapterManifest, verify
from tuning.config import TuneConfig, differing_setting
from tuning.errors import TuneConfigError
from tuning.prompt import template_digest
from tuning.scoring import DevCase, dev_cases, score_cases
from tuning.sources import sources_of


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


def finished_run(config: TuneConfig) -> AdapterManifest | None:
    """The adapter of a run that ended already; None where it did not.

    Raises:
        TuneConfigError: If the output was made with other settings.
    """
    if not (Path(config.output) / MANIFEST_FILE).is_file():
        return None
    manifest = verify(config.output)
    setting = differing_setting(manifest.config, config)
    if setting is not None:
        raise TuneConfigError(
            f"output {config.output!r} already holds an adapter made with other settings: "
            f"{setting} was {manifest.config.get(setting)!r}"
        )
    return manifest


def cases_of(config: TuneConfig, tokenizer: Any) -> list[DevCase]:
    """The dev prompts that choose a checkpoint; none where evaluations are off.

    Raises:
        TuneConfigError: If the dev rows give no score that has a weight.
    """
    if not config.eval_rows:
        return []
    rows = sources_of(config)[0].dev_rows(config.eval_rows)
    cases = dev_cases(rows, tokenizer, config.draw_config(), seed=config.seed)
    parts = score_cases(cases, [""] * len(cases))
    weights = config.weights_of_parts()
    if parts and not any(weights.get(name) for name in parts):
        raise TuneConfigError(
            f"the dev rows give {', '.join(parts)} and none of them has a weight to choose a "
            "checkpoint by: see composite_weights"
        )
    return cases


def manifest_start(config: TuneConfig, inputs: Inputs, tokenizer: Any) -> AdapterManifest:
    """What a manifest of the run says before anything was trained."""
    return AdapterManifest(
        digest="",
        base_digest=inputs.base_digest,
        template_digest=template_digest(tokenizer),
        rank=config.r,
        alpha=config.alpha,
        parameters=0,
        method=config.method,
        objective=config.objective,
    )


def estimate_beside(estimate: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What was foretold beside the time it took; empty where nothing was foretold."""
    return {**estimate, "actual_seconds": round(seconds, 1)} if estimate else {}


def now() -> str:
    """The time in UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


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
