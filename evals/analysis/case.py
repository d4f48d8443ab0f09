"""What every part of an analysis looks at, gathered once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from evals.costs import Rates
from evals.evaluation import Evaluation
from evals.integrity import LeakageAudit, audit_leakage
from evals.judging import Verdicts
from evals.outputs import Output
from evals.samples import Sample
from evals.scoring import group_by_arm
from evals.statistics.clustered import ClusterBootstrap
from evals.statistics.intervals import Floats, Interval


@dataclass(frozen=True, slots=True)
class Known:
    """What a caller knows beside samples and outputs.

    Attributes:
        training: questions and replies of the rows that the tuned arms were trained on.
        earlier: samples and outputs of a run before the knowledge changed.
        rates: prices; without them no costs are shown.
        fixed_costs: by arm, what it cost before its first answer.
        answers_per_training: answers until the fixed costs are spent again.
        json_schema: contract of answers that are JSON objects.
        task: "classification" where answers are classes although samples name gold sources.
        verdicts: a judge on all answers; `labels`: people on some of them. A judge without labels
            is not shown.
        stages: by sample id, the stage of a rollout that served it.
        keys: further ways in which samples may depend on one another: name -> by sample id.
        earlier_uses: how often this sample set was used before.
        forgetting: by tuned arm, its adapter against the base on a fixed set of general
            questions: items, accuracy_base, accuracy_adapter, accuracy_change,
            accuracy_interval, margin, not_inferior.
        adapters: by the id that arms name, the adapter for people to read.
    """

    training: Sequence[str] = ()
    earlier: tuple[Sequence[Sample], Sequence[Output]] | None = None
    rates: Rates | None = None
    fixed_costs: Mapping[str, float] = field(default_factory=dict)
    answers_per_training: int = 100_000
    json_schema: Mapping[str, Any] | None = None
    task: str | None = None
    verdicts: Verdicts = field(default_factory=dict)
    labels: Verdicts = field(default_factory=dict)
    stages: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    earlier_uses: int | None = None
    forgetting: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Case:
    """An evaluation with its samples and outputs, samples in the order of the score table."""

    evaluation: Evaluation
    samples: tuple[Sample, ...]
    outputs: tuple[Output, ...]
    by_arm: Mapping[str, Mapping[str, Output]]
    known: Known

    @classmethod
    def of(
        cls,
        evaluation: Evaluation,
        samples: Sequence[Sample],
        outputs: Iterable[Output],
        known: Known,
    ) -> "Case":
        """Put samples and outputs in the order of the evaluation's table."""
        ordered = tuple(sorted(samples, key=lambda sample: sample.id))
        answers = tuple(outputs)
        return cls(evaluation, ordered, answers, group_by_arm(ordered, answers), known)

    @property
    def candidates(self) -> tuple[str, ...]:
        """Arms that may be chosen."""
        return self.evaluation.table.candidates

    def scores(self, arm: str, metric: str | None = None) -> Floats:
        """Give the scores of an arm by sample, NaN where there is none."""
        return self.evaluation.table.values[arm][metric or self.evaluation.primary]

    def answers(self, arm: str) -> list[Output | None]:
        """Give an arm's answers by sample; None where it has none or an error."""
        found = (self.by_arm[arm].get(sample.id) for sample in self.samples)
        return [None if output is None or output.error is not None else output for output in found]

    @cached_property
    def bootstrap(self) -> ClusterBootstrap:
        """The draws of the evaluation."""
        settings = self.evaluation.settings
        return ClusterBootstrap(settings.resamples, settings.seed)

    @cached_property
    def leakage(self) -> LeakageAudit | None:
        """Samples against training rows, None when these are not known."""
        if not self.known.training:
            return None
        return audit_leakage(self.samples, self.known.training)

    @cached_property
    def best(self) -> str:
        """The candidate with the highest mean primary score."""
        means = {arm: self.scores(arm) for arm in self.candidates or self.evaluation.table.arms}
        scored = {arm: column[~np.isnan(column)] for arm, column in means.items()}
        return max(scored, key=lambda arm: float(scored[arm].mean()) if len(scored[arm]) else -1.0)


def shown(interval: Interval | None, digits: int = 3) -> str | None:
    """Write an estimate with its bounds as one cell; None when there is no estimate."""
    if interval is None or interval.estimate is None:
        return None
    text = f"{interval.estimate:.{digits}f}"
    if interval.low is None or interval.high is None:
        return text
    low, high = f"{interval.low:.{digits}f}", f"{interval.high:.{digits}f}"
    return f"{text} ({low} to {high})".replace("-", "−")
