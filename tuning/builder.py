"""Training rows with fresh draws: which passages are shown, in which order, and what is answered.

The draw of a row depends only on the seed, the epoch and the row id, so that an epoch can be
rebuilt anywhere and a resumed run sees the same rows.
"""

import random
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

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
from tuning.value_swap import swap_in_row


@dataclass(frozen=True, slots=True)
class DrawConfig:
    """How rows are drawn.

    Attributes:
        p_no_gold: Share of grounded rows shown without gold, to be answered by abstaining.
        p_gold_only: Share of grounded rows shown with gold and nothing else.
        p_style_passages: Share of style rows shown with passages, as serving always has some.
        p_value_swap: Share of grounded rows with one value altered in gold and answer alike, so
            that only the passage can tell it. Rows without a value to alter stay as they are.
        p_conflict: Share of grounded rows that have an outdated version shown with it, both with
            their dates; the newest is right.
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
    p_value_swap: float = 0.0
    p_conflict: float = 0.0

    def __post_init__(self) -> None:
        shares = ("p_no_gold", "p_gold_only", "p_style_passages", "p_value_swap", "p_conflict")
        for name in shares:
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise TuneConfigError(f"{name}={value} must lie in [0, 1]")
        if self.p_value_swap + self.p_conflict > 1:
            raise TuneConfigError(
                f"p_value_swap={self.p_value_swap} and p_conflict={self.p_conflict} "
                "must sum to 1 at most"
            )
        if self.max_distractors < 0 or self.max_length < 16:
            raise TuneConfigError("max_distractors must be >= 0 and max_length >= 16")


@dataclass(frozen=True, slots=True)
class Draw:
    """One drawn row: what the model sees and what it should say.

    `variant`: plain, value_swap (a value was altered in passage and answer) or conflict (an
    outdated version is shown too). `kind` is what the answer is: grounded, abstain, style, replay.
    """

    row_id: str
    messages: tuple[Message, ...]
    target: str
    answer: str
    kind: str
    gold_numbers: tuple[int, ...]
    passages: int
    variant: str = "plain"


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
    return _assemble(_choose(row, config, seed, epoch), config)


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
        chosen = _choose(row, config, seed, epoch)
        while True:
            drawn = _assemble(chosen, config)
            prompt, completion = encode_draw(tokenizer, drawn)
            length = len(prompt) + len(completion)
            if length <= config.max_length:
                ids = array("i", prompt + completion)
                encoded.append(EncodedRow(row["id"], drawn.kind, ids, len(prompt)))
                counts[f"rows_{drawn.kind}"] += 1
                counts["tokens"] += length
                if drawn.variant != "plain":
                    counts[f"variant_{drawn.variant}"] += 1
                break
            if not chosen.drop_one():
                reason = f"{length} tokens, the limit is {config.max_length}"
                refusals.append((row["id"], reason))
                break
            counts["distractors_dropped"] += 1
    counts["rows_refused"] = len(refusals)
    return EncodedRows(tuple(encoded), dict(counts), tuple(refusals))


@dataclass(slots=True)
class _Chosen:
    """What a row shows, before it is rendered."""

    row: Row
    shown: list[RowPassage]
    gold_ids: frozenset[str]
    answer: str
    kind: str
    variant: str

    def drop_one(self) -> bool:
        """Take the last passage that is not gold away; False where none may go."""
        droppable = [i for i, p in enumerate(self.shown) if p["id"] not in self.gold_ids]
        if not droppable or (self.kind == "abstain" and len(droppable) == 1):
            return False
        del self.shown[droppable[-1]]
        return True


def _choose(row: Row, config: DrawConfig, seed: int, epoch: int) -> _Chosen:
    # A generator of its own, so that a share of 0 leaves every other draw as it is without it.
    row, variant = _varied(row, config, random.Random(f"variant:{seed}:{epoch}:{row['id']}"))
    rng = random.Random(f"{seed}:{epoch}:{row['id']}")
    gold = list(row["gold"])
    gold_ids = {passage["id"] for passage in gold}
    pool = [passage for passage in row["distractors"] if passage["id"] not in gold_ids]
    answer, kind = row["answer"], str(row["kind"])
    if kind == "grounded":
        chance = rng.random()
        if variant == "conflict":
            outdated = [_dated(passage) for passage in row.get("outdated", ())[:1]]
            shown = gold + outdated + _some(pool, config.max_distractors - 1, rng)
        elif pool and chance < config.p_no_gold and variant == "plain":
            gold, answer, kind = [], config.abstain_sentence, "abstain"
            shown = _some(pool, len(row["gold"]) + config.max_distractors, rng)
        elif chance < config.p_no_gold + config.p_gold_only:
            shown = gold
        else:
            shown = gold + _some(pool, config.max_distractors, rng)
    elif kind == "abstain":
        # The hardest passage comes first in the pool and is the reason the row exists.
        shown = pool[:1] + _some(pool[1:], config.max_distractors, rng, least=0)
    elif kind == "style" and rng.random() < config.p_style_passages:
        shown = _some(pool, config.max_distractors + 1, rng)
    else:
        shown = []
    rng.shuffle(shown)
    return _Chosen(row, shown, frozenset(p["id"] for p in gold), answer, kind, variant)


def _varied(row: Row, config: DrawConfig, rng: random.Random) -> tuple[Row, str]:
    """The row in the variant drawn for it, and the variant's name."""
    if row["kind"] != "grounded":
        return row, "plain"
    chance = rng.random()
    if chance < config.p_value_swap:
        swapped = swap_in_row(row, rng)
        return (swapped[0], "value_swap") if swapped else (row, "plain")
    if chance < config.p_value_swap + config.p_conflict and row.get("outdated"):
        gold = [_dated(passage) for passage in row["gold"]]
        return cast(Row, {**row, "gold": gold}), "conflict"
    return row, "plain"


def _dated(passage: RowPassage) -> RowPassage:
    """The passage with the day from which it holds in its title."""
    day = passage.get("valid_from")
    if not day:
        return passage
    return cast(RowPassage, {**passage, "title": f"{passage['title']} (valid from {day[:10]})"})


def _some(
    pool: list[RowPassage], most: int, rng: random.Random, *, least: int = 1
) -> list[RowPassage]:
    most = min(most, len(pool))
    if most < least or not most:
        return []
    return rng.sample(pool, rng.randint(least, most))


def _assemble(chosen: _Chosen, config: DrawConfig) -> Draw:
    row, shown = chosen.row, chosen.shown
    numbers = tuple(n for n, p in enumerate(shown, start=1) if p["id"] in chosen.gold_ids)
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
        target=cited(chosen.answer, numbers),
        answer=chosen.answer.replace(CITE, "").strip(),
        kind=chosen.kind,
        gold_numbers=numbers,
        passages=len(shown),
        variant=chosen.variant,
    )


def cited(answer: str, numbers: Sequence[int]) -> str:
    """The answer with its citation in place of `{cite}`, or at the end when it has none."""
    marker = "".join(f"[{number}]" for number in numbers)
    if CITE in answer:
        return answer.replace(CITE if marker else f" {CITE}", marker).replace(CITE, "").strip()
    return f"{answer} {marker}" if marker else answer


def least_tokens(row: Row, tokenizer: Any, config: DrawConfig) -> int:
    """Tokens of a row with gold and no distractor: above `max_length` it can never be trained on.

    An abstain row keeps its hardest passage, which is the reason it exists.
    """
    shown = list(row["gold"]) or (row["distractors"][:1] if row["kind"] == "abstain" else [])
    gold_ids = frozenset(passage["id"] for passage in row["gold"])
    chosen = _Chosen(row, shown, gold_ids, row["answer"], row["kind"], "plain")
    prompt, completion = encode_draw(tokenizer, _assemble(chosen, config))
    return len(prompt) + len(completion)
