"""Four question sets over real documents, in one form, for measuring retrieval.

xquad_en: a knowledge base of 240 whole passages; gold is the passage.
northwind: six PDFs through `parse_file`; gold is a page within 1 of the cited one in that PDF.
policyqa: one knowledge base a site, its passages joined into one document and chunked as the
    product does; equal questions of a site are one question with all their gold passages. A hit
    shows a passage when they share at least half of the shorter one's characters.
covid_faq: the answers of one dated crawl (27 March 2020) as documents, without their questions;
    the questions are the queries, gold is every entry with that question or that answer.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retrieval.chunking import ChunkingOptions
from retrieval.edge import EdgeIndex
from retrieval.embedding import Embedder
from retrieval.ingestion import DocumentVersion, prepare_documents
from retrieval.parsing import parse_bytes, parse_file
from retrieval.types import Chunk, Hit, ParsedDocument, Scope, WorkspaceId

NAMES = ("xquad_en", "northwind", "policyqa", "covid_faq")
PRODUCT = ChunkingOptions(max_tokens=150, min_tokens=40)
WHOLE = ChunkingOptions(max_tokens=500, min_tokens=40)

Shows = Callable[[Hit], frozenset[str]]


@dataclass(frozen=True, slots=True)
class Case:
    """A question, the knowledge base it is asked of, what shows its answer, its gold document."""

    id: str
    question: str
    scope: Scope
    gold: frozenset[str]
    cluster: str
    answer: str = ""


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Documents by scope and questions; `shows` tells which gold keys a hit contains."""

    name: str
    documents: tuple[tuple[Scope, str, ParsedDocument], ...]
    cases: tuple[Case, ...]
    shows: Shows
    chunking: ChunkingOptions = PRODUCT


@dataclass(slots=True)
class Filled:
    """An index with a set in it, and its chunks by version and ordinal."""

    index: EdgeIndex
    chunks: dict[tuple[str, int], Chunk] = field(default_factory=dict)

    def neighbours(self, wanted: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Chunk]:
        """Those of the wanted chunks that exist."""
        return {key: self.chunks[key] for key in wanted if key in self.chunks}


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def load(name: str, data: Path) -> QuestionSet:
    """One of `NAMES` from the data folder."""
    loaders = {
        "xquad_en": _xquad,
        "northwind": _northwind,
        "policyqa": _policyqa,
        "covid_faq": _covid,
    }
    return loaders[name](data / name)


def fill(questions: QuestionSet, embedder: Embedder, folder: Path) -> Filled:
    """Chunk, embed and index a set; the version id of a document is its document id."""
    index = EdgeIndex(folder, dimension=embedder.dimension, model_identity=embedder.identity)
    filled = Filled(index)
    by_scope: dict[Scope, list[DocumentVersion]] = defaultdict(list)
    for scope, document_id, document in questions.documents:
        by_scope[scope].append(DocumentVersion(document, document_id, document_id))
    for scope, versions in by_scope.items():
        for made in prepare_documents(versions, embedder, scope, options=questions.chunking):
            index.upsert(made.points)
            filled.chunks |= {(made.version_id, chunk.ordinal): chunk for chunk in made.chunks}
    index.flush()
    return filled


def _scope(name: str) -> Scope:
    return Scope(WorkspaceId("bench"), name.replace(".", "-").replace("_", "-"))


def _xquad(folder: Path) -> QuestionSet:
    scope = _scope("xquad")
    passages = {str(p["passage_id"]): p for p in read(folder / "passages.jsonl")}
    documents = tuple(
        (scope, key, parse_bytes(str(p["text"]).encode(), "passage.txt"))
        for key, p in passages.items()
    )
    cases = tuple(
        Case(str(q["id"]), str(q["question"]), scope, frozenset({gold}), gold, _first(q["answers"]))
        for q in read(folder / "questions.shared.jsonl")
        for gold in [str(q["gold_passage"])]
    )
    return QuestionSet("xquad_en", documents, cases, _document_of, WHOLE)


def _northwind(folder: Path) -> QuestionSet:
    scope = _scope("northwind")
    paths = sorted((folder / "docs").glob("*.pdf"))
    documents = tuple((scope, path.name, parse_file(path)) for path in paths)
    cases = []
    for q in read(folder / "qa.shared.jsonl"):
        cited = [str(c).replace("#page=", "#") for c in _list(q["citations"])]
        answer, cluster = str(q["truth"]), "|".join(sorted(cited))
        case = Case(str(q["id"]), str(q["question"]), scope, frozenset(cited), cluster, answer)
        cases.append(case)

    def pages(hit: Hit) -> frozenset[str]:
        if hit.page_start is None or hit.page_end is None:
            return frozenset()
        near = range(hit.page_start - 1, hit.page_end + 2)
        return frozenset(f"{hit.document_id}#{page}" for page in near)

    return QuestionSet("northwind", documents, tuple(cases), pages)


def _policyqa(folder: Path) -> QuestionSet:
    texts: dict[str, list[str]] = defaultdict(list)
    spans: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for passage in read(folder / "passages.dev.jsonl"):
        site, text = str(passage["title"]), " ".join(str(passage["text"]).split())
        texts[site].append(text)
        spans[site].append((str(passage["passage_id"]), text))
    documents, places = [], {}
    for site, parts in texts.items():
        parsed = parse_bytes("\n\n".join(parts).encode(), "policy.txt")
        documents.append((_scope(site), site, parsed))
        places[site] = list(_locate(parsed.text, spans[site]))
    gold: dict[tuple[str, str], set[str]] = defaultdict(set)
    answers: dict[tuple[str, str], str] = {}
    for q in read(folder / "questions.dev.jsonl"):
        site = str(q["gold_passage"]).rsplit("#", 1)[0]
        key = (site, " ".join(str(q["question"]).lower().split()))
        gold[key].add(str(q["gold_passage"]))
        answers.setdefault(key, _first(q["answers"]))
    cases = tuple(
        Case(
            f"{site}:{question}",
            question,
            _scope(site),
            frozenset(keys),
            min(keys),
            answers[site, question],
        )
        for (site, question), keys in sorted(gold.items())
    )

    def passages(hit: Hit) -> frozenset[str]:
        return frozenset(
            key
            for key, start, end in places[hit.document_id]
            if min(end, hit.end_char) - max(start, hit.start_char)
            >= 0.5 * min(end - start, hit.end_char - hit.start_char)
        )

    return QuestionSet("policyqa", tuple(documents), cases, passages)


def _locate(text: str, parts: Sequence[tuple[str, str]]) -> Iterator[tuple[str, int, int]]:
    """Where each part stands in the text; parts come in order."""
    at = 0
    for key, part in parts:
        start = text.index(part, at)
        at = start + len(part)
        yield key, start, at


def _covid(folder: Path) -> QuestionSet:
    scope = _scope("covid")
    documents, questions = [], {}
    # An entry belongs to the first one with its question or its answer.
    group: dict[str, str] = {}
    first_with: dict[str, str] = {}
    for number, row in enumerate(read(folder / "faq_200327.en.jsonl")):
        key = f"faq-{number}"
        question = " ".join(str(row["question"]).split())
        parsed = parse_bytes(str(row["answer"]).encode(), "answer.txt")
        documents.append((scope, key, parsed))
        marks = [question.lower(), " ".join(parsed.text.lower().split())]
        group[key] = next((first_with[mark] for mark in marks if mark in first_with), key)
        for mark in marks:
            first_with.setdefault(mark, group[key])
        questions.setdefault(question.lower(), (question, group[key], parsed.text))
    cases = tuple(
        Case(f"covid:{number}", question, scope, frozenset({key}), key, answer)
        for number, (question, key, answer) in enumerate(questions.values())
    )

    def entry(hit: Hit) -> frozenset[str]:
        return frozenset({group[hit.document_id]})

    return QuestionSet("covid_faq", tuple(documents), cases, entry)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _first(values: object) -> str:
    return next((str(value) for value in _list(values)), "")


def _document_of(hit: Hit) -> frozenset[str]:
    return frozenset({hit.document_id})


def half_of(cluster: str) -> int:
    """0 (for tuning) or 1 (for judging), by a seeded hash of the gold document."""
    return int(hashlib.sha256(f"tandem:{cluster}".encode()).hexdigest(), 16) % 2
