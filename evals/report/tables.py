"""The tables of the HTML report; every text passes through `escape`."""

import re
from collections.abc import Collection, Sequence

from evals.decision import Decision
from evals.decision_spec import DecisionSpec
from evals.evaluation import ArmSummary, Evaluation
from evals.evidence import ConstraintVerdict, PairBound
from evals.metrics.score import METRICS
from evals.report.charts import series_class
from evals.sections import Cell, Section
from evals.sentences import share, verdict_sentence
from evals.statistics.intervals import Interval
from evals.text import (
    MISSING,
    bounds,
    cell,
    escape,
    has_tail,
    label,
    number,
    p_value,
    second_bounds,
    seconds,
    signed,
    signed_bounds,
)

HEADLINE_METRICS = (
    "contains_answer",
    "right_citation",
    "value_faithfulness",
    "abstention",
    "over_refusal",
)


_WITH_BOUNDS = re.compile(r"(?P<first>[−\d.,]+(?: ms| s)?) \((?P<rest>[^()]*\d[^()]*)\)$")
_NUMBER = re.compile(r"[−+]?[\d.,]+(?: %| ms| s)?$")


def html_table(
    columns: Sequence[str], rows: Sequence[str], numeric: int | Collection[int] | None = None
) -> str:
    """Assemble a table; `numeric` columns, or those from that index on, are right-aligned."""
    if numeric is None or isinstance(numeric, int):
        numeric = range(len(columns) if numeric is None else numeric, len(columns))
    heads = "".join(
        f'<th class="n">{escape(column)}</th>' if i in numeric else f"<th>{escape(column)}</th>"
        for i, column in enumerate(columns)
    )
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def two_lines(first: str, second: str) -> str:
    """Give a numeric cell with its interval below."""
    return f'<td class="n">{escape(first)}<small>{escape(second)}</small></td>'


def interval_cell(interval: Interval | None) -> str:
    """Give a numeric cell of an interval."""
    if interval is None or interval.estimate is None:
        return f'<td class="n">{MISSING}</td>'
    return two_lines(number(interval.estimate), bounds(interval))


def arm_name(evaluation: Evaluation, arm: str) -> str:
    """Give an arm's name with its colour."""
    return f'<span class="dot {series_class(evaluation, arm)}"></span>{escape(arm)}'


def arms_table(evaluation: Evaluation, chosen: str | None) -> str:
    """Give the main table: one row per arm, baselines below."""
    shown = [evaluation.primary, *(m for m in HEADLINE_METRICS if m != evaluation.primary)]
    shown = [m for m in shown if any(m in arm.metrics for arm in evaluation.arms)]
    columns = ["arm", *(label(m, evaluation.k) for m in shown), "p50", "p95", "tokens"]
    rows = [_arm_row(evaluation, arm, shown, arm.arm == chosen) for arm in evaluation.arms]
    return html_table([*columns, "scored"], rows, numeric=1)


def _arm_row(evaluation: Evaluation, arm: ArmSummary, shown: Sequence[str], chosen: bool) -> str:
    css = ' class="chosen"' if chosen else ' class="base"' if arm.baseline else ""
    kind = "<small>baseline</small>" if arm.baseline else "<small>chosen</small>" if chosen else ""
    cells = [f'<td class="arm">{arm_name(evaluation, arm.arm)}{kind}</td>']
    cells += [interval_cell(arm.metrics.get(metric)) for metric in shown]
    if arm.baseline:
        cells += [f'<td class="n">{MISSING}</td>'] * 3
    else:
        cells += [
            two_lines(seconds(t.estimate), second_bounds(t))
            if has_tail(t, q)
            else f'<td class="n">{MISSING}</td>'
            for t, q in ((arm.latency_p50_s, 0.5), (arm.latency_p95_s, 0.95))
        ]
        read, written = arm.mean_prompt_tokens, arm.mean_completion_tokens
        cells.append(two_lines(f"{number(written, 0)} out", f"{number(read, 0)} in"))
    lost = evaluation.audit.samples - arm.scored
    notes = [f"{arm.errors} failed"] if arm.errors else []
    notes += [f"{lost} unscored"] if lost else []
    cells.append(two_lines(str(arm.scored), ", ".join(notes) or "all"))
    return f"<tr{css}>{''.join(cells)}</tr>"


def differences_table(evaluation: Evaluation, metric: str) -> str:
    """Give all paired differences of one metric."""
    rows = []
    for pair in evaluation.differences:
        if pair.metric != metric:
            continue
        cells = [
            f"<td>{escape(pair.b)} − {escape(pair.a)}</td>",
            two_lines(signed(pair.difference.estimate), signed_bounds(pair.difference)),
            f'<td class="n">{p_value(pair.p)}</td>',
            f'<td class="n">{p_value(pair.p_holm)}</td>',
            f'<td class="n">{number(pair.mde)}</td>',
            f'<td class="n">{pair.b_better} / {pair.a_better}</td>',
            two_lines(str(pair.difference.n), f"{pair.difference.clusters} groups"),
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    columns = ["pair", "difference", "p", "p, Holm", "MDE", "better / worse", "questions"]
    return html_table(columns, rows, numeric=1) if rows else ""


def bounds_table(pairs: Sequence[PairBound], spec: DecisionSpec) -> str:
    """Give the bounds of a decision for pairs of arms."""
    rows = [
        f'<tr><td>{escape(pair.b)} − {escape(pair.a)}</td><td class="n">{signed(pair.estimate)}'
        f'</td><td class="n">{signed(pair.low)} to {signed(pair.high)}</td></tr>'
        for pair in pairs
    ]
    heads = [METRICS[spec.primary].label, f"bounds (margin {spec.margin:g})"]
    return html_table(["pair", *heads], rows, numeric=1)


def constraints_table(decision: Decision) -> str:
    """Give the verdict of every limit for every arm."""
    constraints = decision.spec.constraints
    rows = []
    for arm in decision.evidence.arms:
        verdicts = decision.evidence.verdicts_of(arm)
        cells = "".join(_verdict_cell(verdict, decision.spec.slack) for verdict in verdicts)
        rows.append(f"<tr><td>{escape(arm)}</td>{cells}</tr>")
    return html_table(["arm", *(constraint.label for constraint in constraints)], rows)


def _verdict_cell(verdict: ConstraintVerdict, slack: float) -> str:
    css = {"pass": "pass", "fail": "fail", "not shown": "open"}[verdict.verdict]
    sentence = escape(verdict_sentence(verdict, slack))
    numbers = (
        "nothing to judge"
        if verdict.estimate is None
        else f"{share(verdict.estimate)}, {share(verdict.low)} to {share(verdict.high)}"
    )
    return (
        f'<td title="{sentence}"><span class="pill {css}">{verdict.verdict}</span>'
        f"<small>{escape(numbers)}</small></td>"
    )


def slices_table(evaluation: Evaluation, min_clusters: int) -> str:
    """Give the primary metric by tag and arm; stars mark q below 0.05, from `min_clusters` on."""
    arms = evaluation.table.arms
    by_tag: dict[str, dict[str, str]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for row in evaluation.slices:
        groups = row.difference.clusters if row.difference else 0
        claimed = row.q is not None and row.q < 0.05 and groups >= min_clusters
        star = " *" if claimed else ""
        text = number(row.score.estimate) + star
        by_tag.setdefault(row.tag, {})[row.arm] = (
            two_lines(text, bounds(row.score)) if row.score.n else f'<td class="n">{MISSING}</td>'
        )
        size = row.score.n, row.score.clusters
        sizes[row.tag] = max(sizes.get(row.tag, (0, 0)), size)
    rows = [
        f"<tr><td>{escape(tag)}</td>{two_lines(str(sizes[tag][0]), f'{sizes[tag][1]} groups')}"
        + "".join(cells[arm] for arm in arms)
        + "</tr>"
        for tag, cells in by_tag.items()
    ]
    return html_table(["tag", "questions", *arms], rows, numeric=1) if rows else ""


def metrics_table(evaluation: Evaluation) -> str:
    """Give every metric of every arm."""
    rows = []
    for name, metric in METRICS.items():
        if not any(name in arm.metrics for arm in evaluation.arms):
            continue
        cells = "".join(interval_cell(arm.metrics.get(name)) for arm in evaluation.arms)
        arrow = "" if metric.higher_is_better else ", lower is better"
        rows.append(
            f'<tr><td class="metric">{escape(label(name, evaluation.k))}'
            f"<small>{escape(metric.about + arrow)}</small></td>{cells}</tr>"
        )
    return html_table(["metric", *evaluation.table.arms], rows, numeric=1)


def section_table(section: Section) -> str:
    """Give a caller's table; columns that hold a number are right-aligned."""
    numeric = {
        i
        for i in range(len(section.columns))
        if all(_is_number(row[i]) for row in section.rows if row[i] is not None)
    }
    rows = []
    for row in section.rows:
        heat = _heat(row) if section.heat else {}
        cells = (
            f'<td class="{"n" if i in numeric else _text_class(value)}{heat.get(i, "")}">'
            f"{_section_cell(value)}</td>"
            for i, value in enumerate(row)
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return html_table(section.columns, rows, numeric)


def _text_class(value: Cell) -> str:
    return "arm" if len(cell(value)) <= 24 else "prose"


def _is_number(value: Cell) -> bool:
    if isinstance(value, str):
        return bool(_WITH_BOUNDS.match(value) or _NUMBER.match(value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _heat(row: Sequence[Cell]) -> dict[int, str]:
    """Give a class by tenths of the row's total."""
    counts = {i: value for i, value in enumerate(row) if isinstance(value, int | float)}
    total = sum(counts.values()) or 1
    return {i: f" h{min(9, int(10 * value / total))}" for i, value in counts.items() if value}


def _section_cell(value: Cell) -> str:
    """Put the interval of `0.5 (0.4 to 0.6)` below its estimate."""
    text = cell(value)
    found = _WITH_BOUNDS.match(text)
    if found is None:
        return escape(text)
    return f"{escape(found['first'])}<small>{escape(found['rest'])}</small>"


def key_table(rows: Sequence[tuple[str, str]]) -> str:
    """Give a two-column table of keys and values."""
    body = [
        f'<tr><td>{escape(key)}</td><td class="wrap"><code>{escape(value)}</code></td></tr>'
        for key, value in rows
    ]
    return html_table(["", ""], body).replace("<thead><tr><th></th><th></th></tr></thead>", "")
