"""Several answers to one question: how much of the spread is the question, how much the dice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evals.metrics.score import find_metric
from evals.outputs import Output
from evals.samples import Sample
from evals.scoring import score_output


@dataclass(frozen=True, slots=True)
class VarianceSplit:
    """Variance of one arm's score.

    Attributes:
        between: variance of the questions' own means, the answers' noise taken out.
        within: mean variance of the answers to one question.
        se: standard error of the mean with `repeats` answers to each question.
        se_single: what it would be with one answer to each.
        worth: share by which one more answer to each question would lower the standard error.
    """

    arm: str
    questions: int
    repeats: float
    between: float
    within: float
    se: float
    se_single: float
    worth: float


def variance_split(
    samples: Sequence[Sample], outputs: Sequence[Output], metric: str
) -> tuple[VarianceSplit, ...]:
    """Split the variance of every arm that answered questions more than once.

    One-way random effects, method of moments. Source: Miller 2024, "Adding error bars to evals"
    (conditional and sampling variance).

    Raises:
        MetricError: if the metric is unknown.
    """
    find_metric(metric)
    known = {sample.id: sample for sample in samples}
    by_arm: dict[str, dict[str, list[float]]] = {}
    for output in outputs:
        value = score_output(known[output.sample_id], output)[metric].value
        if value is not None:
            by_arm.setdefault(output.arm, {}).setdefault(output.sample_id, []).append(value)
    return tuple(
        split
        for arm, scores in sorted(by_arm.items())
        if (split := _split(arm, scores)) is not None
    )


def _split(arm: str, scores: Mapping[str, list[float]]) -> VarianceSplit | None:
    groups = [np.asarray(values) for values in scores.values()]
    repeated = [values for values in groups if len(values) > 1]
    if len(groups) < 2 or not repeated:
        return None
    spare = sum(len(values) - 1 for values in repeated)
    within = float(sum(((values - values.mean()) ** 2).sum() for values in repeated)) / spare
    means = np.array([values.mean() for values in groups])
    each = len(groups) / sum(1 / len(values) for values in groups)  # harmonic mean of repeats
    seen = float(means.var(ddof=1))
    between = max(0.0, seen - within / each)
    n = len(groups)

    def error(repeats: float) -> float:
        return float(np.sqrt((between + within / repeats) / n))

    worth = 1 - error(each + 1) / error(each) if error(each) > 0 else 0.0
    return VarianceSplit(arm, n, each, between, within, error(each), error(1.0), worth)
