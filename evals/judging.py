"""A judge is an instrument: calibrated against human labels, corrected by them, never alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evals.errors import MetricError
from evals.metrics.context_use import clip
from evals.outputs import Output
from evals.samples import Sample
from evals.statistics.intervals import Interval
from evals.statistics.prediction_powered import prediction_powered_mean
from evals.statistics.rates import mcnemar_exact, rate_interval

Judge = Callable[[Sample, Output], bool]
Verdicts = Mapping[tuple[str, str], bool]
"""(arm, sample id) -> whether the answer is good."""
MIN_LABELS = 20


@dataclass(frozen=True, slots=True)
class JudgeArm:
    """The judge on one arm.

    Attributes:
        sensitivity: good answers that the judge calls good; `specificity`: bad ones called bad.
        judged: what the judge alone says of all answers; shown, never used.
        corrected: the judge's mean corrected by the labels (PPI++); None below 20 labels.
        worth: how many times as many labels would say as much without the judge.
        skew: p of the test that the judge errs as often upwards as downwards.
    """

    arm: str
    labels: int
    answers: int
    sensitivity: Interval
    specificity: Interval
    judged: Interval
    human: Interval
    corrected: Interval | None
    worth: float | None
    skew: float


def run_judge(
    judge: Judge, samples: Sequence[Sample], outputs: Sequence[Output]
) -> dict[tuple[str, str], bool]:
    """Ask the judge about every answer: (arm, sample id) -> verdict. A failed one is bad."""
    known = {sample.id: sample for sample in samples}
    return {
        (output.arm, output.sample_id): output.error is None
        and bool(judge(known[output.sample_id], output))
        for output in outputs
    }


def judge_card(
    verdicts: Verdicts,
    labels: Verdicts,
    *,
    clusters: Mapping[str, int],
    confidence: float = 0.95,
) -> tuple[JudgeArm, ...]:
    """Calibrate a judge against human labels and correct its means by them.

    Args:
        verdicts: the judge on all answers, by (arm, sample id).
        labels: people on some of them.
        clusters: independent group by sample id.
        confidence: of every interval.

    Raises:
        MetricError: if there is no label, or one for an answer that was not judged.
    """
    if not labels:
        raise MetricError("a judge without a single human label is not reported")
    strange = sorted(set(labels) - set(verdicts))
    if strange:
        raise MetricError(f"the label of {strange[0]} is for an answer that was not judged")
    arms = sorted({arm for arm, _ in verdicts})
    return tuple(_arm(arm, verdicts, labels, clusters, confidence) for arm in arms)


def _arm(
    arm: str,
    verdicts: Verdicts,
    labels: Verdicts,
    clusters: Mapping[str, int],
    confidence: float,
) -> JudgeArm:
    labelled = sorted(name for who, name in labels if who == arm)
    others = sorted(name for who, name in verdicts if who == arm and (arm, name) not in labels)
    truth = np.array([float(labels[arm, name]) for name in labelled])
    said = np.array([float(verdicts[arm, name]) for name in labelled])
    rest = np.array([float(verdicts[arm, name]) for name in others])
    groups = np.array([clusters[name] for name in labelled], dtype=np.int64)
    rest_groups = np.array([clusters[name] for name in others], dtype=np.int64)
    good = truth == 1
    up, down = int((said > truth).sum()), int((said < truth).sum())
    powered = None
    if len(np.unique(groups)) >= MIN_LABELS:
        powered = prediction_powered_mean(truth, said, rest, clusters=groups, confidence=confidence)
    return JudgeArm(
        arm,
        len(labelled),
        len(labelled) + len(others),
        rate_interval(said[good], groups[good], confidence),
        rate_interval(1 - said[~good], groups[~good], confidence),
        rate_interval(
            np.concatenate([said, rest]), np.concatenate([groups, rest_groups]), confidence
        ),
        rate_interval(truth, groups, confidence),
        None if powered is None else clip(powered.interval, 0.0, 1.0),
        None if powered is None else powered.worth,
        mcnemar_exact(up, down).p,
    )
