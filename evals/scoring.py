"""One answer to its scores, and all answers to a table of scores with one row per sample."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evals.arms import sort_by_cost
from evals.errors import OutputError
from evals.metrics import answers as answer_metrics
from evals.metrics import citations, extraction, overlap, retrieval, support, values
from evals.metrics.score import METRICS, Score
from evals.outputs import Output
from evals.samples import Sample, clusters
from evals.statistics.intervals import Floats, Ints, Mask

Style = str | re.Pattern[str] | Callable[[str], bool]
LATENCY = "latency_s"
_ABOUT_WHAT_IS_SAID = (
    "value_faithfulness",
    "support_recall",
    "support_precision",
    "citation_precision",
)
_TEXT_METRICS: dict[str, Callable[[str, Sequence[str]], Score]] = {
    "token_f1": answer_metrics.token_f1,
    "exact_match": answer_metrics.exact_match,
    "contains_answer": answer_metrics.contains_answer,
    "value_recall": values.value_recall,
    "rouge_l": overlap.rouge_l,
    "chrf": overlap.chrf,
}


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTable:
    """Scores by arm and metric, aligned to one list of samples.

    Attributes:
        clusters: (n,) independent group of every sample.
        values: arm -> metric or "latency_s" -> (n,) with NaN where there is no score. Read it
            through `scored` and `paired`, which leave the unscored out.
    """

    sample_ids: tuple[str, ...]
    clusters: Ints
    arms: tuple[str, ...]
    baselines: frozenset[str]
    values: Mapping[str, Mapping[str, Floats]]

    @property
    def candidates(self) -> tuple[str, ...]:
        """The arms that may be chosen."""
        return tuple(arm for arm in self.arms if arm not in self.baselines)

    def scored(self, arm: str, metric: str, mask: Mask | None = None) -> tuple[Floats, Ints]:
        """Give the scored values of an arm and their clusters."""
        column = self.values[arm][metric]
        keep = ~np.isnan(column) if mask is None else ~np.isnan(column) & mask
        return column[keep], self.clusters[keep]

    def paired(
        self, a: str, b: str, metric: str, mask: Mask | None = None
    ) -> tuple[Floats, Floats, Ints]:
        """Give the values of two arms and the clusters, where both are scored."""
        first, second = self.values[a][metric], self.values[b][metric]
        keep = ~(np.isnan(first) | np.isnan(second))
        keep = keep if mask is None else keep & mask
        return first[keep], second[keep], self.clusters[keep]


def score_output(
    sample: Sample, output: Output, *, k: int = 5, style: Style | None = None
) -> dict[str, Score]:
    """Score one answer with every metric.

    A failed answer (an error, a timeout) gets the worst value of every metric that is about the
    question: whoever asked got nothing. When the question has no answer, the text metrics are 1
    if the arm abstained, else 0; when it has one, abstaining is 0.
    """
    if output.error is not None:
        return _failed_scores(sample, output, k, style)
    scores = {name: _text_score(name, sample, output) for name in _TEXT_METRICS}
    scores |= _evidence_scores(output) | _field_scores(sample, output)
    scores["answer_utility"] = _utility(sample, output, scores["token_f1"])
    gold = sample.gold if sample.answerable else ()
    scores |= {
        "right_citation": citations.right_citation(output.citations, gold),
        "only_gold_citation": citations.only_gold_citation(output.citations, gold),
        "citation_precision": citations.citation_precision(output.citations, gold),
        "citation_recall": citations.citation_recall(output.citations, gold),
        "abstention": citations.abstention(output.abstained, sample.answerable),
        "over_refusal": citations.over_refusal(output.abstained, sample.answerable),
        "recall_at_k": retrieval.recall_at_k(gold, output.retrieved, k),
        "mrr": retrieval.mrr(gold, output.retrieved),
        "ndcg_at_k": retrieval.ndcg_at_k(gold, output.retrieved, k),
        "error_rate": Score(0.0),
        "style_match": Score.unscored("no house style given"),
    }
    if style is not None:
        scores["style_match"] = (
            Score.unscored("abstained")
            if output.abstained
            else answer_metrics.style_match(output.text, style)
        )
    return scores


def _failed_scores(sample: Sample, output: Output, k: int, style: Style | None) -> dict[str, Score]:
    """Score a failure as an empty answer, and at its worst where that would not be."""
    empty = replace(output, error=None, text="", citations=(), retrieved=(), abstained=False)
    scores = score_output(sample, replace(empty, meta={}), k=k, style=style)
    worst = {name: Score(0.0 if METRICS[name].higher_is_better else 1.0) for name in METRICS}
    found = {name: worst[name] if score.scored else score for name, score in scores.items()}
    return found | {"error_rate": Score(1.0)}


def _evidence_scores(output: Output) -> dict[str, Score]:
    passages = [passage.text for passage in output.passages]
    if output.abstained or not passages:
        reason = "abstained" if output.abstained else "no passages kept"
        names = ("value_faithfulness", "support_recall", "support_precision")
        return dict.fromkeys(names, Score.unscored(reason))
    cited = [passage.text for passage in output.passages if passage.id in output.citations]
    return {
        "value_faithfulness": values.value_faithfulness(output.text, cited or passages),
        "support_recall": support.support_recall(output.text, passages),
        "support_precision": support.support_precision(output.text, passages),
    }


def _field_scores(sample: Sample, output: Output) -> dict[str, Score]:
    wanted = sample.answers or ()
    return {
        "field_f1": extraction.field_f1(output.text, wanted),
        "field_match": extraction.field_match(output.text, wanted),
    }


def _utility(sample: Sample, output: Output, score: Score) -> Score:
    """Score refusing an answerable question halfway between right and wrong."""
    return Score(0.5) if sample.answerable and output.abstained else score


def _text_score(name: str, sample: Sample, output: Output) -> Score:
    if sample.answers is None:
        return Score(float(output.abstained))
    score = _TEXT_METRICS[name](output.text, sample.answers)
    return Score(0.0) if output.abstained and score.scored else score


def score_table(
    samples: Sequence[Sample],
    outputs: Iterable[Output],
    *,
    baselines: Iterable[str] = (),
    k: int = 5,
    style: Style | None = None,
) -> ScoreTable:
    """Score all outputs. A sample that an arm has no output for stays unscored for that arm.

    Where an arm answered a sample several times, its score is the mean of those that have one;
    its latency is that of the first, and infinite where that one failed: it keeps no limit.
    What a failed answer cannot be judged by, such as its citations, counts as worst for an arm
    whose other answers are judged by it.

    Arms are sorted cheapest first, baselines last.

    Raises:
        OutputError: on an output of an unknown sample, two outputs of one arm for one sample, an
            unknown baseline, or no outputs at all.
    """
    by_arm = group_repeats(samples, outputs)
    flagged = frozenset(baselines)
    missing = sorted(flagged - set(by_arm))
    if missing:
        raise OutputError(f"baseline {missing[0]!r} has no outputs; arms are {', '.join(by_arm)}")
    arms = sort_by_cost(set(by_arm) - flagged) + tuple(sorted(flagged))
    table = {arm: _arm_columns(samples, by_arm[arm], k, style) for arm in arms}
    return ScoreTable(
        tuple(sample.id for sample in samples),
        np.asarray(clusters(samples), dtype=np.int64),
        arms,
        flagged,
        table,
    )


def group_by_arm(
    samples: Sequence[Sample], outputs: Iterable[Output]
) -> dict[str, dict[str, Output]]:
    """Give arm -> sample id -> output, the first of several answers to one sample.

    Raises:
        OutputError: on an unknown sample, a repeated output, or no outputs at all.
    """
    return {
        arm: {name: answers[min(answers)] for name, answers in by_sample.items()}
        for arm, by_sample in group_repeats(samples, outputs).items()
    }


def group_repeats(
    samples: Sequence[Sample], outputs: Iterable[Output]
) -> dict[str, dict[str, dict[int, Output]]]:
    """Give arm -> sample id -> repeat -> output.

    Raises:
        OutputError: on an unknown sample, a repeated output, or no outputs at all.
    """
    known = {sample.id for sample in samples}
    by_arm: dict[str, dict[str, dict[int, Output]]] = {}
    for output in outputs:
        if output.sample_id not in known:
            raise OutputError(
                f"arm {output.arm!r} answered sample {output.sample_id!r}, which is not given"
            )
        answers = by_arm.setdefault(output.arm, {}).setdefault(output.sample_id, {})
        if output.repeat in answers:
            raise OutputError(f"arm {output.arm!r} answered sample {output.sample_id!r} twice")
        answers[output.repeat] = output
    if not by_arm:
        raise OutputError("there are no outputs to score")
    return by_arm


def _arm_columns(
    samples: Sequence[Sample],
    outputs: Mapping[str, Mapping[int, Output]],
    k: int,
    style: Style | None,
) -> dict[str, Floats]:
    columns = {name: np.full(len(samples), np.nan) for name in (*METRICS, LATENCY)}
    retrieves = any(o.retrieved for answers in outputs.values() for o in answers.values())
    for i, sample in enumerate(samples):
        scored: dict[str, list[float]] = {}
        for _, output in sorted(outputs.get(sample.id, {}).items()):
            for name, score in score_output(sample, output, k=k, style=style).items():
                if score.value is not None:
                    scored.setdefault(name, []).append(score.value)
            # One answer's time: a mean of several has no slow tail.
            took = output.latency_s if output.error is None else np.inf
            scored.setdefault(LATENCY, [took])
        for name, found in scored.items():
            columns[name][i] = sum(found) / len(found)
    failed = columns["error_rate"] == 1.0
    for name in _ABOUT_WHAT_IS_SAID:
        if not np.isnan(columns[name]).all():
            columns[name][failed & np.isnan(columns[name])] = 0.0
    if not retrieves:  # an arm without retrieval is not a bad retriever
        for name in ("recall_at_k", "mrr", "ndcg_at_k"):
            columns[name][:] = np.nan
    return columns
