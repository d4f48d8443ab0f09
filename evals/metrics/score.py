"""The result of one metric on one answer, and what each metric is called and means."""

from dataclasses import dataclass
from typing import Literal

from evals.errors import MetricError


@dataclass(frozen=True, slots=True)
class Score:
    """A value, or the reason why there is none."""

    value: float | None
    reason: str = ""

    @classmethod
    def unscored(cls, reason: str) -> "Score":
        """Say that this answer cannot be scored; such answers enter no mean."""
        return cls(None, reason)

    @property
    def scored(self) -> bool:
        """Whether there is a value."""
        return self.value is not None


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is read: `rate` values are 0 or 1, `graded` values lie in [0, 1]."""

    name: str
    label: str
    kind: Literal["rate", "graded"]
    higher_is_better: bool = True
    about: str = ""


_ALL = (
    Metric("token_f1", "token F1", "graded", about="word overlap with the best accepted answer"),
    Metric("exact_match", "exact match", "rate", about="equal to an accepted answer"),
    Metric("contains_answer", "contains answer", "rate", about="an accepted answer occurs in it"),
    Metric("value_recall", "value recall", "graded", about="expected values that occur in it"),
    Metric(
        "value_faithfulness",
        "value faithfulness",
        "graded",
        about="its numbers, dates and amounts that occur in the passages it cites",
    ),
    Metric("answer_utility", "answer utility", "graded", about="right 1, refused 0.5, wrong 0"),
    Metric("rouge_l", "ROUGE-L", "graded", about="longest run of shared words; secondary"),
    Metric("chrf", "chrF", "graded", about="shared character n-grams; secondary"),
    Metric("field_f1", "field F1", "graded", about="fields of a JSON answer that are right"),
    Metric("field_match", "all fields right", "rate", about="every field right, none made up"),
    Metric(
        "support_recall",
        "supported sentences",
        "graded",
        about="its sentences that the passages they cite support",
    ),
    Metric(
        "support_precision",
        "citations that matter",
        "graded",
        about="its citations without which a sentence would lack support",
    ),
    Metric("right_citation", "right citation", "rate", about="cites at least one gold source"),
    Metric("only_gold_citation", "only gold cited", "rate", about="cites gold and nothing else"),
    Metric("citation_precision", "citation precision", "graded", about="cited ids that are gold"),
    Metric("citation_recall", "citation recall", "graded", about="gold ids that are cited"),
    Metric("abstention", "abstention", "rate", about="abstains when there is no answer"),
    Metric("over_refusal", "over-refusal", "rate", False, "abstains although there is an answer"),
    Metric("recall_at_k", "recall@k", "graded", about="gold ids among the first k retrieved"),
    Metric("mrr", "MRR", "graded", about="1 / rank of the first gold id"),
    Metric("ndcg_at_k", "nDCG@k", "graded", about="gold ids near the top of the first k"),
    Metric("style_match", "style match", "rate", about="follows the house style"),
    Metric("error_rate", "errors", "rate", False, "no answer was produced"),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
PRIMARY_METRICS = (
    "token_f1",
    "exact_match",
    "contains_answer",
    "value_recall",
    "answer_utility",
    "field_f1",
    "field_match",
    "abstention",
)


def find_metric(name: str) -> Metric:
    """Give a metric by name.

    Raises:
        MetricError: naming the valid choices.
    """
    if name not in METRICS:
        raise MetricError(f"unknown metric {name!r}; valid choices are {', '.join(METRICS)}")
    return METRICS[name]
