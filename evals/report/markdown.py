"""The report as Markdown, for pull requests and chat; the same numbers, no pictures."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from evals.analysis import Analysis
from evals.decision import Decision
from evals.evaluation import Evaluation
from evals.report.manifest import manifest_rows
from evals.report.tables import HEADLINE_METRICS
from evals.sections import Section
from evals.sentences import share
from evals.statistics.intervals import Interval
from evals.text import (
    MISSING,
    bounds,
    cell,
    clean,
    has_tail,
    label,
    number,
    p_value,
    seconds,
    signed,
    signed_bounds,
)

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#&])")


def to_markdown(
    evaluation: Evaluation,
    decision: Decision,
    *,
    manifest: Mapping[str, Any] | None = None,
    extra_sections: Sequence[Section] = (),
    analysis: Analysis | None = None,
) -> str:
    """Write the report as Markdown; text from outside cannot form markup or HTML."""
    manifest = dict(manifest or {})
    blocks = [
        f"# {_safe(manifest.get('title', 'Evaluation report'))}",
        f"**{decision.status}{', exploratory' if decision.exploratory else ''}.** "
        f"{_safe(decision.headline)}",
        "\n".join(f"- {_safe(line)}" for line in decision.reason),
    ]
    if decision.warnings:
        blocks += ["## Be careful", "\n".join(f"- {_safe(line)}" for line in decision.warnings)]
    if analysis is not None and analysis.flaws:
        lines = [f"- **{_safe(flaw.kind)}**: {_safe(flaw.sentence)}" for flaw in analysis.flaws]
        blocks += ["## Look at this before you decide", "\n".join(lines)]
    blocks += ["## Arms", _arms(evaluation, decision)]
    blocks += [f"## Differences in {label(evaluation.primary, evaluation.k)}"]
    blocks += [_differences(evaluation)]
    if decision.spec.constraints:
        blocks += ["## Limits", _constraints(decision)]
    if evaluation.slices:
        blocks += ["## Slices (exploratory)", _slices(evaluation)]
    for section in (*(analysis.sections if analysis else ()), *extra_sections):
        blocks += [f"## {_safe(section.title)}"]
        blocks += [_safe(section.note)] if section.note else []
        rows = [[cell(value) for value in row] for row in section.rows]
        blocks.append(_table(section.columns, rows))
    blocks += ["## Manifest", _manifest(evaluation, decision, manifest)]
    return "\n\n".join(blocks) + "\n"


def _arms(evaluation: Evaluation, decision: Decision) -> str:
    shown = [evaluation.primary, *(m for m in HEADLINE_METRICS if m != evaluation.primary)]
    shown = [m for m in shown if any(m in arm.metrics for arm in evaluation.arms)]
    rows = []
    for arm in evaluation.arms:
        mark = " (baseline)" if arm.baseline else " (chosen)" if arm.arm == decision.choice else ""
        latency = (
            [MISSING, MISSING]
            if arm.baseline
            else [
                seconds(took.estimate) if has_tail(took, q) else MISSING
                for took, q in ((arm.latency_p50_s, 0.5), (arm.latency_p95_s, 0.95))
            ]
        )
        scores = [_interval(arm.metrics.get(metric)) for metric in shown]
        failed = f" ({arm.errors} failed)" if arm.errors else ""
        rows.append([arm.arm + mark, *scores, *latency, f"{arm.scored}{failed}"])
    heads = [label(metric, evaluation.k) for metric in shown]
    return _table(["arm", *heads, "p50", "p95", "scored"], rows)


def _differences(evaluation: Evaluation) -> str:
    rows = [
        [
            f"{pair.b} − {pair.a}",
            f"{signed(pair.difference.estimate)} ({signed_bounds(pair.difference)})",
            p_value(pair.p_holm),
            number(pair.mde),
            str(pair.difference.n),
        ]
        for pair in evaluation.differences
        if pair.metric == evaluation.primary
    ]
    return _table(["pair", "difference", "p, Holm", "MDE", "questions"], rows)


def _constraints(decision: Decision) -> str:
    rows = [
        [
            verdict.arm,
            verdict.constraint.label,
            verdict.verdict,
            MISSING if verdict.estimate is None else share(verdict.estimate),
            f"{share(verdict.low)} to {share(verdict.high)}",
        ]
        for verdict in decision.evidence.verdicts
    ]
    return _table(["arm", "limit", "verdict", "measured", "bounds"], rows)


def _slices(evaluation: Evaluation) -> str:
    rows = [
        [
            row.tag,
            row.arm,
            _interval(row.score),
            f"{row.score.n} in {row.score.clusters} groups",
            p_value(row.q),
        ]
        for row in evaluation.slices
    ]
    return _table(["tag", "arm", label(evaluation.primary, evaluation.k), "questions", "q"], rows)


def _manifest(evaluation: Evaluation, decision: Decision, manifest: dict[str, Any]) -> str:
    audit = evaluation.audit
    rows = [
        ("questions", f"{audit.samples} in {audit.clusters} independent groups"),
        *(
            (name.replace("_", " "), str(manifest[name]))
            for name in ("created_at", "rerun")
            if name in manifest
        ),
        *manifest_rows(evaluation, decision, manifest),
    ]
    return _table(["", ""], rows)


def _interval(interval: Interval | None) -> str:
    if interval is None or interval.estimate is None:
        return MISSING
    return f"{number(interval.estimate)} ({bounds(interval)})"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[_safe(value) for value in row] for row in (columns, *rows)]
    lines.insert(1, ["---"] * len(columns))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _safe(value: object) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(clean(str(value)).split()))
