"""How much a random split would have flattered: the leak premium, measured by a copying probe.

The probe answers a held-out question with the answer of the nearest training question. What it
scores on a random split above what it scores on the split by components is what a model could
gain by remembering its training rows.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuning.scoring import token_f1
from tuning.snapshot_rows import CITE, Row, held_out_gold, passage_marks, shows_any
from tuning.values import fingerprint

_HELD_OUT = 0.2
_ROUNDS = 20
_MAX_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class LeakPremium:
    """Token F1 of the copying probe on either kind of split, in [0, 1], and the difference.

    `low` and `high` are the 2.5 % and 97.5 % quantiles of the premium over the rounds.
    `shown_at_random` and `shown_by_component` are the mean shares of held-out grounded rows whose
    passage a training row shows, as its own or as a distractor; None without grounded rows.
    """

    random_split: float
    component_split: float
    premium: float
    low: float
    high: float
    rounds: int
    shown_at_random: float | None = None
    shown_by_component: float | None = None


@dataclass(frozen=True, slots=True)
class Nearness:
    """Cosine of each held-out question with its nearest training question.

    `close` counts those at 0.9 or above whose values are equal: most likely paraphrases.
    """

    median: float
    highest: float
    close: int
    held_out: int


def leak_premium(
    rows: Sequence[Row],
    vectors: NDArray[np.float32],
    *,
    rounds: int = _ROUNDS,
    seed: int = 0,
    distractors_dropped: bool = False,
) -> LeakPremium | None:
    """Score the copying probe on random splits and on splits by component.

    Args:
        rows: Rows with their components; of more than 2,000 a sample of whole components.
        vectors: Question embeddings, shape (n, d), of length 1.
        rounds: Splits of either kind, each holding about a fifth out.
        seed: Of the draws.
        distractors_dropped: Whether the split by components takes held-out passages out of
            training rows, as `drop_held_out_distractors` does.

    Returns:
        None where there are fewer than 3 components, so that no split says anything.
    """
    components = sorted({row["component"] for row in rows})
    if len(components) < 3:
        return None
    if len(rows) > _MAX_ROWS:
        rows, vectors, components = _sample(rows, vectors, components, seed)
    answers = [row["answer"].replace(CITE, "") for row in rows]
    similarity = vectors @ vectors.T
    at_random, by_component = [], []
    passages = _Passages(rows)
    shown_random: list[float | None] = []
    shown_component: list[float | None] = []
    for number in range(rounds):
        rng = random.Random(f"leak:{seed}:{number}")
        size = max(1, round(_HELD_OUT * len(rows)))
        chosen = set(rng.sample(range(len(rows)), size))
        at_random.append(_probe(chosen, similarity, answers))
        shown_random.append(passages.shown(chosen, distractors=True))
        held = _whole_components(rows, components, size, rng)
        by_component.append(_probe(held, similarity, answers))
        shown_component.append(passages.shown(held, distractors=not distractors_dropped))
    gaps = np.array(at_random) - np.array(by_component)
    low, high = np.quantile(gaps, (0.025, 0.975))
    return LeakPremium(
        float(np.mean(at_random)),
        float(np.mean(by_component)),
        float(np.mean(gaps)),
        float(low),
        float(high),
        rounds,
        _mean(shown_random),
        _mean(shown_component),
    )


def drop_held_out_distractors(rows: Sequence[Row]) -> int:
    """Take passages that held-out rows are answered from out of the distractors of training rows.

    Rows are changed in place.

    Returns:
        How many passages were taken out.
    """
    held = held_out_gold(rows)
    dropped = 0
    for row in rows:
        if row["split"] == "train":
            kept = [p for p in row["distractors"] if not shows_any([p], held)]
            dropped += len(row["distractors"]) - len(kept)
            row["distractors"] = kept
    return dropped


def nearness(rows: Sequence[Row], vectors: NDArray[np.float32]) -> Nearness | None:
    """How near held-out questions are to training questions; None where a side is empty."""
    train = [i for i, row in enumerate(rows) if row["split"] == "train"]
    held = [i for i, row in enumerate(rows) if row["split"] != "train"]
    if not train or not held:
        return None
    similarity = vectors[held] @ vectors[train].T
    best, where = similarity.max(axis=1), similarity.argmax(axis=1)
    close = sum(
        value >= 0.9
        and fingerprint(rows[held[i]]["question"])
        == fingerprint(rows[train[int(where[i])]]["question"])
        for i, value in enumerate(best)
    )
    return Nearness(float(np.median(best)), float(best.max()), int(close), len(held))


def _sample(
    rows: Sequence[Row], vectors: NDArray[np.float32], components: list[str], seed: int
) -> tuple[Sequence[Row], NDArray[np.float32], list[str]]:
    chosen: set[str] = set()
    count = 0
    sizes = Counter(row["component"] for row in rows)
    for component in random.Random(f"sample:{seed}").sample(components, len(components)):
        size = sizes[component]
        if count + size <= _MAX_ROWS or len(chosen) < 3:
            chosen.add(component)
            count += size
    kept = [i for i, row in enumerate(rows) if row["component"] in chosen]
    return [rows[i] for i in kept], vectors[kept], sorted(chosen)


def _whole_components(
    rows: Sequence[Row], components: list[str], size: int, rng: random.Random
) -> set[int]:
    """Rows of randomly drawn components, at least `size` where one component is left."""
    held: set[int] = set()
    for component in rng.sample(components, len(components) - 1):
        if len(held) >= size:
            break
        held |= {i for i, row in enumerate(rows) if row["component"] == component}
    return held


class _Passages:
    """Marks of the passages of rows: of their own and of the others they show."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.gold = [{m for p in row["gold"] for m in passage_marks(p)} for row in rows]
        self.others = [
            {
                m
                for p in [*row["distractors"], *(row.get("outdated") or [])]
                for m in passage_marks(p)
            }
            for row in rows
        ]

    def shown(self, held: set[int], *, distractors: bool) -> float | None:
        """Share of the held-out grounded rows whose passage the other rows show."""
        seen: set[str] = set()
        for i in set(range(len(self.gold))) - held:
            seen |= self.gold[i] | (self.others[i] if distractors else set())
        asked = [self.gold[i] for i in held if self.gold[i]]
        return sum(bool(marks & seen) for marks in asked) / len(asked) if asked else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _probe(held: set[int], similarity: NDArray[np.float32], answers: list[str]) -> float:
    train = np.array([i for i in range(len(answers)) if i not in held])
    order = np.array(sorted(held))
    nearest = train[similarity[np.ix_(order, train)].argmax(axis=1)]
    scores = [token_f1(answers[n], answers[i]) for i, n in zip(order, nearest, strict=True)]
    return sum(scores) / len(scores)
