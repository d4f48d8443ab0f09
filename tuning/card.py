"""The card of an adapter: intended use, data, metrics, limits and licence, in Markdown."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuning.adapters import AdapterManifest

_LIMITS = """\
- Small models misread passages: an answer may name the wrong value of several alike, or cite the
  wrong passage. Check every answer against what it cites before showing it.
- Dev scores were measured on prompts of the same form as the training rows. They say how the
  adapter does on such prompts, not how it does in your use case: evaluate it there.
- English text only.
- The adapter learns voice, format, citing and abstaining. Facts belong in the knowledge base."""


def render_card(manifest: "AdapterManifest") -> str:
    """The Markdown card of an adapter; every number comes from its manifest."""
    sections = [
        f"# Adapter {manifest.digest[:12]}",
        f"LoRA of rank {manifest.rank} (alpha {manifest.alpha:g}, {manifest.parameters:,} "
        f"parameters) on base model `{manifest.base_digest}`.",
        "## Intended use\n\nAnswering support questions from numbered passages with a short, cited "
        "answer, or abstaining when they do not hold it. Use it with the prompt format whose "
        f"digest is `{manifest.template_digest[:12]}`; another format was not trained.",
        f"## Data\n\n{_data(manifest)}",
        f"## Training\n\n{_training(manifest)}",
        f"## Metrics\n\n{_metrics(manifest)}",
        f"## Limits\n\n{_LIMITS}",
        "## Licence\n\nThe adapter is a derivative of its base model and of its training data; "
        "the licences of both apply. Code and generated reader rows: Apache-2.0.",
    ]
    return "\n\n".join(sections) + "\n"


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
    if manifest.compression:
        lines.append(
            f"- compressed from rank {manifest.compression['from_rank']}; mean relative error of "
            f"the weight updates {manifest.compression['mean_relative_error']:.3f}. The dev scores "
            "below are those of the adapter before compression."
        )
    return "\n".join(lines)


def _metrics(manifest: "AdapterManifest") -> str:
    if not manifest.dev:
        return "No dev evaluation was run."
    names = sorted({name for entry in manifest.dev for name in entry["scores"]})
    lines = [f"| step | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for entry in manifest.dev:
        chosen = " (chosen)" if entry["step"] == manifest.best_step else ""
        cells = " | ".join(_number(entry["scores"].get(name)) for name in names)
        lines.append(f"| {entry['step']}{chosen} | {cells} |")
    return "\n".join(lines)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, int) else f"{value:.3f}"
