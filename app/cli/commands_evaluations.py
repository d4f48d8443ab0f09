"""eval: compare arms, make samples, write reports again, gate a build."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import commands_instruments
from app.cli.output import err, out, print_json, table
from app.cli.state import State, state_of
from app.errors import BadInput

_FILES = ("report.html", "report.md", "result.json", "scores.json", "manifest.json")
_REMOVE_GOLD = typer.Option("--remove-gold", help="Hide supporting documents: refusing is right.")
_HIDDEN_TWINS = typer.Option("--hidden-twins", help="Ask as is, and again with documents hidden.")
_PRIMARY = typer.Option(help="The metric the decision is about: token_f1 unless given.")
_BEFORE = typer.Option(help="Evaluation before a change of the knowledge.")
_MANIFEST = typer.Option(help="Run an earlier evaluation again and compare.")
_RULES = typer.Option(help="Rules of the decision, a JSON file, fixed before the run.")
_LOOKS = typer.Option(help="How often you will look at these questions.")
_PLAN = typer.Option("--plan", help="Say what the run would show and take, then stop.")
_KEPT = ("samples.jsonl", "outputs.jsonl")  # what a manifest needs beside it


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    evaluation = typer.Typer(help="Compare the arms.", no_args_is_help=True)
    evaluation.command("run")(eval_run)
    evaluation.command("list")(eval_list)
    evaluation.command("samples")(eval_samples)
    evaluation.command("gate")(eval_gate)
    commands_instruments.register(evaluation)
    app.add_typer(evaluation, name="eval")


def eval_run(
    context: typer.Context,
    use_case: Annotated[str, typer.Argument(help="Not needed with --manifest.")] = "",
    samples: Annotated[Path | None, typer.Option(help="Samples, JSON lines.")] = None,
    samples_format: Annotated[
        str, typer.Option("--format", help="auto, samples, squad or faq.")
    ] = "auto",
    arms: Annotated[
        str, typer.Option(help="Of prompt, rag, tuned, hybrid, reader.")
    ] = "prompt,rag,tuned,hybrid",
    adapter: Annotated[str | None, typer.Option(help="Adapter of tuned and hybrid.")] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Copy report and results here.")
    ] = None,
    remove_gold: Annotated[bool, _REMOVE_GOLD] = False,
    hidden_twins: Annotated[bool, _HIDDEN_TWINS] = False,
    primary: Annotated[str | None, _PRIMARY] = None,
    repeats: Annotated[int, typer.Option(help="Answers to each question, sampled.")] = 1,
    temperature: Annotated[float, typer.Option(help="Above 0 for repeats.")] = 0.0,
    task: Annotated[str | None, typer.Option(help="classification")] = None,
    before: Annotated[str | None, _BEFORE] = None,
    costs: Annotated[Path | None, typer.Option(help="Prices, a JSON file.")] = None,
    manifest: Annotated[Path | None, _MANIFEST] = None,
    rules: Annotated[Path | None, _RULES] = None,
    margin: Annotated[float | None, typer.Option(help="The difference that matters.")] = None,
    looks: Annotated[int | None, _LOOKS] = None,
    plan: Annotated[bool, _PLAN] = False,
) -> None:
    """Compare arms on the same samples and write the report; the plan is shown first."""
    spec = _json_file(rules) if rules else {}
    spec |= {k: v for k, v in (("margin", margin), ("looks", looks)) if v is not None}
    given = {
        "samples_format": samples_format,
        "arms": [arm.strip() for arm in arms.split(",") if arm.strip()],
        "adapter": adapter,
        "remove_gold": remove_gold,
        "hidden_twins": hidden_twins,
        "primary": primary,
        "repeats": repeats,
        "temperature": temperature,
        "task": task,
        "before": before,
        "costs": _json_file(costs) if costs else {},
        "spec": spec,
    }
    if manifest is not None:
        body, earlier = _from_manifest(manifest, use_case)
        _run(state_of(context), body, out_dir, (earlier, plan))
        return
    if samples is None or not use_case:
        raise BadInput("give a use case and --samples FILE, or --manifest FILE")
    body = {"use_case": use_case, "samples": str(samples.resolve()), **given}
    _run(state_of(context), body, out_dir, (None, plan))


def _run(
    state: State, body: dict[str, Any], out_dir: Path | None, how: tuple[Path | None, bool]
) -> None:
    earlier, only_plan = how
    with state.api() as api:
        planned = api.call("POST", "/api/v1/evaluations/plan", json=body)
        _show_plan(state, planned, only_plan)
        if only_plan:
            return
        job = api.call("POST", "/api/v1/evaluations", json=body)
        result = state.run_job(api, job, f"evaluate {body['use_case']}")["result"]
    result["plan"] = planned
    folder = Path(result["path"])
    if earlier is not None:
        result["compared"] = _compare(earlier, folder)
    if out_dir is not None:
        out_dir.mkdir(parents=True, exist_ok=True)
        for name in (*_FILES, *_KEPT):
            shutil.copyfile(folder / name, out_dir / name)
        folder = out_dir
    _show_run(state, result, folder)


def _show_plan(state: State, planned: dict[str, Any], alone: bool) -> None:
    """On stderr before a run, so that a report on stdout stays one; alone it is the output."""
    if state.json:
        if alone:
            print_json(planned)
        return
    for line in planned["sentences"]:
        (out if alone else err).print(line, highlight=False, soft_wrap=True)


def _show_run(state: State, result: dict[str, Any], folder: Path) -> None:
    if state.json:
        print_json(result | {"report": str(folder / "report.html")})
        return
    out.print((folder / "report.md").read_text("utf-8"), markup=False, highlight=False)
    if "compared" in result:
        found = result["compared"]
        out.print(
            f"{found['same']} of {found['answers']} answers are word for word the manifest's",
            style="bold",
        )
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


def eval_samples(
    context: typer.Context,
    target: Annotated[Path, typer.Option("--out", help="Samples file to write.")],
    source: Annotated[Path | None, typer.Option("--from", help="SQuAD JSON, FAQ table.")] = None,
    samples_format: Annotated[
        str, typer.Option("--format", help="auto, samples, squad or faq.")
    ] = "auto",
    corrections: Annotated[
        str | None, typer.Option(help="Approved corrections of this use case.")
    ] = None,
) -> None:
    """Make a samples file, dependent questions linked into clusters."""
    from evals.loaders import load
    from evals.samples import clusters, parse_sample, sample_record

    state = state_of(context)
    if (source is None) == (corrections is None):
        raise BadInput("give one of --from FILE and --corrections USE_CASE")
    if corrections is not None:
        with state.api() as api:
            rows = api.call("GET", f"/api/v1/evaluations/samples/{corrections}")
        samples = tuple(parse_sample(row) for row in rows)
    else:
        samples = load(str(source), samples_format)
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(sample_record(sample), ensure_ascii=False) for sample in samples)
    target.write_text("\n".join(lines) + "\n", "utf-8")
    groups = len(set(clusters(samples)))
    if state.json:
        print_json({"samples": len(samples), "clusters": groups, "file": str(target)})
    else:
        out.print(
            f"{len(samples)} samples in {groups} independent clusters: {target}", highlight=False
        )


def eval_gate(
    context: typer.Context,
    baseline: Annotated[Path, typer.Option(help="scores.json, or the folder it lies in.")],
    current: Annotated[Path, typer.Option(help="scores.json, or the folder it lies in.")],
    arm: Annotated[str | None, typer.Option(help="If both runs hold more than one.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Must not get worse; the primary metric unless given.")
    ] = None,
    margin: Annotated[float, typer.Option(help="A loss that does not matter.")] = 0.0,
    floor: Annotated[
        list[str] | None, typer.Option(help="metric=value that must be kept, repeatable.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail too where the questions are too few to tell.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    summary: Annotated[
        Path | None, typer.Option(envvar="GITHUB_STEP_SUMMARY", help="Add Markdown here.")
    ] = None,
) -> None:
    """Fail (exit 1) on a shown regression or a missed floor, judged by intervals."""
    from evals import regression

    state = state_of(context)
    result = regression.gate(
        regression.read_scores(baseline),
        regression.read_scores(current),
        arm=arm,
        metrics=metric or (),
        margin=margin,
        floors=dict(map(_floor, floor or ())),
        strict=strict,
    )
    if junit is not None:
        junit.parent.mkdir(parents=True, exist_ok=True)
        junit.write_text(regression.junit(result), "utf-8")
    if summary is not None:
        with summary.open("a", encoding="utf-8") as file:
            file.write(regression.summary(result))
    if state.json:
        print_json(regression.gate_record(result))
    else:
        rows = [(check.outcome, check.name, check.sentence) for check in result.checks]
        table(f"gate: {result.arm}", ["outcome", "check", "why"], rows)
    if not result.passed:
        raise typer.Exit(1)


def _floor(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise BadInput(f"--floor {text!r} is not metric=value") from None


def _json_file(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {error}") from error


def _from_manifest(path: Path, use_case: str) -> tuple[dict[str, Any], Path]:
    """The request of an earlier run, and the folder its answers lie in."""
    from app.evaluations.reports import MANIFEST_VERSION

    record = _json_file(path)
    if not isinstance(record, dict) or record.get("manifest_version") != MANIFEST_VERSION:
        raise BadInput(f"{path} is not the manifest.json of an evaluation")
    folder = path.resolve().parent
    names = ("arms", "adapter", "primary", "spec", "repeats", "temperature", "task")
    body = {name: record[name] for name in names if name in record}
    body |= {
        "use_case": use_case or record["use_case"],
        "samples": str(folder / record["samples"]),
        "samples_format": "samples",
    }
    return body, folder


def _compare(earlier: Path, now: Path) -> dict[str, int]:
    from evals.runner import read_outputs

    def texts(folder: Path) -> dict[tuple[str, str, int], tuple[str, bool]]:
        return {
            (o.arm, o.sample_id, o.repeat): (o.text, o.abstained)
            for o in read_outputs(folder / "outputs.jsonl")
        }

    before, after = texts(earlier), texts(now)
    same = sum(after.get(key) == said for key, said in before.items())
    return {"answers": len(before), "same": same}
