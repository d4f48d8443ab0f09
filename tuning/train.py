"""One tuning run: rows in, an adapter trained with TRL's SFTTrainer, the best one out.

Three things differ from the trainer as it comes: the language model head runs only where a
completion is, all epochs are laid out beforehand (so a killed run resumes exactly), and the
checkpoint is chosen by answering dev questions. Preference runs differ from it in their plan and
their loss alone.
"""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from tuning import adapters, checkpoints, ranks
from tuning.adapters import AdapterManifest
from tuning.averaging import TailAverage
from tuning.base_model import base_digest, load_tokenizer
from tuning.config import TuneConfig, default_settings
from tuning.errors import (
    AdapterError,
    TrainingFailedError,
    TrainingInterruptedError,
)
from tuning.hardware import (
    code_versions,
    describe_hardware,
    peak_memory_bytes,
    release_free_memory,
    resolve_device,
)
from tuning.lora import adapter_state, start_from
from tuning.methods import load_trainable
from tuning.plan import make_plan
from tuning.preference import PreferenceLoss, make_preference_plan
from tuning.progress import OnProgress, Progress
from tuning.run_parts import (
    Clock,
    Inputs,
    cases_of,
    estimate_beside,
    finished_run,
    loss_curve,
    manifest_start,
    now,
    trainer_callback,
)
from tuning.scoring import (
    GenerationSettings,
    generate_answers,
    mean_scores,
    score_cases,
    score_intervals,
)
from tuning.snapshot import verify as verify_snapshot

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
    finished = finished_run(config)
    if finished is not None:
        on_progress(Progress("done", finished.steps, finished.steps, message="already finished"))
        return finished
    ranks.join(resolve_device(config.device))
    work = checkpoints.WorkFolder(config.work)
    if ranks.is_first():
        with work.locked():
            manifest = _execute(config, work, on_progress, should_stop)
        shutil.rmtree(work.path)
        return manifest
    return _execute(config, work, _ignore, should_stop)


def _execute(
    config: TuneConfig,
    work: checkpoints.WorkFolder,
    on_progress: OnProgress,
    should_stop: Callable[[], bool],
) -> AdapterManifest:
    snapshot_id = verify_snapshot(config.snapshot).id if config.snapshot else None
    start = adapters.verify(config.start_from).digest if config.start_from else None
    inputs = Inputs(base_digest(config.base), snapshot_id, start, ranks.world_size())
    if ranks.is_first():
        work.claim({**config.identity(), **asdict(inputs)}, default_settings())
    ranks.barrier()
    run = _Run(config, inputs, work, on_progress)
    run.should_stop = lambda: ranks.from_first(should_stop)
    return run.execute()


class _Run:
    """The state shared by the phases of one run."""

    def __init__(
        self,
        config: TuneConfig,
        inputs: Inputs,
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
        self.clock = Clock(0.0, time.monotonic())
        self.saved_at = time.monotonic()
        self.total_steps = 0
        self.last_loss: float | None = None
        self.last_rate: float | None = None
        self.preference: PreferenceLoss | None = None
        self.average = TailAverage(config.average)

    def execute(self) -> AdapterManifest:
        """Plan, train, choose, write."""
        config = self.config
        self.tokenizer = load_tokenizer(config.base)
        self.on_progress(Progress("plan", message="drawing and encoding rows"))
        self._plan()
        self.cases = cases_of(self.config, self.tokenizer)
        resume, step = ranks.from_first(self.work.last_complete)
        self.state = self.work.read_state(step)
        self.state.started = self.state.started or now()
        trainer = self._trainer()
        if resume:
            self.average.load(resume, trainer.model)
        self._before_first_step(trainer, step)
        before = self.state.seconds.get(str(step), 0.0)
        self.clock = Clock(before, time.monotonic(), self.plan.tokens_at(step))
        self.emit("train", step, message=f"resuming at step {step}" if step else "")
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        if self.interrupted:
            raise TrainingInterruptedError(
                f"stopped at step {trainer.state.global_step} of {self.total_steps}; "
                "run it again to go on"
            )
        if self.cases and self.average.count:
            with self.average.applied(trainer.model):
                self.evaluate(trainer.model, int(trainer.state.global_step), self.average.count)
        return self._finish(trainer)

    def _plan(self) -> None:
        if self.config.preference:
            prepared = make_preference_plan(
                self.config, self.tokenizer, self.check_stop, processes=ranks.world_size()
            )
            self.preference = PreferenceLoss(self.config, prepared)
            self.plan = prepared.plan
        else:
            self.plan = make_plan(
                self.config, self.tokenizer, self.check_stop, processes=ranks.world_size()
            )
        self.total_steps = self.plan.steps

    def _before_first_step(self, trainer: Any, step: int) -> None:
        """What needs the model as it starts: the reference, the estimate, the score to beat."""
        if self.preference is not None:
            self.preference.measure_reference(trainer.model, trainer.data_collator)
            if step == 0 and self.cases and not self.state.dev:
                # A preference run must beat the model it started from to be kept.
                self.evaluate(trainer.model, 0)
        if self.config.probe_steps and not self.state.estimate:
            from tuning.speed_probe import probe_run

            self.state.estimate = probe_run(trainer, self.plan, self.config, self.cases)
            self.work.write_state(self.state)

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

    def evaluate(self, model: Any, step: int, averaged: int = 0) -> None:
        """Answer the dev cases; keep the adapter when it is the best so far.

        Args:
            model: Model with the weights to score.
            step: Step the weights are of.
            averaged: Number of steps up to this one that the weights are the mean of.
        """
        parts = ranks.from_first(lambda: self._answer_cases(model))
        epoch = sum(step >= end for end in self.plan.epoch_ends)
        weights = self.config.weights_of_parts()
        scores = mean_scores(parts, weights)
        entry = {"step": step, "epoch": epoch, "scores": scores}
        entry |= {"intervals": score_intervals(parts, weights)} | (
            {"averaged": averaged} if averaged else {}
        )
        self.state.dev.append(entry)
        if self.state.best() is entry and ranks.is_first():
            tensors, adapter_config = adapter_state(model, self.inputs.base_digest)
            try:
                adapters.write_adapter(
                    self.work.best_folder(entry),
                    tensors,
                    adapter_config,
                    manifest_start(self.config, self.inputs, self.tokenizer),
                )
            except AdapterError as error:
                raise TrainingFailedError(f"at step {step}: {error}{_ADVICE}") from error
        if ranks.is_first():
            self.work.write_state(self.state)
        self.emit("evaluate", step, scores=scores)

    def _answer_cases(self, model: Any) -> dict[str, list[float]]:
        settings = GenerationSettings(
            self.config.eval_batch,
            self.config.eval_new_tokens,
            self.config.compute_dtype == "bfloat16",
        )
        prompts = [case.prompt_ids for case in self.cases]
        answers = generate_answers(model, self.tokenizer, prompts, settings)
        return score_cases(self.cases, answers)

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
        if config.average:
            self.average.add(model, self._progress(step))
        if self.should_stop() and not last:
            self.interrupted = True
            control.should_training_stop = True
            # An evaluation due at this step must not be lost: the step is made again.
            control.should_save = not (self.cases and self._evaluates_at(step))
            return
        over = config.max_seconds is not None and self._seconds() >= config.max_seconds
        if self.cases and (over or self._evaluates_at(step)):
            self.evaluate(model, step)
            control.should_save = not last
            stale = self.state.evaluations_since_best()
            if config.patience and stale >= config.patience and not last:
                self.stopped_by = f"no better dev score in {config.patience} evaluations"
                control.should_training_stop = True
                # A run killed while it finishes must stop here again, not train on from here.
                control.should_save = False
                return
        if over and not last:
            self.stopped_by = f"max_seconds={config.max_seconds:g}"
            control.should_training_stop = True
        due = time.monotonic() - self.saved_at >= config.checkpoint_seconds
        if ranks.from_first(lambda: due) and not last:
            control.should_save = True

    def _progress(self, step: int) -> float:
        """Share of the run that is done, in (0, 1], by steps or by time, whichever ends first."""
        limit = self.config.max_seconds
        by_time = self._seconds() / limit if limit else 0.0
        return min(1.0, max(step / self.total_steps, by_time))

    def _seconds(self) -> float:
        return ranks.from_first(self.clock.seconds)

    def after_save(self, step: int) -> None:
        """Make a written checkpoint the one to resume from."""
        ranks.barrier()
        if not ranks.is_first():
            self.saved_at = time.monotonic()
            return
        self.state.seconds[str(step)] = self.clock.seconds()
        self.average.save(self.work.checkpoint(step))
        self.work.write_state(self.state)
        self.work.mark_complete(step)
        # Not earlier: a resumed run may go back to a step before the best evaluation so far.
        best = self.state.best()
        if best is not None:
            self.work.keep_only_best(best)
        self.saved_at = time.monotonic()

    def _evaluates_at(self, step: int) -> bool:
        every = self.config.eval_steps
        return step in self.plan.epoch_ends or bool(every and step % every == 0)

    def _trainer(self) -> Any:
        import torch
        from transformers import set_seed

        from tuning.completion_trainer import TrainerHooks, completion_trainer

        config = self.config
        torch.manual_seed(config.seed)
        set_seed(config.seed)
        model = load_trainable(config)
        if config.start_from:
            start_from(model, config.method, config.start_from)
        return completion_trainer(
            model,
            self.tokenizer,
            self.plan,
            config,
            TrainerHooks(
                self.work.checkpoints,
                trainer_callback(self),
                lambda: self._seconds() / (config.max_seconds or math.inf),
                self.preference,
            ),
        )

    def _finish(self, trainer: Any) -> AdapterManifest:
        config, step = self.config, int(trainer.state.global_step)
        best = self.state.best()
        if best is not None and self.work.best_folder(best).is_dir():
            folder = self.work.best_folder(best)
            tensors = adapters.read_tensors(folder)
            adapter_config = adapters.read_config(folder)
        else:
            tensors, adapter_config = adapter_state(trainer.model, self.inputs.base_digest)
        manifest = replace(
            manifest_start(self.config, self.inputs, self.tokenizer),
            snapshot_id=self.inputs.snapshot_id,
            start_from=self.inputs.start_digest,
            config=config.identity(),
            curve=loss_curve(trainer.state.log_history),
            dev=self.state.dev,
            best_step=best["step"] if best else None,
            averaged=best.get("averaged", 0) if best else 0,
            steps=step,
            tokens=self.plan.tokens_at(step),
            counts=self.plan.counts,
            seconds=round(self.clock.seconds(), 3),
            started=self.state.started,
            finished=now(),
            stopped_by=self.stopped_by,
            peak_memory_bytes=peak_memory_bytes(),
            hardware=describe_hardware(),
            versions=code_versions(),
            estimate=estimate_beside(self.state.estimate, self.clock.seconds()),
        )
        self.emit("save", step)
        if ranks.is_first():
            adapters.write_adapter(config.output, tensors, adapter_config, manifest)
        ranks.barrier()
        written = adapters.verify(config.output, base_folder=config.base)
        self.emit("done", step, scores=best["scores"] if best else {})
        return written
