"""dataset, tune, adapters, eval, decide, decisions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.output import out, print_json, table
from app.cli.state import State, state_of
from app.errors import BadInput


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    dataset = typer.Typer(help="Sealed dataset snapshots.", no_args_is_help=True)
    dataset.command("build")(dataset_build)
    dataset.command("show")(dataset_show)
    dataset.command("verify")(dataset_show)
    app.add_typer(dataset, name="dataset")
    app.command()(tune)
    adapters = typer.Typer(help="Adapters.", no_args_is_help=True)
    adapters.command("list")(adapters_list)
    adapters.command("show")(adapters_show)
    adapters.command("verify")(adapters_show)
    adapters.command("card")(adapters_card)
    adapters.command("register")(adapters_register)
    adapters.command("compress")(adapters_compress)
    app.add_typer(adapters, name="adapters")
    evaluation = typer.Typer(help="Compare the arms.", no_args_is_help=True)
    evaluation.command("run")(eval_run)
    evaluation.command("list")(eval_list)
    app.add_typer(evaluation, name="eval")
    app.command()(decide)
    decisions = typer.Typer(help="Decisions and their evidence.", no_args_is_help=True)
    decisions.command("list")(decisions_list)
    decisions.command("show")(decisions_show)
    decisions.command("why")(decisions_why)
    decisions.command("replay")(decisions_replay)
    app.add_typer(decisions, name="decisions")


def dataset_build(
    context: typer.Context,
    use_case: str,
    from_file: Annotated[
        Path | None, typer.Option("--from", help="Import examples from this JSONL file first.")
    ] = None,
    dev: Annotated[float, typer.Option(help="Share of components for dev.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of components for test.")] = 0.1,
) -> None:
    """Seal the approved examples of a use case into a snapshot."""
    state = state_of(context)
    body = {
        "use_case": use_case,
        "from_file": str(from_file.resolve()) if from_file else None,
        "dev": dev,
        "test": test,
    }
    with state.api() as api:
        made = api.call("POST", "/api/v1/datasets", json=body)
    _show_dataset(state, made)


def dataset_show(context: typer.Context, dataset: str) -> None:
    """Check every byte of a snapshot and show what is in it."""
    state = state_of(context)
    with state.api() as api:
        made = api.call("GET", f"/api/v1/datasets/{dataset}")
    _show_dataset(state, made)


def tune(
    context: typer.Context,
    use_case: Annotated[str | None, typer.Argument(help="Use case to tune for.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Snapshot id or content hash.")] = None,
    start_from: Annotated[
        str, typer.Option("--from", help="reader, none, or an adapter to start from.")
    ] = "reader",
    rank: Annotated[int | None, typer.Option("--rank", help="LoRA rank.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--lr")] = None,
    epochs: Annotated[int | None, typer.Option()] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Training time budget.")] = None,
    serve: Annotated[bool, typer.Option(help="Serve with the adapter at once.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="Train from a recipe file, without a database.")
    ] = None,
) -> None:
    """Tune an adapter: `tandem tune USE_CASE --dataset ID`, or `tandem tune --config RECIPE`."""
    state = state_of(context)
    if config is not None:
        _tune_from_recipe(state, config)
        return
    if use_case is None or dataset is None:
        raise BadInput("give USE_CASE and --dataset, or --config with a recipe file")
    settings: dict[str, Any] = {
        "r": rank,
        "alpha": 2 * rank if rank else None,
        "learning_rate": learning_rate,
        "epochs": epochs,
        "max_seconds": max_minutes * 60 if max_minutes else None,
    }
    body = {
        "use_case": use_case,
        "dataset": dataset,
        "start_from": start_from,
        "settings": {key: value for key, value in settings.items() if value is not None},
    }
    with state.api() as api:
        job = api.call("POST", "/api/v1/tuning-runs", json=body)
        result = state.run_job(api, job, f"tune {use_case}")["result"]
        if serve:
            path = f"/api/v1/use-cases/{use_case}"
            api.call("PATCH", path, json={"adapter": result["adapter"]})
    if state.json:
        print_json(result)
    else:
        out.print(f"adapter {result['name']} ({result['digest'][:12]}), dev {result['dev']}")


def _tune_from_recipe(state: State, recipe: Path) -> None:
    """Train in this process; needs only the tuning package, so it runs on a bare GPU machine."""
    from dataclasses import asdict

    from app.cli.output import job_progress
    from app.tuning_runs.shown import shown
    from tuning.config import load_config
    from tuning.progress import Progress
    from tuning.train import tune as train

    loaded = load_config(recipe)
    with job_progress(f"tune {recipe.stem}", state.json) as show:

        def report(event: Progress) -> None:
            done, total, message = shown(asdict(event))
            show({"done": done, "total": total, "message": message, "state": "running"})

        manifest = train(loaded, report)
    if state.json:
        print_json(asdict(manifest))
    else:
        out.print(f"adapter {manifest.digest[:12]} in {loaded.output}", highlight=False)


def adapters_list(context: typer.Context) -> None:
    """Adapters of the workspace and the shipped reader."""
    state = state_of(context)
    with state.api() as api:
        rows = api.call("GET", "/api/v1/adapters")
    if state.json:
        print_json(rows)
        return
    shown_rows = [
        (r["id"], r["name"], r["rank"], r["digest"][:12], "shipped" if r["shipped"] else "")
        for r in rows
    ]
    table("adapters", ["id", "name", "rank", "digest", ""], shown_rows)


def adapters_show(context: typer.Context, adapter: str) -> None:
    """Verify an adapter and show its manifest."""
    state = state_of(context)
    with state.api() as api:
        record = api.call("GET", f"/api/v1/adapters/{adapter}")
    if state.json:
        print_json(record)
        return
    keys = ("name", "digest", "path", "verified", "smoke")
    table(f"adapter {adapter}", ["what", "value"], [(key, record[key]) for key in keys])


def adapters_card(context: typer.Context, adapter: str) -> None:
    """The adapter's card."""
    from rich.markdown import Markdown

    state = state_of(context)
    with state.api() as api:
        record = api.call("GET", f"/api/v1/adapters/{adapter}")
    if state.json:
        print_json({"card": record["card"]})
    else:
        out.print(Markdown(record["card"]))


def adapters_register(
    context: typer.Context,
    use_case: str,
    path: Annotated[Path, typer.Argument(help="Adapter directory trained elsewhere.")],
    name: Annotated[str | None, typer.Option(help="Name to list it under.")] = None,
) -> None:
    """Verify, probe and register an adapter that was trained on another machine."""
    state = state_of(context)
    body = {"use_case": use_case, "path": str(path.resolve()), "name": name}
    with state.api() as api:
        made = api.call("POST", "/api/v1/adapters", json=body)
    if state.json:
        print_json(made)
    else:
        out.print(f"adapter {made['name']} ({made['digest'][:12]}) registered", highlight=False)


def adapters_compress(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="Adapter directory.")],
    rank: Annotated[int, typer.Option("--rank", help="Rank to cut to.")],
    to: Annotated[Path, typer.Option("--out", help="Directory of the smaller adapter.")],
) -> None:
    """Cut an adapter to a smaller rank by singular value decomposition."""
    from tuning.adapters import compress_rank

    state = state_of(context)
    made = compress_rank(source, rank, to)
    record = {"rank": made.rank, "mean_error": made.mean_error, "worst_error": made.worst_error}
    if state.json:
        print_json(record)
    else:
        out.print(f"rank {made.rank}, mean error of the updates {made.mean_error:.3f}: {to}")


def eval_run(
    context: typer.Context,
    use_case: str,
    samples: Annotated[Path, typer.Option(help="Samples, JSON lines.")],
    arms: Annotated[
        str, typer.Option(help="Of prompt, rag, tuned, hybrid, reader.")
    ] = "prompt,rag,tuned,hybrid",
    adapter: Annotated[str | None, typer.Option(help="Adapter of tuned and hybrid.")] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Copy report and results here.")
    ] = None,
    remove_gold: Annotated[
        bool, typer.Option("--remove-gold", help="Hide the supporting documents from retrieval.")
    ] = False,
    primary: Annotated[str, typer.Option(help="The metric the decision is about.")] = "token_f1",
) -> None:
    """Compare arms on the same samples and write the report."""
    state = state_of(context)
    body = {
        "use_case": use_case,
        "samples": str(samples.resolve()),
        "arms": [arm.strip() for arm in arms.split(",") if arm.strip()],
        "adapter": adapter,
        "remove_gold": remove_gold,
        "primary": primary,
    }
    with state.api() as api:
        job = api.call("POST", "/api/v1/evaluations", json=body)
        result = state.run_job(api, job, f"evaluate {use_case}")["result"]
    folder = Path(result["path"])
    if out_dir is not None:
        out_dir.mkdir(parents=True, exist_ok=True)
        for name in ("report.html", "report.md", "result.json"):
            shutil.copyfile(folder / name, out_dir / name)
        folder = out_dir
    if state.json:
        print_json(result | {"report": str(folder / "report.html")})
    else:
        out.print((folder / "report.md").read_text("utf-8"), markup=False, highlight=False)
        out.print(f"report: {folder / 'report.html'}", highlight=False, soft_wrap=True)


def eval_list(context: typer.Context) -> None:
    """Evaluations, newest first."""
    state = state_of(context)
    with state.api() as api:
        rows = api.call("GET", "/api/v1/evaluations")
    if state.json:
        print_json(rows)
    else:
        shown_rows = [(r["id"], ", ".join(r["arms"]), r["path"]) for r in rows]
        table("evaluations", ["id", "arms", "path"], shown_rows)


def decide(
    context: typer.Context,
    use_case: str,
    evaluation: Annotated[str | None, typer.Option(help="Default: the newest.")] = None,
    apply: Annotated[bool, typer.Option(help="Serve with a winner at once.")] = True,
) -> None:
    """Decide which arm serves, from the newest evaluation."""
    state = state_of(context)
    body = {"use_case": use_case, "evaluation": evaluation, "apply": apply}
    with state.api() as api:
        made = api.call("POST", "/api/v1/decisions", json=body)
    _show_decision(state, made)


def decisions_list(context: typer.Context) -> None:
    """Decisions, newest first."""
    state = state_of(context)
    with state.api() as api:
        rows = api.call("GET", "/api/v1/decisions")
    if state.json:
        print_json(rows)
    else:
        shown_rows = [(r["id"], r["status"], r["arm"], r["created_at"]) for r in rows]
        table("decisions", ["id", "status", "arm", "made"], shown_rows)


def decisions_show(context: typer.Context, decision: str) -> None:
    """A decision with its whole record."""
    state = state_of(context)
    with state.api() as api:
        print_json(api.call("GET", f"/api/v1/decisions/{decision}"))


def decisions_why(context: typer.Context, decision: str) -> None:
    """The reasons of a decision in plain sentences."""
    state = state_of(context)
    with state.api() as api:
        _show_decision(state, api.call("GET", f"/api/v1/decisions/{decision}"))


def decisions_replay(context: typer.Context, decision: str) -> None:
    """Make a decision again from the stored outputs and compare it bit for bit."""
    state = state_of(context)
    with state.api() as api:
        made = api.call("POST", f"/api/v1/decisions/{decision}/replay")
    if state.json:
        print_json(made)
    else:
        same = "identical" if made["identical"] else "; ".join(made["differences"])
        out.print(f"replay: {same}", highlight=False)
    if not made["identical"]:
        raise typer.Exit(1)


def _show_decision(state: State, made: dict[str, Any]) -> None:
    if state.json:
        print_json(made)
        return
    record = made["record"]
    out.print(f"{made['status']}: {record['headline']}", style="bold", highlight=False)
    reason = record["reason"]
    for line in reason if isinstance(reason, list) else [reason]:
        out.print(f"  {line}", markup=False, highlight=False)
    out.print(f"  decision {made['id']}", style="dim")


def _show_dataset(state: State, made: dict[str, Any]) -> None:
    if state.json:
        print_json(made)
        return
    rows = [
        (split, *(f"{kind} {n}" for kind, n in kinds.items()))
        for split, kinds in made["splits"].items()
    ]
    out.print(f"dataset {made['content_sha256'][:16]}: {made['rows']} rows, every byte verified")
    for row in rows:
        out.print("  " + ", ".join(row), highlight=False)
    imported = made.get("imported")
    if imported:
        out.print(f"  imported {imported['added']}, known already {imported['known_already']}")
        for refused in imported["refused"]:
            out.print(f"  refused line {refused['line']}: {refused['reason']}", markup=False)
    for refused in made["provenance"].get("refused", []):
        out.print(f"  left out: {refused['reason']}", markup=False)
