"""A gate for continuous integration: the current run against a baseline and floors, by intervals.

A gate looks at bounds, never at means: noise does not break a build, and a small sample does not
let a real loss pass unseen when it is asked to be strict.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np

from evals.canonical import jsonable
from evals.errors import EvalError
from evals.evaluation import metric_interval
from evals.metrics.score import METRICS, find_metric
from evals.scoring import LATENCY, ScoreTable
from evals.statistics.clustered import ClusterBootstrap, paired_bounds
from evals.statistics.intervals import Floats, Interval, Mask
from evals.statistics.quantiles import percentile_interval

SCORES_VERSION = 1
Outcome = Literal["pass", "fail", "not shown"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a gate and what it rests on."""

    name: str
    outcome: Outcome
    sentence: str
    interval: Interval


@dataclass(frozen=True, slots=True)
class GateResult:
    """All checks; `passed` counts "not shown" as failed only when the gate is strict."""

    arm: str
    checks: tuple[Check, ...]
    strict: bool

    @property
    def passed(self) -> bool:
        """Whether the build may go on."""
        allowed = ("pass",) if self.strict else ("pass", "not shown")
        return all(check.outcome in allowed for check in self.checks)


def write_scores(table: ScoreTable, primary: str, samples_digest: str) -> str:
    """Write all single scores of a run as JSON, for a later gate; unscored is null.

    So is the latency of a failed answer, which is infinite; `error_rate` tells that it failed.
    """
    values = {
        arm: {
            metric: [round(float(value), 6) if np.isfinite(value) else None for value in column]
            for metric, column in columns.items()
            if np.isfinite(column).any()
        }
        for arm, columns in table.values.items()
    }
    record = {
        "version": SCORES_VERSION,
        "primary": primary,
        "samples_digest": samples_digest,
        "samples": list(table.sample_ids),
        "clusters": table.clusters.tolist(),
        "arms": list(table.arms),
        "baselines": sorted(table.baselines),
        "scores": values,
    }
    return json.dumps(jsonable(record), separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class Scores:
    """The single scores of a run, as `write_scores` kept them."""

    primary: str
    table: ScoreTable


def read_scores(path: str | Path) -> Scores:
    """Read scores; a folder, or another file in it, stands for its `scores.json`.

    Raises:
        EvalError: if there are none or they cannot be read.
    """
    given = Path(path)
    file = given if given.name.endswith("scores.json") else _folder(given) / "scores.json"
    try:
        record = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise EvalError(f"cannot read scores from {file}: {error.strerror}") from error
    except ValueError as error:
        raise EvalError(f"{file} is not JSON: {error}") from error
    return Scores(*_parse(record, file))


def gate(
    baseline: Scores,
    current: Scores,
    *,
    arm: str | None = None,
    metrics: Sequence[str] = (),
    margin: float = 0.0,
    floors: Mapping[str, float] | None = None,
    strict: bool = False,
) -> GateResult:
    """Judge a run against a baseline on the samples both answered.

    A question on which only one of the runs failed counts there as the worst score, and so does
    every failure against a floor of a metric that scores all other answers.

    A regression: the whole 95 % interval of current less baseline lies on the wrong side of the
    margin; with several metrics the level is shared (Bonferroni). A floor (for metrics where
    lower is better, a ceiling) is missed when the whole interval lies beyond it.

    Args:
        baseline: scores to compare with.
        current: scores to judge.
        arm: which arm; needed if the two share more than one.
        metrics: what must not get worse; the primary metric of the current run by default.
        margin: a loss that does not matter.
        floors: metric -> least value; for rates of failure and "latency_s" (its p95) the most.
        strict: what is not shown to be kept fails as well.

    Raises:
        EvalError: if arms, metrics or samples do not fit.
    """
    if not 0 <= margin < 1:
        raise EvalError(f"margin must lie in [0, 1), got {margin}")
    name = _arm(baseline, current, arm)
    compared = tuple(metrics) or (current.primary,)
    alpha = 0.05 / len(compared)
    checks = [_regression(baseline, current, name, metric, margin, alpha) for metric in compared]
    checks += [_floor(current, name, metric, value) for metric, value in (floors or {}).items()]
    return GateResult(name, tuple(checks), strict)


def junit(result: GateResult) -> str:
    """Write the gate as JUnit XML, one test case per check."""
    failed = [check for check in result.checks if not _counts_as_passed(check, result)]
    suite = ElementTree.Element(
        "testsuite",
        name=f"tandem gate: {result.arm}",
        tests=str(len(result.checks)),
        failures=str(len(failed)),
        errors="0",
    )
    for check in result.checks:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"tandem.{result.arm}", name=check.name
        )
        if check in failed:
            ElementTree.SubElement(case, "failure", message=check.sentence).text = check.sentence
        else:
            ElementTree.SubElement(case, "system-out").text = check.sentence
    ElementTree.indent(suite)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, "unicode") + "\n"
    )


def summary(result: GateResult) -> str:
    """Write the gate as Markdown for a job summary."""
    verdict = "passed" if result.passed else "**failed**"
    rows = "\n".join(
        f"| {check.name.replace('|', ' ')} | {check.outcome} | {check.sentence.replace('|', ' ')} |"
        for check in result.checks
    )
    return f"### Gate {verdict}: {result.arm}\n\n| check | outcome | |\n|---|---|---|\n{rows}\n"


def gate_record(result: GateResult) -> dict[str, Any]:
    """Give the gate as JSON."""
    return {"passed": result.passed, **jsonable(result)}


def _counts_as_passed(check: Check, result: GateResult) -> bool:
    return check.outcome == "pass" or (check.outcome == "not shown" and not result.strict)


def _regression(
    baseline: Scores, current: Scores, arm: str, metric: str, margin: float, alpha: float
) -> Check:
    before, after = _counting_failures(baseline, current, arm, metric)
    earlier = dict(zip(baseline.table.sample_ids, before, strict=True))
    pairs = [
        (earlier[name], value, cluster)
        for name, value, cluster in zip(
            current.table.sample_ids, after, current.table.clusters, strict=True
        )
        if name in earlier and not np.isnan(earlier[name]) and not np.isnan(value)
    ]
    if not pairs:
        raise EvalError(f"no sample has a {metric} of arm {arm!r} in both runs")
    sign = 1.0 if _higher_is_better(metric) else -1.0
    gains = np.array([sign * (now - then) for then, now, _ in pairs])
    clusters = np.array([cluster for _, _, cluster in pairs], dtype=np.int64)
    reach = (-1.0, 1.0) if metric != LATENCY else (-float("inf"), float("inf"))
    found = paired_bounds(gains, clusters, alpha, support=reach)
    if found.low is not None and not np.isfinite(found.low):
        found = replace(found, low=None, high=None, note=f"{found.note}; seconds have no limit")
    low = -1.0 if found.low is None else found.low
    high = 1.0 if found.high is None else found.high
    outcome: Outcome = "fail" if high < -margin else "pass" if low > -margin else "not shown"
    if outcome == "not shown" and low <= 0 <= high and margin == 0:
        ending = "no loss is shown"
    else:
        ending = {
            "fail": "a loss",
            "pass": "no loss beyond the margin",
            "not shown": "neither a loss nor its absence is shown",
        }[outcome]
    word = "better" if gains.mean() >= 0 else "worse"
    sentence = (
        f"{_label(metric)} is {abs(float(gains.mean())):.3f} {word} than the baseline on "
        f"{len(pairs)} questions (gain {low:+.3f} to {high:+.3f}, margin {margin:g}): {ending}"
    )
    return Check(f"{metric} against the baseline", outcome, sentence, found)


def _counting_failures(
    baseline: Scores, current: Scores, arm: str, metric: str
) -> tuple[Floats, Floats]:
    """The columns of both runs; failing where the other run has a score is the worst score.

    Otherwise an arm that fails on what it used to get wrong would look better for it.
    """
    columns = _column(baseline, arm, metric).copy(), _column(current, arm, metric).copy()
    if metric == LATENCY:
        return columns
    rows = [{name: i for i, name in enumerate(run.table.sample_ids)} for run in (baseline, current)]
    scored = [~np.isnan(column) for column in columns]
    for run, other, scores in ((0, 1, baseline), (1, 0, current)):
        failed = _failed(scores, arm) & ~scored[run]
        for name, i in rows[run].items():
            if failed[i] and name in rows[other] and scored[other][rows[other][name]]:
                columns[run][i] = 0.0 if _higher_is_better(metric) else 1.0
    return columns


def _failed(scores: Scores, arm: str) -> Mask:
    """Questions on which an arm gave nothing but errors, or no answer at all."""
    errors = scores.table.values[arm].get("error_rate")
    if errors is None:
        return np.zeros(len(scores.table.sample_ids), dtype=np.bool_)
    return np.asarray(np.isnan(errors) | (errors == 1.0), dtype=np.bool_)


def _floor(current: Scores, arm: str, metric: str, value: float) -> Check:
    column = _column(current, arm, metric)
    missing, failed = np.isnan(column), _failed(current, arm)
    if metric == LATENCY:
        # Written as null: the first of several answers failed, or there is none.
        column = np.where(missing, np.inf, column)
        found = percentile_interval(column[~np.isnan(column)], 0.95)
        if found.estimate is None and found.n:
            text = f"more than 5 % of the answers of {arm} failed, so p95 latency has no value"
            return Check(f"{metric} at most {value:g}", "fail", f"{text}: missed", found)
    else:
        if not (missing & ~failed).any():  # the metric is about every question: failing is worst
            column = np.where(missing, 0.0 if _higher_is_better(metric) else 1.0, column)
        table = replace(current.table, values={arm: {metric: column}})
        found = metric_interval(table, arm, metric, ClusterBootstrap(), 0.95)
    if found.estimate is None:
        raise EvalError(f"arm {arm!r} has no {metric} to compare with {value}")
    higher = _higher_is_better(metric)
    low = 0.0 if found.low is None else found.low
    high = np.inf if found.high is None else found.high
    missed, kept_to = (high < value, low >= value) if higher else (low > value, high <= value)
    outcome: Outcome = "fail" if missed else "pass" if kept_to else "not shown"
    side = "at least" if higher else "at most"
    name = "p95 latency in s" if metric == LATENCY else _label(metric)
    ending = {"fail": "missed", "pass": "kept", "not shown": "not shown either way"}[outcome]
    sentence = (
        f"{name} must be {side} {value:g} and is {found.estimate:.3f} "
        f"({low:.3f} to {high:.3f}): {ending}"
    )
    return Check(f"{metric} {side} {value:g}", outcome, sentence, found)


def _arm(baseline: Scores, current: Scores, wanted: str | None) -> str:
    shared = [arm for arm in current.table.candidates if arm in baseline.table.arms]
    if wanted is None and len(shared) == 1:
        return shared[0]
    if wanted is None or wanted not in shared:
        named = "more than one arm is" if wanted is None and shared else f"no arm {wanted!r} is"
        raise EvalError(f"{named} in both runs; valid choices are {', '.join(shared) or 'none'}")
    return wanted


def _column(scores: Scores, arm: str, metric: str) -> Any:
    if metric != LATENCY:
        find_metric(metric)
    column = scores.table.values[arm].get(metric)
    if column is None:
        known = ", ".join(scores.table.values[arm])
        raise EvalError(f"arm {arm!r} has no scores of {metric!r}; it has {known}")
    return column


def _higher_is_better(metric: str) -> bool:
    return metric != LATENCY and METRICS[metric].higher_is_better


def _label(metric: str) -> str:
    return "mean latency in s" if metric == LATENCY else METRICS[metric].label


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _parse(record: Any, file: Path) -> tuple[str, ScoreTable]:
    try:
        if record["version"] != SCORES_VERSION:
            raise EvalError(f"{file} is of version {record['version']}, not {SCORES_VERSION}")
        names = tuple(str(name) for name in record["samples"])
        values = {
            arm: {
                metric: np.array([np.nan if v is None else v for v in column], dtype=np.float64)
                for metric, column in record["scores"][arm].items()
            }
            for arm in record["arms"]
        }
        table = ScoreTable(
            names,
            np.asarray(record["clusters"], dtype=np.int64),
            tuple(record["arms"]),
            frozenset(record["baselines"]),
            values,
        )
        lengths = {len(column) for columns in values.values() for column in columns.values()}
        if lengths - {len(names)} or len(table.clusters) != len(names):
            raise EvalError(f"{file}: columns and samples differ in length")
        return str(record["primary"]), table
    except (KeyError, TypeError, ValueError) as error:
        raise EvalError(f"{file} does not hold the scores of a run: {error}") from error
