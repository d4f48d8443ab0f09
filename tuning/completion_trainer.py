"""TRL's SFTTrainer fed with planned batches, with the head run only where completions are.

The head is a third of the cost of a small model with a large vocabulary. Batches are padded on
the right and carry no attention mask: under causal attention no real token sees the padding, the
fast unmasked kernels apply, and no query has an empty row (which gave NaN gradients on a GPU).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuning.builder import EncodedRow
from tuning.config import TuneConfig
from tuning.hardware import resolve_device
from tuning.methods import virtual_columns
from tuning.plan import Plan

if TYPE_CHECKING:
    from tuning.preference import PreferenceLoss

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


class PackedCollator(PlannedBatchCollator):
    """Lays the rows of a planned batch end to end in one line of a fixed length.

    `position_ids` start at 0 for every row, which is how the attention keeps rows apart.
    """

    def __init__(self, rows: list[EncodedRow], pad_id: int, length: int) -> None:
        super().__init__(rows, pad_id)
        self.length = length

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate planned batches; shapes are (1, length)."""
        import torch

        ids = torch.full((1, self.length), self.pad_id, dtype=torch.long)
        labels = torch.full_like(ids, IGNORED)
        positions = torch.zeros_like(ids)
        start = 0
        for row in (self.rows[i] for item in items for i in item["rows"]):
            end = start + len(row.input_ids)
            ids[0, start:end] = torch.tensor(row.input_ids)
            labels[0, start + row.prompt_length : end] = ids[0, start + row.prompt_length : end]
            positions[0, start:end] = torch.arange(end - start)
            start = end
        positions[0, start:] = torch.arange(self.length - start)
        return {"input_ids": ids, "labels": labels, "position_ids": positions}


def head_on_completions(model: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
    """Logits that predict completion tokens, shape (tokens, vocabulary), and where those stand.

    The head runs on nothing else: first on the columns in which any row has a completion (what
    `logits_to_keep` can express), then, by a hook before the head, on the very positions.
    """
    labelled = inputs["labels"].ne(IGNORED)
    # The logits of a column predict the next one.
    columns = labelled.any(dim=0).nonzero().squeeze(-1)
    wanted = labelled[:, columns]
    plain = _unwrapped(model)
    head = plain.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, given: (given[0][wanted],))
    more = {k: inputs[k] for k in ("position_ids",) if k in inputs}
    try:
        outputs = model(
            input_ids=inputs["input_ids"],
            logits_to_keep=columns - 1 + virtual_columns(plain),
            use_cache=False,
            **more,
        )
    finally:
        hook.remove()
    return outputs.logits, labelled


def completion_loss(model: Any, inputs: dict[str, Any], num_items: Any = None) -> Any:
    """Mean cross-entropy over completion tokens.

    Args:
        model: A causal language model whose forward knows `logits_to_keep`.
        inputs: A batch of `PlannedBatchCollator`.
        num_items: Completion tokens of the whole accumulated step; None counts this batch.
    """
    import torch

    logits, labelled = head_on_completions(model, inputs)
    targets = inputs["labels"][labelled]
    total = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
    return total / (labelled.sum() if num_items is None else num_items)


def _unwrapped(model: Any) -> Any:
    """The model inside a wrapper of distributed training."""
    return getattr(model, "module", model)


@dataclass(frozen=True, slots=True)
class TrainerHooks:
    """What a run gives its trainer beside model and plan.

    Attributes:
        folder: For checkpoints.
        callback: Hears of steps, logs and checkpoints.
        spent: The share of `max_seconds` used so far; asked only where there is such a limit.
        preference: A loss to minimise instead of the answers', on its own plan.
    """

    folder: Path
    callback: Any
    spent: Callable[[], float]
    preference: "PreferenceLoss | None" = None


def completion_trainer(
    model: Any,
    tokenizer: Any,
    plan: Plan,
    config: TuneConfig,
    hooks: TrainerHooks,
) -> Any:
    """The trainer of one run; call its `train(resume_from_checkpoint=...)`."""
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
            if hooks.preference is not None:
                loss = hooks.preference(model, inputs)
                # With a count the trainer leaves the division over accumulated batches to the loss.
                return loss if num_items_in_batch is None else loss / config.grad_accumulation
            loss = completion_loss(model, inputs, num_items_in_batch)
            if num_items_in_batch is not None:
                # The count covers all processes, and gradients are averaged over them.
                loss = loss * self.accelerator.num_processes
            return loss

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            if hooks.preference is not None and "loss" in logs:
                logs = {**logs, **hooks.preference.take_metrics()}
            super().log(logs, *args, **kwargs)

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            if config.max_seconds is None:
                return super().create_scheduler(num_training_steps, optimizer)
            factor = partial(cosine_factor, plan.steps, config.warmup, hooks.spent)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
            return self.lr_scheduler

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SequentialSampler(train_dataset or self.train_dataset)

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """The adapter's card is written once, with the adapter."""

    trainer = CompletionTrainer(
        model=model,
        args=_arguments(plan, config, hooks.folder),
        train_dataset=Dataset.from_list([{"rows": batch} for batch in plan.batches]),
        data_collator=collator_of(plan, config, int(tokenizer.eos_token_id)),
        processing_class=tokenizer,
        callbacks=[hooks.callback],
    )
    # It prints to standard output, where a subprocess writes its progress lines.
    trainer.remove_callback(PrinterCallback)
    return trainer


def collator_of(plan: Plan, config: TuneConfig, pad_id: int) -> PlannedBatchCollator:
    """What turns the plan's batches into tensors."""
    if config.packing:
        return PackedCollator(plan.rows, pad_id, int(config.batch_tokens or 0))
    if config.preference:
        from tuning.preference import PreferenceCollator

        return PreferenceCollator(plan.rows, pad_id)
    return PlannedBatchCollator(plan.rows, pad_id)


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
        bf16=config.compute_dtype == "bfloat16",
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
        report_to=[] if config.track == "none" else [config.track],
        disable_tqdm=True,
    )
