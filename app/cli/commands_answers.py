"""use-case, ask, answers, feedback, reviews."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli import commands_serving
from app.cli.output import out, print_json, table
from app.cli.state import state_of
from tuning.prompt import DEFAULT_ABSTAIN, DEFAULT_SYSTEM


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    use_case = typer.Typer(help="Use cases.", no_args_is_help=True)
    use_case.command("create")(use_case_create)
    use_case.command("list")(use_case_list)
    use_case.command("serve-with")(use_case_serve_with)
    commands_serving.register_use_case(use_case)
    app.add_typer(use_case, name="use-case")
    app.command()(ask)
    answers = typer.Typer(help="Recorded answers.", no_args_is_help=True)
    answers.command("show")(answers_show)
    answers.command("replay")(commands_serving.answers_replay)
    app.add_typer(answers, name="answers")
    feedback = typer.Typer(help="Feedback on answers.", no_args_is_help=True)
    feedback.command("add")(feedback_add)
    app.add_typer(feedback, name="feedback")
    reviews = typer.Typer(help="The review queue.", no_args_is_help=True)
    reviews.command("list")(reviews_list)
    reviews.command("approve")(reviews_approve)
    reviews.command("edit")(reviews_edit)
    reviews.command("reject")(reviews_reject)
    app.add_typer(reviews, name="reviews")


def use_case_create(
    context: typer.Context,
    name: str,
    kb: Annotated[list[str] | None, typer.Option(help="Knowledge base; may be repeated.")] = None,
    system: Annotated[str, typer.Option(help="House prompt.")] = DEFAULT_SYSTEM,
    abstain: Annotated[str, typer.Option(help="Abstention sentence.")] = DEFAULT_ABSTAIN,
    style: Annotated[
        str | None, typer.Option(help="Regular expression of the house style.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.")] = None,
) -> None:
    """Create a use case: what clients call as `model`."""
    state = state_of(context)
    options = {"style_pattern": style, "max_answer_tokens": max_tokens}
    body = {
        "name": name,
        "knowledge_bases": kb or [],
        "system_prompt": system,
        "abstain_sentence": abstain,
        "options": {key: value for key, value in options.items() if value is not None},
    }
    with state.api() as api:
        made = api.call("POST", "/api/v1/use-cases", json=body)
    if state.json:
        print_json(made)
    else:
        out.print(f"use case {name!r} created, serving arm {made['arm']}", highlight=False)


def use_case_list(context: typer.Context) -> None:
    """List use cases."""
    state = state_of(context)
    with state.api() as api:
        rows = api.call("GET", "/api/v1/use-cases")
    if state.json:
        print_json(rows)
    else:
        shown = [(r["name"], r["arm"], r["adapter"] or "reader") for r in rows]
        table("use cases", ["name", "arm", "adapter"], shown)


def use_case_serve_with(
    context: typer.Context,
    name: str,
    arm: Annotated[str | None, typer.Option(help="prompt, rag, tuned or hybrid")] = None,
    adapter: Annotated[str | None, typer.Option(help="Adapter id, name or digest.")] = None,
) -> None:
    """Choose the arm and adapter that serve from the next request on."""
    state = state_of(context)
    with state.api() as api:
        path = f"/api/v1/use-cases/{quote(name)}"
        made = api.call("PATCH", path, json={"arm": arm, "adapter": adapter})
    if state.json:
        print_json(made)
    else:
        out.print(f"{name!r} serves arm {made['arm']}, adapter {made['adapter'] or 'reader'}")


def ask(
    context: typer.Context,
    use_case: str,
    question: str,
    arm: Annotated[str | None, typer.Option(help="prompt, rag, tuned or hybrid")] = None,
    adapter: Annotated[str | None, typer.Option(help="Adapter id, name or digest.")] = None,
    as_of: Annotated[str | None, typer.Option(help="Answer from the knowledge of then.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Only documents open to this group; repeatable.")
    ] = None,
) -> None:
    """Ask a use case and show the answer with its citations."""
    state = state_of(context)
    body: dict[str, Any] = {
        "model": use_case,
        "messages": [{"role": "user", "content": question}],
        "tandem": {"arm": arm, "adapter": adapter, "as_of": as_of, "groups": group or None},
    }
    with state.api() as api:
        reply = api.call("POST", "/v1/chat/completions", json=body)
    if state.json:
        print_json(reply)
        return
    info = reply["tandem"]
    out.print(reply["choices"][0]["message"]["content"], markup=False, highlight=False)
    for citation in info["citations"]:
        where = citation["heading"] or citation["title"]
        page = f", page {citation['page']}" if citation["page"] else ""
        out.print(
            f"  [{citation['number']}] {citation['document']} v{citation['version']}, "
            f"{where}{page}: “{citation['quote']}”",
            style="dim",
            markup=False,
            highlight=False,
        )
        if (newer := citation["superseded_by"]) is not None:
            what = f"version {newer} has replaced it" if newer else "the document is gone"
            out.print(f"      warning: {what}", style="yellow", highlight=False)
    seconds = info["timings"]["total_s"]
    out.print(f"  {info['arm']}, {seconds:.2f} s, answer {info['answer_id']}", style="dim")


def answers_show(context: typer.Context, answer_id: str) -> None:
    """Where an answer came from."""
    state = state_of(context)
    with state.api() as api:
        record = api.call("GET", f"/api/v1/answers/{answer_id}")
    if state.json:
        print_json(record)
        return
    out.print(f"{record['question']}\n-> {record['text']}", markup=False, highlight=False)
    rows = [
        (p["number"], "cited" if p["cited"] else "", p["document"], p["version"], p["quote"])
        for p in record["passages"]
    ]
    table("passages", ["", "", "document", "version", "quote"], rows)
    identity = [(key, value) for key, value in record["identity"].items()]
    table("identity", ["what", "value"], identity)


def feedback_add(
    context: typer.Context,
    answer_id: str,
    rating: Annotated[str, typer.Option(help="up or down")],
    correction: Annotated[str | None, typer.Option(help="What it should have said.")] = None,
) -> None:
    """Rate an answer; a correction goes to review."""
    state = state_of(context)
    body = {"answer_id": answer_id, "rating": rating, "correction": correction}
    with state.api() as api:
        made = api.call("POST", "/api/v1/feedback", json=body)
    if state.json:
        print_json(made)
    else:
        review = f", review {made['review']} opened" if made["review"] else ""
        out.print(f"thank you{review}", highlight=False)


def reviews_list(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Decided ones too.")] = False,
) -> None:
    """The review queue."""
    state = state_of(context)
    with state.api() as api:
        params = {"state": "all" if everything else "pending"}
        rows = api.call("GET", "/api/v1/reviews", params=params)
    if state.json:
        print_json(rows)
        return
    shown = [(r["id"], r["state"], r["question"], r["answer"], r["correction"]) for r in rows]
    table("reviews", ["id", "state", "question", "answer", "correction"], shown)


def reviews_approve(context: typer.Context, review_id: str) -> None:
    """Approve a correction that somebody else wrote."""
    _decide(context, review_id, {"decision": "approve"})


def reviews_edit(context: typer.Context, review_id: str, text: str) -> None:
    """Approve a correction with your own wording."""
    _decide(context, review_id, {"decision": "edit", "text": text})


def reviews_reject(
    context: typer.Context,
    review_id: str,
    note: Annotated[str | None, typer.Option(help="Why.")] = None,
) -> None:
    """Reject a correction."""
    _decide(context, review_id, {"decision": "reject", "note": note})


def _decide(context: typer.Context, review_id: str, body: dict[str, Any]) -> None:
    state = state_of(context)
    with state.api() as api:
        made = api.call("POST", f"/api/v1/reviews/{review_id}", json=body)
    if state.json:
        print_json(made)
    else:
        out.print(f"{made['state']}: {made['outcome']} ({made['reason']})", highlight=False)
