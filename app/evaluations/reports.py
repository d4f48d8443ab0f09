"""From stored outputs to evaluation, decision and report files. Pure: no models, no database."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

from evals.arms import COST_ORDER
from evals.decision import Decision, decide
from evals.decision_spec import DecisionSpec, parse_spec
from evals.evaluation import Evaluation, evaluate
from evals.report import Section, render_report, to_json, to_markdown
from evals.runner import read_outputs
from evals.samples import load_samples

CONSTANT = "constant answer"
BEST_SENTENCE = "best sentence"
BASELINES = (CONSTANT, BEST_SENTENCE)


def measure(folder: Path, payload: dict[str, Any]) -> tuple[Evaluation, Decision]:
    """Score the stored outputs and apply the decision rules registered in the payload."""
    samples = load_samples(folder / "samples.jsonl")
    outputs = read_outputs(folder / "outputs.jsonl")
    evaluation = evaluate(
        samples,
        outputs,
        primary=payload.get("primary", "token_f1"),
        baselines=[name for name in BASELINES if any(o.arm == name for o in outputs)],
        style=payload.get("style"),
    )
    return evaluation, decide(evaluation, spec_for(payload))


def spec_for(payload: dict[str, Any]) -> DecisionSpec:
    """The decision rules: the payload's, over the candidate arms that were run."""
    spec = parse_spec(payload.get("spec") or {})
    ran = [spec["name"] for spec in payload["arms"]]
    candidates = tuple(arm for arm in COST_ORDER if arm in ran)
    if "reader" in ran:
        candidates += ("reader",)
    return replace(spec, primary=payload.get("primary", "token_f1"), cost_order=candidates)


def write(
    folder: Path,
    payload: dict[str, Any],
    use_case: str,
    seconds: float,
    sections: list[Section] | None = None,
) -> dict[str, Any]:
    """Write report.html, report.md and result.json; returns the JSON record."""
    evaluation, decision = measure(folder, payload)
    manifest = {
        "use_case": use_case,
        "arms": payload["arms"],
        "samples": payload.get("samples_name", "samples.jsonl"),
        "remove_gold": bool(payload.get("remove_gold")),
        "seconds": round(seconds, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **payload.get("manifest", {}),
    }
    extra = sections or []
    html = render_report(evaluation, decision, manifest=manifest, extra_sections=extra)
    _replace(folder / "report.html", html)
    markdown = to_markdown(evaluation, decision, manifest=manifest, extra_sections=extra)
    _replace(folder / "report.md", markdown)
    record = to_json(evaluation, decision, manifest=manifest, extra_sections=extra)
    if not isinstance(record, str):
        record = json.dumps(record, indent=1)
    _replace(folder / "result.json", record)
    summary: dict[str, Any] = json.loads(record)
    return summary


def _replace(path: Path, text: str) -> None:
    scratch = path.with_name(path.name + ".part")
    with scratch.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
