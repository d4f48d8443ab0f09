"""Questions held back from choosing, on which the effect of the chosen arm is measured again.

The arm that looks best has usually been lucky too, so its measured advantage is too large on the
questions it was chosen with. On questions that had no part in the choice it is not.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from evals.decision_spec import DecisionSpec
from evals.evidence import Evidence
from evals.metrics.score import METRICS
from evals.rules import Outcome
from evals.scoring import ScoreTable
from evals.statistics.clustered import paired_bounds
from evals.statistics.intervals import Interval, Mask

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The chosen arm against the strongest other one, on the questions held back.

    Attributes:
        quality: the chosen arm's primary score.
        versus: the other arm; None if there is none.
        chosen_gain: the advantage as measured when choosing.
        gain: the advantage on the questions held back, with a 95 % interval.
    """

    samples: int
    clusters: int
    quality: Interval
    versus: str | None
    chosen_gain: float | None
    gain: Interval | None
    sentence: str

    def refutes(self, margin: float) -> bool:
        """Whether the chosen arm is shown to be worse than the other by more than the margin."""
        return self.gain is not None and self.gain.high is not None and self.gain.high < -margin


def split_table(table: ScoreTable, share: float) -> tuple[ScoreTable, ScoreTable | None]:
    """Part a table into what is chosen with and what is held back, by whole clusters.

    The split follows from the ids of the samples, so the same samples are always split alike.
    """
    if share == 0:
        return table, None
    index = np.unique(table.clusters, return_inverse=True)[1]
    names: dict[int, str] = {}
    for number, sample_id in zip(index.tolist(), table.sample_ids, strict=True):
        names[number] = min(names.get(number, sample_id), sample_id)
    held = np.array([_place(names[number]) < share for number in range(len(names))])[index]
    return _rows(table, ~held), _rows(table, held)


def confirm(
    held: ScoreTable, evidence: Evidence, spec: DecisionSpec, outcome: Outcome
) -> Confirmation | None:
    """Measure the chosen arm again on the table held back; None without a choice."""
    chosen = outcome.choice
    if chosen is None:
        return None
    values, clusters = held.scored(chosen, spec.primary)
    quality = paired_bounds(values, clusters, 1 - _CONFIDENCE, support=(0.0, 1.0))
    # An arm that may not be served is no rival, however good its answers are.
    barred = {r.arm for r in outcome.rejected if r.kind != "dominated"} | {chosen}
    others = [arm for arm in evidence.arms if arm not in barred and evidence.mean(arm) is not None]
    label = METRICS[spec.primary].label
    if not others:
        text = f"On {len(values)} questions held back, {chosen} scores {_shown(quality)} {label}."
        return Confirmation(len(values), quality.clusters, quality, None, None, None, text)
    other = max(others, key=lambda arm: evidence.mean(arm) or 0.0)
    first, second, groups = held.paired(other, chosen, spec.primary)
    gain = paired_bounds(second - first, groups, 1 - _CONFIDENCE)
    before = evidence.pair(chosen, other).estimated_gain(chosen)
    text = (
        f"On {gain.n} questions held back from choosing, {chosen} minus {other} in {label} is "
        f"{_shown(gain)}; it was {before:+.3f} on the questions used to choose."
    )
    if gain.low is None or gain.high is None:
        text += " That is too few questions to confirm anything."
    elif gain.high < -spec.margin:
        text += " The choice is not confirmed: decide again on fresh questions."
    elif gain.low <= -spec.margin:
        text += " That is compatible with the choice but does not confirm it."
    else:
        text += " That confirms the choice."
    return Confirmation(gain.n, gain.clusters, quality, other, before, gain, text)


def _place(name: str) -> float:
    return int(hashlib.sha256(f"confirm:{name}".encode()).hexdigest()[:12], 16) / 16**12


def _rows(table: ScoreTable, mask: Mask) -> ScoreTable:
    kept = np.flatnonzero(mask)
    return replace(
        table,
        sample_ids=tuple(table.sample_ids[i] for i in kept),
        clusters=table.clusters[mask],
        values={
            arm: {metric: column[mask] for metric, column in columns.items()}
            for arm, columns in table.values.items()
        },
    )


def _shown(interval: Interval) -> str:
    if interval.estimate is None:
        return "unknown"
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:+.3f}"
    return f"{interval.estimate:+.3f} (between {interval.low:+.3f} and {interval.high:+.3f})"
