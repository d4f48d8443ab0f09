"""Train, dev, confirm and test by connected components, so that no source is on two sides.

Two items are connected when they share a source (document, passage, conversation, ...), a
normalised question, or were found to be paraphrases. Whole components are assigned by a hash of
their content and the seed. What was once held out stays held out.
"""

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tuning.errors import TuningError

Split = Literal["train", "dev", "confirm", "test"]
GIANT_SHARE = 0.5
AUDIT_NGRAM = 13

_NOT_WORD = re.compile(r"[^\w]+")
# A component with items of several sides goes to the one that may be looked at least.
_STRICTEST: tuple[Split, ...] = ("test", "confirm", "dev", "train")


@dataclass(frozen=True, slots=True)
class SplitItem:
    """One item to place.

    Attributes:
        id: Its name.
        question: Equal questions (but for form) are connected.
        sources: Everything it was made from.
        when: ISO time of its source's version; a giant component is cut along it.
        alike: Ids of items that belong to it, such as paraphrases.
    """

    id: str
    question: str
    sources: tuple[str, ...] = ()
    when: str = ""
    alike: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of the components that are held out, each in [0, 1), together below 1."""

    dev: float = 0.1
    confirm: float = 0.0
    test: float = 0.1

    def __post_init__(self) -> None:
        parts = (self.dev, self.confirm, self.test)
        if min(parts) < 0 or sum(parts) >= 1:
            raise TuningError(
                f"split shares dev={self.dev}, confirm={self.confirm} and test={self.test} "
                "must leave room for train"
            )


@dataclass(frozen=True, slots=True)
class SplitAudit:
    """What the split looks like.

    Attributes:
        components: Number of components, before any cut.
        largest_share: Share of the items in the largest one.
        counts: Items by split.
        warning: Says when a giant component makes the split doubtful.
        cut: Where a giant component was cut: how, and what is still on both sides.
        pinned: Items that stay held out because an earlier snapshot held them out.
    """

    components: int
    largest_share: float
    counts: dict[str, int]
    warning: str | None
    cut: dict[str, str | int] | None = None
    pinned: int = 0


@dataclass(frozen=True, slots=True)
class SplitResult:
    """Component and split of every item id."""

    component: dict[str, str]
    split: dict[str, Split]
    audit: SplitAudit


@dataclass(slots=True)
class _Components:
    """Component of every item; `cut` tells of a giant one that was cut."""

    of: dict[str, str]
    side: dict[str, Split] = field(default_factory=dict)
    cut: dict[str, str | int] | None = None


def normalise_question(text: str) -> str:
    """Case, punctuation, width and spacing removed; used to find the same question again."""
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def connected_components(items: Sequence[SplitItem], *, sources: bool = True) -> dict[str, str]:
    """Map item id to component id; the component id does not depend on the order of items.

    Args:
        items: The items.
        sources: Whether shared sources connect.
    """
    parent: dict[str, str] = {}

    def find(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for item in items:
        keys = [f"source:{source}" for source in item.sources] if sources else []
        if question := normalise_question(item.question):
            keys.append(f"question:{question}")
        for key in keys:
            parent[find(key)] = find(f"item:{item.id}")
    known = {item.id for item in items}
    for item in items:
        for other in known.intersection(item.alike):
            parent[find(f"item:{item.id}")] = find(f"item:{other}")
    members: dict[str, list[str]] = defaultdict(list)
    for item in items:
        members[find(f"item:{item.id}")].append(item.id)
    names = {root: _digest(min(ids)) for root, ids in members.items()}
    return {item.id: names[find(f"item:{item.id}")] for item in items}


def assign_splits(
    items: Sequence[SplitItem],
    *,
    seed: int = 0,
    dev: float = 0.1,
    test: float = 0.1,
    confirm: float = 0.0,
    pinned: Mapping[str, Split] | None = None,
    cut_giant: bool = False,
) -> SplitResult:
    """Place whole components, the same way on every call.

    With at least three components no split with a share stays empty.

    Args:
        items: The items.
        seed: Another seed gives another split.
        dev: Share of the components to choose checkpoints with.
        test: Share to judge with.
        confirm: Share to estimate a chosen effect with again.
        pinned: Splits that items had in earlier snapshots; a component goes to the strictest of
            its items' (test, then confirm, then dev), so that nothing held out is trained on.
        cut_giant: Cut a component of more than half of the items: its later items are held out,
            though they share sources with earlier ones. The audit says what is shared.

    Raises:
        TuningError: If ids repeat or the shares leave nothing for training.
    """
    shares = Shares(dev, confirm, test)
    repeated = [name for name, n in Counter(item.id for item in items).items() if n > 1]
    if repeated:
        raise TuningError(f"item id {repeated[0]!r} occurs more than once")
    whole = connected_components(items)
    whole_sizes = Counter(whole.values())
    made = _Components(whole)
    giant = max(whole_sizes, key=lambda name: whole_sizes[name], default="")
    if cut_giant and whole_sizes[giant] > GIANT_SHARE * len(items):
        made = _cut(items, whole, giant, shares)
    sizes = Counter(made.of.values())
    draws = {name: _uniform(f"{seed}:{name}") for name in sizes}
    side = {name: _side(u, shares) for name, u in draws.items()} | made.side
    held = _pin(side, made.of, pinned or {})
    _fill_empty_sides(side, sizes, draws, shares, held)
    split = {item_id: side[name] for item_id, name in made.of.items()}
    kept = sum(made.of[name] in held for name in made.of)
    return SplitResult(made.of, split, _audit(whole_sizes, split, made.cut, kept))


def ngram_overlap(train: Iterable[str], held_out: Iterable[str], n: int = AUDIT_NGRAM) -> int:
    """Number of held-out texts that share a run of `n` words with a training text."""
    seen = {gram for text in train for gram in _ngrams(text, n)}
    return sum(any(gram in seen for gram in _ngrams(text, n)) for text in held_out)


def _side(draw: float, shares: Shares) -> Split:
    if draw < shares.dev:
        return "dev"
    if draw < shares.dev + shares.test:
        return "test"
    return "confirm" if draw < shares.dev + shares.test + shares.confirm else "train"


def _pin(
    side: dict[str, Split], component: dict[str, str], pinned: Mapping[str, Split]
) -> set[str]:
    """Move components to the strictest split of their pinned items; those components."""
    wanted: dict[str, Split] = {}
    for item_id, split in pinned.items():
        name = component.get(item_id)
        if name is not None:
            wanted[name] = min(split, wanted.get(name, "train"), key=_STRICTEST.index)
    held = {name: split for name, split in wanted.items() if split != "train"}
    side.update(held)
    return set(held)


def _fill_empty_sides(
    side: dict[str, Split],
    sizes: Counter[str],
    draws: dict[str, float],
    shares: Shares,
    held: set[str],
) -> None:
    wanted: tuple[tuple[Split, float], ...] = (
        ("dev", shares.dev),
        ("test", shares.test),
        ("confirm", shares.confirm),
    )
    for name, share in wanted:
        if share == 0 or name in side.values() or len(sizes) < 3:
            continue
        movable = sorted(
            (sizes[c], draws[c], c)
            for c, where in side.items()
            if where == "train" and c not in held
        )
        if len(movable) > 1:
            side[movable[0][2]] = name


def _cut(
    items: Sequence[SplitItem], whole: dict[str, str], giant: str, shares: Shares
) -> _Components:
    """Cut the giant component along time; equal questions and paraphrases stay together."""
    inside = [item for item in items if whole[item.id] == giant]
    small = connected_components(inside, sources=False)
    latest: dict[str, str] = {}
    sizes: Counter[str] = Counter(small.values())
    for item in inside:
        latest[small[item.id]] = max(latest.get(small[item.id], ""), item.when)
    timed = len(set(latest.values())) > 1
    # Without times the hash in the name decides, which is as good as a draw.
    order = sorted(sizes, key=lambda name: (latest[name] if timed else "", name))
    side: dict[str, Split] = {}
    train = 1 - shares.dev - shares.confirm - shares.test
    bounds: tuple[tuple[Split, float], ...] = (
        ("train", train),
        ("dev", train + shares.dev),
        ("confirm", train + shares.dev + shares.confirm),
        ("test", 1.0),
    )
    before = 0
    for name in order:
        middle = (before + sizes[name] / 2) / len(inside)
        side[name] = next(where for where, bound in bounds if middle <= bound + 1e-9)
        before += sizes[name]
    on_sides: dict[str, set[bool]] = defaultdict(set)
    for item in inside:
        for source in item.sources:
            on_sides[source].add(side[small[item.id]] == "train")
    cut: dict[str, str | int] = {
        "by": "time of the source versions" if timed else "question",
        "items": len(inside),
        "parts": len(sizes),
        "sources": len(on_sides),
        "sources_in_train_and_held_out": sum(len(sides) == 2 for sides in on_sides.values()),
    }
    return _Components({**whole, **small}, side, cut)


def _audit(
    sizes: Counter[str], split: dict[str, Split], cut: dict[str, str | int] | None, pinned: int
) -> SplitAudit:
    total = sum(sizes.values())
    largest = max(sizes.values(), default=0) / total if total else 0.0
    warning = None
    if cut is not None:
        warning = (
            f"one component held {largest:.0%} of the items and was cut by {cut['by']}: "
            f"{cut['sources_in_train_and_held_out']} of its {cut['sources']} sources are in train "
            "and held out, so held-out scores say little about new sources"
        )
    elif largest > GIANT_SHARE:
        warning = (
            f"one component holds {largest:.0%} of the items; they share sources or questions, "
            "so dev and test say little about new sources (cut it by document version or time)"
        )
    counts = Counter(split.values())
    names: tuple[Split, ...] = ("train", "dev", "confirm", "test")
    shown: dict[str, int] = {
        name: counts[name] for name in names if name != "confirm" or counts[name]
    }
    return SplitAudit(len(sizes), largest, shown, warning, cut, pinned)


def _ngrams(text: str, n: int) -> Iterable[tuple[str, ...]]:
    words = normalise_question(text).split()
    return (tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _uniform(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
