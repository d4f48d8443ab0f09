"""Classes: confusion matrix, precision, recall and F1 per class, macro-F1 with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from evals.errors import MetricError
from evals.metrics.answers import normalise_answer, strip_citations
from evals.statistics.clustered import ClusterBootstrap
from evals.statistics.intervals import Floats, Interval, Ints

OTHER = "(none of the classes)"


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class; `wanted` questions have it, `said` answers named it."""

    label: str
    precision: float | None
    recall: float | None
    f1: float
    wanted: int
    said: int


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """Answers by right class (rows) and class said (columns).

    Attributes:
        labels: class names; the last column of `counts` is for answers that name none of them.
        counts: (K, K + 1) answers.
    """

    labels: tuple[str, ...]
    counts: Ints

    @property
    def macro_f1(self) -> float:
        """The plain mean of the F1 of all classes."""
        return float(np.mean([score.f1 for score in self.per_class()]))

    @property
    def accuracy(self) -> float:
        """The share of answers that name the right class."""
        return float(np.trace(self.counts)) / max(1, int(self.counts.sum()))

    def per_class(self) -> tuple[ClassScore, ...]:
        """Give precision, recall and F1 of every class."""
        rows = []
        for i, label in enumerate(self.labels):
            right = int(self.counts[i, i])
            wanted, said = int(self.counts[i].sum()), int(self.counts[:, i].sum())
            rows.append(
                ClassScore(
                    label,
                    right / said if said else None,
                    right / wanted if wanted else None,
                    2 * right / (wanted + said) if wanted + said else 0.0,
                    wanted,
                    said,
                )
            )
        return tuple(rows)

    def worst_confusions(self, most: int = 10) -> tuple[tuple[str, str, int], ...]:
        """Give the most frequent (right class, said class, answers) that are wrong."""
        names = (*self.labels, OTHER)
        found = [
            (names[i], names[j], int(count))
            for (i, j), count in np.ndenumerate(self.counts)
            if i != j and count
        ]
        return tuple(sorted(found, key=lambda row: (-row[2], row[0], row[1]))[:most])


def label_of(text: str, labels: Sequence[str]) -> str | None:
    """Give the class that a text names: equal to one, or the only one that occurs in it."""
    said = normalise_answer(strip_citations(text).replace("_", " "))
    plain, exact = _plain(tuple(labels))
    if said in exact:
        return exact[said]
    padded = f" {said} "
    found = [label for label, name in plain.items() if name and f" {name} " in padded]
    # "transfer fee" also holds "transfer": a class inside a longer one that occurs does not count.
    longest = [
        label
        for label in found
        if not any(label != other and f" {plain[label]} " in f" {plain[other]} " for other in found)
    ]
    return longest[0] if len(longest) == 1 else None


@lru_cache(maxsize=16)
def _plain(labels: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    plain = {label: normalise_answer(label.replace("_", " ")) for label in labels}
    return plain, {name: label for label, name in plain.items()}


def confusion(
    wanted: Sequence[str], said: Sequence[str | None], labels: Sequence[str] | None = None
) -> Confusion:
    """Count answers by right and said class; None or an unknown class goes to the last column.

    Raises:
        MetricError: if the lists differ in length or a right class is not among the labels.
    """
    names = tuple(sorted(set(wanted))) if labels is None else tuple(labels)
    index = {name: i for i, name in enumerate(names)}
    if len(wanted) != len(said):
        raise MetricError(f"{len(wanted)} right classes but {len(said)} answers")
    for label in wanted:
        if label not in index:
            raise MetricError(f"class {label!r} is not one of {', '.join(names)}")
    counts = np.zeros((len(names), len(names) + 1), dtype=np.int64)
    for right, answer in zip(wanted, said, strict=True):
        counts[index[right], index.get(answer or "", len(names))] += 1
    return Confusion(names, counts)


def macro_f1_interval(
    wanted: Sequence[str],
    said: Sequence[str | None],
    clusters: Ints,
    *,
    bootstrap: ClusterBootstrap,
    confidence: float = 0.95,
) -> Interval:
    """Give macro-F1 with a percentile bootstrap interval over clusters.

    Classes that a resample does not hold leave its mean, as they would leave a smaller sample.
    """
    draws, n_clusters = _draws(wanted, said, clusters, bootstrap)
    return _interval(confusion(wanted, said).macro_f1, draws, len(wanted), n_clusters, confidence)


def macro_f1_difference(
    wanted: Sequence[str],
    said_a: Sequence[str | None],
    said_b: Sequence[str | None],
    clusters: Ints,
    *,
    bootstrap: ClusterBootstrap,
    confidence: float = 0.95,
) -> Interval:
    """Give macro-F1 of b less that of a, on the same resamples of clusters."""
    draws_a, n_clusters = _draws(wanted, said_a, clusters, bootstrap)
    draws_b, _ = _draws(wanted, said_b, clusters, bootstrap)
    estimate = confusion(wanted, said_b).macro_f1 - confusion(wanted, said_a).macro_f1
    return _interval(estimate, draws_b - draws_a, len(wanted), n_clusters, confidence)


def _draws(
    wanted: Sequence[str], said: Sequence[str | None], clusters: Ints, bootstrap: ClusterBootstrap
) -> tuple[Floats, int]:
    names = tuple(sorted(set(wanted)))
    index = {name: i for i, name in enumerate(names)}
    group = np.unique(clusters, return_inverse=True)[1]
    n_clusters = int(group.max()) + 1
    shape = (n_clusters, len(names))
    right, have, named = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for row, truth, answer in zip(group, wanted, said, strict=True):
        have[row, index[truth]] += 1
        if answer in index:
            named[row, index[answer]] += 1
            right[row, index[truth]] += answer == truth
    counts = np.concatenate(bootstrap.counts(n_clusters)).astype(np.float64)
    hits, total = counts @ right, counts @ have
    below = total + counts @ named
    f1 = np.divide(2 * hits, below, out=np.zeros_like(hits), where=below > 0)
    present = total > 0
    means = np.where(present, f1, 0.0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    return np.asarray(means, dtype=np.float64), n_clusters


def _interval(estimate: float, draws: Floats, n: int, clusters: int, confidence: float) -> Interval:
    if clusters < 2:
        note = "one cluster: its spread is unknown, so no interval can be given"
        return Interval(estimate, None, None, n, clusters, confidence, "none", note)
    tail = (1 - confidence) / 2
    low, high = (float(q) for q in np.quantile(draws, [tail, 1 - tail]))
    return Interval(
        estimate,
        min(low, estimate),
        max(high, estimate),
        n,
        clusters,
        confidence,
        "cluster bootstrap percentile",
    )
