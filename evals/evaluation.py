"""Scores of all arms with intervals, comparisons, slices and failures: what a decision rests on."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evals.comparisons import PairedDifference, SliceScore, paired_differences, slice_scores
from evals.errors import MetricError
from evals.failures import Failure, worst_answers
from evals.metrics.score import METRICS, PRIMARY_METRICS, find_metric
from evals.outputs import Output, outputs_digest
from evals.pareto import pareto_membership
from evals.samples import Sample, samples_digest
from evals.scoring import LATENCY, ScoreTable, Style, group_by_arm, score_table
from evals.statistics.clustered import ClusterBootstrap
from evals.statistics.intervals import Interval
from evals.statistics.quantiles import percentile_interval
from evals.statistics.rates import rate_interval

COMPARED = ("right_citation", "contains_answer")  # besides the primary metric


@dataclass(frozen=True, slots=True)
class IntervalSettings:
    """How intervals are made; part of the record of an evaluation."""

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0
    failures_per_arm: int = 5


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """One arm.

    Attributes:
        answered: samples with an output; `errors` of them carry an error.
        scored: samples with a primary score.
        metrics: interval by metric name, only metrics with at least one score.
        pareto_share: how often the arm is on the front of quality and p95 latency; None for
            baselines.
    """

    arm: str
    baseline: bool
    answered: int
    errors: int
    scored: int
    clusters: int
    metrics: Mapping[str, Interval]
    latency_p50_s: Interval
    latency_p95_s: Interval
    mean_prompt_tokens: float | None
    mean_completion_tokens: float | None
    pareto_share: float | None


@dataclass(frozen=True, slots=True)
class SplitAudit:
    """How far the samples are independent, and what they are made of."""

    samples: int
    clusters: int
    largest_cluster: int
    largest_cluster_share: float
    answerable: int
    unanswerable: int
    without_gold: int
    repeated_questions: int


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The result of `evaluate`; `table` holds every single score."""

    primary: str
    k: int
    style: str | None
    settings: IntervalSettings
    samples_digest: str
    outputs_digest: str
    audit: SplitAudit
    arms: tuple[ArmSummary, ...]
    differences: tuple[PairedDifference, ...]
    slices: tuple[SliceScore, ...]
    failures: tuple[Failure, ...]
    table: ScoreTable

    def arm(self, name: str) -> ArmSummary:
        """Give the summary of an arm.

        Raises:
            MetricError: naming the valid choices.
        """
        for summary in self.arms:
            if summary.arm == name:
                return summary
        choices = ", ".join(summary.arm for summary in self.arms)
        raise MetricError(f"no arm {name!r} was evaluated; valid choices are {choices}")


def evaluate(
    samples: Sequence[Sample],
    outputs: Iterable[Output],
    *,
    primary: str = "token_f1",
    baselines: Iterable[str] = (),
    style: Style | None = None,
    k: int = 5,
    settings: IntervalSettings | None = None,
) -> Evaluation:
    """Score all outputs and compare the arms.

    The same samples, outputs and settings give the same result to the last bit; the order of
    samples, outputs and arms does not matter to any number that a decision uses.

    Args:
        samples: the questions.
        outputs: answers of all arms; an arm may lack some.
        primary: the one metric the decision is about, chosen before the data.
        baselines: arms that need no model; shown and compared, never chosen.
        style: pattern or callable for `style_match`. Only a pattern given as a string is kept in
            the record and can be replayed from it.
        k: depth of recall@k and nDCG@k.
        settings: see `IntervalSettings`.

    Raises:
        MetricError: if `primary` cannot be a primary metric.
        OutputError: if the outputs do not fit the samples.
    """
    if primary not in PRIMARY_METRICS:
        raise MetricError(
            f"{primary!r} cannot be the primary metric; valid choices are "
            f"{', '.join(PRIMARY_METRICS)}"
        )
    settings = settings or IntervalSettings()
    samples = sorted(samples, key=lambda sample: sample.id)
    answers = sorted(outputs, key=lambda output: (output.arm, output.sample_id, output.repeat))
    table = score_table(samples, answers, baselines=baselines, k=k, style=style)
    by_arm = group_by_arm(samples, answers)
    bootstrap = ClusterBootstrap(settings.resamples, settings.seed)
    shares = pareto_membership(table, primary, seed=settings.seed)
    compared = (primary, *(metric for metric in COMPARED if metric != primary))
    return Evaluation(
        primary=primary,
        k=k,
        style=style if isinstance(style, str) else None,
        settings=settings,
        samples_digest=samples_digest(samples),
        outputs_digest=outputs_digest(answers),
        audit=_audit(samples, table),
        arms=tuple(
            _summary(table, arm, by_arm[arm], primary, bootstrap, settings.confidence, shares)
            for arm in table.arms
        ),
        differences=paired_differences(
            table, compared, bootstrap=bootstrap, confidence=settings.confidence
        ),
        slices=slice_scores(table, samples, primary, settings.confidence),
        failures=worst_answers(table, samples, by_arm, primary, settings.failures_per_arm),
        table=table,
    )


def _summary(
    table: ScoreTable,
    arm: str,
    outputs: Mapping[str, Output],
    primary: str,
    bootstrap: ClusterBootstrap,
    confidence: float,
    shares: Mapping[str, float],
) -> ArmSummary:
    metrics = {name: metric_interval(table, arm, name, bootstrap, confidence) for name in METRICS}
    latencies = table.scored(arm, LATENCY)[0]
    answered = [output for output in outputs.values() if output.error is None]
    return ArmSummary(
        arm=arm,
        baseline=arm in table.baselines,
        answered=len(outputs),
        errors=len(outputs) - len(answered),
        scored=metrics[primary].n,
        clusters=metrics[primary].clusters,
        metrics={name: interval for name, interval in metrics.items() if interval.n},
        latency_p50_s=percentile_interval(latencies, 0.5, confidence),
        latency_p95_s=percentile_interval(latencies, 0.95, confidence),
        mean_prompt_tokens=_mean([output.prompt_tokens for output in answered]),
        mean_completion_tokens=_mean([output.completion_tokens for output in answered]),
        pareto_share=shares.get(arm),
    )


def metric_interval(
    table: ScoreTable, arm: str, metric: str, bootstrap: ClusterBootstrap, confidence: float
) -> Interval:
    """Give the mean of one metric of one arm: Wilson for rates, BCa over clusters otherwise.

    A rate metric that holds graded values, as primary metrics of some tasks do, is bootstrapped.
    """
    values, clusters = table.scored(arm, metric)
    if find_metric(metric).kind == "rate" and bool(np.isin(values, (0.0, 1.0)).all()):
        return rate_interval(values, clusters, confidence)
    return bootstrap.interval(values, clusters, confidence)


def _audit(samples: Sequence[Sample], table: ScoreTable) -> SplitAudit:
    sizes = np.bincount(table.clusters) if len(samples) else np.zeros(1, dtype=np.int64)
    asked = Counter(" ".join(sample.question.lower().split()) for sample in samples)
    answerable = sum(sample.answerable for sample in samples)
    largest = int(sizes.max())
    return SplitAudit(
        samples=len(samples),
        clusters=int((sizes > 0).sum()),
        largest_cluster=largest,
        largest_cluster_share=largest / max(1, len(samples)),
        answerable=answerable,
        unanswerable=len(samples) - answerable,
        without_gold=sum(sample.answerable and not sample.gold for sample in samples),
        repeated_questions=sum(count - 1 for count in asked.values()),
    )


def _mean(numbers: Sequence[int]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
