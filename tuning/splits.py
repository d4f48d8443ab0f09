"""Train, dev and test by connected components, so that no source is on two sides of a split.

Two items are connected when they share a source (document, passage, editor session, ...) or a
normalised question. Whole components are assigned by a hash of their content and the seed.
"""

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tuning.errors import TuningError

Split = Literal["train", "dev", "test"]
GIANT_SHARE = 0.5
AUDIT_NGRAM = 13

_NOT_WORD = re.compile(r"[^\w]+")


@dataclass(frozen=True, slots=True)
class SplitItem:
    """One item to place: its id, its question and everything it was made from."""

    id: str
    question: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SplitAudit:
    """What the split looks like; `warning` says when a giant component makes it doubtful."""

    components: int
    largest_share: float
    counts: dict[str, int]
    warning: str | None


@dataclass(frozen=True, slots=True)
class SplitResult:
    """Component and split of every item id."""

    component: dict[str, str]
    split: dict[str, Split]
    audit: SplitAudit


def normalise_question(text: str) -> str:
    """Case, punctuation, width and spacing removed; used to find the same question again."""
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def connected_components(items: Sequence[SplitItem]) -> dict[str, str]:
    """Map item id to component id; the component id does not depend on the order of items."""
    parent: dict[str, str] = {}

    def find(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for item in items:
        keys = [f"source:{source}" for source in item.sources]
        if question := normalise_question(item.question):
            keys.append(f"question:{question}")
        for key in keys:
            parent[find(key)] = find(f"item:{item.id}")
    members: dict[str, list[str]] = defaultdict(list)
    for item in items:
        members[find(f"item:{item.id}")].append(item.id)
    names = {root: _digest(min(ids)) for root, ids in members.items()}
    return {item.id: names[find(f"item:{item.id}")] for item in items}


def assign_splits(
    items: Sequence[SplitItem], *, seed: int = 0, dev: float = 0.1, test: float = 0.1
) -> SplitResult:
    """Place whole components into train, dev and test, the same way on every call.

    With at least three components neither dev nor test stays empty (unless its share is 0).

    Raises:
        TuningError: If ids repeat or the shares leave nothing for training.
    """
    if dev < 0 or test < 0 or dev + test >= 1:
        raise TuningError(f"split shares dev={dev} and test={test} must leave room for train")
    repeated = [name for name, n in Counter(item.id for item in items).items() if n > 1]
    if repeated:
        raise TuningError(f"item id {repeated[0]!r} occurs more than once")
    component = connected_components(items)
    sizes = Counter(component.values())
    draws = {name: _uniform(f"{seed}:{name}") for name in sizes}
    side: dict[str, Split] = {
        name: "dev" if u < dev else "test" if u < dev + test else "train"
        for name, u in draws.items()
    }
    _fill_empty_sides(side, sizes, draws, {"dev": dev, "test": test})
    split = {item_id: side[name] for item_id, name in component.items()}
    return SplitResult(component, split, _audit(sizes, split))


def ngram_overlap(train: Iterable[str], held_out: Iterable[str], n: int = AUDIT_NGRAM) -> int:
    """Number of held-out texts that share a run of `n` words with a training text."""
    seen = {gram for text in train for gram in _ngrams(text, n)}
    return sum(any(gram in seen for gram in _ngrams(text, n)) for text in held_out)


def _fill_empty_sides(
    side: dict[str, Split],
    sizes: Counter[str],
    draws: dict[str, float],
    shares: dict[Split, float],
) -> None:
    for name, share in shares.items():
        if share == 0 or name in side.values() or len(sizes) < 3:
            continue
        movable = sorted((sizes[c], draws[c], c) for c, where in side.items() if where == "train")
        if len(movable) > 1:
            side[movable[0][2]] = name


def _audit(sizes: Counter[str], split: dict[str, Split]) -> SplitAudit:
    total = sum(sizes.values())
    largest = max(sizes.values(), default=0) / total if total else 0.0
    warning = None
    if largest > GIANT_SHARE:
        warning = (
            f"one component holds {largest:.0%} of the items; they share sources or questions, "
            "so dev and test say little about new sources (cut it by document version or time)"
        )
    counts = Counter(split.values())
    return SplitAudit(
        len(sizes), largest, {k: counts.get(k, 0) for k in ("train", "dev", "test")}, warning
    )


def _ngrams(text: str, n: int) -> Iterable[tuple[str, ...]]:
    words = normalise_question(text).split()
    return (tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _uniform(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
