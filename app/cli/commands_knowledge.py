"""kb, ingest, search, documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli import commands_sync
from app.cli.output import err, out, print_json, table
from app.cli.state import state_of


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    kb = typer.Typer(help="Knowledge bases.", no_args_is_help=True)
    kb.command("create")(kb_create)
    kb.command("list")(kb_list)
    kb.command("rebuild")(kb_rebuild)
    kb.command("verify")(kb_verify)
    kb.command("damage")(kb_damage)
    kb.command("migrate")(kb_migrate)
    app.add_typer(kb, name="kb")
    app.command()(ingest)
    app.command()(search)
    documents = typer.Typer(help="Documents of a knowledge base.", no_args_is_help=True)
    documents.command("list")(documents_list)
    documents.command("show")(documents_show)
    documents.command("delete")(documents_delete)
    documents.command("put")(documents_put)
    documents.command("groups")(documents_groups)
    app.add_typer(documents, name="documents")
    commands_sync.register(app)


def kb_create(context: typer.Context, name: str) -> None:
    """Create a knowledge base."""
    state = state_of(context)
    with state.api() as api:
        made = api.call("POST", "/api/v1/knowledge-bases", json={"name": name})
    if state.json:
        print_json(made)
    else:
        out.print(f"knowledge base {name!r} created", highlight=False)


def kb_list(context: typer.Context) -> None:
    """List knowledge bases."""
    state = state_of(context)
    with state.api() as api:
        rows = api.call("GET", "/api/v1/knowledge-bases")
    if state.json:
        print_json(rows)
    else:
        shown = [(r["name"], r["documents"], r["chunks"], r["embedder"]) for r in rows]
        table("knowledge bases", ["name", "documents", "chunks", "embedder"], shown)


def kb_rebuild(context: typer.Context, name: str) -> None:
    """Make the index again from SQL alone."""
    state = state_of(context)
    with state.api() as api:
        made = api.call("POST", f"/api/v1/knowledge-bases/{quote(name)}/rebuild")
    if state.json:
        print_json(made)
    else:
        out.print(f"{made['documents']} documents, {made['chunks']} chunks indexed again")


def kb_verify(
    context: typer.Context,
    name: str,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what is not as it should.")
    ] = False,
    sample: Annotated[int, typer.Option(help="Vectors to compute again and compare.")] = 100,
) -> None:
    """Prove that the index holds what the list of documents says."""
    state = state_of(context)
    body = {"repair": repair, "sample": sample}
    with state.api() as api:
        report = api.call("POST", f"/api/v1/knowledge-bases/{quote(name)}/verify", json=body)
    if state.json:
        print_json(report)
    else:
        keys = ("shard", "expected", "missing", "ghosts", "changed", "wrong_vectors")
        rows = [tuple(shard[key] for key in keys) for shard in report["shards"]]
        table(f"{name}, in chunks", keys, rows)
        state_text = "clean" if report["clean"] else f"drift, {report['repaired']} repaired"
        out.print(state_text, style="green" if report["clean"] else "yellow", highlight=False)
    if not report["clean"] and not repair:
        raise typer.Exit(1)


def kb_damage(
    context: typer.Context,
    name: str,
    since: Annotated[str | None, typer.Option(help="ISO date of the change.")] = None,
) -> None:
    """Past answers whose knowledge has changed since they were given."""
    state = state_of(context)
    query = f"?since={quote(since)}" if since else ""
    with state.api() as api:
        rows = api.call("GET", f"/api/v1/knowledge-bases/{quote(name)}/damage{query}")
    if state.json:
        print_json(rows)
        return
    shown = [
        (
            row["answer"],
            row["question"][:60],
            f"{row['document']} v{row['version']} -> {row['now'] or 'gone'}",
            "cited" if row["cited"] else "",
            {True: "stands", False: "GONE", None: ""}[row["quote_still_there"]],
        )
        for row in rows
    ]
    table(f"damage of {name}", ["answer", "question", "document", "", "quote"], shown)


def kb_migrate(
    context: typer.Context,
    name: str,
    to: Annotated[str | None, typer.Option(help="Model folder or name; default: as set.")] = None,
    golden: Annotated[Path | None, typer.Option(help="Samples, JSON lines, with gold.")] = None,
    margin: Annotated[float, typer.Option(help="How much recall@5 may be worse.")] = 0.05,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare only.")] = False,
) -> None:
    """Change the embedding model behind a gate; questions go on being answered."""
    state = state_of(context)
    rows = []
    if golden is not None:
        rows = [json.loads(line) for line in golden.read_text("utf-8").splitlines() if line.strip()]
    source = str(Path(to).resolve()) if to and Path(to).is_dir() else to
    body = {"model": source, "golden": rows, "margin": margin, "dry_run": dry_run}
    with state.api() as api:
        job = api.call("POST", f"/api/v1/knowledge-bases/{quote(name)}/migrations", json=body)
        result = state.run_job(api, job, f"migrate {name}")["result"]
    if state.json:
        print_json(result)
    else:
        columns = ["questions", "n", "recall@5", "difference, 95 %", "MRR", "answer in passages"]
        table("old -> new", columns, [_gate_row(row) for row in result["table"]])
        verdict = "accepted" if result["accepted"] else "REJECTED, nothing has changed"
        out.print(f"{verdict}: {result['reason']}", highlight=False)
    if not result["accepted"]:
        raise typer.Exit(1)


def _gate_row(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = row["difference_low"], row["difference_high"]
    held = row["answer_in_passages_old"], row["answer_in_passages_new"]
    return (
        row["questions"],
        str(row["n"]),
        f"{row['recall_old']:.3f} -> {row['recall_new']:.3f}",
        "" if low is None else f"{low:+.3f} to {high:+.3f}",
        f"{row['mrr_old']:.3f} -> {row['mrr_new']:.3f}",
        "" if held[0] is None else f"{held[0]:.3f} -> {held[1]:.3f}",
    )


def ingest(
    context: typer.Context,
    kb: Annotated[str, typer.Argument(help="Knowledge base; made when it does not exist.")],
    sources: Annotated[
        list[str], typer.Argument(help="Files, folders, addresses, or JSON of a source.")
    ],
    sync: Annotated[bool, typer.Option("--sync", help="Delete documents that are gone.")] = False,
    valid_from: Annotated[str | None, typer.Option(help="ISO date the content holds from.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Open only to this group; may be repeated.")
    ] = None,
) -> None:
    """Ingest files, folders, pages, git trees or records; only what changed is read again."""
    state = state_of(context)
    body = {
        "specs": [commands_sync.source(given) for given in sources],
        "sync": sync,
        "valid_from": valid_from,
        "groups": group or None,
    }
    with state.api() as api:
        if kb not in {row["name"] for row in api.call("GET", "/api/v1/knowledge-bases")}:
            api.call("POST", "/api/v1/knowledge-bases", json={"name": kb})
        job = api.call("POST", f"/api/v1/knowledge-bases/{quote(kb)}/ingest", json=body)
        done = state.run_job(api, job, f"ingest {kb}")
    result = done["result"]
    if state.json:
        print_json(result)
    else:
        _show_ingest(result)
    if result["counts"]["failed"]:
        raise typer.Exit(1)


def _show_ingest(result: dict[str, Any]) -> None:
    counts = ", ".join(f"{number} {kind}" for kind, number in result["counts"].items() if number)
    out.print(
        f"{counts or 'nothing to do'}; {result['chunks']} chunks, {result['embedded']} embedded",
        highlight=False,
    )
    for note in result["notes"]:
        out.print(f"{note['outcome']}: {note['document']} {note['reason']}", highlight=False)
    for problem in result["problems"]:
        err.print(f"{problem['outcome']}: {problem['reason']}", highlight=False, soft_wrap=True)


def search(
    context: typer.Context,
    kb: str,
    query: str,
    limit: Annotated[int, typer.Option(help="How many chunks.")] = 5,
    as_of: Annotated[str | None, typer.Option(help="Search the knowledge of then.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Only documents open to this group; repeatable.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Attribute the document must have, key:value.")
    ] = None,
) -> None:
    """The best chunks for a query."""
    state = state_of(context)
    body = {
        "query": query,
        "limit": limit,
        "as_of": as_of,
        "groups": group or None,
        "where": dict(item.split(":", 1) for item in where or [] if ":" in item),
    }
    with state.api() as api:
        path = f"/api/v1/knowledge-bases/{quote(kb)}/search"
        found = api.call("POST", path, json=body)
    if state.json:
        print_json(found)
        return
    rows = [
        (n, hit["document"], hit["heading"], hit["page"], hit["cosine"], hit["text"][:160])
        for n, hit in enumerate(found["hits"], start=1)
    ]
    table(f"{query}", ["", "document", "heading", "page", "cosine", "text"], rows)


def documents_list(context: typer.Context, kb: str) -> None:
    """Documents that answers come from."""
    state = state_of(context)
    with state.api() as api:
        rows = api.call("GET", f"/api/v1/knowledge-bases/{quote(kb)}/documents")
    if state.json:
        print_json(rows)
    else:
        shown = [(r["document"], r["title"], r["version"], r["chunks"]) for r in rows]
        table(f"documents of {kb}", ["document", "title", "version", "chunks"], shown)


def documents_show(context: typer.Context, kb: str, document: str) -> None:
    """One document with versions and chunks."""
    state = state_of(context)
    with state.api() as api:
        record = api.call("GET", f"/api/v1/knowledge-bases/{quote(kb)}/documents/{quote(document)}")
    if state.json:
        print_json(record)
        return
    versions = [
        (v["number"], v["state"], v["valid_from"], v["valid_to"]) for v in record["versions"]
    ]
    table(f"{document}: versions", ["version", "state", "valid from", "valid to"], versions)
    chunks = [(c["ordinal"], c["heading"], c["page"], c["text"][:120]) for c in record["chunks"]]
    table("chunks", ["", "heading", "page", "text"], chunks)


def documents_delete(context: typer.Context, kb: str, document: str) -> None:
    """Delete a document; nothing of it is answered from afterwards."""
    state = state_of(context)
    with state.api() as api:
        path = f"/api/v1/knowledge-bases/{quote(kb)}/documents/{quote(document)}"
        record = api.call("DELETE", path)
    if state.json:
        print_json(record)
    else:
        out.print(f"{document!r} deleted", highlight=False)


def documents_put(
    context: typer.Context,
    kb: str,
    file: Annotated[Path, typer.Argument(help="The new content.")],
    document: Annotated[str | None, typer.Option("--as-document", help="Its lasting name.")] = None,
    valid_from: Annotated[str | None, typer.Option(help="ISO date the content holds from.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Open only to this group; may be repeated.")
    ] = None,
) -> None:
    """Push one document; it is answered from when the command returns."""
    state = state_of(context)
    name = document or file.name
    with state.api() as api:
        made = api.call(
            "PUT",
            f"/api/v1/knowledge-bases/{quote(kb)}/documents/{quote(name)}",
            content=file.read_bytes(),
            params={"group": group or [], **({"valid_from": valid_from} if valid_from else {})},
            headers={"Content-Type": "application/octet-stream"},
        )
    if state.json:
        print_json(made)
    else:
        out.print(f"{name!r} {made['outcome']} {made['reason']}".rstrip(), highlight=False)


def documents_groups(
    context: typer.Context,
    kb: str,
    document: str,
    group: Annotated[list[str] | None, typer.Option(help="May be repeated; none: all.")] = None,
) -> None:
    """Close a document to all but some groups, at once; without --group it is open to all."""
    state = state_of(context)
    path = f"/api/v1/knowledge-bases/{quote(kb)}/groups/{quote(document)}"
    with state.api() as api:
        made = api.call("PUT", path, json={"groups": group or []})
    if state.json:
        print_json(made)
    else:
        out.print(f"{document!r} is open to {', '.join(made['groups']) or 'everyone'}")
