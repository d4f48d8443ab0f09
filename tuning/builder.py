"""Training rows with fresh draws: which passages are shown, in which order, and what is answered.

The draw of a row depends only on the seed, the epoch and the row id, so that an epoch can be
rebuilt anywhere and a resumed run sees the same rows.
"""

import random
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuning.errors import TuneConfigError
from tuning.prompt import (
    DEFAULT_ABSTAIN,
    DEFAULT_SYSTEM,
    Message,
    Passage,
    encode,
    encode_text,
    end_of_turn_id,
    render_messages,
)
from tuning.snapshot import CITE, Row, RowPassage


@dataclass(frozen=True, slots=True)
class DrawConfig:
    """How rows are drawn.

    Attributes:
        p_no_gold: Share of grounded rows shown without gold, to be answered by abstaining.
        p_gold_only: Share of grounded rows shown with gold and nothing else.
        p_style_passages: Share of style rows shown with passages, as serving always has some.
        max_distractors: Most distractors shown beside gold.
        max_length: Most tokens of prompt and answer together.
    """

    p_no_gold: float = 0.15
    p_gold_only: float = 0.1
    p_style_passages: float = 0.5
    max_distractors: int = 3
    max_length: int = 1024
    system: str = DEFAULT_SYSTEM
    abstain_sentence: str = DEFAULT_ABSTAIN

    def __post_init__(self) -> None:
        for name in ("p_no_gold", "p_gold_only", "p_style_passages"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise TuneConfigError(f"{name}={value} must lie in [0, 1]")
        if self.max_distractors < 0 or self.max_length < 16:
            raise TuneConfigError("max_distractors must be >= 0 and max_length >= 16")


@dataclass(frozen=True, slots=True)
class Draw:
    """One drawn row: what the model sees and what it should say."""

    row_id: str
    messages: tuple[Message, ...]
    target: str
    answer: str
    kind: str
    gold_numbers: tuple[int, ...]
    passages: int


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """Token ids of prompt and completion; loss falls on `input_ids[prompt_length:]` only."""

    row_id: str
    kind: str
    input_ids: "array[int]"
    prompt_length: int


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Encoded rows with what had to be changed to make them fit."""

    rows: tuple[EncodedRow, ...]
    counts: dict[str, int]
    refusals: tuple[tuple[str, str], ...]


def draw(row: Row, config: DrawConfig, *, seed: int, epoch: int) -> Draw:
    """Draw what one row shows in one epoch."""
    rng = random.Random(f"{seed}:{epoch}:{row['id']}")
    shown, gold_ids, answer, kind = _draw_passages(row, config, rng)
    return _assemble(row, shown, gold_ids, (answer, kind), config)


def encode_draw(tokenizer: Any, drawn: Draw) -> tuple[list[int], list[int]]:
    """Prompt ids and completion ids; the completion ends with the end-of-turn token."""
    prompt = encode(tokenizer, drawn.messages)
    completion = [*encode_text(tokenizer, drawn.target), end_of_turn_id(tokenizer)]
    return prompt, completion


def build_rows(
    rows: Sequence[Row], tokenizer: Any, config: DrawConfig, *, seed: int, epoch: int
) -> EncodedRows:
    """Draw and encode rows for one epoch, in the order given.

    A row longer than `max_length` loses distractors, never gold; one that still does not fit is
    refused. Nothing is truncated.
    """
    encoded: list[EncodedRow] = []
    refusals: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    for row in rows:
        rng = random.Random(f"{seed}:{epoch}:{row['id']}")
        shown, gold_ids, answer, kind = _draw_passages(row, config, rng)
        while True:
            drawn = _assemble(row, shown, gold_ids, (answer, kind), config)
            prompt, completion = encode_draw(tokenizer, drawn)
            length = len(prompt) + len(completion)
            if length <= config.max_length:
                ids = array("i", prompt + completion)
                encoded.append(EncodedRow(row["id"], drawn.kind, ids, len(prompt)))
                counts[f"rows_{drawn.kind}"] += 1
                counts["tokens"] += length
                break
            droppable = [i for i, p in enumerate(shown) if p["id"] not in gold_ids]
            if not droppable or (kind == "abstain" and len(droppable) == 1):
                reason = f"{length} tokens, the limit is {config.max_length}"
                refusals.append((row["id"], reason))
                break
            del shown[droppable[-1]]
            counts["distractors_dropped"] += 1
    counts["rows_refused"] = len(refusals)
    return EncodedRows(tuple(encoded), dict(counts), tuple(refusals))


def _draw_passages(
    row: Row, config: DrawConfig, rng: random.Random
) -> tuple[list[RowPassage], frozenset[str], str, str]:
    """Shown passages in order, ids of shown gold, the answer and the kind actually drawn."""
    gold = list(row["gold"])
    gold_ids = {passage["id"] for passage in gold}
    pool = [passage for passage in row["distractors"] if passage["id"] not in gold_ids]
    answer, kind = row["answer"], row["kind"]
    if kind == "grounded":
        chance = rng.random()
        if pool and chance < config.p_no_gold:
            gold, answer, kind = [], config.abstain_sentence, "abstain"
            shown = _some(pool, len(row["gold"]) + config.max_distractors, rng)
        elif chance < config.p_no_gold + config.p_gold_only:
            shown = gold
        else:
            shown = gold + _some(pool, config.max_distractors, rng)
    elif kind == "abstain":
        # The hardest passage comes first in the pool and is the reason the row exists.
        shown = pool[:1] + _some(pool[1:], config.max_distractors, rng, least=0)
    elif rng.random() < config.p_style_passages:
        shown = _some(pool, config.max_distractors + 1, rng)
    else:
        shown = []
    rng.shuffle(shown)
    return shown, frozenset(passage["id"] for passage in gold), answer, kind


def _some(
    pool: list[RowPassage], most: int, rng: random.Random, *, least: int = 1
) -> list[RowPassage]:
    most = min(most, len(pool))
    if most < least or not most:
        return []
    return rng.sample(pool, rng.randint(least, most))


def _assemble(
    row: Row,
    shown: Sequence[RowPassage],
    gold_ids: frozenset[str],
    answer_and_kind: tuple[str, str],
    config: DrawConfig,
) -> Draw:
    answer, kind = answer_and_kind
    numbers = tuple(n for n, passage in enumerate(shown, start=1) if passage["id"] in gold_ids)
    messages = render_messages(
        row["question"],
        [Passage(passage["title"], passage["text"]) for passage in shown],
        system=row.get("system") or config.system,
        history=row.get("history") or (),
        abstain_sentence=config.abstain_sentence,
    )
    return Draw(
        row_id=row["id"],
        messages=tuple(messages),
        target=cited(answer, numbers),
        answer=answer.replace(CITE, "").strip(),
        kind=kind,
        gold_numbers=numbers,
        passages=len(shown),
    )


def cited(answer: str, numbers: Sequence[int]) -> str:
    """The answer with its citation in place of `{cite}`, or at the end when it has none."""
    marker = "".join(f"[{number}]" for number in numbers)
    if CITE in answer:
        return answer.replace(CITE if marker else f" {CITE}", marker).replace(CITE, "").strip()
    return f"{answer} {marker}" if marker else answer
