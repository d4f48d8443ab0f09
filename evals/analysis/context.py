"""Retrieval and what arms make of it."""

import numpy as np

from evals.analysis.case import Case, shown
from evals.arms import HYBRID, PROMPT, RAG, TUNED
from evals.metrics.context_use import RIGHT_FROM, conflict, context_use, sufficiency_split
from evals.sections import Section
from evals.statistics.intervals import Interval, Mask
from evals.text import label

COUNTERFACTUAL = "counterfactual:"
_FEWEST = 5  # questions below which a mean is an anecdote
_PAIRS = ((PROMPT, RAG), (TUNED, HYBRID))
_RETRIEVAL = ("recall_at_k", "mrr", "ndcg_at_k")


def context_sections(case: Case) -> tuple[Section, ...]:
    """Give retrieval, gain and harm of context, and context against weights."""
    return (*_retrieval(case), *_use(case), *_conflict(case))


def _retrieval(case: Case) -> tuple[Section, ...]:
    evaluation = case.evaluation
    rows = []
    for arm in evaluation.table.arms:
        metrics = evaluation.arm(arm).metrics
        if "recall_at_k" not in metrics:
            continue
        asked = np.array([sample.answerable and bool(sample.gold) for sample in case.samples])
        answers = case.answers(arm)
        refused = np.array([output is not None and output.abstained for output in answers])
        scores = np.where(asked, case.scores(arm), np.nan)
        split = sufficiency_split(
            scores, refused, _gold_given(case, arm), evaluation.table.clusters
        )
        rows.append(
            (
                arm,
                *(shown(metrics.get(name)) for name in _RETRIEVAL),
                shown(split.share),
                _counted(split.with_gold),
                _counted(split.without_gold),
                _counted(split.refused_without),
            )
        )
    if not rows:
        return ()
    score = label(evaluation.primary, evaluation.k)
    columns = (
        "arm",
        *(label(name, evaluation.k) for name in _RETRIEVAL),
        "gold in the prompt",
        f"{score} with it",
        f"{score} without it",
        "refuses without it",
    )
    note = (
        "Recall bounds what reading can reach. With the gold source in the prompt the reader is "
        "measured; without it every answer but a refusal is luck or memory. "
        f"No number where fewer than {_FEWEST} questions are of that kind."
    )
    return (Section("Retrieval", columns, tuple(rows), note),)


def _counted(interval: Interval) -> str | None:
    """Write a mean, its bounds and its questions; None where these are too few."""
    text = shown(interval)
    if text is None or interval.n < _FEWEST:
        return None
    return f"{text[:-1]}, n = {interval.n})" if text.endswith(")") else text


def _gold_given(case: Case, arm: str) -> Mask:
    given = []
    for sample, output in zip(case.samples, case.answers(arm), strict=True):
        read = [] if output is None else [p.id for p in output.passages] or output.retrieved
        given.append(bool(set(read) & set(sample.gold)))
    return np.array(given, dtype=bool)


def _use(case: Case) -> tuple[Section, ...]:
    rows = []
    for without, with_context in _PAIRS:
        if not {without, with_context} <= set(case.candidates):
            continue
        answerable = np.array([sample.answerable for sample in case.samples])
        use = context_use(
            np.where(answerable, case.scores(without), np.nan),
            case.scores(with_context),
            case.evaluation.table.clusters,
        )
        rows.append(
            (
                f"{without} → {with_context}",
                use.gain.n,
                shown(use.gain),
                use.harm.n,
                shown(use.harm),
            )
        )
    if not rows:
        return ()
    score = label(case.evaluation.primary, case.evaluation.k)
    columns = ("arms", "wrong without context", "gain there", "right without", "loss there")
    note = (
        f"Right means a {score} of at least {RIGHT_FROM:g} without context, wrong less. "
        "A mean hides that context helps on some questions and destroys right answers on others; "
        "here they stand apart."
    )
    return (Section("What context changes", columns, tuple(rows), note),)


def _conflict(case: Case) -> tuple[Section, ...]:
    known = {sample.id: sample for sample in case.samples}
    pairs = [
        (sample, known[original])
        for sample in case.samples
        for tag in sample.tags
        if tag.startswith(COUNTERFACTUAL)
        and (original := tag.removeprefix(COUNTERFACTUAL)) in known
    ]
    if not pairs:
        return ()
    rows = []
    for arm in case.candidates:
        answered = [
            ("" if output.error else output.text, altered.answers or (), original.answers or ())
            for altered, original in pairs
            if (output := case.by_arm[arm].get(altered.id)) is not None
        ]
        if not answered:
            continue
        texts, altered_answers, learned = zip(*answered, strict=True)
        found = conflict(texts, altered_answers, learned)
        share = found.memorisation
        rows.append(
            (
                arm,
                len(texts),
                found.context,
                found.weights,
                found.neither,
                None if share is None else round(share, 3),
            )
        )
    columns = ("arm", "altered facts", "follows passage", "follows weights", "neither", "memorised")
    note = (
        "The passage was altered so that it contradicts what weights may hold. Memorised is the "
        "share that follows the weights among answers that follow one of the two: 0 is wanted "
        "where facts change."
    )
    return (Section("Passage against weights", columns, tuple(rows), note),)
