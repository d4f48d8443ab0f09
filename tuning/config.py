"""The settings of one tuning run: everything that decides what comes out."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tuning.builder import DrawConfig
from tuning.errors import TuneConfigError
from tuning.hardware import resolve_dtype
from tuning.methods import METHODS
from tuning.prompt import DEFAULT_ABSTAIN, DEFAULT_SYSTEM
from tuning.reader.mix import reader_mix
from tuning.scoring import COMPOSITE

DTYPES = ("auto", "bfloat16", "float32")
DEVICES = ("auto", "cpu", "cuda")
TRACKERS = ("none", "tensorboard", "mlflow", "wandb")
OBJECTIVES = ("sft", "dpo", "kto")

# Changing these does not change the result, so a run may be resumed with other values.
_NOT_IDENTITY = frozenset(
    {
        "output",
        "device",
        "workers",
        "log_steps",
        "checkpoint_steps",
        "checkpoint_seconds",
        "probe_steps",
        "track",
    }
)

_CHOICES = {
    "dtype": DTYPES,
    "device": DEVICES,
    "method": tuple(METHODS),
    "objective": OBJECTIVES,
    "track": TRACKERS,
}
_POSITIVE = (
    "r",
    "alpha",
    "learning_rate",
    "epochs",
    "batch_rows",
    "grad_accumulation",
    "eval_batch",
    "eval_new_tokens",
    "log_steps",
    "checkpoint_seconds",
    "beta",
    "virtual_tokens",
    "train_share",
)
_NOT_NEGATIVE = (
    "eval_rows",
    "patience",
    "workers",
    "reader_rows",
    "weight_decay",
    "sft_weight",
    "probe_steps",
)
_FOLDERS = ("base", "snapshot", "policyqa", "start_from")


@dataclass(frozen=True, slots=True)
class TuneConfig:
    """One tuning run. Rows come from a snapshot, from the reader generator, or from both.

    Attributes:
        base: Prepared Hugging Face folder of the base model.
        output: Adapter directory to make; work files live beside it in `<output>.work`.
        snapshot: Sealed snapshot folder; its train and dev splits are used.
        reader_rows: Generated reader rows per epoch, new ones in every epoch.
        policyqa: Folder of the PolicyQA data set, added to the reader rows.
        reader_mix: Shares of the reader rows' kinds, by name, in place of those of
            `tuning.reader.mix.ReaderMix`.
        start_from: Adapter directory the new adapter computes the same function as at step 0.
        method: How weights change, one of `tuning.methods.METHODS`.
        objective: "sft" learns the rows' answers; "dpo" the snapshot's preference pairs; "kto" its
            ratings.
        beta: How strongly a preference run is held to the model it starts from.
        sft_weight: Weight of the log-loss of chosen answers beside the DPO loss.
        virtual_tokens: Learnt vectors of the methods prefix and prompt.
        train_share: Train on this share of the snapshot's components; smaller shares are subsets
            of greater ones.
        target_modules: "all-linear" or module name endings joined by commas.
        batch_rows: Rows per batch; ignored when `batch_tokens` is set.
        batch_tokens: Padded tokens per batch.
        warmup: Share of the steps with rising learning rate; then cosine to zero.
        eval_rows: Most dev rows answered per evaluation; 0 turns evaluations off.
        eval_steps: Evaluate every so many steps as well as at the end of each epoch.
        average: Share of the last steps, in [0, 1), whose weights are averaged; the mean is kept
            only if it scores better on dev than every checkpoint. 0 does without.
        composite_weights: Weights of dev scores in the composite that chooses the checkpoint, by
            name, in place of those of `tuning.scoring.COMPOSITE`; 0 leaves a score out.
        patience: Stop after so many evaluations without a better dev score; 0 never stops.
        max_seconds: Stop after this training time (evaluations included); the learning rate
            falls with the time where that ends first.
        max_tokens: Plan at most this many training tokens.
        checkpoint_steps: Checkpoint every so many steps; None leaves it to the seconds.
        checkpoint_seconds: Checkpoint when this much time passed since the last one.
        workers: Processes that draw and encode rows; 0 does it in this process.
        dtype: What is computed in; "auto" is bfloat16 where the device computes in it, float32 on
            other CPUs, where emulated bfloat16 takes many times as long.
        packing: Lay several rows end to end in one line of `batch_tokens`; for GPUs, needs
            `batch_tokens`.
        probe_steps: Measure so many steps before the run, to estimate its time; 0 does not.
        track: Also log to "tensorboard", "mlflow" or "wandb", where installed.
    """

    base: str
    output: str
    snapshot: str | None = None
    reader_rows: int = 0
    reader_seed: int = 1
    policyqa: str | None = None
    reader_mix: dict[str, float] | None = None
    start_from: str | None = None
    method: str = "lora"
    objective: str = "sft"
    beta: float = 0.1
    sft_weight: float = 0.0
    virtual_tokens: int = 20
    train_share: float = 1.0
    r: int = 16
    alpha: float = 32
    dropout: float = 0.05
    target_modules: str = "all-linear"
    learning_rate: float = 1e-3
    epochs: int = 3
    batch_rows: int = 8
    batch_tokens: int | None = None
    grad_accumulation: int = 1
    warmup: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    average: float = 0.0
    composite_weights: dict[str, float] | None = None
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    gradient_checkpointing: bool = False
    max_length: int = 1024
    p_no_gold: float = 0.15
    p_gold_only: float = 0.1
    p_style_passages: float = 0.5
    p_value_swap: float = 0.0
    p_conflict: float = 0.0
    max_distractors: int = 3
    system: str = DEFAULT_SYSTEM
    abstain_sentence: str = DEFAULT_ABSTAIN
    eval_rows: int = 64
    eval_steps: int | None = None
    eval_batch: int = 16
    eval_new_tokens: int = 48
    patience: int = 2
    max_seconds: float | None = None
    max_tokens: int | None = None
    checkpoint_steps: int | None = None
    checkpoint_seconds: float = 120.0
    workers: int = 0
    log_steps: int = 10
    packing: bool = False
    probe_steps: int = 0
    track: str = "none"

    def __post_init__(self) -> None:
        if not self.snapshot and self.reader_rows <= 0:
            raise TuneConfigError("a run needs a snapshot or reader_rows > 0")
        for name, choices in _CHOICES.items():
            _one_of(name, getattr(self, name), choices)
        self._check_objective()
        for name in _POSITIVE:
            _at_least(name, getattr(self, name), 0, strictly=True)
        for name in ("max_seconds", "max_tokens", "checkpoint_steps", "eval_steps", "batch_tokens"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 0, strictly=True)
        for name in _NOT_NEGATIVE:
            _at_least(name, getattr(self, name), 0)
        for name in ("dropout", "warmup", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise TuneConfigError(f"{name}={getattr(self, name)} must lie in [0, 1)")
        self._check_sizes()
        self._check_weights()
        reader_mix(self.reader_mix)
        self.draw_config()

    def _check_weights(self) -> None:
        for name, weight in (self.composite_weights or {}).items():
            _one_of("composite_weights", name, tuple(COMPOSITE))
            _at_least(f"composite_weights[{name!r}]", weight, 0)
        if not any(self.weights_of_parts().values()):
            raise TuneConfigError("composite_weights leaves no score to choose a checkpoint by")

    def weights_of_parts(self) -> dict[str, float]:
        """Weight of every dev score in the composite."""
        return COMPOSITE | (self.composite_weights or {})

    def _check_sizes(self) -> None:
        if self.batch_tokens is not None and self.batch_tokens < self.max_length:
            raise TuneConfigError(
                f"batch_tokens={self.batch_tokens} must be at least max_length={self.max_length}"
            )
        if self.packing and self.batch_tokens is None:
            raise TuneConfigError("packing needs batch_tokens, the length of a packed line")
        if self.average and not self.eval_rows:
            raise TuneConfigError(
                f"average={self.average} needs eval_rows > 0: only a dev score can choose it"
            )
        if self.train_share > 1:
            raise TuneConfigError(f"train_share={self.train_share} must lie in (0, 1]")

    def _check_objective(self) -> None:
        if self.objective == "sft":
            return
        if not self.snapshot:
            raise TuneConfigError(f"objective={self.objective!r} needs a snapshot")
        if self.packing:
            raise TuneConfigError(f"packing works with objective='sft', not {self.objective!r}")
        if self.objective == "kto" and self.batch_rows < 2:
            raise TuneConfigError(
                "objective='kto' needs batch_rows >= 2: it compares rows of a batch"
            )

    @property
    def work(self) -> Path:
        """Folder of checkpoints and state, removed when the run has finished."""
        return Path(f"{self.output.rstrip('/')}.work")

    def draw_config(self) -> DrawConfig:
        """The part of the settings that decides how rows are drawn."""
        return DrawConfig(
            p_no_gold=self.p_no_gold,
            p_gold_only=self.p_gold_only,
            p_style_passages=self.p_style_passages,
            p_value_swap=self.p_value_swap,
            p_conflict=self.p_conflict,
            max_distractors=self.max_distractors,
            max_length=self.max_length,
            system=self.system,
            abstain_sentence=self.abstain_sentence,
        )

    @property
    def preference(self) -> bool:
        """Whether the run learns from preferences instead of answers."""
        return self.objective != "sft"

    def identity(self) -> dict[str, Any]:
        """The settings that decide the result; a run resumes only with equal ones.

        Folders are named by their last part alone: where they lie does not matter, and their
        contents are identified by digests elsewhere.
        """
        settings = {key: value for key, value in asdict(self).items() if key not in _NOT_IDENTITY}
        for key in _FOLDERS:
            if settings[key]:
                settings[key] = Path(settings[key]).name
        settings["dtype"] = self.compute_dtype
        return settings

    @property
    def compute_dtype(self) -> str:
        """What is computed in on this machine: bfloat16 or float32."""
        return resolve_dtype(self.dtype, self.device)


def default_settings() -> dict[str, Any]:
    """What a setting is that did not exist when a run was recorded."""
    return {field.name: field.default for field in fields(TuneConfig)}


def differing_setting(recorded: dict[str, Any], config: TuneConfig) -> str | None:
    """The first setting in which a recorded identity is another one; None when it is the same.

    A setting that did not exist when the record was made counts as its default.
    """
    defaults = default_settings()
    settings: dict[str, Any] = json.loads(json.dumps(config.identity()))
    changed = [
        name for name, value in settings.items() if recorded.get(name, defaults[name]) != value
    ]
    return changed[0] if changed else None


def load_config(path: Path | str) -> TuneConfig:
    """Read a configuration from a JSON file.

    Raises:
        TuneConfigError: If the file is missing, is not JSON, or has unknown or bad settings.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TuneConfigError(f"configuration {str(path)!r} does not exist") from error
    except ValueError as error:
        raise TuneConfigError(f"configuration {str(path)!r} is not JSON: {error}") from error
    return config_from(record)


def config_from(record: dict[str, Any]) -> TuneConfig:
    """Build a configuration from decoded JSON.

    Raises:
        TuneConfigError: If a setting is unknown, missing or outside its valid choices.
    """
    known = {field.name for field in fields(TuneConfig)}
    unknown = sorted(set(record) - known)
    if unknown:
        raise TuneConfigError(f"unknown setting {unknown[0]!r}; known: {', '.join(sorted(known))}")
    try:
        return TuneConfig(**record)
    except TypeError as error:
        raise TuneConfigError(f"bad configuration: {error}") from error


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise TuneConfigError(f"{name}={value!r} must be one of {', '.join(choices)}")


def _at_least(name: str, value: float, least: float, *, strictly: bool = False) -> None:
    if value < least or (strictly and value == least):
        raise TuneConfigError(f"{name}={value} must be {'>' if strictly else '>='} {least}")
