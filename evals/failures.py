"""The questions an arm does worst on, with what every arm said and what it had read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.outputs import Output, Passage
from evals.samples import Sample
from evals.scoring import ScoreTable


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


def worst_answers(
    table: ScoreTable,
    samples: Sequence[Sample],
    outputs: Mapping[str, Mapping[str, Output]],
    metric: str,
    per_arm: int = 5,
) -> tuple[Failure, ...]:
    """Give the worst questions of every candidate, only those with a score below 1.

    Lowest score first; among equal scores those that another arm answered best, because they can
    be answered; then the order of the samples.
    """
    failures: list[Failure] = []
    for arm in table.candidates:
        scored = []
        for i in range(len(samples)):
            score = _at(table, arm, metric, i)
            if score is not None and score < 1:
                others = [_at(table, other, metric, i) or 0.0 for other in table.candidates]
                scored.append((score, -max(others), i))
        for score, _, i in sorted(scored)[:per_arm]:
            failures.append(_failure(table, samples[i], outputs, (arm, metric), i, score))
    return tuple(failures)


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
    return Failure(arm, sample.id, sample.question, sample.answers, sample.gold, score, answers)


def _at(table: ScoreTable, arm: str, metric: str, i: int) -> float | None:
    value = float(table.values[arm][metric][i])
    return None if value != value else value
