"""Before any answer is generated: what a planned comparison can show, and whether it is enough."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from evals.decision_spec import DecisionSpec
from evals.errors import DecisionError
from evals.sentences import share
from evals.statistics.power import mde, n_needed

_USUAL_DISCORDANCE = 0.3
_USUAL_CORRELATION = 0.1


@dataclass(frozen=True, slots=True)
class PlannedLook:
    """One look: how many questions it rests on and the smallest difference it would show."""

    look: int
    questions: int
    alpha: float
    smallest_difference: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a planned comparison can show.

    Attributes:
        verdict: "enough"; "warn" when the margin is below the smallest difference that would
            probably show; "refuse" when it is below half of that.
        needed: questions with which the margin would probably show; None beyond ten million.
        sentences: the plan in words.
    """

    verdict: Literal["enough", "warn", "refuse"]
    questions: int
    clusters: int
    answers: int
    needed: int | None
    looks: tuple[PlannedLook, ...]
    sentences: tuple[str, ...]


def plan_comparison(
    spec: DecisionSpec,
    arms: Sequence[str],
    questions: int,
    clusters: int,
    *,
    discordance: float = _USUAL_DISCORDANCE,
    correlation: float = _USUAL_CORRELATION,
) -> Plan:
    """Say what a comparison with so many questions can show, before it is paid for.

    Args:
        spec: the rules, with margin, alpha and looks.
        arms: the arms to be compared, at least two.
        questions: number of questions; `clusters` of them independent.
        clusters: independent groups.
        discordance: share of questions that exactly one of two arms gets right; .3 when nothing
            is known, less for arms that resemble each other.
        correlation: of differences within a cluster.

    Raises:
        DecisionError: if a number makes no sense.
    """
    if len(arms) < 2 or not 2 <= clusters <= questions:
        raise DecisionError(
            f"a plan needs two arms and 2 <= clusters <= questions, got {len(arms)} arms, "
            f"{clusters} clusters and {questions} questions"
        )
    if not (0 < discordance <= 1 and 0 <= correlation <= 1):
        raise DecisionError("discordance must lie in (0, 1] and correlation in [0, 1]")
    size = questions / clusters
    sd = (discordance * (1 + (size - 1) * correlation) / size) ** 0.5  # of a cluster's mean
    pairs = len(list(combinations(arms, 2)))
    sides = 2 if spec.constraints else 1
    kept = 1 - spec.confirm_share
    looks = []
    for look in range(1, spec.looks + 1):
        used = max(2, round(clusters * kept * look / spec.looks))
        alpha = spec.alpha_at(look) / sides / pairs
        smallest = mde(sd, used, alpha=alpha, power=spec.power)
        looks.append(PlannedLook(look, round(used * size), alpha, smallest))
    last = looks[-1]
    total = n_needed(sd, spec.margin, alpha=last.alpha, power=spec.power)
    needed = None if total is None else round(total * size / kept)
    smallest = last.smallest_difference if last.smallest_difference is not None else 1.0
    verdict: Literal["enough", "warn", "refuse"] = "enough"
    if spec.margin < smallest:
        verdict = "refuse" if spec.margin < smallest / 2 else "warn"
    answers = questions * len(arms)
    return Plan(
        verdict,
        questions,
        clusters,
        answers,
        needed,
        tuple(looks),
        _sentences(spec, arms, (questions, clusters), smallest, (verdict, needed)),
    )


def _sentences(
    spec: DecisionSpec,
    arms: Sequence[str],
    size: tuple[int, int],
    smallest: float,
    outcome: tuple[str, int | None],
) -> tuple[str, ...]:
    (questions, clusters), (verdict, needed) = size, outcome
    lines = [
        f"{questions} questions ({clusters} independent groups) and {len(arms)} arms make "
        f"{questions * len(arms)} answers.",
        f"The smallest difference between two arms that will probably show "
        f"({share(spec.power)} of the time) is {smallest:.3f}; "
        f"the difference that matters to you is {spec.margin:g}.",
    ]
    if spec.confirm_share:
        lines.append(f"{share(spec.confirm_share)} of the groups are held back to confirm.")
    count = "more than ten million" if needed is None else f"about {needed}"
    if verdict == "refuse":
        lines.append(
            f"That is not enough: with {spec.margin:g} less than half of {smallest:.3f}, the "
            f"likely outcome is undecided. Ask {count} questions, which tell even close arms "
            f"apart, or accept a margin of {smallest / 2:.3f} or more."
        )
    elif verdict == "warn":
        lines.append(
            f"That may not be enough for arms that are close: {count} questions would show "
            f"{spec.margin:g}."
        )
    else:
        lines.append("That is enough.")
    return tuple(lines)
