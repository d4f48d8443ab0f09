"""Hyper-parameter sweeps that stop bad arms early: successive halving.

Every arm trains on a small share of the rows; the best third goes on to three times as many, and
so on (Jamieson and Talwalkar 2016, arXiv 1502.07943). An arm is a finished run in a folder of its
own, so a killed sweep goes on where it stopped.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tuning.adapters import AdapterManifest
from tuning.atomic import write_json
from tuning.config import TuneConfig, config_from
from tuning.errors import TuneConfigError

_ETA = 3
Train = Callable[[TuneConfig], AdapterManifest]
OnTrial = Callable[["Trial"], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """One arm on one rung; `score` is the best dev composite, None when training failed."""

    rung: int
    share: float
    arm: dict[str, Any]
    score: float | None
    seconds: float
    output: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """All trials in order, and the arm that was best on the whole data."""

    trials: tuple[Trial, ...]
    best: Trial


def grid(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the settings' values."""
    return [
        dict(zip(values, combination, strict=True))
        for combination in itertools.product(*values.values())
    ]


def successive_halving(
    config: TuneConfig,
    arms: Sequence[dict[str, Any]],
    train: Train,
    on_trial: OnTrial = lambda _: None,
) -> SweepResult:
    """Run a sweep below `config.output`; the record is `sweep.json` there.

    Args:
        config: Settings of every arm; needs dev rows, since dev answers decide.
        arms: Settings that differ, by arm.
        train: Trains one configuration.
        on_trial: Called after every trial.

    Raises:
        TuneConfigError: If there are no arms, no dev rows, or no arm could be trained.
    """
    if not arms or not config.eval_rows:
        raise TuneConfigError("a sweep needs at least one arm and eval_rows > 0")
    folder = Path(config.output)
    rungs = max(1, math.ceil(math.log(len(arms), _ETA) - 1e-9) + 1)
    trials: list[Trial] = []
    alive = [dict(arm) for arm in arms]
    for rung in range(rungs):
        share = config.train_share / _ETA ** (rungs - 1 - rung)
        done = []
        for number, arm in enumerate(alive):
            trial = _trial(config, arm, (rung, number, share), train)
            trials.append(trial)
            done.append(trial)
            on_trial(trial)
            write_json(folder / "sweep.json", [asdict(t) for t in trials])
        scored = [trial for trial in done if trial.score is not None]
        if not scored:
            raise TuneConfigError(f"no arm could be trained: {done[0].error}")
        scored.sort(key=lambda trial: -(trial.score or 0.0))
        alive = [trial.arm for trial in scored[: max(1, math.ceil(len(scored) / _ETA))]]
    return SweepResult(tuple(trials), scored[0])


def _trial(
    config: TuneConfig, arm: dict[str, Any], where: tuple[int, int, float], train: Train
) -> Trial:
    from tuning.errors import TrainingFailedError

    rung, number, share = where
    output = str(Path(config.output) / f"rung-{rung}-arm-{number}")
    settings = config_from({**asdict(config), "output": output, "train_share": share, **arm})
    try:
        manifest = train(settings)
    except TrainingFailedError as error:
        return Trial(rung, share, arm, None, 0.0, output, str(error))
    best = max((entry["scores"]["composite"] for entry in manifest.dev), default=None)
    return Trial(rung, share, arm, best, manifest.seconds, output)


def best_config(config: TuneConfig, result: SweepResult) -> TuneConfig:
    """The sweep's configuration with the best arm's settings."""
    return replace(config, **result.best.arm)
