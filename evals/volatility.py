"""How fast the answers of a use case change, measured from the log of its knowledge base.

A rate is the number of changes a day. Rates of single sources are pulled towards what is usual
(gamma-Poisson), weighted by how often people ask about the source, and turned into the share of
questions that a model retrained every T days would answer from an old state.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, expm1, log
from typing import Literal

import numpy as np
from scipy import optimize, special, stats

from evals.gates import Change
from evals.metrics.values import extract_values
from evals.sentences import share
from evals.statistics.rates import clopper_pearson_bounds

Level = Literal["bytes", "values", "answers"]
LOW_BELOW, HIGH_ABOVE = 0.02, 0.15  # share of stale answers after 30 days
_MONTH = 30.0
_CONFIDENCE = 0.95
_NEGATION = re.compile(r"\b(?:no|not|never|without|none|cannot|except|\w+n't)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SourceLog:
    """What was seen of one source: a document, a passage, or one quoted answer.

    Attributes:
        events: changes seen; `days`: time it was under observation.
        weight: how often people ask about it; any unit, only the shares count.
    """

    source: str
    events: int
    days: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.events < 0 or self.days < 0 or self.weight < 0:
            raise ValueError(f"{self.source}: events, days and weight must not be negative")


@dataclass(frozen=True, slots=True)
class SourceRate:
    """Changes a day of one source after pooling, and its share of the questions."""

    source: str
    rate: float
    share: float


@dataclass(frozen=True, slots=True)
class Volatility:
    """How fast the answers of a use case change.

    Attributes:
        rate: changes of an asked-about answer a day (Lambda), with its interval.
        stale_after_30_days: share of questions that weights of that age answer from an old
            state, with its interval; `level` is its class.
        retrain_every_days: longest time between retrainings that keeps the mean share of stale
            answers at 5 %; None when nothing ever changes that fast.
        sources: those that contribute most, at most ten.
    """

    rate: float
    low: float
    high: float
    stale_after_30_days: float
    stale_low: float
    stale_high: float
    level: Change
    retrain_every_days: float | None
    measured_on: Level
    events: int
    source_days: float
    sources: tuple[SourceRate, ...]
    sentences: tuple[str, ...]


def pooled_prior(logs: Sequence[SourceLog]) -> tuple[float, float]:
    """Fit the gamma prior (shape a, rate b in days) of the sources' rates by marginal likelihood.

    Events of a source are negative binomial. Without any event a prior worth half an event over
    all days is given; with too little variety the prior is held between half an event and a
    hundred.

    Source: empirical Bayes, Robbins 1956; the gamma-Poisson model.
    """
    events = np.array([entry.events for entry in logs], dtype=np.float64)
    days = np.array([entry.days for entry in logs], dtype=np.float64)
    kept = days > 0
    events, days = events[kept], days[kept]
    if len(days) == 0:
        raise ValueError("no source was observed for any time")
    if events.sum() == 0:
        return 0.5, 0.5 + float(days.sum())
    mean = float(events.sum() / days.sum())

    def loss(log_shape: float) -> float:
        a = exp(log_shape)
        b = a / mean
        terms = special.gammaln(a + events) - special.gammaln(a)
        terms += a * np.log(b / (b + days)) + events * np.log(1 / (b + days))
        return -float(terms.sum())

    found = optimize.minimize_scalar(loss, bounds=(log(0.05), log(100.0)), method="bounded")
    a = exp(float(found.x))
    return a, a / mean


def polled_rate(polls: int, changed: int, every_days: float) -> tuple[float, float, float]:
    """Estimate changes a day of a source that is only looked at now and then.

    Several changes between two looks are seen as one, so changed / polls is too small.

    Source: Cho and Garcia-Molina 2003, Estimating frequency of change, ACM TOIT 3(3).

    Returns:
        Rate, and its 95 % bounds; the upper one is infinite when every look found a change.
    """
    if not 0 <= changed <= polls or polls < 1 or every_days <= 0:
        raise ValueError(f"{changed} changes in {polls} polls every {every_days} days")
    rate = -log((polls - changed + 0.5) / (polls + 0.5)) / every_days
    low, high = clopper_pearson_bounds(changed, polls, (1 - _CONFIDENCE) / 2)
    upper = float("inf") if high >= 1 else -log(1 - high) / every_days
    return rate, -log(1 - low) / every_days if low < 1 else float("inf"), upper


def staleness(rate: float, every_days: float) -> float:
    """Give the mean share of answers from an old state when weights are renewed every T days.

    1 - (1 - exp(-rate T)) / (rate T): 0 for knowledge that never changes, towards 1 for fast.
    """
    x = rate * every_days
    if x < 1e-6:
        return x / 2
    return 1 + expm1(-x) / x


def retrain_every(rate: float, allowed: float = 0.05) -> float | None:
    """Give the days between retrainings that keep the mean share of stale answers at `allowed`.

    None when that is more than a hundred years.
    """
    if rate <= 0 or staleness(rate, 36_500) <= allowed:
        return None
    return float(optimize.brentq(lambda days: staleness(rate, days) - allowed, 1e-9, 36_500))


def tuned_quality(measured: float, rate: float, every_days: float, from_weights: float) -> float:
    """Predict the quality of a tuned arm between retrainings.

    Args:
        measured: its quality just after tuning.
        rate: changes of an answer a day.
        every_days: time between retrainings.
        from_weights: share of answers that come from the weights and not from a passage.
    """
    return measured * (1 - staleness(rate, every_days) * from_weights)


def change_class(stale_after_30_days: float) -> Change:
    """Give low below 2 % stale answers after 30 days, high above 15 %, else medium."""
    if stale_after_30_days < LOW_BELOW:
        return "low"
    return "high" if stale_after_30_days > HIGH_ABOVE else "medium"


def measure_volatility(
    logs: Sequence[SourceLog], level: Level = "answers", *, confidence: float = _CONFIDENCE
) -> Volatility:
    """Measure how fast the answers people ask for change.

    A source nobody asks about counts for nothing, however often it changes.

    Args:
        logs: one per source, with the traffic as weight.
        level: what an event is: any change of bytes, of a value, or of a quoted answer.
        confidence: of the intervals.

    Raises:
        ValueError: if nothing was observed or nothing is asked about.
    """
    total = sum(entry.weight for entry in logs)
    if total <= 0:
        raise ValueError("no source is asked about, so nothing can be weighted")
    a, b = pooled_prior(logs)
    weights = np.array([entry.weight / total for entry in logs])
    shapes = np.array([a + entry.events for entry in logs])
    rates = np.array([b + entry.days for entry in logs])
    means = shapes / rates
    rate = float(weights @ means)
    variance = float((weights**2) @ (shapes / rates**2))
    variance += float(weights @ (b / rates)) ** 2 * _usual_variance(logs, a, b)
    # The weighted sum of gammas, matched by the gamma of equal mean and variance.
    sum_of_gammas = stats.gamma(rate**2 / variance, scale=variance / rate)
    low, high = (float(x) for x in sum_of_gammas.interval(confidence))
    stale = staleness(rate, _MONTH)
    bounds = staleness(low, _MONTH), staleness(high, _MONTH)
    order = np.argsort(-weights * means, kind="stable")[:10]
    top = tuple(
        SourceRate(logs[i].source, float(means[i]), float(weights[i]))
        for i in order
        if weights[i] > 0
    )
    days = retrain_every(rate)
    events = sum(entry.events for entry in logs)
    observed = float(sum(entry.days for entry in logs))
    return Volatility(
        rate,
        low,
        high,
        stale,
        *bounds,
        change_class(stale),
        days,
        level,
        events,
        observed,
        top,
        _sentences((rate, stale, *bounds), days, level, events, len(logs)),
    )


def _usual_variance(logs: Sequence[SourceLog], shape: float, days: float) -> float:
    """Variance of the usual rate itself: it is shared, so that more sources do not average it out.

    Few events leave it unknown even where the sources' own rates look sure.
    """
    observed = np.array([entry.days for entry in logs], dtype=np.float64)
    total, events = float(observed.sum()), sum(entry.events for entry in logs)
    if events == 0:
        return shape / days**2
    mean = events / total
    return mean / total + mean**2 / shape * float((observed**2).sum()) / total**2


def values_changed(before: str, after: str) -> bool:
    """Whether a number, date, amount, code or negation of a text has changed.

    Other words may change freely: they are taken for cosmetic.
    """
    return _facts(before) != _facts(after)


def _facts(text: str) -> Counter[tuple[str, str]]:
    found = Counter((value.kind, value.key) for value in extract_values(text))
    found.update(("negation", word.lower()) for word in _NEGATION.findall(text))
    return found


def weight_by_traffic(
    logs: Mapping[str, tuple[int, float]], questions: Sequence[Sequence[str]]
) -> tuple[SourceLog, ...]:
    """Turn a log of sources and the sources behind each question into weighted logs.

    Args:
        logs: source -> (changes, days observed).
        questions: for each question asked, the sources its answer rests on; every question
            counts 1 for each of them, because a change of any of them can change the answer.
    """
    weights = dict.fromkeys(logs, 0.0)
    for sources in questions:
        for source in set(sources) & set(logs):
            weights[source] += 1
    return tuple(
        SourceLog(source, events, days, weights[source])
        for source, (events, days) in sorted(logs.items())
    )


def _sentences(
    numbers: tuple[float, float, float, float],
    days: float | None,
    level: Level,
    events: int,
    sources: int,
) -> tuple[str, ...]:
    rate, stale, low, high = numbers
    what = {
        "bytes": "changes of any kind",
        "values": "changes of a number, a date or another value",
        "answers": "quoted answers that disappeared",
    }[level]
    renew = (
        "Weights would never have to be renewed for freshness."
        if days is None
        else f"To stay at 5 % stale answers on average, weights would have to be renewed every "
        f"{days:.3g} days."
    )
    return (
        f"{events} {what} were seen in {sources} sources; weighted by what people ask about, "
        f"an answer changes {rate:.2g} times a day.",
        f"A model that answers from its weights and is renewed every 30 days would give "
        f"{share(stale)} answers from an old state (between {share(low)} and {share(high)}): "
        f"{change_class(stale)} pace of change.",
        renew,
    )
