"""Rows that answer the same question in ways that exclude each other.

Two wordings of one answer are no contradiction. Two labels, two sets of values, or an answer and
an abstention are.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from tuning.scoring import abstains
from tuning.snapshot_rows import CITE, Row
from tuning.splits import normalise_question
from tuning.values import fingerprint

_LABEL_WORDS = 3


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Positions of rows with one question, and the answers that exclude each other."""

    positions: tuple[int, ...]
    answers: tuple[str, ...]
    reason: str


def find_contradictions(rows: Sequence[Row]) -> tuple[Contradiction, ...]:
    """Find groups of rows that contradict each other, in the order of their first rows."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        history = [turn["content"] for turn in row.get("history") or []]
        groups[normalise_question(row["question"]), *history].append(position)
    found = []
    for positions in groups.values():
        reason = _excludes([_plain(rows[position]) for position in positions])
        if reason:
            answers = dict.fromkeys(_plain(rows[position]) for position in positions)
            found.append(Contradiction(tuple(positions), tuple(answers), reason))
    return tuple(sorted(found, key=lambda contradiction: contradiction.positions))


def _excludes(answers: list[str]) -> str | None:
    distinct = {normalise_question(answer): answer for answer in answers}
    if len(distinct) < 2:
        return None
    if len({abstains(answer) for answer in answers}) == 2:
        return "one answers, another abstains"
    if all(len(plain.split()) <= _LABEL_WORDS for plain in distinct):
        return "different labels"
    values = [fingerprint(answer, names=False) for answer in distinct.values()]
    # An answer that says more than another does not exclude it.
    apart = any(not one <= two and not two <= one for one, two in combinations(values, 2))
    return "different values" if apart else None


def _plain(row: Row) -> str:
    return " ".join(row["answer"].replace(CITE, "").split())
