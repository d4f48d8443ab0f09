"""Has tuning cost the model what it knew? A frozen set of general questions, base against adapter.

Each item has one right and three wrong answers. Two things are compared item by item: the
log-likelihood of the right answer per token, and whether the right answer is the likeliest.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

from tuning.errors import TuningError
from tuning.prompt import encode, encode_text, render_messages

GENERAL_SET = Path(__file__).parent / "general_set.jsonl"
MARGIN = 0.10
_PLAIN_SYSTEM = "You are a helpful assistant."


class Item(TypedDict):
    """One general question."""

    id: str
    question: str
    answer: str
    wrong: list[str]


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Base against adapter on the general set.

    Attributes:
        accuracy_base: Share of items whose right answer was the likeliest.
        accuracy_change: Adapter minus base, with its 95 % interval over items.
        likelihood_change: Log-likelihood of right answers per token, adapter minus base, in nats.
        not_inferior: Whether the accuracy's interval lies above minus the margin; None without
            a question to ask.
    """

    items: int
    accuracy_base: float
    accuracy_adapter: float
    accuracy_change: float
    accuracy_interval: tuple[float, float]
    likelihood_change: float
    likelihood_interval: tuple[float, float]
    margin: float
    not_inferior: bool | None

    @property
    def summary(self) -> str:
        """One sentence for cards."""
        if self.not_inferior is None:
            return "not measured: no general questions"
        low, high = self.accuracy_interval
        verdict = "not worse" if self.not_inferior else "not shown to be not worse"
        return (
            f"{self.items} general questions: {self.accuracy_base:.0%} right with the base, "
            f"{self.accuracy_adapter:.0%} with the adapter, change {self.accuracy_change:+.3f} "
            f"({low:+.3f} to {high:+.3f}): {verdict} by a margin of {self.margin:g}"
        )

    def record(self) -> dict[str, Any]:
        """For a manifest."""
        return {**asdict(self), "summary": self.summary}


def load_items(path: Path | str = GENERAL_SET) -> list[Item]:
    """Read a general set.

    Raises:
        TuningError: If it is missing or malformed.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        items: list[Item] = [json.loads(line) for line in lines if line.strip()]
    except (FileNotFoundError, ValueError) as error:
        raise TuningError(f"general set {str(path)!r} cannot be read: {error}") from error
    for item in items:
        if len({item["answer"], *item["wrong"]}) != 4:
            raise TuningError(f"item {item['id']!r} needs one right and three other wrong answers")
    return items


def check_forgetting(
    base: Any, adapted: Any, tokenizer: Any, items: Sequence[Item], margin: float = MARGIN
) -> Forgetting:
    """Compare two models on general questions; neither is changed."""
    if not items:
        none = (0.0, 0.0)
        return Forgetting(0, 0.0, 0.0, 0.0, none, 0.0, none, margin, None)
    before = [_item_scores(base, tokenizer, item) for item in items]
    after = [_item_scores(adapted, tokenizer, item) for item in items]
    right = [float(b[1]) - float(a[1]) for a, b in zip(before, after, strict=True)]
    likely = [b[0] - a[0] for a, b in zip(before, after, strict=True)]
    change, interval = _mean_interval(right)
    likelihood, likelihood_interval = _mean_interval(likely)
    return Forgetting(
        items=len(items),
        accuracy_base=sum(a[1] for a in before) / len(items),
        accuracy_adapter=sum(b[1] for b in after) / len(items),
        accuracy_change=change,
        accuracy_interval=interval,
        likelihood_change=likelihood,
        likelihood_interval=likelihood_interval,
        margin=margin,
        not_inferior=interval[0] > -margin,
    )


def answer_likelihoods(
    model: Any, tokenizer: Any, question: str, answers: Sequence[str]
) -> list[float]:
    """Mean log-probability per token of each answer to a question."""
    import torch

    prompt = encode(tokenizer, render_messages(question, system=_PLAIN_SYSTEM))
    endings = [encode_text(tokenizer, answer) for answer in answers]
    width = len(prompt) + max(len(ending) for ending in endings)
    device = next(model.parameters()).device
    ids = torch.zeros((len(answers), width), dtype=torch.long, device=device)
    for line, ending in enumerate(endings):
        whole = prompt + ending
        ids[line, : len(whole)] = torch.tensor(whole)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[:, -(width - len(prompt)) - 1 : -1]
    model.train(was_training)
    each = logits.float().log_softmax(-1)
    return [
        float(each[line, torch.arange(len(ending)), torch.tensor(ending)].mean())
        for line, ending in enumerate(endings)
    ]


def _item_scores(model: Any, tokenizer: Any, item: Item) -> tuple[float, bool]:
    found = answer_likelihoods(model, tokenizer, item["question"], [item["answer"], *item["wrong"]])
    return found[0], found[0] > max(found[1:])


def _mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Student's 95 % interval of the mean of paired differences."""
    from scipy import stats

    count = len(values)
    mean = sum(values) / count
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, count - 1))
    # Ties alone leave no spread; one discordant item is the least that can be excluded.
    spread = max(spread, math.sqrt(1 / count) if set(values) == {0.0} else 0.0)
    half = float(stats.t.ppf(0.975, max(1, count - 1))) * spread / math.sqrt(count)
    return mean, (mean - half, mean + half)
