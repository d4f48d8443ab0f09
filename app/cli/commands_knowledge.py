"""kb, ingest, search, documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli.output import err, out, print_json, table
from app.cli.state import state_of


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    kb = typer.Typer(help="Knowledge bases.", no_args_is_help=True)
    kb.command("create")(kb_create)
    kb.command("list")(kb_list)
    kb.command("rebuild")(kb_rebuild)
    app.add_typer(kb, name="kb")
    app.command()(ingest)
    app.command()(search)
    documents = typer.Typer(help="Documents of a knowledge base.", no_args_is_help=True)
    documents.command("list")(documents_list)
    documents.command("show")(documents_show)
    documents.command("delete")(documents_delete)
    app.add_typer(documents, name="documents")


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


def ingest(
    context: typer.Context,
    kb: Annotated[str, typer.Argument(help="Knowledge base; made when it does not exist.")],
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.")],
    sync: Annotated[bool, typer.Option("--sync", help="Delete documents that are gone.")] = False,
    valid_from: Annotated[str | None, typer.Option(help="ISO date the content holds from.")] = None,
) -> None:
    """Ingest files and folders; only what changed is read again."""
    state = state_of(context)
    body = {
        "paths": [str(path.resolve()) for path in paths],
        "sync": sync,
        "valid_from": valid_from,
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
    for problem in result["problems"]:
        err.print(f"{problem['outcome']}: {problem['reason']}", highlight=False, soft_wrap=True)


def search(
    context: typer.Context,
    kb: str,
    query: str,
    limit: Annotated[int, typer.Option(help="How many chunks.")] = 5,
) -> None:
    """The best chunks for a query."""
    state = state_of(context)
    with state.api() as api:
        path = f"/api/v1/knowledge-bases/{quote(kb)}/search"
        found = api.call("POST", path, json={"query": query, "limit": limit})
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
