"""The settings of one tuning run: everything that decides what comes out."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tuning.builder import DrawConfig
from tuning.errors import TuneConfigError
from tuning.prompt import DEFAULT_ABSTAIN, DEFAULT_SYSTEM

DTYPES = ("bfloat16", "float32")
DEVICES = ("auto", "cpu", "cuda")

# Changing these does not change the result, so a run may be resumed with other values.
_NOT_IDENTITY = frozenset(
    {"output", "device", "workers", "log_steps", "checkpoint_steps", "checkpoint_seconds"}
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
        start_from: Adapter directory the new adapter computes the same function as at step 0.
        target_modules: "all-linear" or module name endings joined by commas.
        batch_rows: Rows per batch; ignored when `batch_tokens` is set.
        batch_tokens: Padded tokens per batch.
        warmup: Share of the steps with rising learning rate; then cosine to zero.
        eval_rows: Most dev rows answered per evaluation; 0 turns evaluations off.
        eval_steps: Evaluate every so many steps as well as at the end of each epoch.
        patience: Stop after so many evaluations without a better dev score; 0 never stops.
        max_seconds: Stop after this training time (evaluations included); the learning rate
            falls with the time where that ends first.
        max_tokens: Plan at most this many training tokens.
        checkpoint_steps: Checkpoint every so many steps; None leaves it to the seconds.
        checkpoint_seconds: Checkpoint when this much time passed since the last one.
        workers: Processes that draw and encode rows; 0 does it in this process.
    """

    base: str
    output: str
    snapshot: str | None = None
    reader_rows: int = 0
    reader_seed: int = 1
    policyqa: str | None = None
    start_from: str | None = None
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
    seed: int = 0
    dtype: str = "bfloat16"
    device: str = "auto"
    gradient_checkpointing: bool = False
    max_length: int = 1024
    p_no_gold: float = 0.15
    p_gold_only: float = 0.1
    p_style_passages: float = 0.5
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

    def __post_init__(self) -> None:
        if not self.snapshot and self.reader_rows <= 0:
            raise TuneConfigError("a run needs a snapshot or reader_rows > 0")
        _one_of("dtype", self.dtype, DTYPES)
        _one_of("device", self.device, DEVICES)
        for name in ("r", "alpha", "learning_rate", "epochs", "batch_rows", "grad_accumulation"):
            _at_least(name, getattr(self, name), 0, strictly=True)
        for name in ("eval_batch", "eval_new_tokens", "log_steps", "checkpoint_seconds"):
            _at_least(name, getattr(self, name), 0, strictly=True)
        for name in ("max_seconds", "max_tokens", "checkpoint_steps", "eval_steps", "batch_tokens"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 0, strictly=True)
        for name in ("eval_rows", "patience", "workers", "reader_rows", "weight_decay"):
            _at_least(name, getattr(self, name), 0)
        for name in ("dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise TuneConfigError(f"{name}={getattr(self, name)} must lie in [0, 1)")
        if self.batch_tokens is not None and self.batch_tokens < self.max_length:
            raise TuneConfigError(
                f"batch_tokens={self.batch_tokens} must be at least max_length={self.max_length}"
            )
        self.draw_config()

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
            max_distractors=self.max_distractors,
            max_length=self.max_length,
            system=self.system,
            abstain_sentence=self.abstain_sentence,
        )

    def identity(self) -> dict[str, Any]:
        """The settings that decide the result; a run resumes only with equal ones.

        Folders are named by their last part alone: where they lie does not matter, and their
        contents are identified by digests elsewhere.
        """
        settings = {key: value for key, value in asdict(self).items() if key not in _NOT_IDENTITY}
        for key in _FOLDERS:
            if settings[key]:
                settings[key] = Path(settings[key]).name
        return settings


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
