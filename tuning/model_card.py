"""The card of an adapter, as Markdown and as one self-contained HTML page.

Intended use, data, training, metrics with their intervals, checks, limits, licence. Every number
comes from the manifest.
"""

import html
import re
from typing import TYPE_CHECKING, Any

from tuning.methods import how_to_serve

if TYPE_CHECKING:
    from tuning.adapters import AdapterManifest

_LIMITS = """\
- Small models misread passages: an answer may name the wrong value of several alike, or cite the
  wrong passage. Check every answer against what it cites before showing it.
- Dev scores were measured on prompts of the same form as the training rows. They say how the
  adapter does on such prompts, not how it does in your use case: evaluate it there.
- English text only.
- The adapter learns voice, format, citing and abstaining. Facts belong in the knowledge base."""

_STYLE = """\
:root { color-scheme: light dark; --line: #d5d9e0; --soft: #f5f7fa; --mark: #2f6fb3; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a4150; --soft: #1d222b; --mark: #79b0ea; }
}
body { font: 16px/1.55 system-ui, sans-serif; max-width: 56rem; margin: 2.5rem auto;
  padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block;
  overflow-x: auto; }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
th, code { background: var(--soft); }
code { overflow-wrap: anywhere; padding: 0 .2rem; }
svg { width: 100%; height: 12rem; }
svg path { fill: none; stroke: var(--mark); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
svg text { fill: currentColor; font-size: 11px; }"""

_WIDTH, _HEIGHT, _EDGE = 720, 180, 36


def render_markdown(manifest: "AdapterManifest") -> str:
    """The Markdown card of an adapter."""
    return (
        "\n\n".join(
            f"{'#' * level} {title}\n\n{text}" for level, title, text in _sections(manifest)
        )
        + "\n"
    )


def render_html(manifest: "AdapterManifest") -> str:
    """The HTML card of an adapter: no scripts, no outside resources, light and dark."""
    parts = []
    for level, title, text in _sections(manifest):
        parts.append(f"<h{level}>{html.escape(title)}</h{level}>\n{_to_html(text)}")
        if title == "Training":
            parts.append(_curve(manifest.curve))
    title = f"Adapter {manifest.digest[:12]}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _sections(manifest: "AdapterManifest") -> list[tuple[int, str, str]]:
    return [
        (1, f"Adapter {manifest.digest[:12]}", _what(manifest)),
        (
            2,
            "Intended use",
            "Answering support questions from numbered passages with a short, cited answer, or "
            "abstaining when they do not hold it. Use it with the prompt format whose digest is "
            f"`{manifest.template_digest[:12]}`; another format was not trained.\n\nServing: "
            f"{how_to_serve(manifest.method)}.",
        ),
        (2, "Data", _data(manifest)),
        (2, "Training", _training(manifest)),
        (2, "Metrics", _metrics(manifest)),
        (2, "Checks", _checks(manifest)),
        (2, "Limits", _LIMITS),
        (
            2,
            "Licence",
            "The adapter is a derivative of its base model and of its training data; the licences "
            "of both apply. Code and generated reader rows: Apache-2.0.",
        ),
    ]


def _what(manifest: "AdapterManifest") -> str:
    kind = (
        f"{manifest.method} of rank {manifest.rank} (alpha {manifest.alpha:g})"
        if manifest.rank
        else manifest.method
    )
    learnt = {"sft": "answers", "dpo": "preference pairs (DPO)", "kto": "ratings (KTO)"}
    return (
        f"{kind}, {manifest.parameters:,} parameters, on base model `{manifest.base_digest}`; "
        f"learnt from {learnt[manifest.objective]}."
    )


def _data(manifest: "AdapterManifest") -> str:
    lines = []
    if manifest.snapshot_id:
        lines.append(f"- dataset snapshot `{manifest.snapshot_id}`")
    if manifest.config.get("reader_rows"):
        lines.append(
            f"- {manifest.config['reader_rows']:,} generated reader rows per epoch: passages from "
            "hand-written templates with invented names and values"
        )
    if manifest.config.get("policyqa"):
        lines.append("- PolicyQA (MIT licence; texts from website privacy policies)")
    if manifest.start_from:
        lines.append(f"- started from adapter `{manifest.start_from}`")
    counts = ", ".join(f"{k.replace('_', ' ')} {v:,}" for k, v in sorted(manifest.counts.items()))
    lines.append(f"- drawn in total: {counts or 'not recorded'}")
    return "\n".join(lines)


def _training(manifest: "AdapterManifest") -> str:
    lines = [
        f"- {manifest.steps:,} steps, {manifest.tokens:,} tokens, {manifest.seconds:,.0f} s on "
        f"{manifest.hardware or 'unrecorded hardware'}; ended by: {manifest.stopped_by or '-'}",
        f"- seed {manifest.config.get('seed', '-')}, learning rate "
        f"{manifest.config.get('learning_rate', '-')}, epochs {manifest.config.get('epochs', '-')}",
    ]
    if manifest.estimate.get("seconds"):
        lines.append(
            f"- a probe before the run foretold {manifest.estimate['seconds']:,.0f} s; it took "
            f"{manifest.estimate['actual_seconds']:,.0f} s"
        )
    if manifest.parents:
        names = ", ".join(f"`{parent['digest']}`" for parent in manifest.parents)
        lines.append(f"- mean of the weight updates of {len(manifest.parents)} adapters: {names}")
    if manifest.compression:
        scored = " The dev scores below are those of the adapter before." if manifest.dev else ""
        lines.append(
            f"- compressed from rank {manifest.compression['from_rank']}; mean relative error of "
            f"the weight updates {manifest.compression['mean_relative_error']:.3f}.{scored}"
        )
    return "\n".join(lines)


def _metrics(manifest: "AdapterManifest") -> str:
    if not manifest.dev:
        return "No dev evaluation was run."
    names = sorted({name for entry in manifest.dev for name in entry["scores"]})
    lines = [f"| step | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for entry in manifest.dev:
        chosen = manifest.is_chosen(entry)
        cells = [_cell(entry, name, with_interval=chosen) for name in names]
        step = f"{entry['step']}{_mean_of(entry)}{' (chosen)' if chosen else ''}"
        lines.append(f"| {step} | {' | '.join(cells)} |")
    lines.append("\nIn brackets: 95 % intervals over the dev prompts of the chosen checkpoint.")
    return "\n".join(lines)


def _mean_of(entry: dict[str, Any]) -> str:
    return f", mean of the last {entry['averaged']} steps" if entry.get("averaged") else ""


def _checks(manifest: "AdapterManifest") -> str:
    if not manifest.checks:
        return "None were recorded. `tandem adapters check` makes them."
    return "\n".join(
        f"- {name}: {check.get('summary', 'recorded')}" for name, check in manifest.checks.items()
    )


def _cell(entry: dict[str, Any], name: str, *, with_interval: bool) -> str:
    text = _number(entry["scores"].get(name))
    interval = entry.get("intervals", {}).get(name)
    if with_interval and interval:
        text += f" ({interval[0]:.2f} to {interval[1]:.2f})"
    return text


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, int) else f"{value:.3f}"


def _to_html(text: str) -> str:
    """The few Markdown forms the sections use: tables, lists, paragraphs, code."""
    blocks = []
    for block in text.split("\n\n"):
        lines = block.strip("\n").split("\n")
        if lines[0].startswith("|"):
            head, body = lines[0], lines[2:]
            rows = "".join(f"<tr>{_cells(line, 'td')}</tr>" for line in body)
            blocks.append(f"<table><tr>{_cells(head, 'th')}</tr>{rows}</table>")
        elif lines[0].startswith("- "):
            items = re.split(r"\n?(?:^|(?<=\n))- ", block)[1:]
            blocks.append("<ul>" + "".join(f"<li>{_inline(i)}</li>" for i in items) + "</ul>")
        else:
            blocks.append(f"<p>{_inline(block)}</p>")
    return "\n".join(blocks)


def _cells(line: str, tag: str) -> str:
    return "".join(f"<{tag}>{_inline(c.strip())}</{tag}>" for c in line.strip("|").split("|"))


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def _curve(curve: list[dict[str, float]]) -> str:
    """The training loss by step as an SVG path."""
    if len(curve) < 2:
        return ""
    steps, losses = [c["step"] for c in curve], [c["loss"] for c in curve]
    low, high = min(losses), max(losses)
    wide, tall = _WIDTH - 2 * _EDGE, _HEIGHT - 2 * _EDGE

    def at(step: float, loss: float) -> str:
        x = _EDGE + wide * (step - steps[0]) / max(1, steps[-1] - steps[0])
        y = _EDGE + tall * (high - loss) / ((high - low) or 1)
        return f"{x:.1f} {y:.1f}"

    path = "L".join(at(s, v) for s, v in zip(steps, losses, strict=True))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Training loss from {losses[0]:.3f} to {losses[-1]:.3f}">'
        f'<path d="M{path}"/><text x="2" y="{_EDGE}">{high:.2f}</text>'
        f'<text x="2" y="{_HEIGHT - _EDGE}">{low:.2f}</text>'
        f'<text x="{_EDGE}" y="{_HEIGHT - 8}">training loss, steps {steps[0]:g} to {steps[-1]:g}'
        "</text></svg>"
    )
