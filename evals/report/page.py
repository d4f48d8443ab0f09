"""The HTML report: one file, no script, nothing loaded from anywhere."""

from collections.abc import Mapping, Sequence
from typing import Any

from evals.analysis import Analysis
from evals.decision import Decision
from evals.evaluation import Evaluation
from evals.failures import ArmAnswer, Failure
from evals.report.charts import forest_plot, quality_latency_plot, rate_bars, series_class
from evals.report.line_charts import line_chart
from evals.report.stylesheet import CSS
from evals.report.tables import (
    arm_name,
    arms_table,
    constraints_table,
    differences_table,
    html_table,
    key_table,
    metrics_table,
    section_table,
    slices_table,
)
from evals.sections import Section, flatten
from evals.sentences import share
from evals.text import (
    bounds,
    escape,
    label,
    number,
    second_bounds,
    seconds,
    shorten,
)

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render_report(
    evaluation: Evaluation,
    decision: Decision,
    *,
    manifest: Mapping[str, Any] | None = None,
    extra_sections: Sequence[Section] = (),
    analysis: Analysis | None = None,
) -> str:
    """Write the report as one HTML page.

    Args:
        evaluation: what was measured.
        decision: what follows from it.
        manifest: what the run was made of (digests, settings, machine); nested values are
            flattened. `title` and `created_at` are shown at the top, `rerun` as a command.
        extra_sections: further tables, such as freshness before and after a change.
        analysis: what `analyse` found.
    """
    manifest = dict(manifest or {})
    title = str(manifest.get("title", "Evaluation report"))
    parts = [
        _hero(evaluation, decision, title, str(manifest.get("created_at", ""))),
        _flaws(analysis),
        _arms(evaluation, decision),
        _differences(evaluation, decision),
        _pictures(evaluation),
        _constraints(decision),
        *(_section(evaluation, section) for section in (analysis.sections if analysis else ())),
        _slices(evaluation),
        *(_section(evaluation, section) for section in extra_sections),
        _failures(evaluation),
        _audit(evaluation),
        _card("All metrics", metrics_table(evaluation), _method(evaluation)),
        _manifest(evaluation, decision, manifest),
    ]
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _card(title: str, body: str, note: str = "", css: str = "") -> str:
    if not body:
        return ""
    text = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<section class="card {css}"><h2>{escape(title)}</h2>{text}{body}</section>'


def _hero(evaluation: Evaluation, decision: Decision, title: str, created_at: str) -> str:
    shown = decision.choice or decision.default
    tiles = [(str(evaluation.audit.samples), f"questions, {evaluation.audit.clusters} independent")]
    if shown is not None:
        arm = evaluation.arm(shown)
        for name in (evaluation.primary, "right_citation"):
            interval = arm.metrics.get(name)
            if interval is not None and interval.estimate is not None:
                text = f"{label(name, evaluation.k)} of {shown}, {bounds(interval, 2)}"
                tiles.append((number(interval.estimate), text))
        p95 = arm.latency_p95_s
        tiles.append((seconds(p95.estimate), f"p95 latency of {shown}, {second_bounds(p95)}"))
    tiles_html = "".join(
        f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>'
        for big, small in tiles
    )
    reasons = "".join(f"<li>{escape(line)}</li>" for line in decision.reason)
    warnings = "".join(f"<li>{escape(line)}</li>" for line in decision.warnings)
    careful = f'<h3>Be careful</h3><ul class="why">{warnings}</ul>' if warnings else ""
    why_not = '<span class="pill">EXPLORATORY</span>' if decision.exploratory else ""
    return (
        f'<div class="top"><h1>{escape(title)}</h1><span class="soft">{escape(created_at)}</span>'
        f'</div><section class="card hero {decision.status}{" exploratory" if why_not else ""}">'
        f'<span class="pill {decision.status}">{decision.status}</span>{why_not}'
        f'<p class="headline">{escape(decision.headline)}</p>'
        f'<div class="tiles">{tiles_html}</div>'
        f'<h3>Why</h3><ul class="why">{reasons}</ul>{careful}</section>'
    )


def _arms(evaluation: Evaluation, decision: Decision) -> str:
    note = (
        f"Means with {share(evaluation.settings.confidence)} intervals over clusters. An answer "
        "that could not be scored enters no mean; one that failed counts as the worst. Baselines "
        "need no model and are never chosen."
    )
    return _card("Arms", arms_table(evaluation, decision.choice), note)


def _differences(evaluation: Evaluation, decision: Decision) -> str:
    primary = [pair for pair in evaluation.differences if pair.metric == evaluation.primary]
    candidates = [pair for pair in primary if not {pair.a, pair.b} & evaluation.table.baselines]
    metrics = list(dict.fromkeys(pair.metric for pair in evaluation.differences))
    body = forest_plot(candidates or primary, decision.spec.margin)
    for metric in metrics:
        table = differences_table(evaluation, metric)
        body += (
            f"<details><summary>{escape(label(metric, evaluation.k))}: all pairs in numbers"
            f"</summary>{table}</details>"
        )
    note = (
        "The same questions were put to both arms. Right of zero the first named arm is better; "
        f"inside the band, {decision.spec.margin:g} to either side, the difference does not "
        "matter. MDE is the smallest difference this many questions would probably show."
    )
    return _card(f"Differences in {label(evaluation.primary, evaluation.k)}", body, note, "long")


def _pictures(evaluation: Evaluation) -> str:
    left = _card("Quality and latency", quality_latency_plot(evaluation), _pareto(evaluation))
    metrics = (
        ("right_citation", "cites a gold source"),
        ("only_gold_citation", "cites gold and nothing else"),
        ("abstention", "abstains when there is no answer"),
        ("over_refusal", "abstains although there is one (lower is better)"),
    )
    right = _card("Citations and abstention", rate_bars(evaluation, metrics))
    return f'<div class="two">{left}{right}</div>'


def _pareto(evaluation: Evaluation) -> str:
    shares = [
        f"{arm.arm} {share(arm.pareto_share)}"
        for arm in evaluation.arms
        if arm.pareto_share is not None
    ]
    return f"On the front in resamples of the clusters: {', '.join(shares)}." if shares else ""


def _constraints(decision: Decision) -> str:
    if not decision.spec.constraints:
        return ""
    note = (
        "Pass: the bound lies within the limit and a slack of "
        f"{share(decision.spec.slack)}. Fail: the bound lies beyond the limit. Not shown: neither, "
        "with this many questions. All bounds of the decision hold together with probability "
        f"{share(1 - decision.spec.alpha)}."
    )
    rows = [
        f"<tr><td>{escape(other.change)}</td><td>{other.status}</td>"
        f"<td>{escape(other.choice or 'none')}</td></tr>"
        for other in decision.sensitivity
    ]
    table = html_table(["if", "outcome", "arm"], rows)
    more = f"<details><summary>If the rules were different</summary>{table}</details>"
    return _card("Limits", constraints_table(decision) + more, note)


def _slices(evaluation: Evaluation) -> str:
    note = (
        f"{label(evaluation.primary, evaluation.k)} by tag; exploratory. A star marks a difference "
        "from the cheapest arm with a false discovery rate below 0.05."
    )
    return _card("Slices", slices_table(evaluation), note)


def _section(evaluation: Evaluation, section: Section) -> str:
    def colour(arm: str) -> str:
        return series_class(evaluation, arm) if arm in evaluation.table.arms else "sb"

    charts = "".join(
        f"<div><h3>{escape(chart.title)}</h3>{line_chart(chart, colour)}</div>"
        for chart in section.charts
    )
    pictures = f'<div class="charts">{charts}</div>' if charts else ""
    return _card(section.title, pictures + section_table(section), section.note)


def _flaws(analysis: Analysis | None) -> str:
    if analysis is None or not analysis.flaws:
        return ""
    rows = "".join(
        f'<li><span class="pill {"fail" if flaw.severity == "error" else "open"}">'
        f"{escape(flaw.kind)}</span> {escape(flaw.sentence)}</li>"
        for flaw in analysis.flaws
    )
    worst = any(flaw.severity == "error" for flaw in analysis.flaws)
    title = "Do not trust these numbers yet" if worst else "Look at this before you decide"
    css = "INFEASIBLE" if worst else "UNDECIDED"
    return _card(title, f'<ul class="flaws">{rows}</ul>', css=f"hero {css}")


def _failures(evaluation: Evaluation) -> str:
    body = ""
    for arm in dict.fromkeys(failure.arm for failure in evaluation.failures):
        worst = [failure for failure in evaluation.failures if failure.arm == arm]
        cases = "".join(_failure(failure) for failure in worst)
        body += f'<div class="by"><h3>{arm_name(evaluation, arm)}</h3>{cases}</div>'
    note = "The worst answers of each arm beside those of the others, with what was retrieved."
    return _card("Failures", body, note, "long")


def _failure(failure: Failure) -> str:
    expected = "abstain" if failure.expected is None else " | ".join(failure.expected)
    gold = ", ".join(failure.gold) or "none"
    said = "".join(_said(answer) for answer in failure.answers)
    read: dict[tuple[str, str], None] = {}
    for answer in failure.answers:
        if answer.arm == failure.arm:
            read = dict.fromkeys((passage.id, passage.text) for passage in answer.passages)
    passages = "".join(
        f'<div class="passage{" gold" if name in failure.gold else ""}">'
        f"<code>{escape(name)}</code><p>{escape(shorten(text))}</p></div>"
        for name, text in read
    )
    heading = f"<h3>Retrieved by {escape(failure.arm)}</h3>" if passages else ""
    return (
        f"<details><summary>{number(failure.score, 2)} · "
        f'{escape(shorten(failure.question, 160))} <span class="soft">'
        f"{escape(failure.sample_id)}</span></summary>"
        f"<p>Expected: <b>{escape(shorten(expected, 400))}</b> "
        f'<span class="soft">gold: {escape(gold)}</span></p>'
        f'<div class="said">{said}</div>{heading}{passages}</details>'
    )


def _said(answer: ArmAnswer) -> str:
    text = f"error: {answer.error}" if answer.error is not None else answer.text
    flags = " · abstained" if answer.abstained else ""
    cited = f"cites {', '.join(answer.citations)}" if answer.citations else "cites nothing"
    return (
        f"<div><b>{escape(answer.arm)}</b> "
        f'<span class="soft">{number(answer.score, 2)}{flags} · {escape(cited)}</span>'
        f"<p>{escape(shorten(text, 800))}</p></div>"
    )


def _audit(evaluation: Evaluation) -> str:
    audit = evaluation.audit
    rows = [
        ("questions", str(audit.samples)),
        ("independent clusters (effective n)", str(audit.clusters)),
        ("largest cluster", f"{audit.largest_cluster} ({share(audit.largest_cluster_share)})"),
        ("answerable / unanswerable", f"{audit.answerable} / {audit.unanswerable}"),
        ("answerable without gold ids", str(audit.without_gold)),
        ("repeated questions", str(audit.repeated_questions)),
    ]
    note = "Questions that share a gold source or a declared cluster count as one cluster."
    return _card("Independence of the questions", key_table(rows), note)


def _method(evaluation: Evaluation) -> str:
    settings = evaluation.settings
    return (
        "Rates: Wilson on the effective sample size. Graded scores: BCa bootstrap of clusters, "
        f"{settings.resamples} resamples, seed {settings.seed}. Latency: order statistics."
    )


def _manifest(evaluation: Evaluation, decision: Decision, manifest: dict[str, Any]) -> str:
    manifest = dict(manifest)
    rerun = manifest.pop("rerun", "")
    again = f"<p>Run it again: <code>{escape(str(rerun))}</code></p>" if rerun else ""
    rows = [
        ("samples digest", evaluation.samples_digest),
        ("outputs digest", evaluation.outputs_digest),
        ("decision rules digest", decision.spec_digest),
        ("look", f"{decision.look} of {decision.spec.looks}"),
        *flatten(manifest),
    ]
    return _card("Manifest", again + key_table(rows), css="long")
