"""What is fixed before the data is seen: the metric, the margin, the limits, the order of cost."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from evals.arms import COST_ORDER
from evals.canonical import digest, jsonable
from evals.errors import DecisionError
from evals.gates import CaseFacts, parse_case
from evals.metrics.score import METRICS, PRIMARY_METRICS
from evals.scoring import LATENCY
from evals.statistics.sequential import SPENDINGS, Spending, spend_alpha

Sense = Literal["at_most", "at_least"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """A limit that an arm must keep.

    Attributes:
        metric: a metric's name, or "latency_s".
        sense: which side of the limit is allowed.
        limit: a rate or score in [0, 1]; seconds for latency.
        quantile: only for latency, the share of answers that must be within the limit.
    """

    metric: str
    sense: Sense
    limit: float
    quantile: float | None = None

    def __post_init__(self) -> None:
        latency = self.metric == LATENCY
        if not latency and self.metric not in METRICS:
            choices = ", ".join((*METRICS, LATENCY))
            raise DecisionError(f"no metric {self.metric!r} to limit; valid choices are {choices}")
        if self.sense not in ("at_most", "at_least"):
            raise DecisionError(f"sense must be at_most or at_least, got {self.sense!r}")
        if latency and (self.quantile is None or not 0 < self.quantile < 1 or not self.limit > 0):
            raise DecisionError("a latency limit needs seconds > 0 and a quantile between 0 and 1")
        if latency and self.sense != "at_most":
            raise DecisionError("latency can only be limited from above")
        if not latency and (self.quantile is not None or not 0 <= self.limit <= 1):
            raise DecisionError(f"a limit on {self.metric} must lie in [0, 1], got {self.limit}")

    @property
    def label(self) -> str:
        """The constraint in words."""
        if self.quantile is not None:
            return f"p{self.quantile * 100:g} latency at most {self.limit:g} s"
        side = "at most" if self.sense == "at_most" else "at least"
        return f"{METRICS[self.metric].label} {side} {self.limit:g}"


def max_p95_latency(seconds: float) -> Constraint:
    """Demand that 95 % of the answers take at most this long."""
    return Constraint(LATENCY, "at_most", seconds, 0.95)


def min_right_citation(share: float) -> Constraint:
    """Demand that at least this share of answerable questions get a gold citation."""
    return Constraint("right_citation", "at_least", share)


def max_over_refusal(share: float) -> Constraint:
    """Allow abstaining on at most this share of answerable questions."""
    return Constraint("over_refusal", "at_most", share)


def min_abstention(share: float) -> Constraint:
    """Demand abstaining on at least this share of unanswerable questions."""
    return Constraint("abstention", "at_least", share)


@dataclass(frozen=True, slots=True)
class DecisionSpec:
    """The rules of one decision, registered before the data.

    Attributes:
        primary: the metric that ranks the arms.
        margin: eps; arms closer than this count as equally good and the cheapest is taken.
        alpha: chance of any wrong claim over the whole decision, all looks together.
        cost_order: candidates, cheapest first.
        slack: an arm keeps a limit if its bound is within limit + slack; 0 needs much more data.
        looks: how often this decision may be looked at; `spending` says how alpha is shared
            between the looks.
        effort: share of alpha by arm, as (arm, share); arms not named, or none, share equally.
            Only the number of questions needed depends on it.
        confirm_share: share of the clusters that is never used for choosing; the effect of the
            chosen arm is measured on them again.
        expires_days: the decision is due again after so many days.
        case: hard facts about the use case, checked before any statistics.
        min_clusters: below this many independent groups no claim about quality is made.
        max_unscored: an arm with a larger share of answers that could not be scored is rejected.
        power: used for the number of questions still needed.
    """

    primary: str = "token_f1"
    margin: float = 0.03
    alpha: float = 0.05
    constraints: tuple[Constraint, ...] = ()
    cost_order: tuple[str, ...] = COST_ORDER
    slack: float = 0.03
    looks: int = 1
    min_clusters: int = 10
    max_unscored: float = 0.05
    power: float = 0.8
    spending: Spending = "equal"
    effort: tuple[tuple[str, float], ...] = ()
    confirm_share: float = 0.0
    expires_days: int = 90
    case: CaseFacts | None = None

    def __post_init__(self) -> None:
        if self.primary not in PRIMARY_METRICS:
            choices = ", ".join(PRIMARY_METRICS)
            raise DecisionError(f"no primary metric {self.primary!r}; valid choices are {choices}")
        if not 0 < self.margin < 1:
            raise DecisionError(f"margin must lie between 0 and 1, got {self.margin}")
        if not 0 < self.alpha < 0.5:
            raise DecisionError(f"alpha must lie between 0 and 0.5, got {self.alpha}")
        if not (0 <= self.slack < 1 and 0 <= self.max_unscored <= 1 and 0.5 <= self.power < 1):
            raise DecisionError("slack and max_unscored must lie in [0, 1), power in [0.5, 1)")
        if self.looks < 1 or self.min_clusters < 2:
            raise DecisionError("looks must be at least 1 and min_clusters at least 2")
        if len(set(self.cost_order)) != len(self.cost_order):
            raise DecisionError(f"cost_order names an arm twice: {', '.join(self.cost_order)}")
        self._check_sharing()

    def _check_sharing(self) -> None:
        if self.spending not in SPENDINGS:
            raise DecisionError(
                f"spending must be one of {', '.join(SPENDINGS)}; got {self.spending!r}"
            )
        for arm, share in self.effort:
            if not 0 < share <= 1:
                raise DecisionError(f"the effort for {arm} must lie in (0, 1], got {share}")
        if not 0 <= self.confirm_share <= 0.5:
            raise DecisionError(f"confirm_share must lie in [0, 0.5], got {self.confirm_share}")
        if self.expires_days < 1:
            raise DecisionError(f"expires_days must be at least 1, got {self.expires_days}")

    def alpha_at(self, look: int) -> float:
        """Give the part of alpha that one look may spend."""
        return spend_alpha(self.alpha, self.looks, self.spending)[look - 1]

    def effort_of(self, arms: tuple[str, ...]) -> tuple[float, ...]:
        """Give the share of alpha of each of these arms; they add up to 1."""
        given = dict(self.effort)
        usual = sum(given.values()) / len(given) if given else 1.0
        shares = [given.get(arm, usual) for arm in arms]
        return tuple(share / sum(shares) for share in shares)

    @property
    def digest(self) -> str:
        """Sha256 (hex) that identifies the rules."""
        return digest(self)


def parse_spec(record: Mapping[str, Any]) -> DecisionSpec:
    """Read a spec from its JSON object; fields left out keep their default.

    Raises:
        DecisionError: on an unknown field or a value that makes no spec.
    """
    known = [field.name for field in fields(DecisionSpec)]
    unknown = sorted(set(record) - set(known))
    if unknown:
        raise DecisionError(f"unknown field {unknown[0]!r} in spec; valid are {', '.join(known)}")
    values = dict(record)
    if "cost_order" in values:
        values["cost_order"] = tuple(values["cost_order"])
    try:
        if values.get("case") is not None:
            values["case"] = parse_case(values["case"])
        effort = values.get("effort", ())
        pairs = effort.items() if isinstance(effort, Mapping) else effort
        values["effort"] = tuple((str(arm), float(share)) for arm, share in pairs)
        values["constraints"] = tuple(Constraint(**item) for item in record.get("constraints", ()))
        if not all(math.isfinite(v) for v in values.values() if isinstance(v, float)):
            raise DecisionError("a number of the spec is not finite")
        return DecisionSpec(**values)
    except (TypeError, ValueError) as error:
        raise DecisionError(f"the spec cannot be read: {error}") from error


def as_recorded(spec: DecisionSpec) -> DecisionSpec:
    """Give the spec with its numbers as a record keeps them, so that a replay uses the same."""
    return parse_spec(jsonable(spec))
