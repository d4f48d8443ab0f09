"""Dev scores of a model during tuning: greedy answers compared with the rows' own answers.

A checkpoint is chosen by these scores and not by loss: the loss keeps falling while a model
turns from its context to its memory (arXiv 2410.10796).
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuning.builder import Draw, DrawConfig, draw
from tuning.prompt import DEFAULT_ABSTAIN, encode, end_of_turn_id
from tuning.snapshot import Row

_CITATION = re.compile(r"\s*\[(\d{1,3})\]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

# Weights of the composite; a part without rows is left out and the rest is renormalised.
COMPOSITE = {
    "grounded_f1": 2.0,
    "citation": 1.0,
    "abstention": 1.0,
    "answered": 1.0,
    "style_f1": 1.0,
}


@dataclass(frozen=True, slots=True)
class DevCase:
    """One dev prompt and what is right for it."""

    drawn: Draw
    prompt_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How dev answers are generated."""

    batch: int = 16
    new_tokens: int = 48
    autocast: bool = True


def dev_cases(
    rows: Sequence[Row], tokenizer: Any, config: DrawConfig, *, seed: int
) -> list[DevCase]:
    """Prompts for dev rows: grounded with gold, every third of them again without gold."""
    with_gold = replace(config, p_no_gold=0.0, p_gold_only=0.0)
    without_gold = replace(config, p_no_gold=1.0)
    draws = [draw(row, with_gold, seed=seed, epoch=-1) for row in rows]
    grounded = [row for row in rows if row["kind"] == "grounded" and row["distractors"]]
    draws += [draw(row, without_gold, seed=seed, epoch=-1) for row in grounded[::3]]
    cases = [DevCase(drawn, tuple(encode(tokenizer, drawn.messages))) for drawn in draws]
    room = config.max_length
    return [case for case in cases if len(case.prompt_ids) < room]


def generate_answers(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], settings: GenerationSettings
) -> list[str]:
    """Greedy answers in the order of the prompts; the model's training mode is kept."""
    import torch

    end = end_of_turn_id(tokenizer)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers = [""] * len(prompts)
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.autocast)
    with torch.inference_mode(), autocast:
        for start in range(0, len(order), settings.batch):
            chosen = order[start : start + settings.batch]
            width = max(len(prompts[i]) for i in chosen)
            ids = torch.full((len(chosen), width), end, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, i in enumerate(chosen):
                ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
                mask[row, width - len(prompts[i]) :] = 1
            output = model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=settings.new_tokens,
                do_sample=False,
                use_cache=True,
                eos_token_id=end,
                pad_token_id=end,
            )
            for row, i in enumerate(chosen):
                new = output[row, width:].tolist()
                new = new[: new.index(end)] if end in new else new
                answers[i] = tokenizer.decode(new, skip_special_tokens=True).strip()
    model.train(was_training)
    return answers


def score_answers(cases: Sequence[DevCase], answers: Sequence[str]) -> dict[str, float]:
    """Scores in [0, 1], higher is better, with the composite; parts without rows are absent.

    `grounded_f1` and `grounded_em` compare the answer without its citations, `citation` is the
    share of grounded answers citing gold and nothing else, `abstention` the share of
    unanswerable prompts abstained on, `answered` the share of grounded prompts not abstained on.
    """
    parts: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        parts.setdefault(name, []).append(value)

    for case, text in zip(cases, answers, strict=True):
        drawn = case.drawn
        plain = _CITATION.sub("", text).strip()
        if drawn.kind == "abstain":
            add("abstention", float(abstains(text)))
            continue
        prefix = drawn.kind
        add(f"{prefix}_f1", token_f1(plain, drawn.answer))
        add(f"{prefix}_em", float(_normalised(plain) == _normalised(drawn.answer)))
        if drawn.kind == "grounded":
            cited = {int(number) for number in _CITATION.findall(text)}
            add("citation", float(bool(cited) and cited <= set(drawn.gold_numbers)))
            add("answered", float(not abstains(text)))
    scores = {name: sum(values) / len(values) for name, values in sorted(parts.items())}
    weights = {name: weight for name, weight in COMPOSITE.items() if name in scores}
    if weights:
        total = sum(weight * scores[name] for name, weight in weights.items())
        scores["composite"] = total / sum(weights.values())
    return scores


def abstains(text: str) -> bool:
    """Whether an answer is the abstention sentence (a use case may have appended to it)."""
    return text.strip().startswith(DEFAULT_ABSTAIN.rstrip("."))


def token_f1(answer: str, target: str) -> float:
    """Harmonic mean of word precision and recall, in [0, 1]. Source: SQuAD, arXiv 1606.05250."""
    words, wanted = _normalised(answer).split(), _normalised(target).split()
    if not words or not wanted:
        return float(words == wanted)
    shared = sum((Counter(words) & Counter(wanted)).values())
    return 2 * shared / (len(words) + len(wanted))


def _normalised(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
