"""Context-critical rows: a value is altered in the passage and in the answer alike.

The weights cannot know the altered value, so only reading the passage gives the right answer.
Without such rows a model turns from its context to its memory while it is tuned (arXiv
2410.10796).
"""

import random
import re
from dataclasses import dataclass
from typing import cast

from tuning.reader.names import person, place
from tuning.snapshot_rows import Row, RowPassage
from tuning.values import MONTHS, FoundValue, find_values

_TRIES = 20


@dataclass(frozen=True, slots=True)
class Swap:
    """Passage and answer after the swap, and what became of which value."""

    passage: str
    answer: str
    old: str
    new: str


def swap_in_row(row: Row, rng: random.Random) -> tuple[Row, Swap] | None:
    """A row with one value altered in its passage, its answer and its distractors.

    A distractor that kept the old value of the fact (an overlapping chunk, say) would contradict
    the passage, and the row would teach to pick one of two.

    Returns:
        None where the row has not exactly one gold passage, or no value can be altered.
    """
    if len(row["gold"]) != 1:
        return None
    gold = row["gold"][0]
    # A value of the title, the question or an earlier turn names what is asked about; it must
    # not change alone.
    turns = [turn["content"] for turn in row.get("history") or ()]
    fixed = " ".join([row["question"], gold["title"], *turns])
    swap = swap_value(fixed, gold["text"], row["answer"], rng)
    if swap is None:
        return None
    changed = {
        **row,
        "gold": [{**gold, "text": swap.passage}],
        "distractors": [_passage_with(swap, passage) for passage in row["distractors"]],
        "answer": swap.answer,
    }
    return cast(Row, changed), swap


def _passage_with(swap: Swap, passage: RowPassage) -> RowPassage:
    return {
        **passage,
        "title": _replaced(swap.old, swap.new, passage["title"]),
        "text": _replaced(swap.old, swap.new, passage["text"]),
    }


def swap_value(question: str, passage: str, answer: str, rng: random.Random) -> Swap | None:
    """Alter one value that the answer takes from the passage.

    Args:
        question: Values named here stay as they are, since the question is about them.
        passage: The supporting text.
        answer: The answer, which states at least one value of the passage.
        rng: Decides which value is altered and to what.

    Returns:
        None where no value can be altered: none is shared, or all are named in the question.
    """
    values = [
        value
        for value in find_values(passage)
        if _occurs(value.text, answer) and not _occurs(value.text, question)
    ]
    rng.shuffle(values)
    for value in values:
        for _ in range(_TRIES):
            new = _another(value, rng)
            if new != value.text and not _occurs(new, passage) and not _occurs(new, answer):
                return Swap(
                    _replaced(value.text, new, passage),
                    _replaced(value.text, new, answer),
                    value.text,
                    new,
                )
    return None


def _occurs(value: str, text: str) -> bool:
    return re.search(_bounded(value), text) is not None


def _replaced(old: str, new: str, text: str) -> str:
    return re.sub(_bounded(old), lambda _: new, text)


def _bounded(value: str) -> str:
    return rf"(?<!\w)(?<!\d[.,:]){re.escape(value)}(?!\w|[.,:]\d)"


def _another(value: FoundValue, rng: random.Random) -> str:
    if value.kind == "date":
        return _another_date(value.text, rng)
    if value.kind == "number":
        return _another_number(value.text, rng)
    words = value.text.split()
    names = list(person(rng)) if len(words) > 1 else [place(rng).split()[0]]
    return " ".join((names * len(words))[: len(words)])


def _another_number(text: str, rng: random.Random) -> str:
    """Figures of the same form: as many digits, the same separators, no leading zero gained."""
    if ":" in text:
        hours, rest = text.split(":", 1)
        hour = str(rng.randrange(1, 24)).zfill(len(hours))
        return f"{hour}:{rest}"
    digits = []
    for position, character in enumerate(text):
        if not character.isdigit():
            digits.append(character)
            continue
        first = position == 0
        keep = not first and character == "0" and rng.random() < 0.8
        digits.append(character if keep else str(rng.randrange(1 if first else 0, 10)))
    return "".join(digits)


def _another_date(text: str, rng: random.Random) -> str:
    """A date written the same way; the day stays within 1 to 28."""
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        year = int(text[:4]) + rng.choice((-3, -2, -1, 1, 2, 3))
        return f"{year:04d}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}"
    long = any(month in text for month in MONTHS)
    month = rng.choice(MONTHS)
    names = "|".join([*MONTHS, *(m[:3] for m in MONTHS)])
    text = re.sub(rf"\b(?:{names})\b", month if long else month[:3], text)
    text = re.sub(r"\b\d{4}\b", lambda m: str(int(m.group()) + rng.choice((-2, -1, 1, 2))), text)
    # With an ordinal ending only 4 to 20 read the same for every digit.
    text = re.sub(r"\b\d{1,2}(?:st|nd|rd|th)\b", lambda _: f"{rng.randrange(4, 21)}th", text)
    return re.sub(r"\b\d{1,2}\b(?!\d)", lambda _: str(rng.randrange(1, 29)), text)
