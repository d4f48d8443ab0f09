"""tune, distill."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.client import Api
from app.cli.loss_curve import live_curve
from app.cli.output import out, print_json
from app.cli.state import State, state_of
from app.errors import BadInput, JobFailed

_PERIOD_S = 0.5


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    app.command()(tune)
    app.command()(distill)


_START = typer.Option("--from", help="reader, none, or an adapter to start from.")
_METHOD = typer.Option(help="lora, dora, rslora, qlora, full, prefix, prompt, ia3.")
_OBJECTIVE = typer.Option(help="sft (answers), dpo (pairs), kto (ratings).")
_TRACK = typer.Option(help="Also log to tensorboard, mlflow or wandb.")
_EXPLAIN = typer.Option("--explain", help="Recommend a method and estimate time and cost.")
_PRICE = typer.Option(help="Of the training machine, for --explain.")
_LATENCY = typer.Option(help="Answer time wanted in seconds, for --explain.")
_CONFIG = typer.Option(help="Train from a recipe file (one run, or stages), without a database.")
_SWEEP = typer.Option(help='With --config: settings to try, JSON like {"r": [16, 32]}.')
_CURVE = typer.Option("--learning-curve", help="With --config: train on 25, 50 and 100 %.")


def tune(
    context: typer.Context,
    use_case: Annotated[str | None, typer.Argument(help="Use case to tune for.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Snapshot id or content hash.")] = None,
    start_from: Annotated[str, _START] = "reader",
    method: Annotated[str | None, _METHOD] = None,
    objective: Annotated[str | None, _OBJECTIVE] = None,
    rank: Annotated[int | None, typer.Option("--rank", help="LoRA rank.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--lr")] = None,
    epochs: Annotated[int | None, typer.Option()] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Training time budget.")] = None,
    track: Annotated[str | None, _TRACK] = None,
    serve: Annotated[bool, typer.Option(help="Serve with the adapter at once.")] = False,
    explain: Annotated[bool, _EXPLAIN] = False,
    price_per_hour: Annotated[float, _PRICE] = 0.0,
    latency: Annotated[float | None, _LATENCY] = None,
    config: Annotated[Path | None, _CONFIG] = None,
    sweep: Annotated[Path | None, _SWEEP] = None,
    learning_curve: Annotated[bool, _CURVE] = False,
) -> None:
    """Tune an adapter: `tandem tune USE_CASE --dataset ID`, or `tandem tune --config RECIPE`."""
    state = state_of(context)
    if config is not None:
        _tune_from_recipe(state, config, sweep, learning_curve=learning_curve)
        return
    if use_case is None or dataset is None:
        raise BadInput("give USE_CASE and --dataset, or --config with a recipe file")
    target = {"use_case": use_case, "dataset": dataset, "start_from": start_from}
    seconds = max_minutes * 60 if max_minutes else None
    if explain:
        hints = {"price_per_hour": price_per_hour, "latency_s": latency, "budget_seconds": seconds}
        _explain(state, target | {"hints": hints})
        return
    settings: dict[str, Any] = {
        "method": method,
        "objective": objective,
        "r": rank,
        "alpha": 2 * rank if rank else None,
        "learning_rate": learning_rate,
        "epochs": epochs,
        "max_seconds": seconds,
        "track": track,
    }
    given = {key: value for key, value in settings.items() if value is not None}
    _tune_in_service(state, target | {"settings": given}, serve=serve)


def _tune_in_service(state: State, body: dict[str, Any], *, serve: bool) -> None:
    use_case = body["use_case"]
    with state.api() as api:
        job = api.call("POST", "/api/v1/tuning-runs", json=body)
        result = _follow(state, api, job, f"tune {use_case}")["result"]
        if serve:
            path = f"/api/v1/use-cases/{use_case}"
            api.call("PATCH", path, json={"adapter": result["adapter"]})
    if state.json:
        print_json(result)
        return
    out.print(f"adapter {result['name']} ({result['digest'][:12]}), dev {result['dev']}")
    if estimate := result.get("estimate"):
        out.print(
            f"  foretold {estimate['seconds']:.0f} s, took {estimate['actual_seconds']:.0f} s",
            highlight=False,
        )


def distill(
    context: typer.Context,
    questions: Annotated[
        Path,
        typer.Argument(
            help='JSON lines: {"question", "passages": [{"title", "text", "document", "version"}]}.'
        ),
    ],
    to: Annotated[Path, typer.Option("--out", help="Examples file to write.")],
    url: Annotated[str, typer.Option(help="OpenAI-compatible server, as http://host:8000/v1.")],
    model: Annotated[str, typer.Option(help="The larger model's name there.")],
    key: Annotated[
        str, typer.Option(envvar="TANDEM_DISTILL_KEY", help="The server's key, if it wants one.")
    ] = "",
    max_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.")] = 256,
) -> None:
    """Write examples from a larger model's checked answers; they still need a person's approval."""
    from app.tuning_runs.distilling import ask_server, read_asked
    from tuning.distill import distill as run
    from tuning.distill import write_examples

    state = state_of(context)
    with ask_server(url, model, key, max_tokens) as generate:
        results = list(run(read_asked(questions), generate))
    kept, refused = write_examples(to, results, model=model)
    reasons = [{"question": r.asked.question, "reason": r.reason} for r in results if r.reason]
    if state.json:
        print_json({"kept": kept, "refused": refused, "out": str(to), "reasons": reasons})
        return
    out.print(f"{kept} examples kept, {refused} refused: {to}", highlight=False, soft_wrap=True)
    for refusal in reasons:
        out.print(f"  {refusal['question']}: {refusal['reason']}", highlight=False)


def _follow(state: State, api: Api, job: dict[str, Any], label: str) -> dict[str, Any]:
    """Follow a run to its end with its loss drawn as it falls."""
    seen = 0
    with live_curve(label, state.json) as add:
        while True:
            page = api.call("GET", f"/api/v1/tuning-runs/{job['run']}/events?after={seen}")
            for event in page["events"]:
                add(event)
            seen = page["next"]
            now: dict[str, Any] = api.call("GET", f"/api/v1/jobs/{job['id']}")
            if now["state"] == "succeeded":
                return now
            if now["state"] == "failed":
                raise JobFailed(str(now["error"]))
            time.sleep(_PERIOD_S)


def _explain(state: State, body: dict[str, Any]) -> None:
    with state.api() as api:
        made = api.call("POST", "/api/v1/tuning-runs/explain", json=body)
    if state.json:
        print_json(made)
        return
    settings = ", ".join(f"{key} {value}" for key, value in made["settings"].items())
    first = "" if made["train"] else "not yet; later: "
    out.print(f"{first}{made['method']}, {made['objective']}: {settings}", style="bold")
    for reason in made["reasons"]:
        out.print(f"  {reason}", highlight=False, soft_wrap=True)
    estimate = made["estimate"]
    cost = f", cost {estimate['cost']:.2f}" if estimate["cost"] else ""
    out.print(
        f"  {estimate['tokens']:,} tokens at {estimate['tokens_per_second']:.0f}/s here: about "
        f"{estimate['seconds']:.0f} s of training{cost}, "
        f"memory {estimate['memory_bytes'] / 2**30:.1f} GiB",
        highlight=False,
        soft_wrap=True,
    )
    for name, why in made["rejected"].items():
        out.print(f"  not {name}: {why}", highlight=False, soft_wrap=True, style="dim")


def _tune_from_recipe(
    state: State, recipe: Path, sweep: Path | None, *, learning_curve: bool
) -> None:
    """Train in this process; needs only the tuning package, so it runs on a bare GPU machine."""
    from tuning.adapters import AdapterManifest
    from tuning.config import TuneConfig, load_config
    from tuning.learning_curve import predict, run_curve
    from tuning.progress import Progress
    from tuning.stages import is_recipe, load_stages, run_stages
    from tuning.sweep import grid, successive_halving
    from tuning.train import tune as train

    def trained(config: TuneConfig) -> AdapterManifest:
        with live_curve(f"tune {Path(config.output).name}", state.json) as add:

            def report(event: Progress) -> None:
                add(asdict(event))

            return train(config, report)

    if is_recipe(json.loads(recipe.read_text("utf-8"))):
        made = run_stages(load_stages(recipe), trained)[-1]
        _show_trained(state, asdict(made), str(load_stages(recipe)[-1].config.output))
        return
    config = load_config(recipe)
    if sweep is not None:
        result = successive_halving(config, grid(json.loads(sweep.read_text("utf-8"))), trained)
        record = asdict(result.best) | {"trials": len(result.trials)}
        _show_record(state, record, f"best of {len(result.trials)} trials: {result.best.arm}")
    elif learning_curve:
        points = run_curve(config, trained)
        twice = predict(points, 2 * points[-1].rows)
        low, high = twice.gain_interval
        line = (
            f"{', '.join(f'{p.rows} rows {p.score:.3f}' for p in points)}; twice the rows: "
            f"{twice.gain:+.3f} ({low:+.3f} to {high:+.3f})"
        )
        record = {"points": [asdict(p) for p in points], "twice": asdict(twice)}
        _show_record(state, record | {"worth_it": twice.worth_it}, line)
    else:
        _show_trained(state, asdict(trained(config)), config.output)


def _show_trained(state: State, manifest: dict[str, Any], output: str) -> None:
    _show_record(state, manifest, f"adapter {manifest['digest'][:12]} in {output}")


def _show_record(state: State, record: dict[str, Any], line: str) -> None:
    if state.json:
        print_json(record)
    else:
        out.print(line, highlight=False, soft_wrap=True)
