"""Training speed beside TRL's SFTTrainer: same base, LoRA, rows and batch, in one run.

    python -m benchmarks.tune --base HF_DIR --out FILE [--rows 96] [--batch 8] [--rounds 3]

tokens/s count real (unpadded) tokens of the steps after the first two, which warm up. `plain` is
SFTTrainer as it comes (completion-only loss, its defaults for everything else); `plain_no_ckpt`
the same without gradient checkpointing; `ours` is what `tandem tune` runs. The rounds take turns.
With a GPU there are also `ours_large` (batches of 64k tokens) and `ours_packed` (rows laid end to
end, flex attention), model FLOP utilisation against 989 TFLOP/s (H100, bf16 dense) and the best
bf16 matrix product measured here. Needs torch, transformers, peft, trl and datasets only.
"""

import argparse
import gc
import json
import logging
import statistics
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback

from tuning.base_model import load_model, load_tokenizer
from tuning.completion_trainer import TrainerHooks, completion_trainer
from tuning.config import TuneConfig
from tuning.hardware import code_versions, describe_hardware
from tuning.methods import load_trainable
from tuning.plan import Plan, make_plan

_H100_BF16 = 989e12
_WARM_STEPS = 2
_LARGE_TOKENS = 65_536
_PACKED_TOKENS = 32_768


class Clock(TrainerCallback):
    """Seconds of each optimiser step."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self._begun = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the watch."""
        _wait()
        self._begun = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop the watch."""
        _wait()
        self.steps.append(time.perf_counter() - self._begun)


def main() -> None:
    options = _options()
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    on_gpu = torch.cuda.is_available()
    tokenizer = load_tokenizer(options.base)
    with tempfile.TemporaryDirectory() as folder:
        config = TuneConfig(
            base=options.base,
            output=f"{folder}/adapter",
            reader_rows=options.rows or (4096 if on_gpu else 96),
            batch_rows=options.batch or (64 if on_gpu else 8),
            epochs=1,
            r=16,
            alpha=32,
            dropout=0.05,
            eval_rows=0,
            log_steps=1,
        )
        plan = make_plan(config, tokenizer, lambda: None)
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in _variants(options, on_gpu)}
        for number in range(options.rounds):
            for name in results:
                measured = _run(name, config, tokenizer, plan, folder)
                results[name].append(measured)
                print(f"round {number + 1} {name}: {measured['tokens_per_second']:.0f} tokens/s")
    record = _record(config, plan, results)
    Path(options.out).write_text(json.dumps(record, indent=1), encoding="utf-8")
    print(json.dumps(record["summary"], indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", required=True, help="prepared Hugging Face folder")
    parser.add_argument("--out", default="tune-speed.json")
    parser.add_argument("--rows", type=int, help="default 96, on a GPU 4096")
    parser.add_argument("--batch", type=int, help="default 8, on a GPU 64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variants", help="comma list of those to run")
    return parser.parse_args()


def _variants(options: argparse.Namespace, on_gpu: bool) -> list[str]:
    if options.variants:
        return str(options.variants).split(",")
    more = ["ours_large", "ours_packed"] if on_gpu else []
    return ["plain", "plain_no_ckpt", "ours", *more]


def _run(name: str, config: TuneConfig, tokenizer: Any, plan: Plan, folder: str) -> dict[str, Any]:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    clock = Clock()
    if name.startswith("plain"):
        trainer, sizes = _plain(config, tokenizer, plan, folder, checkpointing=name == "plain")
        trainer.add_callback(clock)
    else:
        if name == "ours_large":
            config = replace(config, batch_tokens=_LARGE_TOKENS)
        elif name == "ours_packed":
            config = replace(config, batch_tokens=_PACKED_TOKENS, packing=True)
        if name != "ours":
            plan = make_plan(config, tokenizer, lambda: None)
        trainer = completion_trainer(
            load_trainable(config),
            tokenizer,
            plan,
            config,
            TrainerHooks(Path(folder) / name, clock, lambda: 0.0),
        )
        sizes = [sum(len(plan.rows[i].input_ids) for i in batch) for batch in plan.batches]
    trainer.train()
    tokens, seconds = sum(sizes[_WARM_STEPS:]), sum(clock.steps[_WARM_STEPS:])
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    measured = {
        "tokens_per_second": tokens / seconds,
        "steps": len(clock.steps),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }
    del trainer
    gc.collect()
    return measured


def _plain(
    config: TuneConfig, tokenizer: Any, plan: Plan, folder: str, *, checkpointing: bool
) -> tuple[Any, list[int]]:
    from trl import SFTConfig, SFTTrainer

    rows = [
        {
            "input_ids": list(row.input_ids),
            "completion_mask": [0] * row.prompt_length
            + [1] * (len(row.input_ids) - row.prompt_length),
        }
        for row in plan.rows
    ]
    settings: dict[str, Any] = {} if checkpointing else {"gradient_checkpointing": False}
    torch.manual_seed(0)
    trainer = SFTTrainer(
        model=load_model(config.base, dtype=config.compute_dtype).train(),
        args=SFTConfig(
            output_dir=f"{folder}/plain",
            per_device_train_batch_size=config.batch_rows,
            num_train_epochs=1,
            learning_rate=config.learning_rate,
            max_length=config.max_length,
            bf16=config.compute_dtype == "bfloat16",
            use_cpu=not torch.cuda.is_available(),
            # The order is known then, so the tokens of each step are too; the rows are random.
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=config.r,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    lengths = [len(row["input_ids"]) for row in rows]
    step = config.batch_rows
    return trainer, [sum(lengths[i : i + step]) for i in range(0, len(lengths), step)]


def _record(
    config: TuneConfig, plan: Plan, results: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    speeds = {
        name: statistics.median(run["tokens_per_second"] for run in runs)
        for name, runs in results.items()
    }
    per_token = _flops_per_token(config, plan)
    ceiling = _matmul_ceiling()
    summary: dict[str, Any] = {
        "tokens_per_second": {name: round(speed, 1) for name, speed in speeds.items()},
        "matmul_ceiling_tflops": round(ceiling / 1e12, 2),
        "share_of_ceiling": {
            name: round(speed * per_token / ceiling, 4) for name, speed in speeds.items()
        },
    }
    if "plain" in speeds:
        summary["over_plain"] = {
            name: round(speed / speeds["plain"], 2) for name, speed in speeds.items()
        }
    if torch.cuda.is_available():
        summary["mfu_of_989_tflops"] = {
            name: round(speed * per_token / _H100_BF16, 4) for name, speed in speeds.items()
        }
    return {
        "summary": summary,
        "runs": results,
        "rows": len(plan.rows),
        "tokens": plan.tokens[-1],
        "batch_rows": config.batch_rows,
        "flops_per_token": per_token,
        "hardware": describe_hardware(),
        "versions": code_versions(),
    }


def _flops_per_token(config: TuneConfig, plan: Plan) -> float:
    """Useful operations per real token: forward, and backward to the activations alone.

    The base is frozen, so 4 per weight and token instead of 6; the head counts for completion
    tokens only; causal attention counts half of its square, forward once and backward twice.
    """
    model = load_model(config.base)
    shape = model.config
    head = model.get_output_embeddings().weight.numel()
    weights = (
        sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear)) - head
    )
    tokens = sum(len(row.input_ids) for row in plan.rows)
    completion = sum(len(row.input_ids) - row.prompt_length for row in plan.rows) / tokens
    mean_length = sum(len(row.input_ids) ** 2 for row in plan.rows) / tokens
    width = shape.num_attention_heads * (
        getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    )
    attention = 3 * 2 * mean_length * width * shape.num_hidden_layers
    return float(4 * (weights + completion * head) + attention)


def _matmul_ceiling() -> float:
    """The best bf16 matrix product of three sizes here, in operations per second."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    best = 0.0
    for size in (4096, 8192, 16384) if device == "cuda" else (512, 1024, 2048):
        a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
        for _ in range(3):
            a @ a
        _wait()
        begun = time.perf_counter()
        for _ in range(10):
            a @ a
        _wait()
        best = max(best, 10 * 2 * size**3 / (time.perf_counter() - begun))
    return best


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
