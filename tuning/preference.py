"""Learning from preferences: DPO on pairs, KTO on single ratings.

The reference is the model the run starts from: the base, or the adapter in `start_from`. A fresh
adapter computes the same function at step 0, so its log-probabilities are taken once before the
first step and no second model is held.

Sources: DPO arXiv 2305.18290, equation 7; KTO arXiv 2402.01306, equation 8, with the reference
point estimated from mismatched completions of the batch as in TRL's KTOTrainer.
"""

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.builder import EncodedRow
from tuning.completion_trainer import PlannedBatchCollator, head_on_completions
from tuning.config import TuneConfig
from tuning.errors import SnapshotError
from tuning.methods import METHODS
from tuning.plan import Plan, finished_plan, length_grouped_batches
from tuning.prompt import encode, encode_text, end_of_turn_id

PAIRS_FILE = "pairs.jsonl"
RATINGS_FILE = "ratings.jsonl"


@dataclass(frozen=True, slots=True)
class PreferencePlan:
    """A plan whose batches hold chosen and rejected rows in turn (DPO), or ratings (KTO).

    Attributes:
        plan: For KTO the second half of each batch holds mismatched rows: the prompt of one row
            with the completion of the next.
        desirable: Label by row position; mismatched rows have none (KTO only).
    """

    plan: Plan
    desirable: tuple[bool | None, ...] = ()


def make_preference_plan(
    config: TuneConfig, tokenizer: Any, check_stop: Callable[[], None], *, processes: int = 1
) -> PreferencePlan:
    """Encode and batch the preferences of the run's snapshot, all epochs laid out.

    Raises:
        SnapshotError: If the snapshot has none, or a record is malformed.
        TrainingFailedError: If nothing fits `max_length`.
    """
    name = PAIRS_FILE if config.objective == "dpo" else RATINGS_FILE
    records = _read(Path(str(config.snapshot)) / name)
    check_stop()
    if config.objective == "dpo":
        return PreferencePlan(_plan_pairs(config, tokenizer, records, processes))
    return _plan_ratings(config, tokenizer, records, processes)


def _plan_pairs(
    config: TuneConfig, tokenizer: Any, records: Sequence[dict[str, Any]], processes: int
) -> Plan:
    rows: list[EncodedRow] = []
    for number, record in enumerate(records):
        pair = [
            _encoded(tokenizer, record["messages"], record[side], f"pair-{number}-{side}")
            for side in ("chosen", "rejected")
        ]
        if max(len(row.input_ids) for row in pair) <= config.max_length:
            rows += pair
    lengths = [
        max(len(rows[i].input_ids), len(rows[i + 1].input_ids)) for i in range(0, len(rows), 2)
    ]
    epochs = [
        [[row for pair in batch for row in (2 * pair, 2 * pair + 1)] for batch in batches]
        for batches in (
            list(length_grouped_batches(lengths, config, epoch)) for epoch in range(config.epochs)
        )
    ]
    counts = {"pairs": len(lengths), "pairs_refused": len(records) - len(lengths)}
    return finished_plan(config, rows, epochs, counts, processes)


def _plan_ratings(
    config: TuneConfig, tokenizer: Any, records: Sequence[dict[str, Any]], processes: int
) -> PreferencePlan:
    rows: list[EncodedRow] = []
    desirable: list[bool | None] = []
    for number, record in enumerate(records):
        row = _encoded(tokenizer, record["messages"], record["completion"], f"rating-{number}")
        if len(row.input_ids) <= config.max_length:
            rows.append(row)
            desirable.append(bool(record["label"]))
    if len(set(desirable)) < 2:
        raise SnapshotError(
            f"{RATINGS_FILE} needs ratings up and down that fit max_length={config.max_length}: "
            f"{desirable.count(True)} up, {desirable.count(False)} down"
        )
    counts = {
        "ratings_up": desirable.count(True),
        "ratings_down": desirable.count(False),
        "ratings_refused": len(records) - len(rows),
    }
    lengths = [len(row.input_ids) for row in rows]
    epochs = []
    for epoch in range(config.epochs):
        batches = []
        for batch in _no_singles(list(length_grouped_batches(lengths, config, epoch))):
            mismatched = range(len(rows), len(rows) + len(batch))
            rows += [_mismatched(rows[a], rows[b]) for a, b in _neighbours(batch)]
            desirable += [None] * len(batch)
            batches.append([*batch, *mismatched])
        epochs.append(batches)
    plan = finished_plan(config, rows, epochs, counts, processes)
    return PreferencePlan(plan, tuple(desirable))


def _no_singles(batches: list[list[int]]) -> list[list[int]]:
    """Batches of at least two rows: a row alone would be its own mismatch."""
    whole = [batch for batch in batches if len(batch) > 1]
    alone = [row for batch in batches if len(batch) == 1 for row in batch]
    whole += [alone[i : i + 2] for i in range(0, len(alone) - 1, 2)]
    if len(alone) % 2 and whole:
        return [[*whole[0], alone[-1]], *whole[1:]]
    return whole


def _neighbours(batch: Sequence[int]) -> Iterator[tuple[int, int]]:
    for position, row in enumerate(batch):
        yield row, batch[(position + 1) % len(batch)]


def _mismatched(prompt: EncodedRow, completion: EncodedRow) -> EncodedRow:
    ids = (
        prompt.input_ids[: prompt.prompt_length] + completion.input_ids[completion.prompt_length :]
    )
    return EncodedRow(f"{prompt.row_id}~{completion.row_id}", "mismatch", ids, prompt.prompt_length)


def _encoded(tokenizer: Any, messages: Any, completion: str, name: str) -> EncodedRow:
    prompt = encode(tokenizer, messages)
    ids = [*prompt, *encode_text(tokenizer, completion), end_of_turn_id(tokenizer)]
    return EncodedRow(name, "preference", array("i", ids), len(prompt))


def _read(path: Path) -> list[dict[str, Any]]:
    wanted = (
        {"messages", "chosen", "rejected"}
        if path.name == PAIRS_FILE
        else {"messages", "completion", "label"}
    )
    try:
        # Not splitlines: JSON leaves U+2028 and its like as they are.
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise SnapshotError(
            f"snapshot {str(path.parent)!r} has no {path.name}: it holds no such preferences"
        ) from error
    records = [json.loads(line) for line in lines if line.strip()]
    if not records:
        raise SnapshotError(f"{path.name} of snapshot {str(path.parent)!r} is empty")
    for number, record in enumerate(records, start=1):
        missing = sorted(wanted - set(record))
        if missing:
            raise SnapshotError(f"{path.name} line {number} has no {missing[0]!r}")
    return records


class PreferenceCollator(PlannedBatchCollator):
    """Adds `positions`, the place of each row in the plan, to the padded batch."""

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate planned batches."""
        import torch

        batch = super().__call__(items)
        batch["positions"] = torch.tensor([i for item in items for i in item["rows"]])
        return batch


def completion_log_probabilities(model: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
    """Sums of the log-probabilities of each row's completion, shape (rows,), and the counts."""
    import torch

    labels = inputs["labels"]
    logits, labelled = head_on_completions(model, inputs)
    targets = labels[labelled]
    each = -torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    row = labelled.nonzero()[:, 0]
    sums = torch.zeros(len(labels), device=each.device).index_add(0, row, each)
    return sums, labelled.sum(dim=1)


class PreferenceLoss:
    """The loss of one preference run; `measure_reference` is called before the first step."""

    def __init__(self, config: TuneConfig, prepared: PreferencePlan) -> None:
        self.config = config
        self.prepared = prepared
        self.reference: Any = None
        self._seen: dict[str, list[float]] = {}
        up = sum(label is True for label in prepared.desirable)
        down = sum(label is False for label in prepared.desirable)
        # Equation 8's weights, chosen so that both sides count alike in all.
        self.weight_up = max(1.0, down / up) if up else 1.0
        self.weight_down = max(1.0, up / down) if down else 1.0

    def measure_reference(self, model: Any, collate: PreferenceCollator) -> None:
        """Take the log-probabilities of every planned row under the model as it starts."""
        import torch

        config, plan = self.config, self.prepared.plan
        device = next(model.parameters()).device
        self.reference = torch.zeros(len(plan.rows), device=device)
        used = sorted({i for batch in plan.batches for i in batch})
        used.sort(key=lambda i: len(plan.rows[i].input_ids))
        was_training = model.training
        model.eval()
        bf16 = torch.autocast(
            device.type, torch.bfloat16, enabled=config.compute_dtype == "bfloat16"
        )
        reference = _reference_of(model, config)
        with torch.no_grad(), bf16:
            for start in range(0, len(used), 2 * config.batch_rows):
                chosen = used[start : start + 2 * config.batch_rows]
                batch = {k: v.to(device) for k, v in collate([{"rows": chosen}]).items()}
                self.reference[batch["positions"]] = completion_log_probabilities(reference, batch)[
                    0
                ]
        model.train(was_training)

    def __call__(self, model: Any, inputs: dict[str, Any]) -> Any:
        """Mean loss of a planned batch."""
        sums, counts = completion_log_probabilities(model, inputs)
        ratios = sums - self.reference[inputs["positions"]]
        if self.config.objective == "dpo":
            return self._dpo(ratios, sums, counts)
        return self._kto(ratios, inputs["positions"])

    def _dpo(self, ratios: Any, sums: Any, counts: Any) -> Any:
        loss, margins = dpo_loss(ratios[0::2], ratios[1::2], self.config.beta)
        self._note(accuracy=(margins > 0).float().mean(), margin=margins.mean())
        if self.config.sft_weight:
            # arXiv 2404.19733: keeps the chosen answers likely while the margin grows.
            loss = loss - self.config.sft_weight * (sums[0::2] / counts[0::2]).mean()
        return loss

    def _kto(self, ratios: Any, positions: Any) -> Any:
        import torch

        half = len(ratios) // 2
        labels = [self.prepared.desirable[i] for i in positions[:half].tolist()]
        up = torch.tensor([label is True for label in labels], device=ratios.device)
        loss = kto_loss(
            ratios[:half],
            ratios[half:],
            up,
            beta=self.config.beta,
            weights=(self.weight_up, self.weight_down),
        )
        rewards = self.config.beta * ratios[:half].detach()
        right = torch.where(up, rewards > 0, rewards < 0)
        self._note(accuracy=right.float().mean(), margin=rewards.abs().mean())
        return loss

    def _note(self, **values: Any) -> None:
        for name, value in values.items():
            self._seen.setdefault(name, []).append(float(value.detach()))

    def take_metrics(self) -> dict[str, float]:
        """Means since the last call: share of preferences met, and the reward margin."""
        means = {name: sum(values) / len(values) for name, values in self._seen.items()}
        self._seen.clear()
        return means


def dpo_loss(chosen: Any, rejected: Any, beta: float) -> tuple[Any, Any]:
    """DPO's mean loss and the reward margins.

    Args:
        chosen: Log-probability of each chosen answer minus that of the reference, shape (pairs,).
        rejected: The same of the rejected answers.
        beta: Strength of the tie to the reference.
    """
    import torch

    margins = beta * (chosen - rejected)
    return -torch.nn.functional.logsigmoid(margins).mean(), margins.detach()


def kto_loss(
    ratios: Any, mismatched: Any, desirable: Any, *, beta: float, weights: tuple[float, float]
) -> Any:
    """KTO's mean loss.

    Args:
        ratios: Log-probability of each answer minus that of the reference, shape (rows,).
        mismatched: The same for prompts with another row's answer; their mean, at least 0 and
            without gradient, is the reference point.
        desirable: Whether each answer was rated up.
        beta: Strength of the tie to the reference.
        weights: Of answers rated up and down.
    """
    import torch

    point = mismatched.detach().mean().clamp(min=0)
    losses = torch.where(
        desirable,
        weights[0] * (1 - torch.sigmoid(beta * (ratios - point))),
        weights[1] * (1 - torch.sigmoid(beta * (point - ratios))),
    )
    return losses.mean()


def _reference_of(model: Any, config: TuneConfig) -> Any:
    # Fresh learnt prompts are random: unlike the others they change the function at step 0.
    random_start = METHODS[config.method].peft_type in ("PREFIX_TUNING", "PROMPT_TUNING")
    return model.get_base_model() if random_start and config.start_from is None else model
