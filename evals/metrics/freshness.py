"""The same questions before and after the knowledge changed: what flipped, and what should not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evals.errors import MetricError
from evals.metrics.answers import contains_answer, normalise_answer, strip_citations
from evals.outputs import Output
from evals.samples import Sample, clusters
from evals.statistics.intervals import Interval
from evals.statistics.rates import rate_interval


@dataclass(frozen=True, slots=True)
class Freshness:
    """One arm before and after a change of the knowledge.

    Attributes:
        flip: changed facts answered with the new value afterwards.
        flip_given_right: the same, only where the old value was answered before.
        stale: changed facts still answered with the old value.
        collateral: untouched facts that were right before and are not afterwards.
        reworded: untouched facts, right both times, in other words than before.
    """

    arm: str
    flip: Interval
    flip_given_right: Interval
    stale: Interval
    collateral: Interval
    reworded: Interval


@dataclass(frozen=True, slots=True)
class SurvivalStep:
    """Share not yet flipped after `seconds` (Kaplan-Meier); `at_risk` were still watched."""

    seconds: float
    not_flipped: float
    at_risk: int


def compare_versions(
    before: Sequence[Sample],
    after: Sequence[Sample],
    outputs_before: Sequence[Output],
    outputs_after: Sequence[Output],
    *,
    confidence: float = 0.95,
) -> tuple[Freshness, ...]:
    """Compare two runs of the same questions, whose accepted answers may differ.

    A fact changed where no accepted answer is accepted both before and after. Questions in only
    one of the two and unanswerable ones are left out. A failed answer is neither old nor new: it
    counts as not flipped, and as damage where the answer was right before. Intervals count the
    clusters of the later run's samples.

    Raises:
        MetricError: if no question is in both runs.
    """
    old = {sample.id: sample for sample in before if sample.answers is not None}
    new = {sample.id: sample for sample in after if sample.answers is not None}
    shared = [name for name in old if name in new]
    if not shared:
        raise MetricError("no answerable question is in both runs: give both the same ids")
    first, second = _by_arm(outputs_before), _by_arm(outputs_after)
    groups = dict(zip((sample.id for sample in after), clusters(after), strict=True))
    pairs = [(old[name], new[name], groups[name]) for name in shared]
    return tuple(
        _arm(arm, pairs, first[arm], second[arm], confidence) for arm in first if arm in second
    )


def flip_latency(seconds: Sequence[float], flipped: Sequence[bool]) -> tuple[SurvivalStep, ...]:
    """Estimate how long the old answer lives on after a change.

    Args:
        seconds: per question, from the change to the first new answer, or to the last look.
        flipped: whether the new answer was seen; else the question is censored at that time.

    Source: Kaplan and Meier 1958.
    """
    times, events = np.asarray(seconds, dtype=np.float64), np.asarray(flipped, dtype=bool)
    if len(times) != len(events):
        raise MetricError(f"{len(times)} times but {len(events)} outcomes")
    steps, alive = [], 1.0
    for moment in np.unique(times[events]):
        at_risk = int((times >= moment).sum())
        alive *= 1.0 - int((events & (times == moment)).sum()) / at_risk
        steps.append(SurvivalStep(float(moment), alive, at_risk))
    return tuple(steps)


def median_latency(steps: Sequence[SurvivalStep]) -> float | None:
    """Give the time by which half have flipped, None if fewer ever did."""
    return next((step.seconds for step in steps if step.not_flipped <= 0.5), None)


def _arm(
    arm: str,
    pairs: Sequence[tuple[Sample, Sample, int]],
    first: Mapping[str, Output],
    second: Mapping[str, Output],
    confidence: float,
) -> Freshness:
    rows: dict[str, list[tuple[float, int]]] = {
        name: [] for name in ("flip", "given", "stale", "collateral", "reworded")
    }
    for old, new, group in pairs:
        was, now = first.get(old.id), second.get(new.id)
        if was is None or now is None:
            continue
        right_before = _holds(was, old)
        if _changed(old, new):
            flipped = _holds(now, new)
            rows["flip"].append((float(flipped), group))
            rows["stale"].append((float(_holds(now, old) and not flipped), group))
            if right_before:
                rows["given"].append((float(flipped), group))
        elif right_before:
            right_after = _holds(now, new)
            rows["collateral"].append((float(not right_after), group))
            if right_after:
                reworded = _plain(was.text) != _plain(now.text)
                rows["reworded"].append((float(reworded), group))
    made = {name: _rate(values, confidence) for name, values in rows.items()}
    return Freshness(
        arm, made["flip"], made["given"], made["stale"], made["collateral"], made["reworded"]
    )


def _holds(output: Output, sample: Sample) -> bool:
    if output.abstained or output.error is not None:
        return False
    return contains_answer(output.text, sample.answers or ()).value == 1.0


def _changed(old: Sample, new: Sample) -> bool:
    return not {_plain(a) for a in old.answers or ()} & {_plain(a) for a in new.answers or ()}


def _plain(text: str) -> str:
    return normalise_answer(strip_citations(text))


def _by_arm(outputs: Sequence[Output]) -> dict[str, dict[str, Output]]:
    found: dict[str, dict[str, Output]] = {}
    for output in outputs:
        found.setdefault(output.arm, {}).setdefault(output.sample_id, output)
    return found


def _rate(rows: Sequence[tuple[float, int]], confidence: float) -> Interval:
    values = np.array([value for value, _ in rows], dtype=np.float64)
    groups = np.array([group for _, group in rows], dtype=np.int64)
    return rate_interval(values, groups, confidence)
