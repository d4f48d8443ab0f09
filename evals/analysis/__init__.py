"""What the scores alone do not say: contexts, confidence, classes, cost, and what to mistrust.

Every part gives `Section`s, so that page, Markdown and JSON hold the same numbers. Parts without
data give none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evals.analysis.case import Case, Known
from evals.analysis.confidence import confidence_sections
from evals.analysis.context import context_sections
from evals.analysis.resources import resource_sections
from evals.analysis.tasks import task_sections
from evals.analysis.trust import Flaw, find_flaws, trust_sections
from evals.evaluation import Evaluation
from evals.outputs import Output
from evals.samples import Sample
from evals.sections import Section

__all__ = ["Analysis", "Case", "Flaw", "Known", "analyse"]


@dataclass(frozen=True, slots=True)
class Analysis:
    """Sections in the order of a report, and flaws that stand above them all."""

    sections: tuple[Section, ...]
    flaws: tuple[Flaw, ...]


def analyse(
    evaluation: Evaluation,
    samples: Sequence[Sample],
    outputs: Iterable[Output],
    known: Known | None = None,
) -> Analysis:
    """Look at an evaluation from every side there is data for.

    Args:
        evaluation: the scores.
        samples: the samples it was made of.
        outputs: the outputs it was made of.
        known: what cannot be read from samples and outputs: training rows, prices, an earlier run.

    Raises:
        OutputError: if the outputs do not fit the samples.
        MetricError: if a schema or a label of `known` cannot be used.
    """
    case = Case.of(evaluation, samples, outputs, known or Known())
    flaws = find_flaws(case)
    sections = (
        *task_sections(case),
        *context_sections(case),
        *confidence_sections(case),
        *resource_sections(case),
        *trust_sections(case),
    )
    return Analysis(sections, flaws)
