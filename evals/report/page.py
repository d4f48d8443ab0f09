"""The HTML report: one file, no script, nothing loaded from anywhere."""

from collections.abc import Mapping, Sequence
from typing import Any

from evals.analysis import Analysis
from evals.decision import Decision
from evals.evaluation import Evaluation
from evals.report.charts import forest_plot, rate_bars, series_class
from evals.report.failure_cards import failure_cards
from evals.report.latency_chart import quality_latency_plot, shown_latency
from evals.report.line_charts import line_chart
from evals.report.manifest import manifest_rows
from evals.report.stylesheet import CSS
from evals.report.tables import (
    arms_table,
    bounds_table,
    constraints_table,
    differences_table,
    html_table,
    key_table,
    metrics_table,
    section_table,
    slices_table,
)
from evals.sections import Section
from evals.sentences import pair_sentence, share
from evals.statistics.intervals import FEWEST_CLUSTERS
from evals.text import (
    bounds,
    escape,
    has_tail,
    label,
    number,
    second_bounds,
    seconds,
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
        _slices(evaluation, decision),
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
        tailed = has_tail(arm.latency_p95_s, 0.95)
        took, name = (arm.latency_p95_s, "p95") if tailed else (arm.latency_p50_s, "p50")
        tiles.append((seconds(took.estimate), f"{name} latency of {shown}, {second_bounds(took)}"))
    tiles_html = "".join(
        f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>'
        for big, small in tiles
    )
    warnings = "".join(f"<li>{escape(line)}</li>" for line in decision.warnings)
    careful = f'<h3>Be careful</h3><ul class="why">{warnings}</ul>' if warnings else ""
    why_not = '<span class="pill">EXPLORATORY</span>' if decision.exploratory else ""
    return (
        f'<div class="top"><h1>{escape(title)}</h1><span class="soft">{escape(created_at)}</span>'
        f'</div><section class="card hero {decision.status}{" exploratory" if why_not else ""}">'
        f'<span class="pill {decision.status}">{decision.status}</span>{why_not}'
        f'<p class="headline">{escape(decision.headline)}</p>'
        f'<div class="tiles">{tiles_html}</div>'
        f"<h3>Why</h3>{_why(decision)}{careful}</section>"
    )


def _why(decision: Decision) -> str:
    """Give the reasons; more than two sentences about pairs become a table."""
    told = {pair_sentence(pair, decision.spec): pair for pair in decision.evidence.pairs}
    pairs = [told[line] for line in decision.reason if line in told]
    lines = [line for line in decision.reason if len(pairs) <= 2 or line not in told]
    reasons = "".join(f"<li>{escape(line)}</li>" for line in lines)
    text = f'<ul class="why">{reasons}</ul>'
    return (
        text
        if len(pairs) <= 2
        else f'{text}<div class="few">{bounds_table(pairs, decision.spec)}</div>'
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
    spec = decision.spec
    level, groups = spec.alpha, spec.min_clusters
    body = forest_plot(candidates or primary, spec.margin, level, groups)
    for metric in metrics:
        table = differences_table(evaluation, metric)
        body += (
            f"<details><summary>{escape(label(metric, evaluation.k))}: all pairs in numbers"
            f"</summary>{table}</details>"
        )
    note = (
        "The same questions were put to both arms. Right of zero the first named arm is better; "
        f"inside the band, {spec.margin:g} to either side, the difference does not matter. "
        "Lines are intervals of one pair at a time and do not decide: green or red only where "
        f"Holm's p, adjusted for all pairs of arms, is below {level:g} and there are at least "
        f"{groups} independent groups. Pairs with a baseline are adjusted by themselves. MDE is "
        "the smallest difference this many questions would probably show."
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
    if not shown_latency(evaluation)[1].startswith("p95"):
        return "Fewer than 20 answers of an arm are timed: no p95, so the median is shown."
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


def _slices(evaluation: Evaluation, decision: Decision) -> str:
    groups = max(FEWEST_CLUSTERS, decision.spec.min_clusters)
    note = (
        f"{label(evaluation.primary, evaluation.k)} by tag; exploratory. A star marks a difference "
        "from the cheapest arm with a false discovery rate below 0.05; with fewer than "
        f"{groups} independent groups nothing is tested."
    )
    return _card("Slices", slices_table(evaluation, groups), note)


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
    note = (
        "The worst answers of each arm beside those of the others, with what was retrieved. Among "
        "equal scores first what another arm got right, then different tags and groups."
    )
    return _card("Failures", failure_cards(evaluation), note, "long")


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
        f"{settings.resamples} resamples, seed {settings.seed}. Differences in fewer than 30 "
        "groups: t over groups, kept by exact sign flips. Latency: order statistics. An answer "
        "abstains if it was marked so when it was made, by the sentence that models are told to "
        "abstain with; a refusal in other words counts as an answer."
    )


def _manifest(evaluation: Evaluation, decision: Decision, manifest: Mapping[str, Any]) -> str:
    rerun = manifest.get("rerun", "")
    again = f"<p>Run it again: <code>{escape(str(rerun))}</code></p>" if rerun else ""
    rows = key_table(manifest_rows(evaluation, decision, manifest))
    return _card("Manifest", again + rows, css="long")
