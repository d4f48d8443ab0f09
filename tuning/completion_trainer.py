"""TRL's SFTTrainer fed with planned batches, with the head run only where completions are.

The head is a third of the cost of a small model with a large vocabulary. Batches are padded on
the right and carry no attention mask: under causal attention no real token sees the padding, the
fast unmasked kernels apply, and no query has an empty row (which gave NaN gradients on a GPU).
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tuning.builder import EncodedRow
from tuning.config import TuneConfig
from tuning.hardware import resolve_device
from tuning.plan import Plan

IGNORED = -100

# Few different shapes: every new one costs a kernel set-up and leaves holes in the heap.
_WIDTH_STEP = 32


class PlannedBatchCollator:
    """Turns a planned batch (positions of rows) into right-padded tensors.

    `input_ids` and `labels` are (rows, longest rounded up to a multiple of 32); labels are -100
    outside completions.
    """

    def __init__(self, rows: list[EncodedRow], pad_id: int) -> None:
        self.rows = rows
        self.pad_id = pad_id

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate planned batches; each item lists the positions of its rows."""
        import torch

        chosen = [self.rows[i] for item in items for i in item["rows"]]
        longest = max(len(row.input_ids) for row in chosen)
        width = -(-longest // _WIDTH_STEP) * _WIDTH_STEP
        ids = torch.full((len(chosen), width), self.pad_id, dtype=torch.long)
        labels = torch.full_like(ids, IGNORED)
        for line, row in enumerate(chosen):
            end = len(row.input_ids)
            ids[line, :end] = torch.tensor(row.input_ids)
            labels[line, row.prompt_length : end] = ids[line, row.prompt_length : end]
        return {"input_ids": ids, "labels": labels}


def completion_loss(model: Any, inputs: dict[str, Any], num_items: Any = None) -> tuple[Any, Any]:
    """Mean cross-entropy over completion tokens, the head run on the completions' columns only.

    Args:
        model: A causal language model whose forward knows `logits_to_keep`.
        inputs: A right-padded batch of `PlannedBatchCollator`.
        num_items: Completion tokens of the whole accumulated step; None counts this batch.
    """
    import torch

    labels = inputs["labels"]
    labelled = labels.ne(IGNORED)
    # The logits of a column predict the next one. Rows of a batch have similar lengths, so the
    # union of their completions' columns is short.
    columns = labelled.any(dim=0).nonzero().squeeze(-1)
    outputs = model(input_ids=inputs["input_ids"], logits_to_keep=columns - 1, use_cache=False)
    wanted = labelled[:, columns]
    logits, targets = outputs.logits[wanted], labels[:, columns][wanted]
    total = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
    return total / (labelled.sum() if num_items is None else num_items), outputs


def completion_trainer(
    model: Any,
    tokenizer: Any,
    plan: Plan,
    config: TuneConfig,
    *,
    folder: Path,
    callback: Any,
    spent: Callable[[], float],
) -> Any:
    """The trainer of one run; call its `train(resume_from_checkpoint=...)`.

    `spent` is the share of `max_seconds` used so far; it is asked only where there is such a limit.
    """
    from datasets import Dataset
    from torch.optim.lr_scheduler import LambdaLR
    from torch.utils.data import SequentialSampler
    from transformers import PrinterCallback
    from trl import SFTTrainer

    class CompletionTrainer(SFTTrainer):  # type: ignore[misc]
        """SFTTrainer whose loss skips the head on prompts and whose order is the plan's."""

        def compute_loss(
            self,
            model: Any,
            inputs: Any,
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            loss, outputs = completion_loss(model, inputs, num_items_in_batch)
            if num_items_in_batch is not None:
                # The count covers all processes, and gradients are averaged over them.
                loss = loss * self.accelerator.num_processes
            return (loss, outputs) if return_outputs else loss

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            if config.max_seconds is None:
                return super().create_scheduler(num_training_steps, optimizer)
            factor = partial(cosine_factor, plan.steps, config.warmup, spent)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
            return self.lr_scheduler

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SequentialSampler(train_dataset or self.train_dataset)

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """The adapter's card is written once, with the adapter."""

    trainer = CompletionTrainer(
        model=model,
        args=_arguments(plan, config, folder),
        train_dataset=Dataset.from_list([{"rows": batch} for batch in plan.batches]),
        data_collator=PlannedBatchCollator(plan.rows, int(tokenizer.eos_token_id)),
        processing_class=tokenizer,
        callbacks=[callback],
    )
    # It prints to standard output, where a subprocess writes its progress lines.
    trainer.remove_callback(PrinterCallback)
    return trainer


def cosine_factor(steps: int, warmup: float, spent: Callable[[], float], step: int) -> float:
    """The share in [0, 1] of the learning rate at a step: linear warm-up, then cosine to zero.

    Where the time will end before the steps do, the time counts, so that a slow machine ends with
    small steps too instead of stopping in the middle of large ones.
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return step / rising
    by_steps = (step - rising) / max(1, steps - rising)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, max(by_steps, spent()))))


def _arguments(plan: Plan, config: TuneConfig, folder: Path) -> Any:
    from trl import SFTConfig

    on_cpu = resolve_device(config.device) == "cpu"
    return SFTConfig(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=config.grad_accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(config.warmup * plan.steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        data_seed=config.seed,
        bf16=config.dtype == "bfloat16",
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        gradient_checkpointing=config.gradient_checkpointing,
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        eval_strategy="no",
        save_strategy="steps",
        save_steps=config.checkpoint_steps or 10**9,
        save_total_limit=2,
        logging_steps=config.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
    )
