"""From stored outputs to evaluation, decision and report files. Pure: no models, no database."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evals.analysis import Known, analyse
from evals.arms import COST_ORDER
from evals.canonical import digest
from evals.decision import Decision, decide
from evals.decision_spec import DecisionSpec, parse_spec
from evals.evaluation import Evaluation, evaluate
from evals.outputs import Output
from evals.regression import write_scores
from evals.report import Section, render_report, to_json, to_markdown
from evals.rules import Rejection
from evals.runner import read_outputs
from evals.samples import load_samples

CONSTANT = "constant answer"
BEST_SENTENCE = "best sentence"
BM25 = "BM25 and template"
BASELINES = (CONSTANT, BEST_SENTENCE, BM25)
MANIFEST_VERSION = 1
_OPTIONS = ("remove_gold", "hidden_twins", "repeats", "temperature", "task", "before", "costs")
RERUN = "tandem eval run --manifest manifest.json"


@dataclass(frozen=True, slots=True)
class LookAt:
    """Which look at its questions a decision is (`app.evaluations.looks`).

    Attributes:
        number: whose share of alpha it spends; `counted` may be beyond those planned.
        uses_before: evaluations that asked any of its questions before; `seen_before` of them.
        earlier: arms that earlier looks dropped.
        exploratory: why the promised error rate does not hold.
    """

    number: int = 1
    counted: int = 1
    planned: int = 1
    uses_before: int = 0
    seen_before: int = 0
    earlier: tuple[Rejection, ...] = ()
    exploratory: tuple[str, ...] = ()


def measure(
    folder: Path, payload: dict[str, Any], look: LookAt | None = None
) -> tuple[Evaluation, Decision]:
    """Score the stored outputs and apply the decision rules registered in the payload."""
    look = look or LookAt()
    samples = load_samples(folder / "samples.jsonl")
    outputs = read_outputs(folder / "outputs.jsonl")
    evaluation = evaluate(
        samples,
        outputs,
        primary=payload.get("primary", "token_f1"),
        baselines=[name for name in BASELINES if any(o.arm == name for o in outputs)],
        style=payload.get("style"),
    )
    decision = decide(
        evaluation,
        spec_for(payload, [rejection.arm for rejection in look.earlier]),
        look=look.number,
        earlier=look.earlier,
        exploratory=look.exploratory,
    )
    return evaluation, decision


def spec_for(payload: dict[str, Any], earlier: Sequence[str] = ()) -> DecisionSpec:
    """The decision rules: the payload's, over the candidate arms that were run.

    Arms of `earlier` looks keep their place although they were not run again. Arms that its order
    of cost does not name count as dearer than those it does.
    """
    given = payload.get("spec") or {}
    spec = parse_spec(given)
    ran = [*(arm["name"] for arm in payload["arms"]), *earlier]
    order = spec.cost_order if "cost_order" in given else ()
    candidates = tuple(dict.fromkeys(a for a in (*order, *COST_ORDER, "reader") if a in ran))
    return replace(spec, primary=payload.get("primary", "token_f1"), cost_order=candidates)


def write(
    folder: Path,
    payload: dict[str, Any],
    use_case: str,
    seconds: float,
    sections: list[Section] | None = None,
    *,
    known: Known | None = None,
    look: LookAt | None = None,
) -> tuple[dict[str, Any], Decision]:
    """Write report.html, report.md, result.json, scores.json and manifest.json.

    Returns:
        The JSON record of result.json, and the decision in it.
    """
    look = look or LookAt()
    evaluation, decision = measure(folder, payload, look)
    samples = load_samples(folder / "samples.jsonl")
    outputs = read_outputs(folder / "outputs.jsonl")
    analysis = analyse(evaluation, samples, outputs, known)
    manifest = {
        "title": f"Evaluation of {use_case}",
        "created_at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "rerun": RERUN,
        "use_case": use_case,
        "arms": payload["arms"],
        "adapters": dict(known.adapters) if known else {},
        "samples": payload.get("samples_name", "samples.jsonl"),
        "samples_used_before": known.earlier_uses if known else None,
        "questions_seen_before": look.seen_before,
        "look": f"{look.counted} of {look.planned} planned",
        **{name: payload[name] for name in _OPTIONS if payload.get(name)},
        "texts_sha256": texts_digest(outputs),
        "seconds": round(seconds, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **payload.get("manifest", {}),
    }
    parts: dict[str, Any] = {
        "manifest": manifest,
        "extra_sections": sections or [],
        "analysis": analysis,
    }
    record = to_json(evaluation, decision, **parts)
    _replace(folder / "report.html", render_report(evaluation, decision, **parts))
    _replace(folder / "report.md", to_markdown(evaluation, decision, **parts))
    _replace(folder / "result.json", record)
    scores = write_scores(evaluation.table, evaluation.primary, evaluation.samples_digest)
    _replace(folder / "scores.json", scores)
    _replace(folder / "manifest.json", json.dumps(rerun_manifest(payload, use_case, outputs)))
    summary: dict[str, Any] = json.loads(record)
    return summary, decision


def rerun_manifest(
    payload: dict[str, Any], use_case: str, outputs: Sequence[Output]
) -> dict[str, Any]:
    """What `tandem eval run --manifest` needs to run the same again and to compare.

    The samples lie beside it; questions whose documents were hidden carry that in their tags.
    """
    adapters = [spec["adapter"] for spec in payload["arms"] if spec["arm"] in ("tuned", "hybrid")]
    return {
        "manifest_version": MANIFEST_VERSION,
        "use_case": use_case,
        "samples": "samples.jsonl",
        "arms": [spec["name"] for spec in payload["arms"]],
        "adapter": next((name for name in adapters if name and name != "reader"), None),
        "primary": payload.get("primary", "token_f1"),
        "spec": payload.get("spec") or {},
        **{name: payload[name] for name in ("repeats", "temperature", "task") if name in payload},
        "texts_sha256": texts_digest(outputs),
    }


def texts_digest(outputs: Sequence[Output]) -> str:
    """Identity of what all arms said, word for word, whatever the timings."""
    said = sorted((o.arm, o.sample_id, o.repeat, o.text, o.abstained) for o in outputs)
    return digest(said)


def _replace(path: Path, text: str) -> None:
    scratch = path.with_name(path.name + ".part")
    with scratch.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
