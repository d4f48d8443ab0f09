"""What arms use: time, tokens, money; what repeats are worth; how fast they take up changes."""

import numpy as np

from evals.analysis.case import Case, shown
from evals.costs import arm_costs
from evals.metrics.freshness import compare_versions
from evals.outputs import Output
from evals.repeats import variance_split
from evals.scoring import LATENCY
from evals.sections import Cell, Section
from evals.statistics.intervals import Floats
from evals.statistics.quantiles import percentile_interval
from evals.text import has_tail, second_bounds, seconds

_FIRST_TOKEN = "first_token_s"
_CPU = "cpu_s"


def resource_sections(case: Case) -> tuple[Section, ...]:
    """Give time and tokens, cost, variance of repeats and freshness."""
    return (*_time(case), *_cost(case), *_variance(case), *_freshness(case))


def _time(case: Case) -> tuple[Section, ...]:
    confidence = case.evaluation.settings.confidence
    any_failed = any(_failures(case, arm) for arm in case.candidates)
    rows = []
    for arm in case.candidates:
        answers = [output for output in case.answers(arm) if output is not None]
        if not answers:
            continue
        latencies, failed = case.evaluation.table.scored(arm, LATENCY)[0], _failures(case, arm)
        busy = sum(output.latency_s for output in answers)
        first, cpu = _measured(answers, _FIRST_TOKEN), _measured(answers, _CPU)
        written = sum(output.completion_tokens for output in answers)
        rows.append(
            (
                arm,
                *(_latency(latencies, q, confidence) for q in (0.5, 0.95, 0.99)),
                *(_latency(first, q, confidence) for q in (0.5, 0.95)),
                round(sum(output.prompt_tokens for output in answers) / len(answers), 1),
                round(written / len(answers), 1),
                round(written / busy, 1) if busy > 0 else None,
                round(float(cpu.mean()), 3) if len(cpu) else None,
                failed if any_failed else None,
            )
        )
    columns: tuple[str, ...] = (
        "arm", "p50", "p95", "p99", "first token p50", "first token p95",
        "tokens in", "tokens out", "tokens out per second of waiting", "CPU s", "failed",
    )  # fmt: skip
    kept = [i for i in range(len(columns)) if any(row[i] is not None for row in rows)]
    if not rows:
        return ()
    table: tuple[tuple[Cell, ...], ...] = tuple(tuple(row[i] for i in kept) for row in rows)
    note = (
        "Arms took turns on every question, so that drift of the machine falls on all alike. "
        "Intervals by order statistics. An answer that failed counts as slower than all others. "
        "Waiting includes reading the prompt, so a short answer to a long prompt has few tokens "
        "per second. No p95 below 20 answers and no p99 below 100."
    )
    return (Section("Time and tokens", tuple(columns[i] for i in kept), table, note),)


def _failures(case: Case, arm: str) -> int:
    return sum(output.error is not None for output in case.by_arm[arm].values())


def _cost(case: Case) -> tuple[Section, ...]:
    known = case.known
    if known.rates is None:
        return ()
    outputs: dict[str, list[Output]] = {arm: [] for arm in case.candidates}
    for output in case.outputs:
        if output.arm in outputs:
            outputs[output.arm].append(output)
    costs = arm_costs(
        outputs, known.rates, fixed=known.fixed_costs, answers=known.answers_per_training
    )
    money = known.rates.currency
    rows = tuple(
        (
            cost.arm,
            f"{cost.running:.4f}",
            f"{cost.fixed:.2f}",
            f"{cost.per_1000:.4f}",
            _break_even(cost.break_even, cost.arm == cost.reference, cost.reference),
        )
        for cost in costs
    )
    columns = (
        "arm",
        f"{money} per 1,000 answers, running",
        f"{money} once (training, labels)",
        f"{money} per 1,000 answers, all in",
        "cheaper from",
    )
    note = (
        f"One-off costs are shared out over {known.answers_per_training:,} answers, until the next "
        "training. Running: machine time by latency, one answer at a time, and tokens."
    )
    return (Section("Cost", columns, rows, note),)


def _break_even(answers: int | None, reference: bool, name: str) -> str:
    if reference:
        return "reference"
    if answers is None:
        return f"never cheaper than {name}"
    return f"always, against {name}" if answers == 0 else f"{answers:,} answers, against {name}"


def _variance(case: Case) -> tuple[Section, ...]:
    if all(output.repeat == 0 for output in case.outputs):
        return ()
    rows = tuple(
        (
            split.arm,
            split.questions,
            round(split.repeats, 2),
            round(split.between, 4),
            round(split.within, 4),
            round(split.se, 4),
            f"{100 * split.worth:.1f} %",
        )
        for split in variance_split(case.samples, case.outputs, case.evaluation.primary)
    )
    columns = (
        "arm", "questions", "answers each", "variance between questions",
        "variance within a question", "standard error", "saved by one answer more",
    )  # fmt: skip
    note = "Questions were answered several times; scores are means over the answers."
    return (Section("Repeated answers", columns, rows, note),) if rows else ()


def _freshness(case: Case) -> tuple[Section, ...]:
    if case.known.earlier is None:
        return ()
    samples, outputs = case.known.earlier
    rows = tuple(
        (
            found.arm,
            found.flip.n,
            shown(found.flip),
            shown(found.stale),
            found.collateral.n,
            shown(found.collateral),
            shown(found.reworded),
        )
        for found in compare_versions(samples, case.samples, outputs, case.outputs)
    )
    columns = (
        "arm", "changed facts", "new value", "old value still",
        "untouched and right before", "lost", "reworded",
    )  # fmt: skip
    note = (
        "The same questions before and after the knowledge changed. Weights cannot know the new "
        "value; what was not touched should not move."
    )
    return (Section("Freshness", columns, rows, note),)


def _measured(answers: list[Output], name: str) -> np.ndarray:
    values = [output.meta.get(name) for output in answers]
    return np.array(
        [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    )


def _latency(values: Floats, q: float, confidence: float) -> str | None:
    interval = percentile_interval(values, q, confidence)
    if not has_tail(interval, q):
        return None
    if interval.low is None and interval.high is None:
        return seconds(interval.estimate)
    return f"{seconds(interval.estimate)} ({second_bounds(interval)})"
