"""eval judge, eval style, eval flips: instruments beside the scores of an evaluation."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.client import Api
from app.cli.output import err, out, print_json, table
from app.cli.state import state_of
from app.errors import BadInput


def register(evaluation: typer.Typer) -> None:
    """Add the commands to `tandem eval`."""
    evaluation.command("judge")(eval_judge)
    evaluation.command("style")(eval_style)
    evaluation.command("flips")(eval_flips)


def eval_judge(
    context: typer.Context,
    evaluation: str,
    labels: Annotated[
        Path | None, typer.Option(help="People's labels, JSON lines: arm, id, good.")
    ] = None,
    verdicts: Annotated[
        Path | None,
        typer.Option(help="Another judge's verdicts, JSON lines; else the service's model judges."),
    ] = None,
    to_label: Annotated[
        int | None, typer.Option(help="Write so many answers for people to label, then stop.")
    ] = None,
    target: Annotated[Path | None, typer.Option("--out", help="File for --to-label.")] = None,
) -> None:
    """Let a judge see every answer, calibrated on people's labels; never alone."""
    state = state_of(context)
    if (labels is None) == (to_label is None):
        raise BadInput("give one of --labels FILE and --to-label N")
    path = f"/api/v1/evaluations/{evaluation}"
    with state.api() as api:
        if to_label is not None:
            rows = api.call("GET", f"{path}/to-label", params={"number": to_label})
            _write_rows(rows, target, state.json)
            return
        body: dict[str, Any] = {"labels": _lines(labels) if labels else []}
        if verdicts is not None:
            body["verdicts"] = _lines(verdicts)
        job = api.call("POST", f"{path}/judge", json=body)
        made = state.run_job(api, job, "judge")["result"]
    if state.json:
        print_json(made)
        return
    shown = [
        (
            row["arm"],
            row["labels"],
            _interval(row["sensitivity"]),
            _interval(row["specificity"]),
            _interval(row["human"]),
            _interval(row["corrected"]) if row["corrected"] else "too few labels",
        )
        for row in made["arms"]
    ]
    columns = ["arm", "labels", "sensitivity", "specificity", "people alone", "corrected (PPI++)"]
    table(f"judge of {evaluation}", columns, shown)
    out.print(f"report: {Path(made['path']) / 'report.html'}", highlight=False, soft_wrap=True)


def eval_style(
    context: typer.Context,
    evaluation: str,
    house: Annotated[
        Path, typer.Option(help="Texts in the house style that no adapter was trained on.")
    ],
    others: Annotated[
        Path | None,
        typer.Option(help="Texts that are not; else half of the bare model's answers."),
    ] = None,
) -> None:
    """Learn the house style from texts and score every arm by it.

    A file holds one text a line, or JSON lines with `text`, `output` or `answer`.
    """
    state = state_of(context)
    body = {"house": _texts(house), "others": _texts(others) if others else None}
    with state.api() as api:
        made = api.call("POST", f"/api/v1/evaluations/{evaluation}/style", json=body)
    if state.json:
        print_json(made)
        return
    out.print(made["sentence"], highlight=False, soft_wrap=True)
    rows = [(row["arm"], row["in_house"]["n"], _interval(row["in_house"])) for row in made["arms"]]
    table("in the house style", ["arm", "answers", "share"], rows)


def eval_flips(
    context: typer.Context,
    use_case: str,
    samples: Annotated[Path, typer.Option(help="Changed questions with their new answers.")],
    arm: Annotated[str | None, typer.Option(help="prompt, rag, tuned or hybrid")] = None,
    adapter: Annotated[str | None, typer.Option(help="Adapter id, name or digest.")] = None,
    since: Annotated[
        str | None, typer.Option(help="When the knowledge changed, ISO time; default: now.")
    ] = None,
    seconds: Annotated[float, typer.Option("--for", help="Watch at most so long.")] = 60.0,
    every: Annotated[float, typer.Option(help="Pause between two rounds, seconds.")] = 1.0,
) -> None:
    """How long the old answer lives on: ask changed questions until the new answer comes.

    Start it beside the change. Exit code 1 when a question still gives no new answer at the end.
    """
    from evals.metrics.freshness import flip_latency, median_latency
    from evals.samples import load_samples

    state = state_of(context)
    asked = [sample for sample in load_samples(samples) if sample.answers is not None]
    if not asked:
        raise BadInput(f"{samples} holds no question with an answer")
    started = _moment(since)
    if seconds <= 0 or every < 0:
        raise BadInput(f"--for must be positive and --every at least 0, got {seconds}, {every}")
    with state.api() as api:
        times = _watch(api, {"model": use_case, **_choice(arm, adapter)}, asked, (started, seconds,
                       every), quiet=state.json)  # fmt: skip
    flipped = [took is not None for took in times.values()]
    last = time.time() - started
    steps = flip_latency([last if t is None else t for t in times.values()], flipped)
    made = {
        "use_case": use_case,
        "questions": len(asked),
        "flipped": sum(flipped),
        "median_s": median_latency(steps),
        "steps": [
            {"seconds": round(s.seconds, 3), "not_flipped": s.not_flipped, "at_risk": s.at_risk}
            for s in steps
        ],
        "seconds_by_question": {k: None if t is None else round(t, 3) for k, t in times.items()},
    }
    if state.json:
        print_json(made)
    else:
        median = (
            "never for half of them" if made["median_s"] is None else f"{made['median_s']:.2f} s"
        )
        out.print(f"{sum(flipped)} of {len(asked)} questions flipped; median {median}")
        rows = [(f"{s.seconds:.2f}", f"{s.not_flipped:.3f}", s.at_risk) for s in steps]
        table("still the old answer (Kaplan-Meier)", ["seconds", "share", "watched"], rows)
    if not all(flipped):
        raise typer.Exit(1)


def _watch(
    api: Api,
    body: dict[str, Any],
    asked: list[Any],
    clock: tuple[float, float, float],
    *,
    quiet: bool,
) -> dict[str, float | None]:
    """Seconds from the change to each question's first new answer; None where none came."""
    from evals.metrics.answers import contains_answer

    started, seconds, every = clock
    times: dict[str, float | None] = {sample.id: None for sample in asked}
    deadline = max(time.time(), started) + seconds
    while time.time() < deadline:
        for sample in asked:
            if times[sample.id] is not None:
                continue
            turns = [{"role": turn.role, "content": turn.content} for turn in sample.history]
            messages = [*turns, {"role": "user", "content": sample.question}]
            reply = api.call("POST", "/v1/chat/completions", json=body | {"messages": messages})
            text = reply["choices"][0]["message"]["content"]
            new = contains_answer(text, sample.answers).value == 1.0
            if new and not reply["tandem"]["abstained"]:
                times[sample.id] = max(0.0, time.time() - started)
        left = sum(took is None for took in times.values())
        if not quiet:
            err.print(f"{len(asked) - left} of {len(asked)} flipped", highlight=False)
        if not left:
            break
        time.sleep(min(every, max(0.0, deadline - time.time())))
    return times


def _choice(arm: str | None, adapter: str | None) -> dict[str, Any]:
    chosen = {name: value for name, value in (("arm", arm), ("adapter", adapter)) if value}
    return {"tandem": chosen} if chosen else {}


def _moment(since: str | None) -> float:
    if since is None:
        return time.time()
    try:
        return datetime.fromisoformat(since).astimezone().timestamp()
    except ValueError:
        raise BadInput(f"--since {since!r} is not an ISO time such as 2026-05-01T10:00") from None


def _lines(path: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {error}") from error


def _texts(path: Path) -> list[str]:
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    if not lines or not lines[0].lstrip().startswith("{"):
        return lines
    found = []
    for number, row in enumerate(_lines(path), start=1):
        text = next((row[key] for key in ("text", "output", "answer") if row.get(key)), None)
        if not isinstance(text, str):
            raise BadInput(f"{path} line {number} has none of text, output, answer")
        found.append(text)
    return found


def _write_rows(rows: list[Any], target: Path | None, as_json: bool) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if target is None:
        out.print(text, end="", highlight=False, soft_wrap=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, "utf-8")
    if as_json:
        print_json({"answers": len(rows), "file": str(target)})
    else:
        out.print(f"{len(rows)} answers to label (set good to true or false): {target}")


def _interval(found: dict[str, Any]) -> str:
    if found["estimate"] is None:
        return "none"
    if found["low"] is None or found["high"] is None:
        return f"{found['estimate']:.3f}"
    return f"{found['estimate']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
