"""adapters: look at them, move them through their stages, check and export them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.commands_datasets import adapters_probe
from app.cli.output import err, out, print_json, table
from app.cli.state import State, state_of
from app.errors import BadInput


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    adapters = typer.Typer(help="Adapters.", no_args_is_help=True)
    adapters.command("list")(adapters_list)
    adapters.command("show")(adapters_show)
    adapters.command("verify")(adapters_verify)
    adapters.command("card")(adapters_card)
    adapters.command("register")(adapters_register)
    adapters.command("compress")(adapters_compress)
    adapters.command("average")(adapters_average)
    adapters.command("probe")(adapters_probe)
    adapters.command("check")(adapters_check)
    adapters.command("export")(adapters_export)
    adapters.command("stage")(adapters_stage)
    adapters.command("rollback")(adapters_rollback)
    adapters.command("history")(adapters_history)
    app.add_typer(adapters, name="adapters")


def adapters_list(context: typer.Context) -> None:
    """Adapters of the workspace and the shipped reader."""
    state = state_of(context)
    with state.api() as api:
        rows = api.call("GET", "/api/v1/adapters")
    if state.json:
        print_json(rows)
        return
    shown_rows = [
        (r["id"], r["name"], r["method"], r["rank"], r["digest"][:12], r["stage"] or "shipped")
        for r in rows
    ]
    table("adapters", ["id", "name", "method", "rank", "digest", "stage"], shown_rows)


def adapters_show(context: typer.Context, adapter: str) -> None:
    """Verify an adapter and show its manifest."""
    _show_verified(state_of(context), adapter)


def adapters_verify(context: typer.Context, adapter: str) -> None:
    """Check every byte and the signature of an adapter; exit 1 on a forged signature."""
    if _show_verified(state_of(context), adapter)["signature"] == "forged":
        err.print(
            f"adapter {adapter}: its manifest was not signed with this installation's key, or "
            "changed since"
        )
        raise typer.Exit(1)


def adapters_card(
    context: typer.Context,
    adapter: str,
    html: Annotated[Path | None, typer.Option(help="Write the HTML card here.")] = None,
) -> None:
    """The adapter's card."""
    from rich.markdown import Markdown

    from tuning.adapters import AdapterManifest
    from tuning.model_card import render_html

    state = state_of(context)
    record = _fetch(state, adapter)
    if html is not None:
        html.write_text(render_html(AdapterManifest(**record["manifest"])), encoding="utf-8")
    if state.json:
        print_json({"card": record["card"], "html": str(html) if html else None})
    else:
        out.print(f"card: {html}" if html else Markdown(record["card"]))


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
    rank: Annotated[int, typer.Option(help="New rank, at most the old one.")],
    to: Annotated[Path, typer.Option("--out", help="Directory of the smaller adapter.")],
) -> None:
    """Cut an adapter to a smaller rank by singular value decomposition."""
    from tuning.compression import compress_rank

    state = state_of(context)
    made = compress_rank(source, rank, to)
    record = {"rank": made.rank, "mean_error": made.mean_error, "worst_error": made.worst_error}
    if state.json:
        print_json(record)
    else:
        out.print(f"rank {made.rank}, mean error of the updates {made.mean_error:.3f}: {to}")


def adapters_average(
    context: typer.Context,
    sources: Annotated[list[Path], typer.Argument(help="Adapter directories of one base model.")],
    to: Annotated[Path, typer.Option("--out", help="Directory of the new adapter.")],
    rank: Annotated[
        int | None, typer.Option(help="Cut to this rank; the sum of the ranks by default.")
    ] = None,
) -> None:
    """Average the weight updates of finished adapters into one; it has to be evaluated anew."""
    from tuning.soup import average_adapters

    state = state_of(context)
    made = average_adapters(sources, to, rank=rank)
    record = {
        "digest": made.manifest.digest,
        "rank": made.rank,
        "mean_error": made.mean_error,
        "worst_error": made.worst_error,
        "parents": made.manifest.parents,
    }
    if state.json:
        print_json(record)
        return
    out.print(
        f"mean of {len(sources)} adapters, rank {made.rank}, mean error of the updates "
        f"{made.mean_error:.3f}: {to}",
        highlight=False,
        soft_wrap=True,
    )


def adapters_check(
    context: typer.Context,
    adapter: Annotated[str, typer.Argument(help="Adapter directory, or one registered here.")],
    canaries: Annotated[
        Path | None,
        typer.Option(help='Planted strings, JSON lines: {"question", "secret"}.'),
    ] = None,
) -> None:
    """Check what an adapter forgot and what it should not have learnt; exit 1 on a finding."""
    from app.datasets.signing import signing_key
    from app.models.service import ModelStore
    from app.tuning_runs import reader
    from tuning.adapter_checks import check_adapter
    from tuning.adapter_signature import sign, signature_state
    from tuning.probes import Canary

    state = state_of(context)
    planted = []
    for line in canaries.read_text("utf-8").splitlines() if canaries else []:
        record = json.loads(line)
        planted.append(Canary(record["question"], record["secret"]))
    folder = _folder(state, adapter)
    base = ModelStore(state.settings).base()
    with err.status("checking") as status:
        # What ships with Tandem stays as it was shipped.
        own = folder.resolve() != reader.FOLDER.resolve()
        key = signing_key(state.settings.root)
        signature = signature_state(folder, key)
        made = check_adapter(folder, base.hf, canaries=planted, record=own, say=status.update)
        if own and signature == "signed":
            sign(folder, key)
    if state.json:
        print_json(made)
    else:
        for name, check in made.items():
            out.print(f"{name}: {check['summary']}", highlight=False, soft_wrap=True)
    if not made["forgetting"]["not_inferior"] or not made["probes"]["passed"]:
        raise typer.Exit(1)


def adapters_export(
    context: typer.Context,
    adapter: Annotated[str, typer.Argument(help="Adapter directory, or one registered here.")],
    to: Annotated[Path, typer.Option("--out", help="File, or folder for --format folder.")],
    form: Annotated[
        str, typer.Option("--format", help="lora (GGUF adapter), merged (GGUF), folder.")
    ] = "lora",
    quantise: Annotated[str, typer.Option(help="Of a merged GGUF.")] = "Q8_0",
) -> None:
    """Write an adapter for another engine and compare its answers with the original's."""
    from app.models.service import ModelStore
    from app.tuning_runs.exporting import export

    state = state_of(context)
    base = ModelStore(state.settings).base()
    folder = _folder(state, adapter)
    with err.status(f"exporting {form}"):
        made = export(folder, base, to, form=form, quantisation=quantise)
    if state.json:
        print_json(made)
        return
    out.print(f"{form}: {to}", highlight=False, soft_wrap=True)
    if check := made.get("check"):
        out.print(
            f"  {check['same']} of {check['prompts']} answers word for word as the original, "
            f"{check['same_first_word']} with the same first word",
            highlight=False,
        )


def adapters_stage(
    context: typer.Context,
    adapter: str,
    stage: Annotated[str, typer.Argument(help="candidate, staged, live or retired.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
) -> None:
    """Take an adapter to its next stage; a live one serves at once."""
    state = state_of(context)
    with state.api() as api:
        path = f"/api/v1/adapters/{adapter}/stage"
        made = api.call("POST", path, json={"stage": stage, "reason": reason})
    _show_stage(state, made)


def adapters_rollback(
    context: typer.Context,
    use_case: str,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
) -> None:
    """Serve with the adapter that was live before the live one."""
    state = state_of(context)
    with state.api() as api:
        path = f"/api/v1/use-cases/{use_case}/adapters/rollback"
        made = api.call("POST", path, json={"reason": reason})
    _show_stage(state, made)


def adapters_history(context: typer.Context, adapter: str) -> None:
    """Who moved an adapter from which stage to which, and why."""
    state = state_of(context)
    with state.api() as api:
        rows = api.call("GET", f"/api/v1/adapters/{adapter}/history")
    if state.json:
        print_json(rows)
    else:
        shown_rows = [(r["at"], r["from"], r["to"], r["by"], r["reason"]) for r in rows]
        table(f"adapter {adapter}", ["at", "from", "to", "by", "reason"], shown_rows)


def _show_verified(state: State, adapter: str) -> dict[str, Any]:
    record = _fetch(state, adapter)
    if state.json:
        print_json(record)
    else:
        keys = ("name", "digest", "path", "verified", "signature", "smoke")
        table(f"adapter {adapter}", ["what", "value"], [(key, record[key]) for key in keys])
    return record


def _show_stage(state: State, made: dict[str, Any]) -> None:
    if state.json:
        print_json(made)
    else:
        out.print(f"adapter {made['name']} is {made['stage']}", highlight=False)


def _fetch(state: State, adapter: str) -> dict[str, Any]:
    with state.api() as api:
        record: dict[str, Any] = api.call("GET", f"/api/v1/adapters/{adapter}")
    return record


def _folder(state: State, adapter: str) -> Path:
    """The adapter's directory: the argument itself, or where the service keeps it."""
    if (Path(adapter) / "manifest.json").is_file():
        return Path(adapter)
    folder = Path(str(_fetch(state, adapter)["path"]))
    if not folder.is_dir():
        raise BadInput(f"adapter {adapter!r} lies on another machine: give its directory")
    return folder
