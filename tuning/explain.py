"""Which method to train with, why, and what it will cost: rules first, then a measured estimate.

The rules are those of practice guides, corrected where measurement disagrees: minimum row counts
conflict with each other, so they are a prior and the learning curve decides; full tuning destroys
the use of context (Soudani et al. 2024, arXiv 2403.01432: 68.6 to 27.3 with an ideal passage), so
it is never advised for answers from passages.

    python -m tuning.explain CONFIG.json SITUATION.json
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tuning.config import TuneConfig, load_config
from tuning.errors import TuneConfigError, TuningError
from tuning.methods import LLAMACPP, METHODS, how_to_serve, served_by

_FEW_ROWS, _SMALL, _LARGE = 100, 1_000, 5_000
_PAIRS_WORTH_IT, _RATINGS_WORTH_IT = 100, 200
_HIGH_RANK = 64
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known before a run.

    Attributes:
        rows: Training rows of the snapshot.
        tokens_per_row: Mean tokens of prompt and answer.
        pairs: Preference pairs.
        ratings_up: Answers rated up.
        ratings_down: Answers rated down.
        has_adapter: Whether a tuned adapter exists to start a preference run from.
        engine: What will serve, a name in `Method.served_by`.
        latency_s: Answer time wanted at the 95th percentile; None when it does not matter.
        memory_bytes: Free memory of the training device.
        base_parameters: Weights of the base model.
        has_gpu: Whether a GPU trains.
        has_bitsandbytes: Whether the 4-bit package is installed.
        budget_seconds: Most training time; None for no limit.
        price_per_hour: Of the training machine, in any currency.
    """

    rows: int
    tokens_per_row: float
    pairs: int = 0
    ratings_up: int = 0
    ratings_down: int = 0
    has_adapter: bool = False
    engine: str = LLAMACPP
    latency_s: float | None = None
    memory_bytes: int = 8 * 2**30
    base_parameters: int = 135_000_000
    has_gpu: bool = False
    has_bitsandbytes: bool = False
    budget_seconds: float | None = None
    price_per_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to run.

    Attributes:
        train: False when a better prompt should come first.
        settings: Those of `TuneConfig` to set.
        reasons: One sentence each.
        rejected: Why each other method is not advised.
        estimate: Tokens, seconds, cost and memory; seconds are None without a measured pace.
    """

    train: bool
    method: str
    objective: str
    settings: dict[str, Any]
    reasons: list[str]
    rejected: dict[str, str]
    estimate: dict[str, Any] = field(default_factory=dict)


def recommend(situation: Situation, tokens_per_second: float | None = None) -> Recommendation:
    """Choose method, objective and settings by rule.

    Args:
        situation: What is known.
        tokens_per_second: Training pace measured on this machine.

    Raises:
        TuneConfigError: If the engine is unknown or can serve no method.
    """
    engines = sorted({engine for method in METHODS.values() for engine in method.served_by})
    if situation.engine not in engines:
        raise TuneConfigError(f"engine {situation.engine!r} must be one of {', '.join(engines)}")
    reasons: list[str] = []
    train = situation.rows >= _FEW_ROWS
    if not train:
        reasons.append(
            f"{situation.rows} rows are few: improve the prompt and the knowledge base first, and "
            f"collect at least {_FEW_ROWS} approved examples"
        )
    settings = _settings(situation, reasons)
    method = _method(situation, settings, reasons)
    objective = _objective(situation, settings, reasons)
    if objective == "sft":
        settings["learning_rate"] = 5e-4 if situation.has_adapter else METHODS[method].learning_rate
    reasons.append(how_to_serve(method))
    if situation.latency_s is not None and situation.latency_s < 1:
        reasons.append(
            "under a second: merge the adapter (it then costs nothing per token) and keep "
            "passages few and short, since reading the prompt rules the time"
        )
    rows = {"sft": situation.rows, "dpo": 2 * situation.pairs}.get(
        objective, 2 * (situation.ratings_up + situation.ratings_down)
    )
    estimate = _estimate(situation, rows * settings["epochs"], method, tokens_per_second)
    over = (estimate["seconds"] or 0) > (situation.budget_seconds or float("inf"))
    if over:
        settings["max_seconds"] = situation.budget_seconds
        reasons.append(
            f"{estimate['seconds']:.0f} s are over the budget of {situation.budget_seconds:.0f} s: "
            "max_seconds is set, the learning rate falls with the time"
        )
    if estimate["memory_bytes"] > situation.memory_bytes:
        settings["gradient_checkpointing"] = True
        reasons.append("memory is short: gradient checkpointing, about a third slower")
    rejected = {
        name: why for name in METHODS if name != method and (why := _why_not(name, situation))
    }
    return Recommendation(train, method, objective, settings, reasons, rejected, estimate)


def _settings(situation: Situation, reasons: list[str]) -> dict[str, Any]:
    if situation.rows < _SMALL:
        reasons.append("fewer than 1,000 rows: rank 16 and 5 epochs, stopped early by dev answers")
        settings: dict[str, Any] = {"r": 16, "epochs": 5}
    elif situation.rows < _LARGE:
        reasons.append("1,000 to 5,000 rows: rank 32, 3 epochs")
        settings = {"r": 32, "epochs": 3}
    else:
        reasons.append("5,000 rows or more: rank 64, 2 epochs")
        settings = {"r": _HIGH_RANK, "epochs": 2}
    if situation.has_adapter:
        settings["r"] = max(32, settings["r"])
        reasons.append("started from an adapter: at least its rank, and half the learning rate")
    settings["alpha"] = 2 * settings["r"]
    reasons.append(
        "row counts are a prior only: `tandem tune --learning-curve` says what more data is worth"
    )
    return settings


def _method(situation: Situation, settings: dict[str, Any], reasons: list[str]) -> str:
    in_bf16 = 2 * situation.base_parameters
    if situation.has_gpu and situation.has_bitsandbytes and in_bf16 > 0.6 * situation.memory_bytes:
        reasons.append("the base fills the GPU in bfloat16: QLoRA holds it in 4 bits")
        return "qlora"
    reasons.append("LoRA keeps the base's use of its context, which full tuning destroys")
    if not served_by("lora", situation.engine):
        raise TuneConfigError(f"engine {situation.engine!r} serves no LoRA")
    if settings["r"] > _HIGH_RANK:
        reasons.append("above rank 64 plain LoRA's scale starves the update: rsLoRA")
        return "rslora"
    return "lora"


def _objective(situation: Situation, settings: dict[str, Any], reasons: list[str]) -> str:
    ratings = min(situation.ratings_up, situation.ratings_down)
    if situation.pairs >= _PAIRS_WORTH_IT and situation.has_adapter:
        chosen = "dpo"
        reasons.append(f"{situation.pairs} pairs and an adapter to start from: DPO as an own arm")
    elif ratings >= _RATINGS_WORTH_IT and situation.has_adapter:
        chosen = "kto"
        reasons.append(f"{ratings} ratings on the rarer side and an adapter: KTO as an own arm")
    else:
        reasons.append("answers first (SFT); preferences need an adapter that already answers well")
        return "sft"
    settings.update(learning_rate=5e-5, epochs=1)
    reasons.append("nothing published shows it helps a model this small: it must win on dev")
    return chosen


def _why_not(name: str, situation: Situation) -> str:
    method = METHODS[name]
    if name == "full":
        return "forgets how to use passages, and its weights serve one use case only"
    if name == "qlora":
        missing = [
            what
            for what, there in (
                ("a GPU", situation.has_gpu),
                ("bitsandbytes", situation.has_bitsandbytes),
            )
            if not there
        ]
        return f"needs {' and '.join(missing)}" if missing else "the base fits in bfloat16"
    if situation.engine not in method.served_by:
        return how_to_serve(name)
    if name in ("prefix", "prompt", "ia3"):
        return "learns less than LoRA on small models"
    if name == "dora":
        return "half again as slow for a gain that small models rarely show"
    return "for ranks above 64"


def _estimate(
    situation: Situation, rows_in_all: int, method: str, pace: float | None
) -> dict[str, Any]:
    tokens = int(rows_in_all * situation.tokens_per_row)
    seconds = tokens / pace if pace else None
    return {
        "tokens": tokens,
        "tokens_per_second": pace,
        "seconds": seconds,
        "cost": seconds / _SECONDS_PER_HOUR * situation.price_per_hour if seconds else None,
        "memory_bytes": _memory(situation, method),
    }


def _memory(situation: Situation, method: str) -> int:
    """Weights, optimiser state of about 4 % trained weights, and activations of a usual batch."""
    per_weight = {"qlora": 0.6, "full": 16.0}.get(method, 2.0)
    trained = 0 if method == "full" else int(0.04 * situation.base_parameters) * 16
    # A rough constant: 1.2 GB for the 135M base and 2,400 tokens, growing with the square root
    # of the weights (width grows slower than size).
    activations = 1.2e9 * (situation.base_parameters / 135e6) ** 0.5
    return int(per_weight * situation.base_parameters + trained + activations)


def measure_pace(config: TuneConfig, batches: int = 2) -> float:
    """Training tokens per second here: forward and backward of a few batches of real rows."""
    import torch

    from tuning.base_model import load_tokenizer
    from tuning.completion_trainer import collator_of, completion_loss
    from tuning.hardware import resolve_device
    from tuning.methods import load_trainable
    from tuning.plan import make_plan

    device = resolve_device(config.device)
    tokenizer = load_tokenizer(config.base)
    plan = make_plan(replace(config, epochs=1, objective="sft"), tokenizer, lambda: None)
    collate = collator_of(plan, replace(config, objective="sft"), int(tokenizer.eos_token_id))
    model = load_trainable(config).to(device).train()
    bf16 = torch.autocast(device, torch.bfloat16, enabled=config.compute_dtype == "bfloat16")
    count = min(batches, len(plan.batches))
    chosen = [plan.batches[i * len(plan.batches) // count] for i in range(count)]
    tokens, seconds = 0, 0.0
    for number, batch in enumerate([chosen[0], *chosen]):
        inputs = {k: v.to(device) for k, v in collate([{"rows": batch}]).items()}
        begun = time.perf_counter()
        with bf16:
            loss = completion_loss(model, inputs)
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        if number:
            seconds += time.perf_counter() - begun
            tokens += sum(len(plan.rows[i].input_ids) for i in batch)
    return tokens / seconds


def situation_from(record: dict[str, Any]) -> Situation:
    """A situation from decoded JSON.

    Raises:
        TuneConfigError: If a key is unknown or a needed one is missing.
    """
    known = {item.name for item in fields(Situation)}
    unknown = sorted(set(record) - known)
    if unknown:
        raise TuneConfigError(f"unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")
    try:
        return Situation(**record)
    except TypeError as error:
        raise TuneConfigError(f"bad situation: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the pace for a configuration and print the recommendation as JSON."""
    parser = argparse.ArgumentParser(prog="tuning.explain", description="Recommend a method.")
    parser.add_argument("config", type=Path)
    parser.add_argument("situation", type=Path)
    options = parser.parse_args(arguments)
    try:
        situation = situation_from(json.loads(options.situation.read_text(encoding="utf-8")))
        pace = measure_pace(load_config(options.config))
        made = recommend(situation, pace)
    except TuningError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(asdict(made), ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
