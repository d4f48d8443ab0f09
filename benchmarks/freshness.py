"""Freshness on real documents: the same questions before and after an update, no retraining.

  python -m benchmarks.freshness --data DATA_DIR [--kb letsencrypt_docs] [--out result.json]

Ingests the old tree, asks every probe, ingests the new tree with --sync, asks again. For each
probe it reports whether the evidence of the right version stood among the passages, whether
evidence of the other version did (stale), and whether the answer's values are the right ones.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from app.cli.client import Api
from app.config import Settings
from evals.metrics.values import extract_values, unsupported_values

_MARKUP = re.compile(r"[\[\]*_`#>()|]|https?://\S+")
_WORD = re.compile(r"\w+")


def plain(text: str) -> str:
    """Words only, so that Markdown links and emphasis do not hide a quotation."""
    return " ".join(_WORD.findall(_MARKUP.sub(" ", text).lower()))


def answered_right(said: str, reference: str) -> bool:
    """All values of the reference are in the answer; without values, half of its long words."""
    if extract_values(reference):
        return not unsupported_values(reference, [said])
    wanted = {w for w in _WORD.findall(reference.lower()) if len(w) > 3}
    found = wanted & set(_WORD.findall(said.lower()))
    return bool(wanted) and len(found) >= len(wanted) / 2


def ask(api: Api, use_case: str, question: str) -> dict[str, Any]:
    body = {"model": use_case, "messages": [{"role": "user", "content": question}]}
    reply = api.call("POST", "/v1/chat/completions", json=body)
    record = api.call("GET", f"/api/v1/answers/{reply['tandem']['answer_id']}")
    passages = plain(" ".join(p["text"] for p in record["passages"]))
    return {
        "answer": reply["choices"][0]["message"]["content"],
        "passages": passages,
        "abstained": reply["tandem"]["abstained"],
        "states": sorted({p["version_state"] for p in record["passages"]}),
    }


def ingest(api: Api, kb: str, folder: Path) -> dict[str, int]:
    body = {"paths": [str(folder)], "sync": True}
    job = api.call("POST", f"/api/v1/knowledge-bases/{kb}/ingest", json=body)
    counts: dict[str, int] = api.wait(job, lambda _job: None)["result"]["counts"]
    return counts


def run(api: Api, kb: str, data: Path) -> dict[str, Any]:
    probes = [
        json.loads(line)
        for line in (data / "freshness_probes" / "probes.shared.jsonl").read_text().splitlines()
    ]
    probes = [probe for probe in probes if probe["kb"] == kb]
    api.call("POST", "/api/v1/knowledge-bases", json={"name": kb})
    api.call("POST", "/api/v1/use-cases", json={"name": kb, "knowledge_bases": [kb]})
    versions = ("old_version", probes[0]["old_version"]), ("new_version", probes[0]["new_version"])
    rows: list[dict[str, Any]] = [{"probe": p["id"], "kind": p["kind"]} for p in probes]
    counts = {}
    for when, (_, version) in zip(("before", "after"), versions, strict=True):
        counts[version] = ingest(api, kb, data / kb / version)
        for probe, row in zip(probes, rows, strict=True):
            row[when] = judge(probe, when, ask(api, kb, probe["question"]))
            print(f"{when:6} {probe['kind']:9} {probe['question']}\n       {row[when]}", flush=True)
    return {"ingest": counts, "table": table(rows), "probes": rows}


def judge(probe: dict[str, Any], when: str, got: dict[str, Any]) -> dict[str, Any]:
    mine, other = ("old", "new") if when == "before" else ("new", "old")
    evidence = plain(probe.get(f"{mine}_evidence") or "")
    wrong = plain(probe.get(f"{other}_evidence") or "")
    return {
        "answer": got["answer"],
        "abstained": got["abstained"],
        "right_passage": bool(evidence) and evidence in got["passages"],
        "stale_passage": bool(wrong) and wrong != evidence and wrong in got["passages"],
        "right_answer": answered_right(got["answer"], probe[f"answer_{when}"]),
        "stale_answer": probe["kind"] == "changed"
        and not answered_right(got["answer"], probe[f"answer_{when}"])
        and answered_right(
            got["answer"], probe["answer_after" if when == "before" else "answer_before"]
        ),
        "version_states": got["states"],
    }


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        chosen = [row for row in rows if row["kind"] == kind]
        line: dict[str, Any] = {"kind": kind, "n": len(chosen)}
        for when in ("before", "after"):
            for what in ("right_passage", "right_answer", "stale_passage", "stale_answer"):
                line[f"{what}_{when}"] = sum(row[when][what] for row in chosen)
            line[f"abstained_{when}"] = sum(row[when]["abstained"] for row in chosen)
        made.append(line)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kb", default="letsencrypt_docs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "models").symlink_to(Settings().models_dir)
        with Api(Settings(home=Path(home))) as api:
            result = run(api, options.kb, options.data)
    for line in result["table"]:
        print(json.dumps(line))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
