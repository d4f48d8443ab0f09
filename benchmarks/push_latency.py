"""How long until a pushed page is answered from, while a large ingestion runs.

  python -m benchmarks.push_latency --data DATA [--pushes 20]

Starts ingesting the PolicyQA and XQuAD passages as a job, and meanwhile pushes one-page documents
with PUT, each with a fact of its own, searching for the fact as soon as the call returned.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from app.cli.client import Api
from app.config import Settings

_FILLER = (
    "The office answers on weekdays. Requests are handled in the order of their arrival, and "
    "every customer gets a number. Parcels are sent on the next working day. "
)


def page(number: int) -> str:
    """About a page of text, with one fact in its middle."""
    fact = f"The zeppelin{number} voucher is worth {number + 11} crowns."
    parts = (f"# Notice {number}", _FILLER * 5, "## Vouchers", fact, "## Office", _FILLER * 5)
    return "\n\n".join(parts) + "\n"


def write_passages(data: Path, folder: Path) -> int:
    """Passages of two sets, a file each; how many."""
    rows = []
    for path in sorted(p for s in ("xquad_en", "policyqa") for p in (data / s).glob("pass*.jsonl")):
        rows += [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for number, row in enumerate(rows):
        (folder / f"p{number:04}.md").write_text(f"# Passage {number}\n\n{row['text']}\n", "utf-8")
    return len(rows)


def run(api: Api, folder: Path, pushes: int) -> dict[str, Any]:
    """Push while the ingestion runs; the figures in seconds."""
    base = "/api/v1/knowledge-bases/docs"
    api.call("POST", "/api/v1/knowledge-bases", json={"name": "docs"})
    api.call("PUT", f"{base}/documents/warm.md", content=b"# Warm\n\nWarm up.\n")
    job = api.call("POST", f"{base}/ingest", json={"paths": [str(folder)]})
    rows = []
    for number in range(pushes):
        state = api.call("GET", f"/api/v1/jobs/{job['id']}")
        started = time.perf_counter()
        api.call("PUT", f"{base}/documents/n{number}.md", content=page(number).encode())
        put_s = time.perf_counter() - started
        query = f"How much is the zeppelin{number} voucher worth?"
        hits = api.call("POST", f"{base}/search", json={"query": query, "limit": 3})["hits"]
        seen_s = time.perf_counter() - started
        right = any(f"{number + 11} crowns" in hit["text"] for hit in hits)
        rows.append((put_s, seen_s, right, state["state"] == "running"))
        time.sleep(0.3)
    job = api.wait(job, lambda _job: None)
    during = [row for row in rows if row[3]]
    seen = sorted(row[1] for row in during)
    return {
        "pushes": pushes,
        "during_ingestion": len(during),
        "found_at_once": sum(row[2] for row in rows),
        "put_s": {"p50": _at([r[0] for r in during], 0.5), "max": _at([r[0] for r in during], 1)},
        "answered_from_s": {"p50": _at(seen, 0.5), "p95": _at(seen, 0.95), "max": _at(seen, 1)},
        "ingested": job["result"]["counts"]["added"],
    }


def _at(values: list[float], share: float) -> float | None:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if values else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pushes", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home, documents = Path(folder) / "home", Path(folder) / "documents"
        home.mkdir()
        documents.mkdir()
        (home / "models").symlink_to(Settings().models_dir.resolve())
        write_passages(options.data, documents)
        with Api(Settings(home=home)) as api:
            result = run(api, documents, options.pushes)
    print(json.dumps(result, indent=1))
    return 0 if result["found_at_once"] == options.pushes else 1


if __name__ == "__main__":
    sys.exit(main())
