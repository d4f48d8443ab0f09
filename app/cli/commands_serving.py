"""use-case set and calibrate, answers replay, keys limits, workspaces limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli.client import Api
from app.cli.output import job_progress, out, print_json, table
from app.cli.state import State, state_of
from app.errors import BadInput
from evals.samples import Sample, load_samples

_BATCH = 5
Requests = Annotated[int | None, typer.Option("--requests-per-minute", help="0: no limit.")]
Tokens = Annotated[int | None, typer.Option("--tokens-per-minute", help="0: no limit.")]
Daily = Annotated[int | None, typer.Option("--tokens-per-day", help="0: no limit.")]
AtOnce = Annotated[int | None, typer.Option("--concurrency", help="0: no limit.")]


def register_use_case(use_case: typer.Typer) -> None:
    """Add the commands on use cases."""
    use_case.command("set")(use_case_set)
    use_case.command("calibrate")(use_case_calibrate)


def use_case_set(
    context: typer.Context,
    name: str,
    cache: Annotated[str | None, typer.Option(help="off, exact or semantic")] = None,
    cache_similarity: Annotated[float | None, typer.Option(help="Least cosine, .8 to 1.")] = None,
    cache_seconds: Annotated[int | None, typer.Option(help="How long a text is kept.")] = None,
    fallback: Annotated[
        list[str] | None, typer.Option(help="Arm to try on failure, or passage; repeat in order.")
    ] = None,
    no_fallback: Annotated[bool, typer.Option("--no-fallback", help="Fail instead.")] = False,
    abstain_below: Annotated[float | None, typer.Option(help="Least coverage, 0 to 1.")] = None,
    must_ground: Annotated[
        bool | None,
        typer.Option("--must-ground/--may-not-ground", help="Abstain on unsupported values."),
    ] = None,
    correct_citations: Annotated[
        bool | None,
        typer.Option(
            "--correct-citations/--citations-as-said", help="Mend markers that miss their passage."
        ),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Most seconds of a generation.")] = None,
    json_schema: Annotated[Path | None, typer.Option(help="Schema every answer follows.")] = None,
) -> None:
    """Change how a use case serves, from the next request on; what is not named stays."""
    given: dict[str, Any] = {
        "cache": cache,
        "cache_similarity": cache_similarity,
        "cache_seconds": cache_seconds,
        "fallback": fallback or None,
        "abstain_below": abstain_below,
        "must_ground": must_ground,
        "correct_citations": correct_citations,
        "max_answer_tokens": max_tokens,
        "timeout_s": timeout,
        "json_schema": _json_file(json_schema) if json_schema else None,
    }
    options = {key: value for key, value in given.items() if value is not None}
    if no_fallback:
        options["fallback"] = None
    state = state_of(context)
    with state.api() as api:
        made = api.call("PATCH", f"/api/v1/use-cases/{quote(name)}", json={"options": options})
    if state.json:
        print_json(made)
    else:
        table("options", ["option", "value"], list(made["options"].items()))


def use_case_calibrate(
    context: typer.Context,
    name: str,
    samples: Annotated[Path | None, typer.Option(help="Samples file to ask now.")] = None,
    evaluation: Annotated[str | None, typer.Option(help="Outputs of this evaluation.")] = None,
    rated: Annotated[bool, typer.Option("--rated", help="Answers that people rated.")] = False,
    target_error: Annotated[float, typer.Option(help="Most errors among answers given.")] = 0.1,
    confidence: Annotated[float, typer.Option(help="How sure the promise is.")] = 0.95,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Store nothing.")] = False,
) -> None:
    """Fit the coverage below which a use case abstains, and store it."""
    if (samples is not None) + (evaluation is not None) + rated != 1:
        raise BadInput("give one of --samples, --evaluation and --rated")
    state = state_of(context)
    body: dict[str, Any] = {
        "evaluation": evaluation,
        "rated": rated,
        "target_error": target_error,
        "confidence": confidence,
        "apply": not dry_run,
    }
    path = f"/api/v1/use-cases/{quote(name)}/calibration"
    with state.api() as api:
        if samples is not None:
            body["outcomes"] = _judge(api, state, path, load_samples(samples))
        fitted = api.call("POST", path, json=body)
    if state.json:
        print_json(fitted)
        return
    rows = [
        (
            f"{point['threshold']:.3f}",
            f"{point['answered']:.0%}",
            "-" if point["error"] is None else f"{point['error']:.1%}",
            f"{point['error_at_most']:.1%}",
            f"{point['refused_right']:.0%}",
        )
        for point in _some(fitted["curve"])
    ]
    columns = ["abstain below", "answered", "wrong", "at most", "right ones refused"]
    table("coverage and error", columns, rows)
    chosen = fitted["threshold"]
    shown = "no threshold" if chosen is None else f"abstain below {chosen:.3f}"
    stored = "stored" if fitted["applied"] else "not stored"
    out.print(f"{shown} ({stored}): {fitted['why']}", highlight=False)


def answers_replay(context: typer.Context, answer_id: str) -> None:
    """Generate a recorded answer again: the same text, or what has changed since."""
    state = state_of(context)
    with state.api() as api:
        replayed = api.call("POST", f"/api/v1/answers/{quote(answer_id)}/replay")
    if state.json:
        print_json(replayed)
    else:
        verdict = {True: "the same text", False: "another text", None: "cannot be generated again"}
        out.print(verdict[replayed["same"]], highlight=False)
        if replayed["same"] is False:
            out.print(f"recorded: {replayed['recorded']}\nnow: {replayed['text']}", highlight=False)
        for change in replayed["changed"]:
            shown = f"{change['part']}: {change['recorded']} -> {change['now']}"
            out.print(f"  changed {shown}", markup=False, highlight=False)
    if replayed["same"] is not True:
        raise typer.Exit(1)


def keys_limits(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="Name or id of the key.")],
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    tokens_per_day: Daily = None,
    concurrency: AtOnce = None,
) -> None:
    """Show or change what a key may ask for."""
    changes = _changes(requests_per_minute, tokens_per_minute, tokens_per_day, concurrency)
    _limit(state_of(context), f"/api/v1/keys/{quote(key)}/limits", changes)


def workspaces_limits(
    context: typer.Context,
    name: str,
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    tokens_per_day: Daily = None,
    concurrency: AtOnce = None,
) -> None:
    """Show or change what all keys of a workspace may ask for together."""
    changes = _changes(requests_per_minute, tokens_per_minute, tokens_per_day, concurrency)
    _limit(state_of(context), f"/api/v1/workspaces/{quote(name)}/limits", changes)


def _changes(
    requests: int | None, tokens: int | None, daily: int | None, at_once: int | None
) -> dict[str, int | None]:
    named = {
        "requests_per_minute": requests,
        "tokens_per_minute": tokens,
        "tokens_per_day": daily,
        "concurrency": at_once,
    }
    return {name: value or None for name, value in named.items() if value is not None}


def _limit(state: State, path: str, changes: dict[str, int | None]) -> None:
    with state.api() as api:
        told = api.call("PATCH", path, json=changes)
    if state.json:
        print_json(told)
    else:
        rows = [(name, value or "no limit") for name, value in told["limits"].items()]
        table(f"limits of {told['name']}", ["limit", "value"], rows)


def _judge(api: Api, state: State, path: str, samples: tuple[Sample, ...]) -> list[dict[str, Any]]:
    outcomes: list[dict[str, Any]] = []
    with job_progress("asking", state.json) as show:
        for start in range(0, len(samples), _BATCH):
            batch = [_sample_json(sample) for sample in samples[start : start + _BATCH]]
            outcomes += api.call("POST", f"{path}/outcomes", json={"samples": batch})
            show({"done": len(outcomes), "total": len(samples), "message": "", "state": ""})
    return outcomes


def _sample_json(sample: Sample) -> dict[str, Any]:
    return {
        "id": sample.id,
        "question": sample.question,
        "answers": None if sample.answers is None else list(sample.answers),
        "gold": list(sample.gold),
        "history": [{"role": turn.role, "content": turn.content} for turn in sample.history],
    }


def _some(curve: list[dict[str, Any]], most: int = 12) -> list[dict[str, Any]]:
    """Points evenly over the curve, the last one always."""
    step = max(1, len(curve) // most)
    return [*curve[:-1:step], *curve[-1:]]


def _json_file(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read a JSON schema from {path}: {error}") from error
