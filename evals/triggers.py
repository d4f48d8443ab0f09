"""What makes a decision due again, each with its own share of the false alarms allowed.

A trigger says that a new decision is due. It never switches an arm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evals.sentences import share
from evals.statistics.intervals import Floats
from evals.statistics.rates import clopper_pearson_bounds
from evals.statistics.sequential import (
    betting_e_values,
    empirical_bernstein_sequence,
    first_alarm,
)
from evals.statistics.two_sample import mmd_test, topic_share_test
from evals.volatility import HIGH_ABOVE, LOW_BELOW, Volatility

Kind = Literal["churn", "questions", "corrections", "quality", "parts", "age"]
KINDS: tuple[Kind, ...] = ("churn", "questions", "corrections", "quality", "parts", "age")
FALSE_ALARMS_A_QUARTER = 0.1
"""Chance of any false alarm of a use case in a quarter, over all triggers and checks."""
_SHARES: dict[str, float] = {"churn": 0.2, "questions": 0.4, "corrections": 0.3, "quality": 0.1}
_CHECKS_A_QUARTER = 13
_BASELINE_SHARE = 0.2  # of a correction trigger's alpha goes to not knowing the old rate


@dataclass(frozen=True, slots=True)
class CorrectionWatch:
    """A test of the rate of corrections that goes on over restarts and new decisions.

    Its evidence is a product of fair bets: a new decision sets a new rate to bet against and takes
    the evidence along, so that the chance of a false alarm is spent once a quarter, however often
    it is looked at, restarted, or decided anew.

    Attributes:
        known: corrections among `answers` before the decision.
        upper: the largest rate that counts as unchanged; None when it cannot be known.
        level: chance of a false alarm of this process; the alarm is at evidence 1 / level.
        spent: what this watch took of the quarter's part when it was opened.
        carried: evidence when it was opened.
        period: number of watches opened this quarter before; `alarms`: of them that fired.
    """

    known: int
    answers: int
    upper: float | None
    level: float
    spent: float
    carried: float = 1.0
    period: int = 0
    alarms: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one trigger.

    Attributes:
        fired: a new decision is due.
        alpha: chance of a false alarm that this check used up; 0 where there can be none.
        value: p, evidence or days, whatever the trigger goes by; None if it could not be judged.
    """

    kind: Kind
    fired: bool
    alpha: float
    value: float | None
    sentence: str


def alpha_of_check(
    kind: Kind, done_this_quarter: int, budget: float = FALSE_ALARMS_A_QUARTER
) -> float:
    """Give the chance of a false alarm that the next check of a trigger may use.

    Thirteen checks a quarter share a trigger's part of the budget; after them it is used up and
    0 is given. Corrections and quality are watched by processes that hold at every moment: their
    part is that of all looks of a quarter together (`open_watch`).
    """
    if kind not in _SHARES:
        return 0.0
    part = budget * _SHARES[kind]
    if kind in ("corrections", "quality"):
        return part
    return part / _CHECKS_A_QUARTER if done_this_quarter < _CHECKS_A_QUARTER else 0.0


def check_churn(decided_for: str | None, now: Volatility, alpha: float) -> Check:
    """Fire when the pace of change is shown to have left the class the decision was made for.

    Args:
        decided_for: low, medium or high.
        now: measured at confidence 1 - `alpha`.
        alpha: chance of a false alarm.
    """
    if alpha <= 0:
        text = "The false alarms allowed this quarter are used up."
        return Check("churn", False, 0.0, None, text)
    borders = {"low": (0.0, LOW_BELOW), "medium": (LOW_BELOW, HIGH_ABOVE), "high": (HIGH_ABOVE, 1)}
    if decided_for not in borders:
        text = "The decision names no pace of change, so there is nothing to compare with."
        return Check("churn", False, 0.0, None, text)
    low, high = borders[decided_for]
    left = now.stale_low > high or now.stale_high < low
    text = (
        f"After 30 days {share(now.stale_after_30_days)} of the answers in weights would be old "
        f"(between {share(now.stale_low)} and {share(now.stale_high)}); the decision was made for "
        f"a {decided_for} pace of change ({share(low)} to {share(high)})."
    )
    return Check("churn", left, alpha, now.stale_after_30_days, text)


def check_questions(before: Floats, after: Floats, alpha: float, *, seed: int = 0) -> Check:
    """Fire when people ask about other things than before.

    Half of alpha goes to a kernel two-sample test, half to the shares of topics.

    Args:
        before: shape (n, d) embeddings of the questions the decision rests on, or asked then.
        after: shape (m, d) embeddings of the latest questions, one per asker or conversation.
        alpha: chance of a false alarm.
        seed: of the random draws.
    """
    if min(len(before), len(after)) < 40:
        text = f"{len(after)} new questions against {len(before)}: 40 on each side are needed."
        return Check("questions", False, 0.0, None, text)
    if alpha <= 0:
        text = "The false alarms allowed this quarter are used up."
        return Check("questions", False, 0.0, None, text)
    draws = int(min(20_000, max(500, 4 / alpha)))
    kernel = mmd_test(before, after, permutations=draws, seed=seed)
    topics, shares = topic_share_test(before, after, seed=seed)
    fired = kernel.p <= alpha / 2 or topics.p <= alpha / 2
    p = min(1.0, 2 * min(kernel.p, topics.p))
    change = shares[0]
    text = (
        f"People {'ask about other things than' if fired else 'ask about the same things as'} "
        f"when this was decided (p = {p:.2g}, alarm below {alpha:.2g}); the topic that changed "
        f"most went from {share(change[1])} to {share(change[2])} of the questions."
    )
    return Check("questions", fired, alpha, p, text)


def open_watch(
    baseline: tuple[int, int],
    previous: tuple[CorrectionWatch, Sequence[bool]] | None = None,
    *,
    alpha: float | None = None,
    margin: float = 0.02,
) -> CorrectionWatch:
    """Start to watch corrections when a decision is made; keep the result with the decision.

    The k-th watch of a quarter may be wrong about the old rate with 2^-k of a fifth of `alpha`;
    after j false alarms the bets may raise one more with 2^-(j+1) of the rest. Both sum to `alpha`
    at most.

    Args:
        baseline: corrections and answers before the decision; the old rate is taken at its upper
            bound plus `margin`.
        previous: the watch before and, for each answer it saw in order, whether it was corrected;
            None at the beginning of a quarter.
        alpha: chance of any false alarm in a quarter; default the trigger's part of the budget.
        margin: a rise that nobody would act on.
    """
    alpha = alpha_of_check("corrections", 0) if alpha is None else alpha
    period, alarms, carried = 0, 0, 1.0
    if previous is not None:
        watch, corrected = previous
        evidence = _evidence(watch, corrected)
        fired = first_alarm(evidence, watch.level) is not None
        period, alarms = watch.period + 1, watch.alarms + fired
        carried = 1.0 if fired else float(evidence[-1]) if len(evidence) else watch.carried
    of_baseline = alpha * _BASELINE_SHARE * 0.5 ** (period + 1)
    level = alpha * (1 - _BASELINE_SHARE) * 0.5 ** (alarms + 1)
    fresh = previous is None or alarms > previous[0].alarms  # evidence taken along costs nothing
    known, answers = baseline
    upper = clopper_pearson_bounds(known, answers, of_baseline)[1] + margin
    usable = answers > 0 and upper < 1
    return CorrectionWatch(
        known,
        answers,
        upper if usable else None,
        level,
        (of_baseline if usable else 0.0) + (level if fresh else 0.0),
        carried,
        period,
        alarms,
    )


def _evidence(watch: CorrectionWatch, corrected: Sequence[bool]) -> Floats:
    if watch.upper is None:
        return np.full(len(corrected), watch.carried)
    return watch.carried * betting_e_values(np.asarray(corrected, dtype=np.float64), watch.upper)


def check_corrections(
    corrected: Sequence[bool], watch: CorrectionWatch, *, first: bool = True
) -> Check:
    """Fire when answers are corrected more often than when the decision was made.

    May be looked at after every answer, and after every restart: the evidence follows from the
    answers and the watch alone.

    Args:
        corrected: for each answer since the decision, in order, whether it was corrected.
        watch: opened when the decision was made.
        first: whether this is the first look at this watch, which is when its alpha is booked.
    """
    if watch.upper is None or not corrected:
        text = "There is no earlier rate of corrections to compare with."
        return Check("corrections", False, 0.0, None, text)
    evidence = _evidence(watch, corrected)
    alarm = first_alarm(evidence, watch.level)
    now = sum(corrected) / len(corrected)
    text = (
        f"{share(now)} of {len(corrected)} answers were corrected; "
        f"{share(watch.known / watch.answers)} of {watch.answers} were before, and up to "
        f"{share(watch.upper)} counts as unchanged."
    )
    if alarm is not None:
        text += f" The rise was certain enough after {alarm} answers."
    spent = watch.spent if first else 0.0
    return Check("corrections", alarm is not None, spent, float(evidence.max()), text)


def check_quality(scores: Sequence[float], target: float, alpha: float) -> Check:
    """Fire when the quality of sampled live answers is shown to be below the target.

    Args:
        scores: in [0, 1], one per independent conversation, in order; may be looked at any time.
        target: the quality that was promised.
        alpha: chance of any false alarm over all looks.
    """
    if not scores:
        return Check("quality", False, 0.0, None, "No live answer was scored.")
    _, high = empirical_bernstein_sequence(np.asarray(scores, dtype=np.float64), 2 * alpha)
    fired = bool(high[-1] < target)
    text = (
        f"{len(scores)} scored live answers show a quality of at most {float(high[-1]):.3f}; "
        f"the target is {target:g}."
    )
    return Check("quality", fired, alpha, float(high[-1]), text)


def check_parts(decided_with: Mapping[str, str], now: Mapping[str, str]) -> Check:
    """Fire when a part of the answering system is not the one that was measured.

    Args:
        decided_with: part (base model, embedding model, prompt, adapter) -> identity.
        now: the same as it serves now.
    """
    changed = sorted(
        part for part in decided_with.keys() & now.keys() if decided_with[part] != now[part]
    )
    text = (
        f"Changed since the decision: {', '.join(changed)}. What was measured no longer serves."
        if changed
        else "The measured parts still serve."
    )
    return Check("parts", bool(changed), 0.0, float(len(changed)), text)


def check_age(days: float, expires_days: int) -> Check:
    """Fire when a decision is older than it was made for."""
    old = days >= expires_days
    text = f"The decision is {days:.0f} days old; it was made for {expires_days}."
    return Check("age", old, 0.0, days, text)
