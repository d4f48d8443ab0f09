"""Mistakes in how a comparison was made, found in its own numbers.

Three mistakes turn rankings around without any score being wrong: questions counted as
independent that are not, stages of a rollout pooled although the arms were served in different
shares, and a judge that is kinder to one arm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from scipy import stats

from evals.evaluation import Evaluation
from evals.scoring import ScoreTable
from evals.sentences import share
from evals.statistics.clustered import cluster_t
from evals.statistics.intervals import Floats, Ints, cluster_influences
from evals.statistics.multiplicity import holm

Severity = Literal["error", "warning"]
Kind = Literal["pooled stages", "cluster key", "judge favours an arm", "copied questions"]

_LEVEL = 0.01  # of each check: a false alarm costs trust in the report
_WORSE = 1.15  # a standard error too small by less than this is not worth a word
_SAME = 0.005  # differences closer than this are the same for the reader


@dataclass(frozen=True, slots=True)
class Fault:
    """A mistake found. An "error" makes the ranking unusable, a "warning" its intervals."""

    kind: Kind
    severity: Severity
    sentence: str


def find_faults(
    found: Evaluation | ScoreTable,
    *,
    metric: str | None = None,
    stages: Sequence[str] | None = None,
    keys: Mapping[str, Sequence[Any]] | None = None,
    labels: Mapping[str, Floats] | None = None,
    judged: Mapping[str, Floats] | None = None,
    questions: Sequence[str] | None = None,
) -> tuple[Fault, ...]:
    """Look for every fault that the given context allows to see.

    All arrays are aligned to the rows of the score table, NaN where nothing is known.

    Args:
        found: an evaluation, or its table.
        metric: the score to look at; an evaluation's primary metric by default.
        stages: the stage of a rollout each row belongs to; rows hold the score of the arm that
            served them and NaN for the others.
        keys: other ways to group the rows (document, user, session), by name.
        labels: arm -> human label of each answer.
        judged: arm -> the judge's label of each answer.
        questions: the text of each question.

    Raises:
        ValueError: if an array does not fit the table or no metric is known.
    """
    table = found.table if isinstance(found, Evaluation) else found
    metric = metric or (found.primary if isinstance(found, Evaluation) else None)
    if metric is None:
        raise ValueError("name the metric to look at")
    rows = len(table.sample_ids)
    given = {"stages": stages, "questions": questions, **(keys or {})}
    for name, column in (*given.items(), *(labels or {}).items(), *(judged or {}).items()):
        if column is not None and len(column) != rows:
            raise ValueError(f"{name} has {len(column)} rows, the table {rows}")
    faults: list[Fault] = []
    if stages is not None:
        faults += pooled_stages(table, metric, stages)
    for name, column in (keys or {}).items():
        faults += wrong_cluster_key(table, metric, name, column)
    if labels and judged:
        faults += biased_judge(table, labels, judged)
    if questions is not None:
        faults += copied_questions(table, questions)
    return tuple(faults)


def pooled_stages(table: ScoreTable, metric: str, stages: Sequence[str]) -> list[Fault]:
    """Compare the pooled difference of every pair of arms with the one within stages.

    Within stages: differences of means, weighted by all requests of a stage. They part when the
    arms were served in different shares while the requests changed (Simpson's paradox).
    """
    numbers = np.unique(np.asarray(stages), return_inverse=True)[1]
    faults = []
    for a, b in combinations(table.candidates, 2):
        first, second = table.values[a][metric], table.values[b][metric]
        here = ~(np.isnan(first) & np.isnan(second))
        shared, weights, shares = [], [], []
        for stage in range(int(numbers.max()) + 1):
            rows = here & (numbers == stage)
            x, y = first[rows], second[rows]
            x, y = x[~np.isnan(x)], y[~np.isnan(y)]
            if len(x) and len(y):
                shared.append(float(y.mean() - x.mean()))
                weights.append(int(rows.sum()))
                shares.append(len(y) / (len(x) + len(y)))
        if len(shared) < 2 or max(shares) - min(shares) < 0.02:
            continue
        pooled = float(np.nanmean(second) - np.nanmean(first))
        within = float(np.average(shared, weights=weights))
        spread = _difference_se(first, second)
        if abs(pooled - within) <= max(_SAME, 2 * spread):
            continue
        turned = pooled * within < 0 or (min(abs(pooled), abs(within)) < spread)
        faults.append(
            Fault(
                "pooled stages",
                "error" if turned else "warning",
                f"{b} minus {a} is {pooled:+.3f} over all stages together but {within:+.3f} "
                f"within the stages: {b} served between {share(min(shares))} and "
                f"{share(max(shares))} of the requests. Only the difference within the stages "
                "compares like with like.",
            )
        )
    return faults


def wrong_cluster_key(table: ScoreTable, metric: str, name: str, key: Sequence[Any]) -> list[Fault]:
    """Ask whether questions with the same key are more alike than the table's clusters allow.

    One-way analysis of variance of paired differences (or of scores, with one arm) between the
    groups of the key, on the means of the table's own clusters; and how much wider the standard
    error under the key is.
    """
    groups = np.unique(np.asarray([str(value) for value in key]), return_inverse=True)[1]
    pairs = list(combinations(table.candidates, 2)) or [(arm, arm) for arm in table.candidates]
    worst: tuple[float, float, str] | None = None
    for a, b in pairs:
        first, second = table.values[a][metric], table.values[b][metric]
        values = first if a == b else second - first
        kept = ~np.isnan(values)
        if kept.sum() < 20:
            continue
        ratio = _se_ratio(values[kept], table.clusters[kept], groups[kept])
        p = _between_groups(values[kept], table.clusters[kept], groups[kept]) * len(pairs)
        if ratio > _WORSE and p < _LEVEL and (worst is None or ratio > worst[0]):
            worst = (ratio, p, a if a == b else f"{b} minus {a}")
    if worst is None:
        return []
    return [
        Fault(
            "cluster key",
            "error" if worst[0] > 1.5 else "warning",
            f"Questions of the same {name} are answered alike, but they are counted as "
            f"independent: with {name} as the group, the uncertainty of {worst[2]} is "
            f"{worst[0]:.1f} times as large. Put {name} into the field `cluster` of the samples.",
        )
    ]


def biased_judge(
    table: ScoreTable, labels: Mapping[str, Floats], judged: Mapping[str, Floats]
) -> list[Fault]:
    """Compare how far the judge is off for each arm, on the answers that people labelled too."""
    arms = [arm for arm in table.candidates if arm in labels and arm in judged]
    found = []
    for a, b in combinations(arms, 2):
        off = (judged[b] - labels[b]) - (judged[a] - labels[a])
        kept = ~np.isnan(off)
        if kept.sum() < 20:
            continue
        interval = cluster_t(off[kept], table.clusters[kept], support=(-2.0, 2.0))
        influences = cluster_influences(off[kept], table.clusters[kept])
        spread = float(influences.std(ddof=1)) / len(influences) ** 0.5
        bias = interval.estimate or 0.0
        z = abs(bias) / spread if spread > 0 else (0.0 if bias == 0 else np.inf)
        p = float(2 * stats.t.sf(z, max(1, len(influences) - 1)))
        human = float(np.nanmean(labels[b] - labels[a]))
        seen = float(np.nanmean(judged[b] - judged[a]))
        found.append((a, b, bias, p, human, seen, int(kept.sum())))
    adjusted = holm([row[3] for row in found])
    faults = []
    for (a, b, bias, _, human, seen, n), p in zip(found, adjusted, strict=True):
        if p >= _LEVEL:
            continue
        kind_to = b if bias > 0 else a
        faults.append(
            Fault(
                "judge favours an arm",
                "error" if human * seen <= 0 else "warning",
                f"The judge is kinder to {kind_to}: on {n} answers that people labelled too, it "
                f"sees {b} minus {a} as {seen:+.3f}, people as {human:+.3f}. Use the judge only "
                "corrected by human labels.",
            )
        )
    return faults


def copied_questions(table: ScoreTable, questions: Sequence[str]) -> list[Fault]:
    """Find equal questions that are counted as independent."""
    plain = ["".join(c for c in text.lower() if c.isalnum()) for text in questions]
    groups: dict[str, set[int]] = {}
    for text, cluster in zip(plain, table.clusters.tolist(), strict=True):
        groups.setdefault(text, set()).add(cluster)
    extra = sum(len(clusters) - 1 for clusters in groups.values())
    if extra == 0:
        return []
    part = extra / len(np.unique(table.clusters))
    return [
        Fault(
            "copied questions",
            "error" if part > 0.1 else "warning",
            f"{extra} questions are copies of others but are counted as independent "
            f"({share(part)} of the groups). Remove them or give copies the same `cluster`.",
        )
    ]


def _difference_se(first: Floats, second: Floats) -> float:
    x, y = first[~np.isnan(first)], second[~np.isnan(second)]
    return float((x.var() / len(x) + y.var() / len(y)) ** 0.5)


def _se_ratio(values: Floats, clusters: Ints, groups: Ints) -> float:
    """Standard error with the key joined to the clusters over the one with the clusters alone."""
    own = _standard_error(values, clusters)
    return _standard_error(values, groups) / own if own > 0 else 1.0


def _standard_error(values: Floats, clusters: Ints) -> float:
    influences = cluster_influences(values, clusters)
    return float(influences.std(ddof=1)) / len(influences) ** 0.5 if len(influences) > 1 else 0.0


def _between_groups(values: Floats, clusters: Ints, groups: Ints) -> float:
    """P of the hypothesis that the table's clusters do not differ between groups of the key."""
    index = np.unique(clusters, return_inverse=True)[1]
    count = np.bincount(index)
    means = np.bincount(index, weights=values) / count
    of_group = np.zeros(len(count), dtype=np.int64)
    of_group[index] = groups
    sizes = np.bincount(of_group)
    members, sizes = np.unique(of_group, return_inverse=True)[1], sizes[sizes > 0]
    k, n = len(sizes), len(means)
    if k < 2 or n - k < 2:
        return 1.0
    centre = np.bincount(members, weights=means) / sizes
    between = float((sizes * (centre - means.mean()) ** 2).sum()) / (k - 1)
    within = float(((means - centre[members]) ** 2).sum()) / (n - k)
    return float(stats.f.sf(between / within, k - 1, n - k)) if within > 0 else float(between == 0)
