"""What rules an arm out before any measurement: privacy, citations, budget, too few examples.

A gate looks only at what is known about the use case and the arm, never at answers, so that it
costs no evidence. What is not known keeps no arm out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from evals.errors import DecisionError

Task = Literal[
    "question_answering", "classification", "extraction", "generation", "summarisation", "dialogue"
]
Domain = Literal["support", "code", "documents", "finance", "other"]
Change = Literal["low", "medium", "high"]
Place = Literal["index", "weights"]
Gate = Literal["index", "weights", "local", "citations", "latency", "cost", "examples"]

TASKS: tuple[Task, ...] = (
    "question_answering",
    "classification",
    "extraction",
    "generation",
    "summarisation",
    "dialogue",
)
DOMAINS: tuple[Domain, ...] = ("support", "code", "documents", "finance", "other")
CHANGES: tuple[Change, ...] = ("low", "medium", "high")
PLACES: tuple[Place, ...] = ("index", "weights")

LEAST_EXAMPLES: dict[str, int] = {
    "question_answering": 500,
    "classification": 50,  # per class
    "extraction": 200,
    "generation": 500,
    "summarisation": 1000,
    "dialogue": 2000,  # turns
}
"""Fewest training examples with which tuning is tried at all, by task."""


@dataclass(frozen=True, slots=True)
class ArmFacts:
    """What is known about an arm before it answers anything; None where it is not known.

    Attributes:
        retrieves: it puts passages before the model.
        tuned: it uses an adapter trained on the customer's examples.
        local: every byte stays on the customer's machines.
        p95_s: seconds within which 95 % of its answers came on this machine so far.
        cost_per_1k: of a thousand answers, in the budget's currency.
        examples: approved examples its adapter was or would be trained on.
    """

    arm: str
    retrieves: bool
    tuned: bool
    local: bool = True
    p95_s: float | None = None
    cost_per_1k: float | None = None
    examples: int | None = None


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """What the owner of a use case declares before the data are seen.

    Attributes:
        task, domain: what is asked for, and where; they choose the row of the prior.
        changes: how fast the answers change: measured (`evals.volatility`) or guessed; None when
            nobody knows.
        requirements_move: what a good answer is still changes from week to week.
        data_allowed_in: places that the customer's data may be put into.
        local_only: nothing may leave the customer's machines.
        must_cite: every answer has to name its source.
        max_p95_s, max_cost_per_1k: limits, None for none.
        classes: number of labels of a classification.
        arms: what is known of each arm.
    """

    task: Task = "question_answering"
    domain: Domain = "other"
    changes: Change | None = None
    requirements_move: bool = False
    data_allowed_in: tuple[Place, ...] = PLACES
    local_only: bool = False
    must_cite: bool = False
    max_p95_s: float | None = None
    max_cost_per_1k: float | None = None
    classes: int = 1
    arms: tuple[ArmFacts, ...] = ()

    def __post_init__(self) -> None:
        _one_of("task", self.task, TASKS)
        _one_of("domain", self.domain, DOMAINS)
        if self.changes is not None:
            _one_of("changes", self.changes, CHANGES)
        for place in self.data_allowed_in:
            _one_of("data_allowed_in", place, PLACES)
        for name in ("max_p95_s", "max_cost_per_1k"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise DecisionError(f"{name} must be positive, got {value}")
        if self.classes < 1:
            raise DecisionError(f"classes must be at least 1, got {self.classes}")

    def facts(self, arm: str) -> ArmFacts:
        """Give what is known of an arm; the four usual arms are known by their name."""
        for known in self.arms:
            if known.arm == arm:
                return known
        return default_facts(arm)


@dataclass(frozen=True, slots=True)
class GateFailure:
    """A gate that an arm does not pass, and what would have to change, both in words."""

    arm: str
    gate: Gate
    sentence: str
    remedy: str


def default_facts(arm: str) -> ArmFacts:
    """Give what the name of a usual arm says about it."""
    return ArmFacts(
        arm,
        retrieves=arm in ("rag", "hybrid", "reader"),
        tuned=arm in ("tuned", "hybrid"),
    )


def check_gates(case: CaseFacts, arms: Sequence[str]) -> tuple[GateFailure, ...]:
    """Give every gate that any of the arms fails."""
    return tuple(failure for arm in arms for failure in _failures(case, case.facts(arm)))


def _failures(case: CaseFacts, facts: ArmFacts) -> list[GateFailure]:
    return [
        GateFailure(facts.arm, gate, f"{facts.arm} is ruled out before measuring: {why}.", remedy)
        for gate, failed, why, remedy in (*_data_gates(case, facts), *_number_gates(case, facts))
        if failed
    ]


def _data_gates(case: CaseFacts, facts: ArmFacts) -> list[tuple[Gate, bool, str, str]]:
    return [
        (
            "index",
            facts.retrieves and "index" not in case.data_allowed_in,
            "it searches the data, which may not be put into a search index",
            "the data may be put into a search index",
        ),
        (
            "weights",
            facts.tuned and "weights" not in case.data_allowed_in,
            "it is trained on the data, which may not be put into a model's weights",
            "the data may be used for training",
        ),
        (
            "local",
            case.local_only and not facts.local,
            "it sends data to another company's machines, which is not allowed",
            "data may leave your machines",
        ),
        (
            "citations",
            case.must_cite and not facts.retrieves,
            "every answer must name its source, and without retrieval it has none to name",
            "answers without a source are accepted",
        ),
    ]


def _number_gates(case: CaseFacts, facts: ArmFacts) -> list[tuple[Gate, bool, str, str]]:
    least = LEAST_EXAMPLES[case.task] * (case.classes if case.task == "classification" else 1)
    return [
        (
            "latency",
            _over(facts.p95_s, case.max_p95_s),
            f"95 % of its answers are known to take up to {_number(facts.p95_s)} s, and "
            f"{_number(case.max_p95_s)} s are allowed",
            f"{_number(facts.p95_s)} s are allowed",
        ),
        (
            "cost",
            _over(facts.cost_per_1k, case.max_cost_per_1k),
            f"a thousand answers cost {_number(facts.cost_per_1k)}, and the budget is "
            f"{_number(case.max_cost_per_1k)}",
            f"the budget for a thousand answers is {_number(facts.cost_per_1k)}",
        ),
        (
            "examples",
            facts.tuned and facts.examples is not None and facts.examples < least,
            f"it would be trained on {facts.examples} examples, and {least} are the least for "
            f"{case.task.replace('_', ' ')}",
            f"{least} approved examples are collected",
        ),
    ]


def gate_relaxation(failures: Sequence[GateFailure]) -> tuple[str, str]:
    """Give the arm with the fewest failed gates and what would admit it to the measurement."""
    by_arm: dict[str, list[str]] = {}
    for failure in failures:
        by_arm.setdefault(failure.arm, []).append(failure.remedy)
    arm = min(by_arm, key=lambda name: len(by_arm[name]))
    return arm, f"{arm} could be measured if {' and '.join(by_arm[arm])}."


def parse_case(record: Mapping[str, Any]) -> CaseFacts:
    """Read the facts of a use case from their JSON object; fields left out keep their default.

    Raises:
        DecisionError: on an unknown field or a value that is not a valid choice.
    """
    known = [field.name for field in fields(CaseFacts)]
    unknown = sorted(set(record) - set(known))
    if unknown:
        raise DecisionError(f"unknown field {unknown[0]!r} in case; valid are {', '.join(known)}")
    values = dict(record)
    if "data_allowed_in" in values:
        values["data_allowed_in"] = tuple(values["data_allowed_in"])
    try:
        values["arms"] = tuple(ArmFacts(**item) for item in record.get("arms", ()))
        return CaseFacts(**values)
    except TypeError as error:
        raise DecisionError(f"the facts of the use case cannot be read: {error}") from error


def _one_of(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise DecisionError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def _over(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit


def _number(value: float | None) -> str:
    return "an unknown number" if value is None else f"{value:g}"
