"""dataset, tickets, and the recall probe of adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.output import out, print_json, table
from app.cli.state import State, state_of

_LISTED = 20


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    dataset = typer.Typer(help="Sealed dataset snapshots.", no_args_is_help=True)
    dataset.command("import")(dataset_import)
    dataset.command("build")(dataset_build)
    dataset.command("list")(dataset_list)
    dataset.command("show")(dataset_show)
    dataset.command("verify")(dataset_show)
    dataset.command("card")(dataset_card)
    dataset.command("diff")(dataset_diff)
    dataset.command("agreement")(dataset_agreement)
    app.add_typer(dataset, name="dataset")
    tickets = typer.Typer(help="What corrections ask of the knowledge base.", no_args_is_help=True)
    tickets.command("list")(tickets_list)
    tickets.command("close")(tickets_close)
    app.add_typer(tickets, name="tickets")


def dataset_import(
    context: typer.Context,
    use_case: str,
    file: Annotated[Path, typer.Argument(help="JSONL, CSV, TSV, chat log (JSON), FAQ (MD, HTML).")],
    consent: Annotated[
        str | None,
        typer.Option(
            help="Right to train: internal, customer, public, synthetic, distilled, none."
        ),
    ] = None,
) -> None:
    """Take examples from a file; what is not taken is listed with its reason."""
    state = state_of(context)
    body = {"use_case": use_case, "path": str(file.resolve()), "consent": consent}
    with state.api() as api:
        made = api.call("POST", "/api/v1/examples/import", json=body)
    if state.json:
        print_json(made)
    else:
        _show_imported(made)


def dataset_build(
    context: typer.Context,
    use_case: str,
    from_file: Annotated[
        Path | None, typer.Option("--from", help="Import examples from this file first.")
    ] = None,
    consent: Annotated[
        str | None, typer.Option(help="Right to train on the file's rows: see `dataset import`.")
    ] = None,
    dev: Annotated[float, typer.Option(help="Share of components for dev.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of components for test.")] = 0.1,
    confirm: Annotated[
        float | None,
        typer.Option(help="Share to confirm a choice with; default: .1 from 200 rows up."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another split of new rows.")] = 0,
    min_score: Annotated[float, typer.Option(help="Leave rows below this quality out.")] = 0.5,
    personal_data: Annotated[
        str, typer.Option(help="What to do with personal data: mask, refuse or keep.")
    ] = "mask",
    ratings: Annotated[bool, typer.Option(help="Add thumbs that others gave.")] = False,
    replay: Annotated[
        Path | None, typer.Option(help="General examples against forgetting.")
    ] = None,
    replay_share: Annotated[float, typer.Option(help="Their share of the training rows.")] = 0.05,
    held_out_distractors: Annotated[
        str, typer.Option(help="Held-out rows' passages in training rows: drop or keep.")
    ] = "drop",
) -> None:
    """Seal the approved examples of a use case into a snapshot."""
    state = state_of(context)
    body = {
        "use_case": use_case,
        "from_file": str(from_file.resolve()) if from_file else None,
        "consent": consent,
        "dev": dev,
        "test": test,
        "confirm": confirm,
        "seed": seed,
        "min_score": min_score,
        "personal_data": personal_data,
        "ratings": ratings,
        "replay": str(replay.resolve()) if replay else None,
        "replay_share": replay_share,
        "held_out_distractors": held_out_distractors,
    }
    with state.api() as api:
        made = api.call("POST", "/api/v1/datasets", json=body)
    _show_dataset(state, made)


def dataset_list(context: typer.Context) -> None:
    """Snapshots of the workspace, newest first."""
    state = state_of(context)
    with state.api() as api:
        rows = api.call("GET", "/api/v1/datasets")
    if state.json:
        print_json(rows)
        return
    shown = [
        (r["content_sha256"][:12], r["use_case"], r["rows"], r["created_by"], r["created_at"][:16])
        for r in rows
    ]
    table("datasets", ["dataset", "use case", "rows", "by", "made"], shown)


def dataset_show(context: typer.Context, dataset: str) -> None:
    """Check every byte of a snapshot and show what is in it."""
    state = state_of(context)
    with state.api() as api:
        made = api.call("GET", f"/api/v1/datasets/{dataset}")
    _show_dataset(state, made)


def dataset_card(
    context: typer.Context,
    dataset: str,
    to: Annotated[Path | None, typer.Option("--out", help="Write the page here.")] = None,
) -> None:
    """Write a snapshot's card: one HTML page that opens from the disk."""
    state = state_of(context)
    with state.api() as api:
        made = api.call("GET", f"/api/v1/datasets/{dataset}/card", params={"as_json": True})
    path = to or Path(f"dataset-{made['content_sha256'][:12]}.html")
    path.write_text(made["html"], "utf-8")
    if state.json:
        print_json({"card": str(path), "flags": made["flags"]})
        return
    for flag in made["flags"]:
        out.print(f"{flag['kind']}: {flag['sentence']}", highlight=False)
    out.print(f"card: {path}", highlight=False, soft_wrap=True)


def dataset_diff(context: typer.Context, before: str, after: str) -> None:
    """Show what changed from one snapshot to another."""
    state = state_of(context)
    with state.api() as api:
        made = api.call("GET", f"/api/v1/datasets/{before}/diff/{after}")
    if state.json:
        print_json(made)
        return
    if made["identical"]:
        out.print("the same dataset")
        return
    counts: list[tuple[str, Any]] = [
        (name, len(made[name])) for name in ("added", "removed", "changed")
    ]
    counts += [("unchanged", made["same"]), *made["moved"].items()]
    counts += [(name, f"{a} > {b}") for name, (a, b) in made["extras"].items() if a or b]
    table(f"{made['before'][:12]} > {made['after'][:12]}", ["rows", "count"], counts)
    for row in made["changed"][:_LISTED]:
        out.print(f"  {row['question'][:70]}: {', '.join(row['fields'])}", highlight=False)
    if made["held_out_to_train"]:
        count = len(made["held_out_to_train"])
        out.print(f"{count} rows were held out and are trained on now", style="bold red")


def dataset_agreement(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="JSONL: item, annotator, label.")],
    level: Annotated[str, typer.Option(help="nominal, ordinal or interval.")] = "nominal",
) -> None:
    """Krippendorff's alpha of annotators: whether their labels may be used as gold."""
    from app.datasets.agreement import annotator_agreement

    state = state_of(context)
    made = annotator_agreement(file, level)
    if state.json:
        print_json(made)
        return
    interval = ""
    if made["alpha"] is not None and made["low"] is not None:
        interval = f"alpha {made['alpha']:.3f} ({made['low']:.3f} to {made['high']:.3f}), "
    out.print(
        f"{interval}{made['items']} items, {made['annotators']} annotators: {made['verdict']}",
        highlight=False,
    )


def tickets_list(
    context: typer.Context,
    state_wanted: Annotated[str, typer.Option("--state", help="open, closed or all.")] = "open",
) -> None:
    """What corrections ask of the knowledge base, oldest first."""
    state = state_of(context)
    with state.api() as api:
        rows = api.call("GET", "/api/v1/tickets", params={"state": state_wanted})
    if state.json:
        print_json(rows)
        return
    shown = [(r["id"], r["kind"], r["state"], r["question"], r["reason"]) for r in rows]
    table("tickets", ["id", "kind", "state", "question", "why"], shown)


def tickets_close(context: typer.Context, ticket: str) -> None:
    """Close a ticket when the knowledge base says what it should."""
    state = state_of(context)
    with state.api() as api:
        made = api.call("POST", f"/api/v1/tickets/{ticket}/close")
    if state.json:
        print_json(made)
    else:
        out.print(f"ticket {made['id']} closed", highlight=False)


def adapters_probe(
    context: typer.Context,
    adapter: str,
    dataset: Annotated[str, typer.Option(help="Dataset whose values it must not know.")],
    limit: Annotated[int, typer.Option(help="At most so many questions.")] = 64,
) -> None:
    """Ask an adapter for values without passages; it must know no more than the base model."""
    state = state_of(context)
    body = {"dataset": dataset, "limit": limit}
    with state.api() as api:
        made = api.call("POST", f"/api/v1/adapters/{adapter}/recall", json=body)
    if state.json:
        print_json(made)
    else:
        out.print(
            f"{made['asked']} values asked without passages: the base model says "
            f"{made['base']:.1%}, the adapter {made['tuned']:.1%} (p {made['p_value']:.3f})",
            highlight=False,
        )
        for leak in made["leaked"][:_LISTED]:
            out.print(f"  {leak['question'][:70]}: {leak['value']}", highlight=False)
        said = {
            "passed": "passed",
            "failed": "it knows facts that belong to the passages",
            "not measured": f"not measured: {made['asked']} values are too few to show anything",
        }
        out.print(said[made["verdict"]])
    if not made["passed"]:
        raise typer.Exit(1)


def _show_dataset(state: State, made: dict[str, Any]) -> None:
    if state.json:
        print_json(made)
        return
    signed = ", signed" if made["signed"] else ""
    out.print(
        f"dataset {made['content_sha256'][:16]}: {made['rows']} rows, every byte verified{signed}"
    )
    for split, kinds in made["splits"].items():
        out.print("  " + ", ".join([split, *(f"{kind} {n}" for kind, n in kinds.items())]))
    if made["pairs"] or made["ratings"]:
        out.print(f"  {made['pairs']} preference pairs, {made['ratings']} ratings")
    if made.get("imported"):
        _show_imported(made["imported"])
    refused = made["provenance"].get("refused", [])
    for entry in refused[:_LISTED]:
        out.print(f"  left out: {entry['reason']}", markup=False)
    if len(refused) > _LISTED:
        out.print(f"  and {len(refused) - _LISTED} more: see the card")
    if made["audit"].get("warning"):
        out.print(f"  {made['audit']['warning']}", markup=False)


def _show_imported(made: dict[str, Any]) -> None:
    kinds = ", ".join(f"{kind} {n}" for kind, n in made["kinds"].items())
    out.print(
        f"  imported {made['added']}{f' ({kinds})' if kinds else ''}, "
        f"known already {made['known_already']}"
    )
    for refused in made["refused"]:
        where = f"line {refused['line']}: " if refused["line"] else ""
        out.print(f"  refused {where}{refused['reason']}", markup=False)
