"""The shapes P1 to P10 as sets of paired differences between arms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from benchmarks import worlds
from evals.errors import EvalError
from evals.metrics.freshness import compare_versions
from evals.outputs import Output
from evals.router import RouterReport, judge_router
from evals.routing import features_of
from evals.samples import Sample
from evals.scoring import ScoreTable, group_by_arm, score_table
from evals.statistics.clustered import paired_bounds
from evals.statistics.intervals import Interval, Mask

Verdict = Literal["reproduced", "not reproduced", "not measurable here"]
_ALPHA = 0.05
_FEWEST = 20  # independent groups


@dataclass(frozen=True, eq=False)
class Data:
    """One set of questions with the answers of its arms."""

    samples: tuple[Sample, ...]
    outputs: tuple[Output, ...]
    primary: str = "token_f1"

    @cached_property
    def table(self) -> ScoreTable:
        """The scores of all arms."""
        return score_table(self.samples, self.outputs)


@dataclass(frozen=True, slots=True)
class Difference:
    """How much larger the first is, in which interval, and what the shape wants of it."""

    what: str
    interval: Interval
    wanted: str
    shown: bool
    refuted: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """One published shape held against our outputs; `warn` shapes fail nothing."""

    name: str
    claim: str
    verdict: Verdict
    why: str
    differences: tuple[Difference, ...] = ()
    warn: bool = False


class NotMeasurable(Exception):
    """What is missing from the outputs."""


Folders = dict[str, Data]


def above(
    data: Data,
    high: str,
    low: str,
    *,
    metric: str | None = None,
    alpha: float = _ALPHA,
    mask: Mask | None = None,
    margin: float | None = None,
) -> Difference:
    """Is `high` shown to be above `low`? With a margin: is it shown to be less than that above?"""
    table = data.table
    for arm in (high, low):
        if arm not in table.arms:
            raise NotMeasurable(f"no outputs of {arm}; there are {', '.join(table.arms)}")
    first, second, clusters = table.paired(low, high, metric or data.primary, mask)
    if len(np.unique(clusters)) < _FEWEST:
        groups = len(np.unique(clusters))
        raise NotMeasurable(f"{groups} independent groups of questions; {_FEWEST} are the least")
    found = paired_bounds(second - first, clusters, alpha)
    lower = -1.0 if found.low is None else found.low
    upper = 1.0 if found.high is None else found.high
    what = f"{high} - {low}" + (f" in {metric}" if metric else "")
    if margin is None:
        return Difference(what, found, "above 0", lower > 0, upper <= 0)
    return Difference(what, found, f"below {margin:g}", upper < margin, lower >= margin)


def any_above(data: Data, highs: Sequence[str], low: str, **more: Any) -> Difference:
    """The best of several arms against one; alpha is shared between them."""
    present = [arm for arm in highs if arm in data.table.arms]
    if not present:
        raise NotMeasurable(f"no outputs of {' or '.join(highs)}")
    tried = [above(data, arm, low, alpha=_ALPHA / len(present), **more) for arm in present]
    best = max(tried, key=lambda d: d.interval.low if d.interval.low is not None else -1.0)
    return replace(best, refuted=all(d.refuted for d in tried))


def shape(
    name: str,
    claim: str,
    measure: Callable[[], Sequence[Difference]],
    *,
    warn: bool = False,
    note: str = "",
) -> Shape:
    """Hold a claim against its differences."""
    try:
        found = tuple(measure())
    except (NotMeasurable, EvalError) as error:
        return Shape(name, claim, "not measurable here", str(error), warn=warn)
    if all(d.shown for d in found):
        return Shape(name, claim, "reproduced", note or "every difference is shown", found, warn)
    against = [d.what for d in found if d.refuted]
    open_ = [d.what for d in found if not d.shown and not d.refuted]
    parts = [f"the opposite is shown for {', '.join(against)}"] if against else []
    parts += [f"not shown either way: {', '.join(open_)}"] if open_ else []
    return Shape(name, claim, "not reproduced", "; ".join(parts), found, warn)


def _world(work: Folders, name: str) -> Data:
    if name not in work:
        raise NotMeasurable(f"no outputs of the world {name}")
    return work[name]


def new_facts(work: Folders) -> Sequence[Difference]:
    """P1: retrieval above tuning, tuning not below the bare model."""
    data = _world(work, "new_facts")
    fall = above(data, "prompt", "tuned", margin=0.03)
    return any_above(data, ("rag", "hybrid"), "tuned"), fall


def paraphrases(work: Folders) -> Sequence[Difference]:
    """P2: weights trained on the same passages recall more than those that were not, RAG more."""
    told, untold = _world(work, "paraphrases"), _world(work, "new_facts")
    shared = {sample.id for sample in told.samples} & {sample.id for sample in untold.samples}
    if not shared:
        raise NotMeasurable("no question is in both paraphrases and new_facts")
    joined = [
        replace(output, arm=name)
        for data, name in ((told, "tuned on the passages"), (untold, "tuned on others"))
        for output in data.outputs
        if output.arm == "tuned" and output.sample_id in shared
    ]
    asked = tuple(sample for sample in told.samples if sample.id in shared)
    both = Data(asked, tuple(joined), told.primary)
    raised = above(both, "tuned on the passages", "tuned on others")
    return raised, any_above(told, ("rag", "hybrid"), "tuned")


def trained_reader(work: Folders) -> Sequence[Difference]:
    """P3: tuned without context and then shown some, below tuned with context."""
    return (above(_world(work, "reader"), "hybrid", "crossed"),)


def strict_form(work: Folders) -> Sequence[Difference]:
    """P4: tuned arms above the others where the form is strict."""
    data = _world(work, "strict_form")
    return [above(data, a, b) for a in ("tuned", "hybrid") for b in ("rag", "prompt")]


def volatile_form(work: Folders) -> Sequence[Difference]:
    """P5: only both together, where values changed and the form is strict."""
    data = _world(work, "volatile_form")
    return [above(data, "hybrid", other) for other in ("prompt", "tuned", "rag")]


def known_task(work: Folders) -> Sequence[Difference]:
    """P6: nobody is better than the bare model by the margin, where it knows the task."""
    data = _world(work, "known_task")
    margin = worlds.find_world("known_task").margin
    return [above(data, arm, "prompt", margin=margin) for arm in ("tuned", "rag", "hybrid")]


def flips(work: Folders, around: tuple[Data, Data] | None) -> Sequence[Difference]:
    """P7: after a change, arms that retrieve give the new value, weights do not."""
    if around is None:  # all values of this world changed after tuning
        data = _world(work, "volatile_form")
        return (any_above(data, ("rag", "hybrid"), "tuned", metric="value_recall"),)
    before, after = around
    made = compare_versions(before.samples, after.samples, before.outputs, after.outputs)
    found = {row.arm: row for row in made}
    if "tuned" not in found or not {"rag", "hybrid"} & found.keys():
        raise NotMeasurable("the runs around the change need tuned and one of rag and hybrid")
    if found["tuned"].flip.n == 0:
        raise NotMeasurable("no accepted answer changed between the two runs")
    old = {sample.id: sample.answers for sample in before.samples}
    changed = tuple(s for s in after.samples if s.id in old and old[s.id] != s.answers)
    names = {sample.id for sample in changed}
    kept = tuple(output for output in after.outputs if output.sample_id in names)
    data = Data(changed, kept)
    return (any_above(data, ("rag", "hybrid"), "tuned", metric="contains_answer"),)


def small_reader(work: Folders) -> Sequence[Difference]:
    """P8 (warns only): a bare model below half a billion is not better for being shown text."""
    data = _world(work, "reader")
    return (above(data, "rag", "prompt", margin=0.03),)


def refusing(work: Folders, evaluations: Sequence[Data]) -> Sequence[Difference]:
    """P10: without the gold passage the trained reader refuses, the bare one makes something up."""
    for data in evaluations:
        hidden = np.array([not s.answerable for s in sorted(data.samples, key=lambda s: s.id)])
        if hidden.any() and {"rag", "hybrid"} <= {output.arm for output in data.outputs}:
            return (above(_in_order(data), "hybrid", "rag", metric="abstention", mask=hidden),)
    for name in ("new_facts", "reader", "paraphrases"):  # where the search missed by itself
        if name not in work:
            continue
        data = _in_order(work[name])
        by_arm = group_by_arm(data.samples, data.outputs)
        if not {"rag", "hybrid"} <= by_arm.keys():
            continue
        missed = np.array([_missed(sample, by_arm["rag"]) for sample in data.samples])
        if missed.any():
            asked = tuple(replace(sample, answers=None) for sample in data.samples)
            without = replace(data, samples=asked)
            return (above(without, "hybrid", "rag", metric="abstention", mask=missed),)
    raise NotMeasurable(
        "no outputs of rag and hybrid to questions without their gold passage: give --evaluation "
        "with the folder of a run with --hidden-twins"
    )


def _in_order(data: Data) -> Data:
    return replace(data, samples=tuple(sorted(data.samples, key=lambda sample: sample.id)))


def _missed(sample: Sample, answers: dict[str, Output]) -> bool:
    output = answers.get(sample.id)
    found = output is not None and bool(output.retrieved)
    return found and bool(sample.gold) and not set(sample.gold) & set(answers[sample.id].retrieved)


def routed(work: Folders) -> tuple[RouterReport, int]:
    """One router over all questions of the worlds that have the four arms."""
    arms = ("prompt", "tuned", "rag", "hybrid")
    features, right, groups = [], [], []
    for name, data in sorted(work.items()):
        table = data.table
        if not set(arms) <= set(table.arms):
            continue
        scores = np.stack([table.values[arm][data.primary] for arm in arms], axis=1)
        kept = ~np.isnan(scores).any(axis=1)
        by_arm = group_by_arm(data.samples, data.outputs)
        features.append(features_of(data.samples, by_arm, ("rag", "hybrid"))[kept])
        right.append(scores[kept])
        groups += [f"{name}:{cluster}" for cluster in table.clusters[kept]]
    if not features:
        raise NotMeasurable("no world has outputs of all four arms")
    numbers = np.unique(np.array(groups), return_inverse=True)[1].astype(np.int64)
    report = judge_router(np.concatenate(features), np.concatenate(right), arms, numbers)
    return report, len(features)


def router_shape(work: Folders) -> Shape:
    """P9: a router lies between the best single arm and the oracle."""
    claim = "a router over all questions is above the best single arm and below the oracle"
    try:
        report, count = routed(work)
    except (NotMeasurable, EvalError) as error:
        return Shape("P9", claim, "not measurable here", str(error))
    low = -1.0 if report.gain.low is None else report.gain.low
    high = 1.0 if report.gain.high is None else report.gain.high
    gain = Difference(f"router - {report.best_arm}", report.gain, "above 0", low > 0, high <= 0)
    between = report.verdict == "deploy" and report.router_value < report.oracle_value
    why = (
        f"{count} worlds: best single arm {report.best_arm} {report.best_value:.3f}, router "
        f"{report.router_value:.3f}, oracle {report.oracle_value:.3f}. {report.sentence}"
    )
    return Shape("P9", claim, "reproduced" if between else "not reproduced", why, (gain,))


def all_shapes(
    work: Folders, evaluations: Sequence[Data] = (), around: tuple[Data, Data] | None = None
) -> list[Shape]:
    """Every shape that SCIENCE.md names, measured or with the reason why not."""
    missed = "" if evaluations else "measured where the search missed the gold passage by itself"
    return [
        shape("P1", "new facts: RAG or hybrid > tuned >= bare model", lambda: new_facts(work)),
        shape("P2", "training on the passages raises recall, never to RAG's level",
              lambda: paraphrases(work), note="two doses: none, and other questions"),
        shape("P3", "tuned without context + RAG < tuned with context + RAG",
              lambda: trained_reader(work)),
        shape("P4", "strict form: tuned and hybrid > RAG and bare model",
              lambda: strict_form(work)),
        shape("P5", "changed values in a strict form: hybrid above all",
              lambda: volatile_form(work)),
        shape("P6", "known task: no arm beats the bare model by the margin",
              lambda: known_task(work)),
        shape("P7", "after a change RAG or hybrid gives the new value, tuned does not",
              lambda: flips(work, around)),
        shape("P8", "a bare model below 500M gains nothing from context",
              lambda: small_reader(work), warn=True),
        router_shape(work),
        shape("P10", "without gold the trained reader refuses more than the bare one",
              lambda: refusing(work, evaluations), note=missed),
    ]  # fmt: skip
