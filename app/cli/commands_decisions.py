"""decide, decisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli.output import out, print_json, table
from app.cli.state import State, state_of
from app.errors import BadInput


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    app.command()(decide)
    decisions = typer.Typer(help="Decisions and their evidence.", no_args_is_help=True)
    decisions.command("list")(decisions_list)
    decisions.command("show")(decisions_show)
    decisions.command("why")(decisions_why)
    decisions.command("replay")(decisions_replay)
    decisions.command("plan")(decisions_plan)
    decisions.command("case")(decisions_case)
    decisions.command("volatility")(decisions_volatility)
    decisions.command("router")(decisions_router)
    decisions.command("check")(decisions_check)
    decisions.command("due")(decisions_due)
    app.add_typer(decisions, name="decisions")


def decide(
    context: typer.Context,
    use_case: str,
    evaluation: Annotated[str | None, typer.Option(help="Default: the newest.")] = None,
    apply: Annotated[
        bool | None,
        typer.Option(
            "--apply/--no-apply",
            help="Serve with a winner at once; unless given, only if it is not exploratory.",
        ),
    ] = None,
) -> None:
    """Decide which arm serves, from the newest evaluation; without one, what to assume.

    The same data give the decision already made. Looks beyond those planned, and rules changed
    after the data were seen, make it exploratory.
    """
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
        found = api.call("GET", f"/api/v1/decisions/{decision}/why")
    if state.json:
        print_json(found)
        return
    first, *rest = found["sentences"]
    out.print(f"{found['status']}: {first}", style="bold", highlight=False, markup=False)
    for line in rest:
        out.print(f"  {line}", markup=False, highlight=False)


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


def decisions_plan(
    context: typer.Context,
    samples: Annotated[
        Path | None, typer.Option(help="Samples, JSON lines: counts questions and groups.")
    ] = None,
    questions: Annotated[int | None, typer.Option(help="Instead of a file.")] = None,
    clusters: Annotated[int | None, typer.Option(help="Independent groups of them.")] = None,
    arms: Annotated[str, typer.Option(help="Arms to compare.")] = "prompt,tuned,rag,hybrid",
    margin: Annotated[float, typer.Option(help="The difference that matters.")] = 0.03,
    looks: Annotated[int, typer.Option(help="How often results are looked at.")] = 1,
    discordance: Annotated[
        float, typer.Option(help="Share of questions only one of two arms gets right.")
    ] = 0.3,
) -> None:
    """Say before a run what it can show. Exit code 1 when it cannot show the margin."""
    state = state_of(context)
    if samples is not None:
        from evals.samples import clusters as groups_of
        from evals.samples import load_samples

        loaded = load_samples(samples)
        questions, clusters = len(loaded), len(set(groups_of(loaded)))
    if questions is None:
        raise BadInput("give --samples FILE or --questions N")
    body = {
        "questions": questions,
        "clusters": clusters,
        "arms": [arm.strip() for arm in arms.split(",") if arm.strip()],
        "discordance": discordance,
        "spec": {"margin": margin, "looks": looks},
    }
    with state.api() as api:
        made = api.call("POST", "/api/v1/decisions/plan", json=body)
    if state.json:
        print_json(made)
    else:
        for line in made["sentences"]:
            out.print(line, markup=False, highlight=False)
        if looks > 1:
            rows = [
                (r["look"], r["questions"], f"{r['alpha']:.2g}", _number(r["smallest_difference"]))
                for r in made["looks"]
            ]
            table("looks", ["look", "questions", "alpha", "smallest difference"], rows)
    if made["verdict"] == "refuse":
        raise typer.Exit(1)


def decisions_case(
    context: typer.Context,
    use_case: str,
    from_file: Annotated[Path, typer.Option("--from", help="JSON object with the facts.")],
) -> None:
    """Declare the hard facts of a use case: task, pace of change, where data may go, limits."""
    state = state_of(context)
    try:
        facts = json.loads(from_file.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise BadInput(f"{from_file} is not JSON: {error.msg} in line {error.lineno}") from error
    body = {"use_case": use_case, "facts": facts}
    with state.api() as api:
        made = api.call("PUT", "/api/v1/decisions/case", json=body)
    if state.json:
        print_json(made)
    else:
        rows = [(key, str(value)) for key, value in made["case"].items()]
        table(f"facts of {use_case}", ["fact", "value"], rows)


def decisions_volatility(
    context: typer.Context,
    use_case: str,
    level: Annotated[
        str | None, typer.Option(help="answers, values or bytes; default: what the log allows.")
    ] = None,
) -> None:
    """How fast the answers change, measured from the knowledge base's log and the traffic."""
    state = state_of(context)
    with state.api() as api:
        path = f"/api/v1/decisions/volatility/{quote(use_case)}"
        found = api.call("GET", path, params={"level": level} if level else None)
    if state.json:
        print_json(found)
        return
    for line in found["sentences"]:
        out.print(line, markup=False, highlight=False)
    rows = [
        (r["source"], f"{r['rate']:.3g}", f"{100 * r['share']:.1f} %") for r in found["sources"]
    ]
    table("what changes most", ["source", "changes a day", "of the questions"], rows)


def decisions_router(
    context: typer.Context,
    use_case: str,
    evaluation: Annotated[str | None, typer.Option(help="Default: the newest.")] = None,
    arms: Annotated[str, typer.Option(help="To choose between; default: all that were run.")] = "",
    cost: Annotated[
        list[str] | None, typer.Option(help="arm=cost in right answers, repeatable.")
    ] = None,
) -> None:
    """Train and calibrate a router per question; worth it only if its gain is surely above 0."""
    state = state_of(context)
    body = {
        "use_case": use_case,
        "evaluation": evaluation,
        "arms": [arm.strip() for arm in arms.split(",") if arm.strip()],
        "costs": dict(map(_cost, cost or ())),
    }
    with state.api() as api:
        made = api.call("POST", "/api/v1/decisions/router", json=body)
    if state.json:
        print_json(made)
        return
    out.print(f"{made['verdict']}: {made['sentence']}", style="bold", highlight=False)
    out.print(
        f"  {made['questions']} questions in {made['clusters']} groups: best single arm "
        f"{made['best_value']:.3f}, router {made['router_value']:.3f}, "
        f"oracle {made['oracle_value']:.3f}",
        highlight=False,
    )
    shares = dict(made["shares"])
    rows = [
        (c["arm"], f"{shares[c['arm']]:.3f}", f"{c['brier']:.3f}", f"{c['calibration_error']:.3f}")
        for c in made["calibration"]
    ]
    table("on groups not fitted on", ["arm", "taken", "Brier", "calibration error"], rows)
    if made["file"]:
        out.print(f"router: {made['file']}", highlight=False, soft_wrap=True)


def _cost(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise BadInput(f"--cost {text!r} is not arm=cost") from None


def decisions_check(context: typer.Context, use_case: str) -> None:
    """Look at every trigger once; what fires is listed by `decisions due`."""
    state = state_of(context)
    with state.api() as api:
        rows = api.call("POST", "/api/v1/decisions/check", json={"use_case": use_case})
    if state.json:
        print_json(rows)
    else:
        shown = [(r["kind"], "DUE" if r["fired"] else "", r["sentence"]) for r in rows]
        table(f"does the decision for {use_case} still hold?", ["trigger", "", "why"], shown)


def decisions_due(
    context: typer.Context,
    use_case: Annotated[str | None, typer.Option(help="Only of this use case.")] = None,
) -> None:
    """Decisions that are due again, and why. Nothing switches by itself."""
    state = state_of(context)
    with state.api() as api:
        params = {"use_case": use_case} if use_case else None
        rows = api.call("GET", "/api/v1/decisions/due", params=params)
    if state.json:
        print_json(rows)
    else:
        shown = [(r["use_case"], r["trigger"], r["since"][:10], r["why"]) for r in rows]
        table("due again", ["use case", "trigger", "since", "why"], shown)


def _show_decision(state: State, made: dict[str, Any]) -> None:
    if state.json:
        print_json(made)
        return
    record = made["record"]
    out.print(f"{made['status']}: {record['headline']}", style="bold", highlight=False)
    for line in record["reason"]:
        out.print(f"  {line}", markup=False, highlight=False)
    out.print(
        (
            "  exploratory; "
            if made["exploratory"]
            else f"  look {made['look']} of {made['planned_looks']} planned; "
        )
        + ("made before from the same data, " if made.get("made_before") else "")
        + ("serves now" if made["applied"] else "not served"),
        style="dim",
        highlight=False,
    )
    out.print(f"  decision {made['id']}", style="dim")


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
