"""Classes and fields: tables for tasks whose answers are labels or JSON objects."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evals.analysis.case import Case, shown
from evals.metrics.classification import (
    OTHER,
    Confusion,
    confusion,
    label_of,
    macro_f1_difference,
    macro_f1_interval,
)
from evals.metrics.extraction import field_scores, read_object, schema_valid
from evals.samples import Sample
from evals.sections import Cell, Section
from evals.statistics.intervals import Ints
from evals.statistics.rates import rate_interval

_MATRIX_LABELS = 16
_FEWEST_PER_LABEL = 4


def task_sections(case: Case) -> tuple[Section, ...]:
    """Give what belongs to the kind of answers the samples accept."""
    return (*_classes(case), *_contract(case))


def class_labels(case: Case) -> tuple[str, ...]:
    """Give the classes if the samples are a classification, else nothing.

    A classification has one accepted answer per question, of at most five words, on average at
    least four questions for every distinct answer, and no sources unless the caller says so.
    """
    if case.known.task != "classification" and any(sample.gold for sample in case.samples):
        return ()
    wanted = [sample.answers for sample in case.samples if sample.answers is not None]
    if not wanted or any(len(answers) != 1 for answers in wanted):
        return ()
    labels = sorted({answers[0] for answers in wanted})
    short = all(len(label.replace("_", " ").split()) <= 5 for label in labels)
    enough = len(wanted) >= _FEWEST_PER_LABEL * len(labels)
    objects = any(read_object(label) is not None for label in labels)
    return tuple(labels) if len(labels) > 1 and short and enough and not objects else ()


def _classes(case: Case) -> tuple[Section, ...]:
    labels = class_labels(case)
    if not labels:
        return ()
    said = {arm: _said(case, arm, labels) for arm in case.evaluation.table.arms}
    best = case.best
    matrix = confusion(said[best][0], said[best][1], labels)
    sections = [_macro(case, said), _per_class(matrix, best)]
    if len(labels) <= _MATRIX_LABELS:
        sections.append(_matrix(matrix, best))
    worst = matrix.worst_confusions()
    if worst:
        note = f"Where {best} goes wrong most often."
        sections.append(Section("Confusions", ("right class", "said", "answers"), worst, note))
    return tuple(sections)


def _said(
    case: Case, arm: str, labels: tuple[str, ...]
) -> tuple[list[str], list[str | None], Ints, list[str]]:
    """Right class, class said, cluster and id of every sample that the arm answered."""
    wanted: list[str] = []
    names: list[str] = []
    said: list[str | None] = []
    clusters: list[int] = []
    rows = zip(case.samples, case.answers(arm), case.evaluation.table.clusters, strict=True)
    for sample, output, cluster in rows:
        if sample.answers is None or output is None:
            continue
        wanted.append(sample.answers[0])
        said.append(None if output.abstained else label_of(output.text, labels))
        clusters.append(int(cluster))
        names.append(sample.id)
    return wanted, said, np.array(clusters, dtype=np.int64), names


def _macro(
    case: Case, said: dict[str, tuple[list[str], list[str | None], Ints, list[str]]]
) -> Section:
    confidence = case.evaluation.settings.confidence
    reference = case.candidates[0] if case.candidates else case.evaluation.table.arms[0]
    rows = []
    _, of_reference, _, asked = said[reference]
    known = dict(zip(asked, of_reference, strict=True))
    for arm, (wanted, named, clusters, names) in said.items():
        if not wanted:
            continue
        macro = macro_f1_interval(
            wanted, named, clusters, bootstrap=case.bootstrap, confidence=confidence
        )
        versus = None
        both = [i for i, name in enumerate(names) if name in known]
        if arm != reference and both:
            versus = macro_f1_difference(
                [wanted[i] for i in both],
                [known[names[i]] for i in both],
                [named[i] for i in both],
                clusters[both],
                bootstrap=case.bootstrap,
                confidence=confidence,
            )
        matrix = confusion(wanted, named)
        none = sum(label is None for label in named)
        rows.append((arm, shown(macro), shown(versus), round(matrix.accuracy, 3), none))
    columns = ("arm", "macro-F1", f"less {reference}'s", "accuracy", "no class named")
    note = "Macro-F1 weighs rare classes like frequent ones; intervals by bootstrap of clusters."
    return Section("Classes: macro-F1", columns, tuple(rows), note)


def _per_class(matrix: Confusion, arm: str) -> Section:
    rows = tuple(
        (
            score.label,
            score.wanted,
            score.said,
            None if score.precision is None else round(score.precision, 3),
            None if score.recall is None else round(score.recall, 3),
            round(score.f1, 3),
        )
        for score in sorted(matrix.per_class(), key=lambda score: (score.f1, score.label))
    )
    columns = ("class", "questions", "said", "precision", "recall", "F1")
    shown_rows, left = rows[:30], max(0, len(rows) - 30)
    note = f"{arm}, worst first" + (f"; {left} better classes are left out." if left else ".")
    return Section("Classes one by one", columns, shown_rows, note)


def _matrix(matrix: Confusion, arm: str) -> Section:
    columns = ("right class", *matrix.labels, OTHER)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (label, *(int(count) for count in counts))
        for label, counts in zip(matrix.labels, matrix.counts, strict=True)
    )
    note = f"Answers of {arm}: rows are the right class, columns what was said."
    return Section("Confusion matrix", columns, rows, note, heat=True)


def _contract(case: Case) -> tuple[Section, ...]:
    objects = [
        sample
        for sample in case.samples
        if sample.answers and any(read_object(answer) is not None for answer in sample.answers)
    ]
    sections = [] if case.known.json_schema is None else [_valid(case, case.known.json_schema)]
    return (*sections, _fields(case, objects)) if objects else tuple(sections)


def _valid(case: Case, schema: Mapping[str, Any]) -> Section:
    rows = []
    for arm in case.evaluation.table.arms:
        outputs = [case.by_arm[arm].get(sample.id) for sample in case.samples]
        answers = zip(outputs, case.evaluation.table.clusters, strict=True)
        made = [
            ("" if o.error else o.text, c) for o, c in answers if o is not None and not o.abstained
        ]
        scores = [schema_valid(text, schema) for text, _ in made]
        valid = np.array([score.value for score in scores], dtype=np.float64)
        groups = np.array([cluster for _, cluster in made], dtype=np.int64)
        reasons = [score.reason for score in scores if score.reason]
        common = max(sorted(set(reasons)), key=reasons.count, default="")
        rows.append((arm, len(made), shown(rate_interval(valid, groups)), common))
    note = "Answers that are one JSON object and keep the schema, and what is most often wrong."
    columns = ("arm", "answers", "valid", "most frequent error")
    return Section("JSON contract", columns, tuple(rows), note)


def _fields(case: Case, objects: Sequence[Sample]) -> Section:
    best = case.best
    pairs = [
        ("" if output.error else output.text, answer)
        for sample in objects
        if (output := case.by_arm[best].get(sample.id)) is not None
        for answer in (sample.answers or ())[:1]
    ]
    rows = tuple(
        (
            name,
            wanted,
            round(right / given, 3) if given else None,
            round(right / wanted, 3) if wanted else None,
            given - right,
        )
        for name, (right, given, wanted) in field_scores(pairs).items()
    )
    columns = ("field", "wanted", "precision", "recall", "wrong or made up")
    return Section("Fields", columns, rows, f"Fields of {best}'s JSON answers.")
