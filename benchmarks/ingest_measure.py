# ruff: noqa: D102 - the methods are described once, at `ingest_measure.System`
"""What the ingestion benchmark asks of every system, on the same documents.

Used by `benchmarks.ingest` and `benchmarks.ingest_peers`; imports the standard library only.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

K = 10


@dataclass(frozen=True, slots=True)
class Doc:
    """A source document; `id` is also its file name and stays when the text changes."""

    id: str
    text: str


class System(Protocol):
    """What every system is asked; `search` gives (document id, chunk text), best first."""

    def ingest(self, docs: Sequence[Doc]) -> None: ...
    def search(self, query: str, limit: int) -> list[tuple[str, str]]: ...
    def delete(self, doc_id: str) -> None: ...
    def chunks(self, doc_id: str) -> list[str]: ...
    def expected(self, doc: Doc) -> list[str]: ...
    def count(self) -> int: ...


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def corpus(data: Path, limit: int = 0) -> list[Doc]:
    """Two trees of Markdown pages and two sets of passages; about `limit`, evenly taken."""
    docs = []
    for tree in ("letsencrypt_docs", "basecamp_policies"):
        first = min((data / tree).glob("v1*"))
        for path in sorted(first.rglob("*.md")):
            name = path.relative_to(first).as_posix().replace(" ", "_")
            docs.append(Doc(f"{tree}/{name}", path.read_text("utf-8")))
    for tree, file in (
        ("xquad", "xquad_en/passages.jsonl"),
        ("policyqa", "policyqa/passages.dev.jsonl"),
    ):
        docs += [
            Doc(passage_name(tree, r["passage_id"]), r["text"]) for r in read_rows(data / file)
        ]
    docs = [doc for doc in docs if doc.text.strip()]
    step = max(1.0, len(docs) / limit) if limit else 1.0
    return [docs[int(n * step)] for n in range(int(len(docs) / step))]


def passage_name(tree: str, passage_id: str) -> str:
    return f"{tree}/{''.join(c if c.isalnum() else '-' for c in passage_id)}.txt"


def xquad_questions(data: Path, docs: Sequence[Doc]) -> list[tuple[str, str]]:
    """(question, document id) for the passages that are in."""
    present = {doc.id for doc in docs}
    rows = read_rows(data / "xquad_en" / "questions.shared.jsonl")
    asked = [(r["question"], passage_name("xquad", r["gold_passage"])) for r in rows]
    return [(question, gold) for question, gold in asked if gold in present]


def changed(docs: Sequence[Doc], word: str, share: float = 0.01) -> tuple[list[Doc], list[str]]:
    """`share` of the documents (two at least) get one sentence more in their middle."""
    wanted = max(2, round(len(docs) * share))
    places = {int((n + 0.5) * len(docs) / wanted) for n in range(wanted)}
    made = list(docs)
    for place in places:
        doc = docs[place]
        middle = doc.text.find(". ", len(doc.text) // 2) + 2 or len(doc.text)
        code = hashlib.sha256(f"{word}{doc.id}".encode()).hexdigest()[:8]
        sentence = f" Since the revision {code} a new rule holds here. "
        made[place] = replace(doc, text=doc.text[:middle] + sentence + doc.text[middle:])
    return made, [docs[place].id for place in sorted(places)]


def found(system: System, doc: Doc) -> bool:
    """Whether a search for the document's own beginning finds it."""
    return doc.id in [name for name, _ in system.search(doc.text[:200], K)]


class Watch:
    """A reader that asks for some documents in turn and notes for how long one is not found."""

    def __init__(self, system: System, docs: Sequence[Doc]) -> None:
        self._system = system
        self._docs = [doc for doc in docs if found(system, doc)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.longest_s, self.polls, self.errors = 0.0, 0, 0
        self._since: dict[str, float] = {}

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for doc in self._docs:
                asked = time.perf_counter()
                self.polls += 1
                try:
                    there = found(self._system, doc)
                except (RuntimeError, ValueError, KeyError, IndexError):
                    # qdrant-client's local mode is not made for a reader beside a writer.
                    self.errors += 1
                    continue
                if there and doc.id in self._since:
                    gone = time.perf_counter() - self._since.pop(doc.id)
                    self.longest_s = max(self.longest_s, gone)
                elif not there:
                    self._since.setdefault(doc.id, asked)
                    gone = time.perf_counter() - self._since[doc.id]
                    self.longest_s = max(self.longest_s, gone)


def measure(
    system: System,
    docs: list[Doc],
    questions: list[tuple[str, str]],
    embedded: list[str],
    prepare: Callable[[Sequence[Doc]], None] = lambda _docs: None,
) -> tuple[dict[str, Any], list[str]]:
    """The rows of the table, and the texts of the first ingestion's chunks as they were embedded.

    `embedded` is filled by the system's embedder with every text it embeds; `prepare` puts the
    documents where the system reads them, outside the time.
    """

    def ingest(some: list[Doc]) -> tuple[float, int]:
        prepare(some)
        embedded.clear()
        start = time.perf_counter()
        system.ingest(some)
        return time.perf_counter() - start, len(embedded)

    seconds, _ = ingest(docs)
    texts = list(embedded)
    result: dict[str, Any] = {"ingest_s": round(seconds, 2), "chunks": system.count()}
    result |= recall(system, questions)
    new, names = changed(docs, "first")
    by_id = {doc.id: doc for doc in new}
    before = {name: system.chunks(name) for name in names}
    resync_s, again = ingest(new)
    expected = {name: system.expected(by_id[name]) for name in names}
    old = [(n, text) for n in names for text in set(before[n]) - set(expected[n])]
    result["resync"] = {
        "changed_documents": len(names),
        "share_of_first": round(resync_s / seconds, 4),
        "chunks_to_change": sum(len(set(expected[n]) - set(before[n])) for n in names),
        "embedded_again": again,
        "stale_chunks_found": sum((n, text) in system.search(text, K) for n, text in old),
    }
    newer, names = changed(docs, "second")
    with Watch(system, [by_id[name] for name in names[:4]]) as watch:
        ingest(newer)
    result["resync"] |= {
        "longest_absence_s": round(watch.longest_s, 3),
        "polls": watch.polls,
        "reader_errors": watch.errors,
    }
    return result | {"life": deletion(system, newer, names, ingest)}, texts


def deletion(
    system: System,
    docs: list[Doc],
    changed_names: list[str],
    ingest: Callable[[list[Doc]], object],
) -> dict[str, bool]:
    """Deleted, then in the source as before: does it come back? Gone from the source: is it?"""
    quiet = [doc for doc in docs if doc.id not in changed_names and found(system, doc)]
    victim, other = quiet[len(quiet) // 2], quiet[len(quiet) // 4]
    system.delete(victim.id)
    gone = not found(system, victim)
    ingest(docs)
    back = found(system, victim)
    ingest([doc for doc in docs if doc.id != other.id])
    return {
        "deleted_is_gone": gone,
        "comes_back_with_the_source": back,
        "goes_with_the_source": not found(system, other),
    }


def recall(system: System, questions: list[tuple[str, str]]) -> dict[str, Any]:
    first = five = 0
    for question, gold in questions:
        names = list(dict.fromkeys(name for name, _ in system.search(question, K)))
        first += names[:1] == [gold]
        five += gold in names[:5]
    n = max(1, len(questions))
    return {"recall@1": round(first / n, 4), "recall@5": round(five / n, 4), "questions": n}
