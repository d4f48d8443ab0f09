"""The questions an arm does worst on, with what every arm said and what it had read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evals.metrics.context_use import RIGHT_FROM
from evals.outputs import Output, Passage
from evals.samples import Sample
from evals.scoring import ScoreTable
from evals.statistics.intervals import Floats


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """What one arm said; score None means unscored."""

    arm: str
    text: str
    score: float | None
    abstained: bool
    citations: tuple[str, ...]
    error: str | None
    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A question on which `arm` is among its worst, beside the answers of all arms."""

    arm: str
    sample_id: str
    question: str
    expected: tuple[str, ...] | None
    gold: tuple[str, ...]
    score: float
    answers: tuple[ArmAnswer, ...]
    tags: tuple[str, ...] = ()


def worst_answers(
    table: ScoreTable,
    samples: Sequence[Sample],
    outputs: Mapping[str, Mapping[str, Output]],
    metric: str,
    per_arm: int = 5,
) -> tuple[Failure, ...]:
    """Give the worst questions of every candidate, only those with a score below 1.

    Lowest score first; among equal scores those that another arm, a baseline too, got right,
    because they can be answered; then other tags and clusters than those taken before, what
    another arm answered best, and the order of the samples.
    """
    best = np.max([np.nan_to_num(table.values[arm][metric]) for arm in table.arms], axis=0)
    failures: list[Failure] = []
    for arm in table.candidates:
        for i, score in _worst(table, samples, table.values[arm][metric], best, per_arm):
            failures.append(_failure(table, samples[i], outputs, (arm, metric), i, score))
    return tuple(failures)


def _worst(
    table: ScoreTable, samples: Sequence[Sample], scores: Floats, best: Floats, most: int
) -> list[tuple[int, float]]:
    left = [int(i) for i in np.flatnonzero(scores < 1)]  # NaN is not below 1
    tags: Counter[tuple[str, ...]] = Counter()
    groups: Counter[int] = Counter()

    def order(i: int) -> tuple[float, bool, int, int, float, int]:
        right = bool(best[i] >= RIGHT_FROM)
        seen = tags[samples[i].tags], groups[int(table.clusters[i])]
        return float(scores[i]), not right, *seen, -float(best[i]), i

    taken: list[tuple[int, float]] = []
    while left and len(taken) < most:
        i = min(left, key=order)
        left.remove(i)
        tags[samples[i].tags] += 1
        groups[int(table.clusters[i])] += 1
        taken.append((i, float(scores[i])))
    return taken


def _failure(
    table: ScoreTable,
    sample: Sample,
    outputs: Mapping[str, Mapping[str, Output]],
    arm_and_metric: tuple[str, str],
    i: int,
    score: float,
) -> Failure:
    arm, metric = arm_and_metric
    answers = tuple(
        ArmAnswer(
            name,
            output.text,
            _at(table, name, metric, i),
            output.abstained,
            output.citations,
            output.error,
            output.passages,
        )
        for name in table.arms
        if (output := outputs[name].get(sample.id)) is not None
    )
    return Failure(
        arm,
        sample.id,
        sample.question,
        sample.answers,
        sample.gold,
        score,
        answers,
        sample.tags,
    )


def _at(table: ScoreTable, arm: str, metric: str, i: int) -> float | None:
    value = float(table.values[arm][metric][i])
    return None if value != value else value
