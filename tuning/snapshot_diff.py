"""What changed from one snapshot to another: rows added, removed, altered, moved between splits."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tuning.snapshot import Row, load, load_pairs, load_ratings

_COMPARED = ("question", "answer", "kind", "gold", "distractors", "outdated", "system", "history")


@dataclass(frozen=True, slots=True)
class ChangedRow:
    """A row of both snapshots whose `fields` differ."""

    id: str
    question: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SnapshotDiff:
    """Rows by their ids, which stay the same as long as question and answer do.

    Attributes:
        moved: Rows by "from > to" split.
        held_out_to_train: Ids that were held out before and are trained on now: must be empty.
        extras: Pairs and ratings before and after.
    """

    before: str
    after: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[ChangedRow, ...]
    moved: dict[str, int]
    held_out_to_train: tuple[str, ...]
    same: int
    extras: dict[str, tuple[int, int]]

    @property
    def identical(self) -> bool:
        """Whether the snapshots hold the same content."""
        return self.before == self.after


def diff(before: Path | str, after: Path | str) -> SnapshotDiff:
    """Compare two snapshot folders, each verified first.

    Raises:
        SnapshotError: If one is missing or damaged.
    """
    old, new = load(before), load(after)
    one = {row["id"]: row for row in old.rows}
    two = {row["id"]: row for row in new.rows}
    both = sorted(one.keys() & two.keys())
    changed = [_changed(one[name], two[name]) for name in both]
    moves = [(name, one[name]["split"], two[name]["split"]) for name in both]
    moved = Counter(f"{was} > {now}" for _, was, now in moves if was != now)
    differing = tuple(row for row in changed if row.fields)
    return SnapshotDiff(
        old.manifest.id,
        new.manifest.id,
        tuple(sorted(two.keys() - one.keys())),
        tuple(sorted(one.keys() - two.keys())),
        differing,
        dict(sorted(moved.items())),
        tuple(name for name, was, now in moves if was in ("confirm", "test") and now == "train"),
        len(both) - len(differing),
        {
            "pairs": (len(load_pairs(before)), len(load_pairs(after))),
            "ratings": (len(load_ratings(before)), len(load_ratings(after))),
        },
    )


def _changed(one: Row, two: Row) -> ChangedRow:
    first, second = cast(dict[str, Any], one), cast(dict[str, Any], two)
    fields = tuple(k for k in _COMPARED if (first.get(k) or None) != (second.get(k) or None))
    return ChangedRow(two["id"], two["question"], fields)
