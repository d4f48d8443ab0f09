"""One tuning run: rows in, LoRA trained with TRL's SFTTrainer, the best adapter out.

Three things differ from the trainer as it comes: the language model head runs only where a
completion is, all epochs are laid out beforehand (so a killed run resumes exactly), and the
checkpoint is chosen by answering dev questions.
"""

import datetime as dt
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tuning import adapters, checkpoints
from tuning.adapters import AdapterManifest
from tuning.base_model import base_digest, load_model, load_tokenizer
from tuning.config import TuneConfig
from tuning.errors import (
    AdapterError,
    TrainingFailedError,
    TrainingInterruptedError,
    TuneConfigError,
)
from tuning.hardware import (
    code_versions,
    describe_hardware,
    peak_memory_bytes,
    release_free_memory,
)
from tuning.lora import attach_lora, continue_from, lora_state
from tuning.plan import make_plan
from tuning.progress import OnProgress, Progress
from tuning.prompt import template_digest
from tuning.scoring import DevCase, GenerationSettings, dev_cases, generate_answers, score_answers
from tuning.snapshot import verify as verify_snapshot
from tuning.sources import sources_of

_ADVICE = "; lower learning_rate"

_TRIM_STEPS = 2


def _ignore(_: Progress) -> None:
    pass


def _never() -> bool:
    return False


def tune(
    config: TuneConfig,
    on_progress: OnProgress = _ignore,
    should_stop: Callable[[], bool] = _never,
) -> AdapterManifest:
    """Train an adapter, or finish a run that was interrupted, and return its manifest.

    A finished output made with the same settings is returned as it is.

    Args:
        config: The run.
        on_progress: Called with every progress event, in this thread.
        should_stop: Asked after every step; True saves a checkpoint and ends the run.

    Raises:
        TuneConfigError: If the output or its work folder belongs to other settings.
        TrainingInterruptedError: If `should_stop` ended the run.
        TrainingFailedError: If the loss is not finite or no row fits.
        TuningError: If the snapshot, base or start adapter is unusable.
    """
    finished = _finished(config)
    if finished is not None:
        on_progress(Progress("done", finished.steps, finished.steps, message="already finished"))
        return finished
    work = checkpoints.WorkFolder(config.work)
    with work.locked():
        snapshot_id = verify_snapshot(config.snapshot).id if config.snapshot else None
        start = adapters.verify(config.start_from).digest if config.start_from else None
        inputs = _Inputs(base_digest(config.base), snapshot_id, start)
        work.claim({**config.identity(), **asdict(inputs)})
        run = _Run(config, inputs, work, on_progress)
        run.should_stop = should_stop
        manifest = run.execute()
    shutil.rmtree(work.path)
    return manifest


def _finished(config: TuneConfig) -> AdapterManifest | None:
    if not (Path(config.output) / adapters.MANIFEST_FILE).is_file():
        return None
    manifest = adapters.verify(config.output)
    recorded = {k: v for k, v in manifest.config.items() if k in config.identity()}
    if recorded != config.identity():
        raise TuneConfigError(
            f"output {config.output!r} already holds an adapter made with other settings"
        )
    return manifest


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Digests of what the run reads."""

    base_digest: str
    snapshot_id: str | None
    start_digest: str | None


@dataclass(slots=True)
class _Clock:
    """Training time across restarts, for the budget and the speed shown."""

    before: float
    started: float
    start_tokens: int = 0

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    def pace(self, tokens: int) -> float:
        passed = time.monotonic() - self.started
        return (tokens - self.start_tokens) / passed if passed > 0 else 0.0


class _Run:
    """The state shared by the phases of one run."""

    def __init__(
        self,
        config: TuneConfig,
        inputs: _Inputs,
        work: checkpoints.WorkFolder,
        on_progress: OnProgress,
    ) -> None:
        self.config = config
        self.inputs = inputs
        self.work = work
        self.on_progress = on_progress
        self.should_stop: Callable[[], bool] = _never
        self.stopped_by = "all epochs done"
        self.interrupted = False
        self.clock = _Clock(0.0, time.monotonic())
        self.saved_at = time.monotonic()
        self.total_steps = 0
        self.last_loss: float | None = None
        self.last_rate: float | None = None

    def execute(self) -> AdapterManifest:
        """Plan, train, choose, write."""
        config = self.config
        self.tokenizer = load_tokenizer(config.base)
        self.on_progress(Progress("plan", message="drawing and encoding rows"))
        self.plan = make_plan(config, self.tokenizer, self.check_stop, processes=_world_size())
        self.total_steps = self.plan.steps
        self.cases = self._dev_cases()
        resume, step = self.work.last_complete()
        self.state = self.work.read_state(step)
        self.state.started = self.state.started or _now()
        trainer = self._trainer()
        before = self.state.seconds.get(str(step), 0.0)
        self.clock = _Clock(before, time.monotonic(), self.plan.tokens_at(step))
        self.emit("train", step, message=f"resuming at step {step}" if step else "")
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        if self.interrupted:
            raise TrainingInterruptedError(
                f"stopped at step {trainer.state.global_step} of {self.total_steps}; "
                "run it again to go on"
            )
        return self._finish(trainer)

    def check_stop(self) -> None:
        """Give up between steps of the planning phase."""
        if self.should_stop():
            raise TrainingInterruptedError("stopped while drawing rows; run it again to go on")

    def emit(self, phase: Any, step: int, **more: Any) -> None:
        """Send one progress event."""
        tokens = self.plan.tokens_at(step)
        pace = self.clock.pace(tokens)
        left = self.plan.tokens[-1] - tokens
        event = Progress(
            phase=phase,
            step=step,
            total_steps=self.total_steps,
            epoch=sum(step >= end for end in self.plan.epoch_ends[:-1]),
            loss=self.last_loss,
            learning_rate=self.last_rate,
            tokens=tokens,
            tokens_per_second=pace,
            seconds=self.clock.seconds(),
            eta_seconds=left / pace if pace > 0 else None,
        )
        self.on_progress(replace(event, **more))

    def evaluate(self, model: Any, step: int) -> None:
        """Answer the dev cases; keep the adapter when it is the best so far."""
        settings = GenerationSettings(
            self.config.eval_batch, self.config.eval_new_tokens, self.config.dtype == "bfloat16"
        )
        prompts = [case.prompt_ids for case in self.cases]
        answers = generate_answers(model, self.tokenizer, prompts, settings)
        scores = score_answers(self.cases, answers)
        epoch = sum(step >= end for end in self.plan.epoch_ends)
        self.state.dev.append({"step": step, "epoch": epoch, "scores": scores})
        best = self.state.best()
        if best is not None and best["step"] == step:
            tensors, lora_config = lora_state(model, self.inputs.base_digest)
            try:
                adapters.write_adapter(
                    self.work.best_folder(step), tensors, lora_config, self._manifest_start()
                )
            except AdapterError as error:
                raise TrainingFailedError(f"at step {step}: {error}{_ADVICE}") from error
        self.work.write_state(self.state)
        self.emit("evaluate", step, scores=scores)

    def after_log(self, step: int, logs: dict[str, Any]) -> None:
        """Report the loss; give up when it is not finite."""
        if "loss" not in logs:
            return
        self.last_loss, self.last_rate = float(logs["loss"]), logs.get("learning_rate")
        if not math.isfinite(self.last_loss):
            raise TrainingFailedError(f"the loss is {self.last_loss} at step {step}{_ADVICE}")
        self.emit("train", step)

    def after_step(self, step: int, model: Any, control: Any) -> None:
        """Evaluate, checkpoint and stop when it is time to."""
        config, last = self.config, step >= self.total_steps
        if step % _TRIM_STEPS == 0:
            release_free_memory()
        if self.should_stop() and not last:
            self.interrupted = True
            control.should_save = control.should_training_stop = True
            return
        over = config.max_seconds is not None and self.clock.seconds() >= config.max_seconds
        if self.cases and (over or self._evaluates_at(step)):
            self.evaluate(model, step)
            control.should_save = not last
            stale = self.state.evaluations_since_best()
            if config.patience and stale >= config.patience and not last:
                self.stopped_by = f"no better dev score in {config.patience} evaluations"
                control.should_training_stop = True
        if over and not last:
            self.stopped_by = f"max_seconds={config.max_seconds:g}"
            control.should_training_stop = True
        if time.monotonic() - self.saved_at >= config.checkpoint_seconds and not last:
            control.should_save = True

    def after_save(self, step: int) -> None:
        """Make a written checkpoint the one to resume from."""
        self.state.seconds[str(step)] = self.clock.seconds()
        self.work.write_state(self.state)
        self.work.mark_complete(step)
        # Not earlier: a resumed run may go back to a step before the best evaluation so far.
        best = self.state.best()
        if best is not None:
            self.work.keep_only_best(best["step"])
        self.saved_at = time.monotonic()

    def _evaluates_at(self, step: int) -> bool:
        every = self.config.eval_steps
        return step in self.plan.epoch_ends or bool(every and step % every == 0)

    def _dev_cases(self) -> list[DevCase]:
        if not self.config.eval_rows:
            return []
        rows = sources_of(self.config)[0].dev_rows(self.config.eval_rows)
        return dev_cases(rows, self.tokenizer, self.config.draw_config(), seed=self.config.seed)

    def _trainer(self) -> Any:
        import torch
        from transformers import set_seed

        from tuning.completion_trainer import completion_trainer

        config = self.config
        torch.manual_seed(config.seed)
        set_seed(config.seed)
        model = attach_lora(
            load_model(config.base, dtype=config.dtype),
            r=config.r,
            alpha=config.alpha,
            dropout=config.dropout,
            target_modules=config.target_modules,
        )
        if config.start_from:
            continue_from(model, config.start_from)
        return completion_trainer(
            model,
            self.tokenizer,
            self.plan,
            config,
            folder=self.work.checkpoints,
            callback=_callback(self),
            spent=lambda: self.clock.seconds() / (config.max_seconds or math.inf),
        )

    def _manifest_start(self) -> AdapterManifest:
        return AdapterManifest(
            digest="",
            base_digest=self.inputs.base_digest,
            template_digest=template_digest(self.tokenizer),
            rank=self.config.r,
            alpha=self.config.alpha,
            parameters=0,
        )

    def _finish(self, trainer: Any) -> AdapterManifest:
        config, step = self.config, int(trainer.state.global_step)
        best = self.state.best()
        if best is not None and self.work.best_folder(best["step"]).is_dir():
            folder = self.work.best_folder(best["step"])
            tensors = adapters.read_tensors(folder)
            lora_config = adapters.read_lora_config(folder)
        else:
            tensors, lora_config = lora_state(trainer.model, self.inputs.base_digest)
        manifest = replace(
            self._manifest_start(),
            snapshot_id=self.inputs.snapshot_id,
            start_from=self.inputs.start_digest,
            config=config.identity(),
            curve=_curve(trainer.state.log_history),
            dev=self.state.dev,
            best_step=best["step"] if best else None,
            steps=step,
            tokens=self.plan.tokens_at(step),
            counts=self.plan.counts,
            seconds=round(self.clock.seconds(), 3),
            started=self.state.started,
            finished=_now(),
            stopped_by=self.stopped_by,
            peak_memory_bytes=peak_memory_bytes(),
            hardware=describe_hardware(),
            versions=code_versions(),
        )
        self.emit("save", step)
        written = adapters.write_adapter(config.output, tensors, lora_config, manifest)
        adapters.verify(config.output, base_folder=config.base)
        self.emit("done", step, scores=best["scores"] if best else {})
        return written


def _callback(run: _Run) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Passes the trainer's events to the run."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            run.after_log(state.global_step, logs or {})

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            run.after_step(state.global_step, kwargs["model"], control)
            return control

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                run.after_save(state.global_step)

    return Watch()


def _curve(history: list[dict[str, Any]]) -> list[dict[str, float]]:
    return [
        {"step": entry["step"], "loss": entry["loss"], "learning_rate": entry["learning_rate"]}
        for entry in history
        if "loss" in entry
    ]


def _world_size() -> int:
    import os

    return int(os.environ.get("WORLD_SIZE", "1"))


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
