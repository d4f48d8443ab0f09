"""Dev scores of a model during tuning: greedy answers compared with the rows' own answers.

A checkpoint is chosen by these scores and not by loss: the loss keeps falling while a model
turns from its context to its memory (arXiv 2410.10796).
"""

import math
import random
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuning.builder import Draw, DrawConfig, draw
from tuning.prompt import DEFAULT_ABSTAIN, encode, end_of_turn_id
from tuning.snapshot import Row
from tuning.value_swap import swap_in_row

_CITATION = re.compile(r"\s*\[(\d{1,3})\]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

# Weights of the composite; a part without rows is left out and the rest is renormalised.
# `answered` is one minus over-refusal. The weights are judgement, not fitted: what an adapter is
# for, reading its passages, is measured by two parts and counts half of the whole; runs may set
# their own (`composite_weights`).
COMPOSITE = {
    "grounded_f1": 2.0,
    "counterfactual": 2.0,
    "citation": 1.0,
    "abstention": 1.0,
    "answered": 1.0,
    "style_f1": 1.0,
}


@dataclass(frozen=True, slots=True)
class DevCase:
    """One dev prompt and what is right for it.

    `old_value` and `new_value` are set where a value of the passage was altered: the answer must
    follow the passage, and the weights cannot know it.
    """

    drawn: Draw
    prompt_ids: tuple[int, ...]
    old_value: str = ""
    new_value: str = ""


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How dev answers are generated."""

    batch: int = 16
    new_tokens: int = 48
    autocast: bool = True


def dev_cases(
    rows: Sequence[Row], tokenizer: Any, config: DrawConfig, *, seed: int
) -> list[DevCase]:
    """Prompts for dev rows.

    Grounded rows are asked with gold, every third of them again without gold, and every second
    one whose answer takes a value from its passage again with that value altered.
    """
    # Training's own variants would alter a counterfactual passage a second time.
    plain = replace(config, p_value_swap=0.0, p_conflict=0.0)
    with_gold = replace(plain, p_no_gold=0.0, p_gold_only=0.0)
    without_gold = replace(plain, p_no_gold=1.0)
    draws = [draw(row, with_gold, seed=seed, epoch=-1) for row in rows]
    grounded = [row for row in rows if row["kind"] == "grounded" and row["distractors"]]
    draws += [draw(row, without_gold, seed=seed, epoch=-1) for row in grounded[::3]]
    cases = [DevCase(drawn, tuple(encode(tokenizer, drawn.messages))) for drawn in draws]
    for row, old, new in list(_altered(rows, seed))[::2]:
        drawn = draw(row, with_gold, seed=seed, epoch=-1)
        cases.append(DevCase(drawn, tuple(encode(tokenizer, drawn.messages)), old, new))
    room = config.max_length
    return [case for case in cases if len(case.prompt_ids) < room]


def _altered(rows: Sequence[Row], seed: int) -> Iterator[tuple[Row, str, str]]:
    """Grounded rows with one value of passage and answer altered, with the old and new value."""
    for row in rows:
        if row["kind"] != "grounded":
            continue
        swapped = swap_in_row(row, random.Random(f"counterfactual:{seed}:{row['id']}"))
        if swapped is not None:
            yield swapped[0], swapped[1].old, swapped[1].new


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


def score_cases(cases: Sequence[DevCase], answers: Sequence[str]) -> dict[str, list[float]]:
    """What each answer scores, in [0, 1], by part; parts without cases are absent.

    `grounded_f1` and `grounded_em` compare the answer without its citations, `citation` is
    whether a grounded answer cites gold and nothing else, `abstention` whether an unanswerable
    prompt is abstained on, `answered` whether a grounded prompt is not, `counterfactual` whether
    the answer states the altered value of its passage and not the one it was before.
    """
    parts: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        parts.setdefault(name, []).append(value)

    for case, text in zip(cases, answers, strict=True):
        drawn = case.drawn
        plain = _CITATION.sub("", text).strip()
        if case.new_value:
            add("counterfactual", float(case.new_value in plain and case.old_value not in plain))
            continue
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
    return dict(sorted(parts.items()))


def score_answers(cases: Sequence[DevCase], answers: Sequence[str]) -> dict[str, float]:
    """Mean scores of `score_cases` with their composite."""
    return mean_scores(score_cases(cases, answers))


def mean_scores(
    parts: Mapping[str, Sequence[float]], weights_of: Mapping[str, float] = COMPOSITE
) -> dict[str, float]:
    """Means of the parts, and the composite over those with a weight."""
    scores = {name: sum(values) / len(values) for name, values in parts.items()}
    weights = _weights(scores, weights_of)
    if weights:
        total = sum(weight * scores[name] for name, weight in weights.items())
        scores["composite"] = total / sum(weights.values())
    return scores


def score_intervals(
    parts: Mapping[str, Sequence[float]], weights_of: Mapping[str, float] = COMPOSITE
) -> dict[str, tuple[float, float]]:
    """95 % intervals of the means, and of the composite as a weighted sum of independent parts.

    Wilson's interval where every value is 0 or 1 (Wald's is too narrow for few cases, arXiv
    2503.01747), Student's otherwise.
    """
    intervals = {name: _interval(values) for name, values in parts.items()}
    weights = _weights(parts, weights_of)
    if weights:
        centre = mean_scores(parts, weights_of)["composite"]
        whole = sum(weights.values())
        half = [
            math.sqrt(
                sum(
                    (weight / whole * (intervals[name][side] - sum(v) / len(v))) ** 2
                    for name, weight in weights.items()
                    for v in (parts[name],)
                )
            )
            for side in (0, 1)
        ]
        intervals["composite"] = (max(0.0, centre - half[0]), min(1.0, centre + half[1]))
    return intervals


def _weights(parts: Iterable[str], weights_of: Mapping[str, float]) -> dict[str, float]:
    present = set(parts)
    return {name: weight for name, weight in weights_of.items() if name in present and weight}


def _interval(values: Sequence[float]) -> tuple[float, float]:
    from scipy import stats

    count, mean = len(values), sum(values) / len(values)
    if all(value in (0.0, 1.0) for value in values):
        found = stats.binomtest(round(sum(values)), count).proportion_ci(method="wilson")
        return float(found.low), float(found.high)
    if count < 2:
        return 0.0, 1.0
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(stats.t.ppf(0.975, count - 1)) * spread / math.sqrt(count)
    return max(0.0, mean - half), min(1.0, mean + half)


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
