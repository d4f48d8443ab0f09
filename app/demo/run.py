"""`tandem demo`: every station in order, with live progress; ends with a report and addresses."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from app.cli.client import Api
from app.cli.output import out, table
from app.cli.state import State
from app.demo import questions
from app.demo.stations import Stations
from app.errors import BadInput
from app.evaluations import reports
from evals.report import Section
from evals.runner import read_outputs

WORKSPACE = "demo"
KB = "gull-and-spoke"
USE_CASE = "support"
SYSTEM = "You answer for Gull & Spoke in its house voice."
ABSTAIN = "I could not find this in the knowledge base. Fair winds!"
STYLE = r"Fair winds!$"
ARMS = ["prompt", "rag", "tuned", "hybrid", "reader"]
# What two cores train in about two and a half minutes; see docs/LOG.md for how it was chosen.
TUNING = {
    "r": 24,
    "alpha": 48,
    "learning_rate": 1e-3,
    "epochs": 3,
    "batch_rows": 2,
    "dropout": 0.0,
    "max_distractors": 2,
    "max_length": 640,
    "p_no_gold": 0.05,
    "eval_rows": 0,
    "probe_steps": 0,
    "max_tokens": 50000,
    "max_seconds": 180,
}


class Demo:
    """One run of the loop over an open connection to the service."""

    def __init__(
        self, state: State, api: Api, samples: Path, folder: Path, *, quick: bool = False
    ) -> None:
        self._state = state
        self._api = api
        self._samples = samples
        self._folder = folder
        self._stations = Stations()
        self._rows = questions.chosen(questions.read(samples / "questions.jsonl"), quick=quick)
        self._settings = TUNING | ({"max_tokens": 4000} if quick else {})
        self._result: dict[str, Any] = {"quick": quick}

    def run(self) -> dict[str, Any]:
        """All stations; returns what goes into result.json."""
        started = time.perf_counter()
        self._set_up()
        self._station("1 ingest the first version", lambda: self._ingest("v1"))
        self._station("2 ask, before any tuning", self._ask_some)
        self._station("3 build the dataset", self._build)
        self._station("4 tune the house adapter", self._tune)
        self._station("5 compare the arms", self._evaluate)
        self._station("6 decide", self._decide)
        self._station("7 apply the second version", lambda: self._ingest("v2"))
        self._station("8 ask again, no retraining", self._freshness)
        self._station("9 correct, review, next snapshot", self._correct)
        self._stations.close()
        self._result["seconds"] = round(time.perf_counter() - started, 1)
        self._result["stations"] = [
            {"station": s.name, "seconds": s.seconds, "peak_mib": s.peak_mib}
            for s in self._stations.finished
        ]
        self._result["peak_mib"] = max(s.peak_mib for s in self._stations.finished)
        self._write()
        return self._result

    def _station(self, name: str, work: Any) -> None:
        out.rule(name, align="left")
        with self._stations.measure(name):
            work()

    def _set_up(self) -> None:
        if KB not in {row["name"] for row in self._api.call("GET", "/api/v1/knowledge-bases")}:
            self._api.call("POST", "/api/v1/knowledge-bases", json={"name": KB})
        if USE_CASE not in {row["name"] for row in self._api.call("GET", "/api/v1/use-cases")}:
            body = {
                "name": USE_CASE,
                "knowledge_bases": [KB],
                "system_prompt": SYSTEM,
                "abstain_sentence": ABSTAIN,
                "options": {"style_pattern": STYLE, "max_answer_tokens": 48},
            }
            self._api.call("POST", "/api/v1/use-cases", json=body)
        self._api.call("PATCH", f"/api/v1/use-cases/{USE_CASE}", json={"arm": "hybrid"})

    def _ingest(self, version: str) -> None:
        path = self._samples / "knowledge" / version
        body = {"paths": [str(path)], "sync": True}
        job = self._api.call("POST", f"/api/v1/knowledge-bases/{KB}/ingest", json=body)
        counts = self._state.run_job(self._api, job, f"ingest {version}")["result"]["counts"]
        self._result[f"ingest_{version}"] = counts
        out.print("  " + ", ".join(f"{n} {kind}" for kind, n in counts.items() if n))

    def _ask(self, question: str, **tandem: Any) -> dict[str, Any]:
        body = {
            "model": USE_CASE,
            "messages": [{"role": "user", "content": question}],
            "tandem": tandem,
        }
        reply: dict[str, Any] = self._api.call("POST", "/v1/chat/completions", json=body)
        return reply

    def _ask_some(self) -> None:
        picked = [row for row in self._rows if row["tags"][0] == "answerable"][:3]
        asked = []
        for row in picked:
            reply = self._ask(row["question"], arm="hybrid", adapter="reader")
            text = reply["choices"][0]["message"]["content"]
            cited = ", ".join(c["document"] for c in reply["tandem"]["citations"]) or "nothing"
            asked.append({"question": row["question"], "answer": text, "cites": cited})
            out.print(f"  Q {row['question']}\n  A {text}   (cites {cited})", markup=False)
        self._result["asked_before_tuning"] = asked

    def _build(self) -> None:
        body = {
            "use_case": USE_CASE,
            "from_file": str(self._samples / "examples.jsonl"),
            "dev": 0.05,
            "test": 0.05,
        }
        made = self._api.call("POST", "/api/v1/datasets", json=body)
        self._result["dataset"] = {
            "sha256": made["content_sha256"],
            "rows": made["rows"],
            "splits": made["splits"],
        }
        out.print(f"  {made['rows']} rows sealed as {made['content_sha256'][:16]}")

    def _tune(self) -> None:
        body = {
            "use_case": USE_CASE,
            "dataset": self._result["dataset"]["sha256"],
            "start_from": "reader",
            "settings": self._settings,
        }
        job = self._api.call("POST", "/api/v1/tuning-runs", json=body)
        made = self._state.run_job(self._api, job, "tune")["result"]
        self._result["tuning"] = made
        out.print(f"  adapter {made['name']}, {made['tokens']} tokens, smoke test {made['smoke']}")

    def _evaluate(self) -> None:
        path = self._folder / "questions.jsonl"
        lines = [json.dumps(questions.as_sample(row)) + "\n" for row in self._rows]
        path.write_text("".join(lines), "utf-8")
        body = {
            "use_case": USE_CASE,
            "samples": str(path),
            "arms": ARMS,
            "adapter": self._result["tuning"]["adapter"],
        }
        job = self._api.call("POST", "/api/v1/evaluations", json=body)
        done = self._state.run_job(self._api, job, "evaluate")["result"]
        self._result["evaluation"] = done["evaluation"]
        self._result["evaluation_path"] = done["path"]

    def _decide(self) -> None:
        body = {"use_case": USE_CASE, "evaluation": self._result["evaluation"], "apply": True}
        made = self._api.call("POST", "/api/v1/decisions", json=body)
        again = self._api.call("POST", f"/api/v1/decisions/{made['id']}/replay")
        self._result["decision"] = {
            "id": made["id"],
            "status": made["status"],
            "arm": made["arm"],
            "headline": made["record"]["headline"],
            "reason": made["record"]["reason"],
            "replay_identical": again["identical"],
        }
        out.print(f"  {made['status']}: {made['record']['headline']}", markup=False)

    def _freshness(self) -> None:
        """The changed questions before (from the evaluation) and after, with the same adapter."""
        changed = [row for row in self._rows if row["tags"][0] == "changed"]
        folder = Path(self._result["evaluation_path"])
        stored = {(o.arm, o.sample_id): o.text for o in read_outputs(folder / "outputs.jsonl")}
        counts: dict[str, Counter[str]] = {"before": Counter(), "after": Counter()}
        shown = []
        for row in changed:
            before = stored["hybrid", row["id"]]
            reply = self._ask(
                row["question"], arm="hybrid", adapter=self._result["tuning"]["adapter"]
            )
            after = reply["choices"][0]["message"]["content"]
            verdicts = questions.verdict(row, before, "v1"), questions.verdict(row, after, "v2")
            counts["before"][verdicts[0]] += 1
            counts["after"][verdicts[1]] += 1
            shown.append(
                {"question": row["question"], "before": before, "after": after, "is": verdicts[1]}
            )
        self._result["freshness"] = {
            "n": len(changed),
            **{when: dict(count) for when, count in counts.items()},
            "flipped": sum(item["before"] != item["after"] for item in shown),
            "answers": shown,
        }
        for item in shown[:3]:
            out.print(f"  Q {item['question']}", markup=False)
            out.print(f"    before: {item['before']}\n    after:  {item['after']}", markup=False)

    def _correct(self) -> None:
        script = json.loads((self._samples / "corrections.json").read_text("utf-8"))
        reply = self._ask(script["question"])
        answer_id = reply["tandem"]["answer_id"]
        feedback = {
            "answer_id": answer_id,
            "rating": "down",
            "correction": script["corrected_reply"],
        }
        given = self._api.call(
            "POST", "/api/v1/feedback", json=feedback, headers={"X-Tandem-As": script["author"]}
        )
        verdict = self._api.call(
            "POST",
            f"/api/v1/reviews/{given['review']}",
            json={"decision": "approve"},
            headers={"X-Tandem-As": script["reviewer"]},
        )
        made = self._api.call("POST", "/api/v1/datasets", json={"use_case": USE_CASE})
        self._result["correction"] = {
            "question": script["question"],
            "answer": reply["choices"][0]["message"]["content"],
            "corrected": script["corrected_reply"],
            "outcome": verdict["outcome"],
            "next_dataset": made["content_sha256"],
            "rows": made["rows"],
        }
        out.print(
            f"  {script['author']} corrected, {script['reviewer']} approved: {verdict['outcome']}; "
            f"the next snapshot {made['content_sha256'][:16]} has {made['rows']} rows",
            markup=False,
        )

    def _write(self) -> None:
        """The report with the demo's own sections, and result.json with every figure."""
        folder = Path(self._result["evaluation_path"])
        evaluation = self._api.call("GET", f"/api/v1/evaluations/{self._result['evaluation']}")
        payload = {
            "arms": evaluation["result"]["manifest"]["arms"],
            "style": STYLE,
            "samples_name": "samples/questions.jsonl",
            "manifest": {
                "title": "Gull & Spoke support: which arm should answer?",
                "dataset": self._result["dataset"]["sha256"],
                "adapter": self._result["tuning"]["digest"],
            },
        }
        self._result["evaluation_result"] = reports.write(
            folder, payload, USE_CASE, self._result["seconds"], self._sections()
        )
        _replace(self._folder / "report.html", (folder / "report.html").read_text("utf-8"))
        _replace(self._folder / "result.json", json.dumps(self._result, indent=1))

    def _sections(self) -> list[Section]:
        fresh = self._result["freshness"]
        rows = [
            (when, fresh["n"], *(fresh[when].get(kind, 0) for kind in ("right", "stale", "other")))
            for when in ("before", "after")
        ]
        correction = self._result["correction"]
        return [
            Section(
                "Freshness: the same questions before and after the second version",
                ("version", "questions", "right", "stale", "other"),
                tuple(rows),
                note="Hybrid arm with the same adapter; nothing was trained in between.",
            ),
            Section(
                "Before and after",
                ("question", "first version", "second version", "judged"),
                tuple((a["question"], a["before"], a["after"], a["is"]) for a in fresh["answers"]),
            ),
            Section(
                "One correction through the loop",
                ("what", "text"),
                tuple((key, str(value)) for key, value in correction.items()),
            ),
            Section(
                "Stations",
                ("station", "seconds", "peak MiB"),
                tuple(
                    (s["station"], s["seconds"], s["peak_mib"]) for s in self._result["stations"]
                ),
            ),
        ]


def run_demo(state: State, output: str, *, quick: bool = False) -> None:
    """Run the loop in workspace `demo` and leave report.html and result.json in `output`."""
    samples = Path(__file__).resolve().parents[2] / "samples"
    if not (samples / "questions.jsonl").is_file():
        raise BadInput(f"the sample company is not at {samples}: run the demo from a checkout")
    folder = Path(output).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with state.api() as api:
        if WORKSPACE not in {row["name"] for row in api.call("GET", "/api/v1/workspaces")}:
            api.call("POST", "/api/v1/workspaces", json={"name": WORKSPACE})
    demo_state = State(state.settings, state.json, WORKSPACE, "demo")
    with demo_state.api() as api:
        result = Demo(demo_state, api, samples, folder, quick=quick).run()
    _show(result, folder)


def _show(result: dict[str, Any], folder: Path) -> None:
    arms = result["evaluation_result"]["evaluation"]["arms"]
    rows = [_arm_row(arm) for arm in arms]
    columns = ("arm", "n", "EM", "F1", "right fact", "cites right", "abstains", "p50 s", "p95 s")
    out.print()
    table("the arms on the first version", columns, rows)
    fresh = result["freshness"]
    shown = [
        (when, fresh["n"], *(fresh[when].get(kind, 0) for kind in ("right", "stale", "other")))
        for when in ("before", "after")
    ]
    table("changed facts, same adapter", ("", "n", "right", "stale", "other"), shown)
    stations = [(s["station"], s["seconds"], s["peak_mib"]) for s in result["stations"]]
    table("stations", ("station", "seconds", "peak MiB"), stations)
    decision = result["decision"]
    out.print(f"{decision['status']}: {decision['headline']}", style="bold", highlight=False)
    out.print(f"{result['seconds']:.0f} s, peak {result['peak_mib']} MiB", highlight=False)
    out.print(f"report: {folder / 'report.html'}", highlight=False, soft_wrap=True)
    out.print(f"figures: {folder / 'result.json'}", highlight=False, soft_wrap=True)
    out.print(
        "serve it: `make serve`, then `tandem --workspace demo ask support 'How much is the Ripple "
        "plan?'`, or open http://127.0.0.1:8000/docs",
        highlight=False,
    )


def _arm_row(arm: dict[str, Any]) -> tuple[Any, ...]:
    def value(name: str) -> str:
        metric = arm["metrics"].get(name)
        return "" if metric is None or metric["estimate"] is None else f"{metric['estimate']:.2f}"

    def seconds(name: str) -> str:
        interval = arm.get(name)
        if interval is None or interval["estimate"] is None:
            return ""
        return f"{interval['estimate']:.2f}"

    names = ("exact_match", "token_f1", "contains_answer", "right_citation", "abstention")
    return (
        arm["arm"],
        arm["scored"],
        *(value(name) for name in names),
        seconds("latency_p50_s"),
        seconds("latency_p95_s"),
    )


def _replace(path: Path, text: str) -> None:
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(text, "utf-8")
    os.replace(scratch, path)
