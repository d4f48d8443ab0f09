"""What answers cost: machine time and tokens, training and labels shared out over the answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.errors import EvalError
from evals.outputs import Output


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices in one currency.

    Attributes:
        per_machine_hour: an hour of the machine that answers; time is the latency of an answer.
        per_million_in, per_million_out: tokens read and written, where a provider charges them.
    """

    per_machine_hour: float = 0.0
    per_million_in: float = 0.0
    per_million_out: float = 0.0
    currency: str = "EUR"

    def __post_init__(self) -> None:
        for name in ("per_machine_hour", "per_million_in", "per_million_out"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise EvalError(f"{name} must be a finite number >= 0, got {value}")


@dataclass(frozen=True, slots=True)
class ArmCost:
    """Cost of one arm.

    Attributes:
        running: per 1,000 answers, machine and tokens.
        fixed: once: training, labels, index.
        per_1000: running, and fixed shared out over `answers`.
        break_even: answers from which this arm is cheaper than the reference; 0 if it always is,
            None if it never is or is the reference itself.
    """

    arm: str
    running: float
    fixed: float
    per_1000: float
    answers: int
    break_even: int | None
    reference: str


def arm_costs(
    outputs: Mapping[str, Sequence[Output]],
    rates: Rates,
    *,
    fixed: Mapping[str, float] | None = None,
    answers: int = 100_000,
    reference: str | None = None,
) -> tuple[ArmCost, ...]:
    """Give the cost of every arm.

    Args:
        outputs: answers by arm; those with an error are left out.
        rates: prices.
        fixed: what an arm cost before its first answer.
        answers: expected until the fixed part has to be spent again (the next training).
        reference: arm that others are compared with; the one with the least fixed cost if None.

    Raises:
        EvalError: if `answers` is below 1 or the reference is unknown.
    """
    if answers < 1:
        raise EvalError(f"answers must be at least 1, got {answers}")
    spent = {arm: float((fixed or {}).get(arm, 0.0)) for arm in outputs}
    running = {arm: _running(list(given), rates) for arm, given in outputs.items()}
    known = [arm for arm in outputs if running[arm] is not None]
    if reference is None:
        reference = min(known, key=lambda arm: spent[arm], default="")
    elif reference not in known:
        raise EvalError(f"no arm {reference!r} to compare with; valid are {', '.join(known)}")
    rows = []
    for arm in known:
        each = running[arm] or 0.0
        rows.append(
            ArmCost(
                arm,
                each,
                spent[arm],
                each + 1000 * spent[arm] / answers,
                answers,
                None
                if arm == reference
                else break_even(
                    spent[arm] - spent[reference], ((running[reference] or 0.0) - each) / 1000
                ),
                reference,
            )
        )
    return tuple(rows)


def break_even(more_fixed: float, saved_per_answer: float) -> int | None:
    """Give the answers after which a higher fixed cost is earned back; None if it never is."""
    if more_fixed <= 0 and saved_per_answer >= 0:
        return 0
    if saved_per_answer <= 0 or more_fixed < 0:
        return None
    return math.ceil(more_fixed / saved_per_answer)


def _running(outputs: Sequence[Output], rates: Rates) -> float | None:
    done = [output for output in outputs if output.error is None]
    if not done:
        return None
    # What failed was paid for too, and delivered nothing.
    hours = sum(output.latency_s for output in outputs) / 3600
    read, written = (
        sum(output.prompt_tokens for output in outputs),
        sum(output.completion_tokens for output in outputs),
    )
    total = (
        hours * rates.per_machine_hour
        + read / 1e6 * rates.per_million_in
        + written / 1e6 * rates.per_million_out
    )
    return 1000 * total / len(done)
