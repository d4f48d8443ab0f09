"""Closed-book recall: what a model says about the knowledge base's values without its passages.

Values that change must be copied from the context, never known by heart: an adapter that gives
them without a passage will give them after they have changed, too.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuning.prompt import DEFAULT_SYSTEM, Message, Passage, render_messages
from tuning.snapshot_rows import CITE, Row
from tuning.values import find_values, fingerprint

# 1 / 2^5 is the first chance below 5 %.
LEAST_ASKED = 5

Generate = Callable[[Sequence[Sequence[Message]]], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Leaked:
    """A question that was answered with its value though no passage was shown."""

    question: str
    value: str
    answer: str


@dataclass(frozen=True, slots=True)
class RecallReport:
    """How often values were recalled without passages; shares in [0, 1], lower is better.

    Attributes:
        asked: Questions whose answer holds a value of the passage.
        base: Share the base model recalls, mostly by chance.
        tuned: Share the tuned model recalls.
        p_value: Chance of so many more recalled by the tuned one if both knew the same (exact
            one-sided McNemar test).
        leaked: What the tuned model knew and the base model did not.
    """

    asked: int
    base: float
    tuned: float
    p_value: float
    leaked: tuple[Leaked, ...]

    @property
    def passed(self) -> bool | None:
        """Whether the tuned model is not shown to know more than the base model (5 % level).

        None with fewer than 5 questions: even if all of them leaked, the test could not fail.
        """
        return None if self.asked < LEAST_ASKED else self.p_value >= 0.05

    @property
    def verdict(self) -> str:
        """One of "passed", "failed" and "not measured"."""
        return {None: "not measured", True: "passed", False: "failed"}[self.passed]


def probe_rows(rows: Sequence[Row], limit: int) -> list[Row]:
    """Grounded rows whose answer states a value of the passage that the question does not."""
    found = [row for row in rows if row["kind"] == "grounded" and _values(row)]
    if len(found) <= limit:
        return found
    return [found[i * len(found) // limit] for i in range(limit)]


def closed_book_recall(
    rows: Sequence[Row], base: Generate, tuned: Generate, *, passages: bool = False
) -> RecallReport:
    """Ask the rows' questions without passages and look for their values in the answers.

    Args:
        rows: Rows of `probe_rows`; training rows, since those could have been learned by heart.
        base: Answers conversations with the bare model.
        tuned: Answers conversations with the adapter.
        passages: Show the supporting passage after all, to see that the probe can find values.
    """
    prompts = [
        render_messages(
            row["question"],
            [Passage(p["title"], p["text"]) for p in row["gold"]] if passages else [],
            system=row.get("system") or DEFAULT_SYSTEM,
            history=row.get("history") or (),
        )
        for row in rows
    ]
    before, after = base(prompts), tuned(prompts)
    said_before = [_recalled(row, text) for row, text in zip(rows, before, strict=True)]
    said_after = [_recalled(row, text) for row, text in zip(rows, after, strict=True)]
    leaked = tuple(
        Leaked(row["question"], value, text)
        for row, text, value, known in zip(rows, after, said_after, said_before, strict=True)
        if value and not known
    )
    lost = sum(bool(b) and not a for b, a in zip(said_before, said_after, strict=True))
    count = max(1, len(rows))
    return RecallReport(
        len(rows),
        sum(map(bool, said_before)) / count,
        sum(map(bool, said_after)) / count,
        _one_sided(len(leaked), lost),
        leaked,
    )


def _values(row: Row) -> list[str]:
    """Values of the answer that its passage holds and its question does not."""
    answer = row["answer"].replace(CITE, "")
    gold = " ".join(passage["text"] for passage in row["gold"])
    asked = f"{row['question']} {' '.join(t['content'] for t in row.get('history') or [])}"
    return [
        value.text
        for value in find_values(gold)
        if value.kind != "name" and value.text in answer and value.text not in asked
    ]


def _recalled(row: Row, text: str) -> str | None:
    """The first value of the row that a text states in full."""
    said = fingerprint(text)
    for value in _values(row):
        wanted = fingerprint(value)
        if wanted and wanted <= said:
            return value
    return None


def _one_sided(more: int, less: int) -> float:
    """P(at least `more` of all changes are gains) under equal odds."""
    changes = more + less
    gains = sum(math.comb(changes, k) for k in range(more, changes + 1))
    return float(gains / 2**changes)
