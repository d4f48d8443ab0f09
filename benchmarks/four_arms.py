"""The four arms on one knowledge base of three kinds: long PDFs, encyclopedia, support articles.

  python -m benchmarks.four_arms --data DATA --adapter DIR --out DIR
      [--northwind 48] [--xquad 60] [--bitext 60] [--primary token_f1] [--margin 0.05]

Opens the service in a temporary home and uses its public interfaces only: ingests the northwind
PDFs, the XQuAD passages and short support articles, imports the adapter, compares prompt, tuned,
rag and hybrid on questions of all three sets, then decides. Leaves in --out: report.html,
report.md, report.json, decision.txt, decision.json, plan.txt, timings.json, and what a rerun
needs (samples.jsonl, outputs.jsonl, manifest.json, scores.json).

No question is one that adapters of this repository are trained on: XQuAD articles and request
templates of bitext are those of the test splits. A support article holds another fact than the
canned reply of its intent, so that weights alone are stale there; the accepted answer is the fact.
Only documents can be cited, so the northwind questions of one PDF are one cluster, and those of
an XQuAD article and of a bitext intent as well. The tag of a sample is its set.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import quality_tasks
from benchmarks.xquad import read, split_of
from evals.integrity import audit_leakage
from evals.samples import parse_sample

ARMS = ("prompt", "tuned", "rag", "hybrid")
NAME = "four-arms"
# One setting for all three sets: an XQuAD passage seldom has more tokens than a chunk.
CHUNK_TOKENS, BUDGET_TOKENS, ANSWER_TOKENS = 300, 1000, 120
CASE = {"task": "question_answering", "domain": "documents"}
_PERIOD_S = 10.0
_CITATION = re.compile(r"\s*\[[^\]\[]+\.pdf#page=\d+\]")
_KEPT = {"report.html": "report.html", "report.md": "report.md", "result.json": "report.json"} | {
    name: name for name in ("samples.jsonl", "outputs.jsonl", "manifest.json", "scores.json")
}

Sample = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sets:
    """Samples by set, in file order, and the documents to write beside the PDFs.

    Attributes:
        articles: path within the documents folder -> text.
        pdfs: the files to copy into the folder `northwind`.
    """

    samples: dict[str, list[Sample]]
    articles: dict[str, str]
    pdfs: tuple[Path, ...]


def load(data: Path) -> Sets:
    """All three sets from the data folder."""
    passages = {str(p["passage_id"]): p for p in read(data / "xquad_en" / "passages.jsonl")}
    questions = read(data / "xquad_en" / "questions.shared.jsonl")
    others = [q for q in questions if split_of(passages[q["gold_passage"]]["title"]) != "test"]
    rows = quality_tasks.bitext(data)
    support, requests = bitext(rows)
    trained = [row["question"] for row in rows if row["split"] != "test"]
    texts = {f"xquad/{key}.md": _titled(p["title"], p["text"]) for key, p in passages.items()}
    return Sets(
        {
            "northwind": northwind(read(data / "northwind" / "qa.shared.jsonl")),
            "xquad": unseen(xquad(questions, passages), [q["question"] for q in others]),
            "bitext": unseen(requests, trained),
        },
        texts | support,
        tuple(sorted((data / "northwind" / "docs").glob("*.pdf"))),
    )


def northwind(rows: Iterable[dict[str, Any]]) -> list[Sample]:
    """Questions about the PDFs; the answer is the reference text without its citations."""
    made = []
    for row in rows:
        files = sorted({f"northwind/{cited.split('#')[0]}" for cited in row["citations"]})
        answer = _CITATION.sub("", row["truth"]).strip()
        made.append(_sample("northwind", row["id"], row["question"], [answer], files, files[0]))
    return made


def xquad(rows: Iterable[dict[str, Any]], passages: dict[str, Any]) -> list[Sample]:
    """Questions of the articles of the test split."""
    made = []
    for row in rows:
        gold = str(row["gold_passage"])
        title = str(passages[gold]["title"])
        if split_of(title) == "test":
            answers = list(dict.fromkeys(row["answers"]))
            made.append(
                _sample("xquad", row["id"], row["question"], answers, [f"xquad/{gold}.md"], title)
            )
    return made


def bitext(rows: Iterable[dict[str, Any]]) -> tuple[dict[str, str], list[Sample]]:
    """Support articles and the test requests about them, from `quality_tasks.bitext`.

    Each request there has a fact of its own; a knowledge base holds one fact an intent. That is
    the fact of the first request (by hash) whose fact no other intent has taken.
    """
    grounded = [r for r in rows if r["kind"] == "grounded" and r["split"] == "test"]
    by_intent: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(grounded, key=lambda row: _rank(row["id"])):
        by_intent[row["provenance"]["label"]].append(row)
    taken: dict[str, str] = {}
    articles, names = {}, {}
    for intent, candidates in sorted(by_intent.items()):
        free = [r for r in candidates if r["fact"] not in {*taken, r["trained_fact"]}]
        if not free:
            raise SystemExit(f"no fact is left for the article on {intent!r}")
        article = free[0]["gold"][0]
        taken[free[0]["fact"]] = intent
        names[intent] = f"support/{intent}.md"
        articles[names[intent]] = _titled(article["title"], article["text"])
    facts = {intent: fact for fact, intent in taken.items()}
    samples = []
    for row in grounded:
        intent = row["provenance"]["label"]
        answers, gold = [facts[intent].strip("'")], [names[intent]]
        samples.append(_sample("bitext", row["id"], row["question"], answers, gold, intent))
    return articles, samples


def unseen(samples: Sequence[Sample], training: Sequence[str]) -> list[Sample]:
    """The samples whose question is not, in nearly the same words, one of the training texts.

    The templates of bitext are split by their letters: "where is my order" and "Where is my
    order?" may lie on two sides.
    """
    audit = audit_leakage([parse_sample(sample) for sample in samples], training)
    seen = {leak.sample_id for leak in audit.leaks}
    return [sample for sample in samples if sample["id"] not in seen]


def chosen(samples: Sequence[Sample], count: int) -> list[Sample]:
    """`count` samples in turn from every cluster, so that no document outweighs the others.

    Which ones depends on the hash of ids alone; a longer choice holds the shorter one. Of
    questions in the same words one is asked.
    """
    by_cluster: dict[str, list[Sample]] = defaultdict(list)
    seen: set[str] = set()
    for sample in sorted(samples, key=lambda sample: _rank(sample["id"])):
        words = " ".join(re.findall(r"\w+", sample["question"].lower()))
        if words not in seen:
            seen.add(words)
            by_cluster[sample["cluster"]].append(sample)
    queues = [by_cluster[name] for name in sorted(by_cluster, key=_rank)]
    longest = max((len(queue) for queue in queues), default=0)
    in_turn = [queue[i] for i in range(longest) for queue in queues if i < len(queue)]
    return in_turn[:count]


def joined(samples: dict[str, list[Sample]], counts: dict[str, int]) -> list[Sample]:
    """The chosen samples of all sets, the sets mixed evenly over the run.

    Raises:
        SystemExit: naming the set, if it holds fewer questions than asked for.
    """
    placed = []
    for name, count in counts.items():
        rows = chosen(samples[name], count)
        if len(rows) < count:
            raise SystemExit(f"{name} has {len(rows)} questions to choose from, not {count}")
        placed += [((i + 0.5) / count, name, row) for i, row in enumerate(rows)]
    return [row for _, _, row in sorted(placed, key=lambda item: item[:2])]


def progress_line(job: dict[str, Any], seconds: float) -> str:
    """Done, rate and time left of a job; its own message, which may hold a better ETA, behind."""
    done, total = int(job.get("done") or 0), int(job.get("total") or 0)
    message = str(job.get("message") or "")
    parts = [f"{done}/{total}" if total else str(job.get("state"))]
    if done and seconds > 0:
        rate = done / seconds
        parts.append(f"{rate:.2f}/s")
        if total > done and "ETA" not in message:
            parts.append(f"ETA {(total - done) / rate:.0f} s")
    return " ".join(parts) + (f" · {message}" if message else "")


@dataclass(slots=True)
class Run:
    """One run over an open connection to the service; `timings` in seconds by station."""

    api: Any
    out: Path
    timings: dict[str, float] = field(default_factory=dict)

    def fill(self, documents: Path) -> set[str]:
        """Create and fill the knowledge base; the names of its documents."""
        self.api.call("POST", "/api/v1/knowledge-bases", json={"name": NAME})
        body = {"paths": [str(documents)], "sync": True}
        path = f"/api/v1/knowledge-bases/{NAME}"
        with self._station("ingest"):
            job = self.api.call("POST", f"{path}/ingest", json=body)
            counts = self.api.wait(job, self._shown("ingest"))["result"]["counts"]
        print(json.dumps(counts), flush=True)
        return {row["document"] for row in self.api.call("GET", f"{path}/documents")}

    def set_up(self, adapter: Path, prompt: dict[str, str]) -> str:
        """Create the use case and import the adapter; its id."""
        body = {
            "name": NAME,
            "knowledge_bases": [NAME],
            "options": {"max_answer_tokens": ANSWER_TOKENS},
            **prompt,
        }
        self.api.call("POST", "/api/v1/use-cases", json=body)
        self.api.call("PUT", "/api/v1/decisions/case", json={"use_case": NAME, "facts": CASE})
        with self._station("import adapter"):
            body = {"use_case": NAME, "path": str(adapter.resolve()), "name": "house"}
            made = self.api.call("POST", "/api/v1/adapters", json=body)
        return str(made["id"])

    def evaluate(self, samples: Path, adapter: str, rules: dict[str, Any]) -> str:
        """Show the plan, run all arms, copy the report; the evaluation's id."""
        body = {
            "use_case": NAME,
            "samples": str(samples),
            "samples_format": "samples",
            "arms": list(ARMS),
            "adapter": adapter,
            "primary": rules["primary"],
            "spec": rules,
        }
        plan = self.api.call("POST", "/api/v1/evaluations/plan", json=body)
        self._write("plan.txt", "\n".join(plan["sentences"]) + "\n")
        with self._station("evaluate"):
            job = self.api.call("POST", "/api/v1/evaluations", json=body)
            done = self.api.wait(job, self._shown("evaluate"))["result"]
        self.timings["answers"] = done["seconds"]
        for source, target in _KEPT.items():
            shutil.copyfile(Path(done["path"]) / source, self.out / target)
        return str(done["evaluation"])

    def decide(self, evaluation: str) -> None:
        """Decide, ask why, replay; the text and the record."""
        with self._station("decide"):
            body = {"use_case": NAME, "evaluation": evaluation}
            made = self.api.call("POST", "/api/v1/decisions", json=body)
        path = f"/api/v1/decisions/{made['id']}"
        why = self.api.call("GET", f"{path}/why")["sentences"]
        with self._station("replay"):
            replayed = self.api.call("POST", f"{path}/replay")
        same = "identical" if replayed["identical"] else "; ".join(replayed["differences"])
        lines = [f"{made['status']}: {why[0]}", *(f"  {line}" for line in why[1:])]
        lines.append(f"  {'serves now' if made['applied'] else 'not served'}; replay: {same}")
        self._write("decision.txt", "\n".join(lines) + "\n")
        self._write("decision.json", json.dumps(made, indent=1))

    def finish(self, samples: Sequence[Sample]) -> None:
        """Write the timings, with the answers per second of the run."""
        counts = Counter(sample["tags"][0] for sample in samples)
        answers = len(samples) * len(ARMS)
        record = {
            "questions": dict(counts),
            "clusters": len({sample["cluster"] for sample in samples}),
            "answers": answers,
            "answers_per_s": round(answers / max(self.timings["answers"], 1e-9), 3),
            "seconds": {name: round(value, 1) for name, value in self.timings.items()},
        }
        self._write("timings.json", json.dumps(record, indent=1) + "\n")

    @contextmanager
    def _station(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.timings[name] = time.perf_counter() - started

    def _shown(self, label: str) -> Callable[[dict[str, Any]], None]:
        """A line on stderr every ten seconds: it reads the same in a terminal and in a log."""
        started = time.monotonic()
        last = started

        def show(job: dict[str, Any]) -> None:
            nonlocal last
            moment = time.monotonic()
            if moment - last >= _PERIOD_S:
                last = moment
                line = progress_line(job, moment - started)
                print(f"{label} {line}", file=sys.stderr, flush=True)

        return show

    def _write(self, name: str, text: str) -> None:
        (self.out / name).write_text(text, "utf-8")
        if name.endswith(".txt") or name == "timings.json":
            print(text, flush=True)


def write_documents(sets: Sets, folder: Path) -> None:
    """The PDFs and the articles, one folder a set."""
    (folder / "northwind").mkdir(parents=True)
    for pdf in sets.pdfs:
        shutil.copyfile(pdf, folder / "northwind" / pdf.name)
    for name, text in sets.articles.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, "utf-8")


def check_gold(samples: Iterable[Sample], documents: set[str]) -> None:
    """Stop if a sample's gold is no document: every citation would count as wrong."""
    wanted = {gold for sample in samples for gold in sample["gold"]}
    missing = sorted(wanted - documents)
    if missing:
        raise SystemExit(f"{len(missing)} gold documents were not ingested, first: {missing[0]}")


def _sample(
    name: str, key: str, question: str, answers: list[str], gold: list[str], cluster: str
) -> Sample:
    return {
        "id": key,
        "question": question.strip(),
        "answers": answers,
        "gold": gold,
        "cluster": f"{name}:{cluster}",
        "tags": [name],
    }


def _titled(title: str, text: str) -> str:
    return f"# {title.replace('_', ' ')}\n\n{text}\n"


def _rank(key: str) -> str:
    return hashlib.sha256(f"four-arms:{key}".encode()).hexdigest()


def run(options: argparse.Namespace) -> None:
    from app.cli.client import Api
    from app.config import Settings

    if not (options.adapter / "adapter_config.json").is_file():
        raise SystemExit(f"{options.adapter} is not an adapter directory: no adapter_config.json")
    sets = load(options.data)
    counts = {name: getattr(options, name) for name in sets.samples}
    rows = joined(sets.samples, {name: count for name, count in counts.items() if count > 0})
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        home, documents = Path(scratch) / "home", Path(scratch) / "documents"
        home.mkdir()
        (home / "models").symlink_to(Settings().models_dir.resolve())
        write_documents(sets, documents)
        samples = Path(scratch) / "northwind-xquad-bitext.jsonl"
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        samples.write_text("".join(lines), "utf-8")
        settings = Settings(
            home=home, chunk_tokens=CHUNK_TOKENS, context_budget_tokens=BUDGET_TOKENS
        )
        with Api(settings) as api:
            work = Run(api, options.out)
            check_gold(rows, work.fill(documents))
            prompt = {"system_prompt": options.system} if options.system else {}
            adapter = work.set_up(options.adapter, prompt)
            rules = {"primary": options.primary, "margin": options.margin}
            work.decide(work.evaluate(samples, adapter, rules))
            work.finish(rows)
    print(f"report: {options.out / 'report.html'}")


def main() -> int:
    keep = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=keep)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--adapter", type=Path, required=True, help="of the arms tuned and hybrid")
    parser.add_argument("--out", type=Path, required=True)
    for name, default, most in (("northwind", 48, 95), ("xquad", 60, None), ("bitext", 60, None)):
        text = f"questions of {name}" + (f", at most {most}" if most else "") + "; 0 for none"
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    parser.add_argument("--primary", default="token_f1", help="metric that decides")
    parser.add_argument("--system", help="system prompt the adapter was trained with")
    parser.add_argument("--margin", type=float, default=0.05, help="the difference that matters")
    run(parser.parse_args())
    return 0


if __name__ == "__main__":
    sys.exit(main())
