"""What context does to answers: enough or not, gain and harm, context against weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evals.metrics.answers import contains_answer
from evals.statistics.clustered import cluster_t
from evals.statistics.intervals import Floats, Interval, Ints, Mask

RIGHT_FROM = 0.5  # a graded answer counts as right from this score on


@dataclass(frozen=True, slots=True)
class SufficiencySplit:
    """An arm's score where the gold was among its passages, and where it was not.

    Attributes:
        share: how often the gold was there.
        refused_without: share of refusals where it was not.
    """

    share: Interval
    with_gold: Interval
    without_gold: Interval
    refused_without: Interval


@dataclass(frozen=True, slots=True)
class ContextUse:
    """What context changes against the same questions without it.

    Attributes:
        gain: mean change on questions the model gets wrong without context.
        harm: mean loss on questions it gets right without context.
    """

    gain: Interval
    harm: Interval


@dataclass(frozen=True, slots=True)
class Conflict:
    """Answers where the passage and the weights say different things.

    Attributes:
        memorisation: weights / (weights + context), None if neither was followed.
    """

    context: int
    weights: int
    neither: int

    @property
    def memorisation(self) -> float | None:
        """The share that follows the weights among answers that follow one of the two."""
        known = self.context + self.weights
        return self.weights / known if known else None


def sufficiency_split(
    scores: Floats, refused: Mask, sufficient: Mask, clusters: Ints, confidence: float = 0.95
) -> SufficiencySplit:
    """Split the scores of one arm by whether its context held a gold source.

    Source: Joren et al. 2025, "Sufficient context".
    """
    kept = ~np.isnan(scores)
    inside, outside = kept & sufficient, kept & ~sufficient

    def mean(values: Floats, mask: Mask) -> Interval:
        return clip(cluster_t(values[mask], clusters[mask], confidence), 0.0, 1.0)

    return SufficiencySplit(
        mean(sufficient.astype(np.float64), kept),
        mean(scores, inside),
        mean(scores, outside),
        mean(refused.astype(np.float64), outside),
    )


def context_use(
    without: Floats, with_context: Floats, clusters: Ints, confidence: float = 0.95
) -> ContextUse:
    """Split the effect of context by whether the model alone was right (`RIGHT_FROM`).

    An average hides that gains and harms cancel out. The split uses one noisy answer per question:
    read it as a description, not as a cause.
    """
    both = ~(np.isnan(without) | np.isnan(with_context))
    known = without >= RIGHT_FROM
    change = with_context - without

    def mean(values: Floats, mask: Mask) -> Interval:
        interval = cluster_t(values[mask], clusters[mask], confidence, (-1.0, 1.0))
        return clip(interval, -1.0, 1.0)

    return ContextUse(mean(change, both & ~known), mean(-change, both & known))


def conflict(
    texts: Sequence[str],
    context_answers: Sequence[Sequence[str]],
    weight_answers: Sequence[Sequence[str]],
) -> Conflict:
    """Count answers that hold the altered value of the passage, the value learned, or neither.

    An answer that holds both follows neither.
    """
    counts = {"context": 0, "weights": 0, "neither": 0}
    for text, altered, learned in zip(texts, context_answers, weight_answers, strict=True):
        follows = contains_answer(text, altered).value == 1.0
        remembers = contains_answer(text, learned).value == 1.0
        side = "neither" if follows == remembers else "context" if follows else "weights"
        counts[side] += 1
    return Conflict(counts["context"], counts["weights"], counts["neither"])


def clip(interval: Interval, low: float, high: float) -> Interval:
    """Cut the bounds of an interval to what is possible."""
    if interval.low is None or interval.high is None:
        return interval
    return Interval(
        interval.estimate,
        max(low, interval.low),
        min(high, interval.high),
        interval.n,
        interval.clusters,
        interval.confidence,
        interval.method,
        interval.note,
    )
