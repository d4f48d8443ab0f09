"""Builds the six worlds from real data: samples, prompts per arm, training snapshots."""

import csv
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.world_capitals import ASKED, CAPITALS, SOUGHT
from benchmarks.worlds import WORLDS, World
from retrieval.embedding import Embedder
from tuning.snapshot import seal

K = 3
_SEED = 20261122
_ADAPTER = {"prompt": None, "rag": None, "tuned": "bare", "crossed": "bare", "hybrid": "context"}
_READS = ("rag", "crossed", "hybrid")
Passage = dict[str, str]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One question, what is right, and the passage it stands in."""

    id: str
    text: str
    answers: tuple[str, ...]
    gold: Passage
    cluster: str


@dataclass(slots=True)
class Material:
    """What a world is made of.

    Attributes:
        asked: the test questions; `passages`: what is searched for them.
        bare: rows of the adapter tuned without passages; `context`: of the one tuned with them.
        shares: adapters of another world are used instead of training own ones.
    """

    asked: list[Question]
    passages: list[Passage]
    bare: list[Row] = field(default_factory=list)
    context: list[Row] = field(default_factory=list)
    shares: str | None = None


class Search:
    """The nearest passages by the product's embedding model."""

    def __init__(self, embedder: Embedder, passages: Sequence[Passage]) -> None:
        self._embedder = embedder
        self._passages = list(passages)
        texts = [f"{p['title']}\n{p['text']}" for p in passages]
        self._vectors = np.asarray(embedder.embed_passages(texts))

    def __call__(self, questions: Sequence[str], k: int) -> list[list[Passage]]:
        """The k nearest passages of each question, nearest first."""
        vectors = np.asarray(self._embedder.embed_passages(list(questions)))
        scores = vectors @ self._vectors.T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return [[self._passages[j] for j in row] for row in order]


def build_worlds(data: Path, models: Path, out: Path, most: int, only: str | None) -> None:
    """Write every world (or one) below `out`."""
    embedder = Embedder(models / "all-minilm-l6-v2")
    for world in WORLDS:
        if only not in (None, world.name):
            continue
        material = _MAKERS[world.name](data, embedder, models)
        rng = random.Random(_SEED)
        if len(material.asked) > most:
            material.asked = rng.sample(material.asked, most)
        _write_world(out, world, material, embedder)
        print(
            json.dumps(
                {
                    "world": world.name,
                    "questions": len(material.asked),
                    "clusters": len({q.cluster for q in material.asked}),
                    "passages": len(material.passages),
                    "bare_rows": len(material.bare),
                    "context_rows": len(material.context),
                }
            ),
            flush=True,
        )


def _write_world(out: Path, world: World, material: Material, embedder: Embedder) -> None:
    folder = out / world.name
    (folder / "prompts").mkdir(parents=True, exist_ok=True)
    samples = [
        {
            "id": q.id,
            "question": q.text,
            "answers": list(q.answers),
            "gold": [q.gold["id"]] if q.gold else [],
            "cluster": q.cluster,
        }
        for q in material.asked
    ]
    _lines(folder / "samples.jsonl", samples)
    found = Search(embedder, material.passages)([q.text for q in material.asked], K)
    owner = material.shares or world.name
    for arm in world.arms:
        adapter = _ADAPTER[arm] and f"{owner}-{_ADAPTER[arm]}"
        rows = [
            {
                "id": q.id,
                "question": q.text,
                "passages": hits if arm in _READS else [],
                "adapter": adapter,
            }
            for q, hits in zip(material.asked, found, strict=True)
        ]
        _lines(folder / "prompts" / f"{arm}.jsonl", rows)
    for name, rows in (("bare", material.bare), ("context", material.context)):
        if rows:
            target = out / "adapters" / f"{owner}-{name}" / "snapshot"
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            seal(rows, target)  # type: ignore[arg-type]
    about = {
        "name": world.name,
        "about": world.about,
        "arms": list(world.arms),
        "expected": list(world.expected),
        "primary": world.primary,
        "margin": world.margin,
    }
    (folder / "world.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")


def _bare(i: str, question: str, answer: str, component: str) -> Row:
    return {
        "id": i,
        "question": question,
        "answer": answer,
        "kind": "style",
        "gold": [],
        "distractors": [],
        "component": component,
        "split": "train",
    }


def _context(i: str, q: tuple[str, str], gold: Passage, near: list[Passage], part: str) -> Row:
    return {
        "id": i,
        "question": q[0],
        "answer": q[1],
        "kind": "grounded",
        "gold": [gold],
        "distractors": [p for p in near if p["id"] != gold["id"]],
        "component": part,
        "split": "train",
    }


def _xquad(data: Path) -> tuple[list[Question], list[Passage]]:
    folder = data / "xquad_en"
    passages = [
        {"id": p["passage_id"], "title": p["title"].replace("_", " "), "text": p["text"]}
        for p in _read(folder / "passages.jsonl")
    ]
    known = {p["id"]: p for p in passages}
    questions = [
        Question(
            q["id"],
            q["question"],
            tuple(q["answers"]),
            known[q["gold_passage"]],
            known[q["gold_passage"]]["title"],
        )
        for q in _read(folder / "questions.shared.jsonl")
    ]
    return questions, passages


def _context_rows(
    embedder: Embedder, questions: list[Question], passages: list[Passage]
) -> list[Row]:
    near = Search(embedder, passages)([q.text for q in questions], 8)
    return [
        _context(f"context-{q.id}", (q.text, q.answers[0]), q.gold, hits, q.cluster)
        for q, hits in zip(questions, near, strict=True)
    ]


def _bare_rows(questions: list[Question]) -> list[Row]:
    return [_bare(f"bare-{q.id}", q.text, q.answers[0], q.cluster) for q in questions]


def _by_passage(questions: list[Question]) -> list[Question]:
    return [Question(q.id, q.text, q.answers, q.gold, q.gold["id"]) for q in questions]


def new_facts(data: Path, embedder: Embedder, _models: Path) -> Material:
    """XQuAD: the questions of 40 % of the articles; nothing was trained on them."""
    questions, passages = _xquad(data)
    test = [q for q in questions if _share(q.cluster) < 0.4]
    train = [q for q in questions if _share(q.cluster) >= 0.4]
    context = _context_rows(embedder, train, passages)
    return Material(_by_passage(test), passages, _bare_rows(train), context)


def paraphrases(data: Path, embedder: Embedder, _models: Path) -> Material:
    """XQuAD: weights were trained on other questions of the same passages."""
    questions, passages = _xquad(data)
    test = [q for q in questions if _share(q.cluster) < 0.4 and _share(q.id) < 0.5]
    asked = {q.id for q in test}
    others = [q for q in questions if q.id not in asked]
    apart = [q for q in others if _share(q.cluster) >= 0.4]
    context = _context_rows(embedder, apart, passages)
    return Material(_by_passage(test), passages, _bare_rows(others), context)


def reader(data: Path, embedder: Embedder, models: Path) -> Material:
    """The adapters of `new_facts`; the one tuned without passages is shown passages."""
    made = new_facts(data, embedder, models)
    return Material(made.asked, made.passages, made.bare, made.context, shares="new_facts")


def strict_form(data: Path, embedder: Embedder, _models: Path) -> Material:
    """Banking77: the intent as JSON; retrieval shows labelled examples."""
    with (data / "banking77" / "train.csv").open(encoding="utf-8") as file:
        rows = [(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]
    rng = random.Random(_SEED)
    rng.shuffle(rows)
    rows = [row for row in dict(rows).items() if row[0]]
    held, shown, taught = rows[:500], rows[500:2500], rows[2500:6500]

    def label(intent: str) -> str:
        return json.dumps({"intent": intent})

    passages = [
        {"id": f"example-{i}", "title": "Example", "text": f"{text}\n{label(intent)}"}
        for i, (text, intent) in enumerate(shown)
    ]
    asked = [
        Question(f"bank-{i}", text, (label(intent),), {}, f"bank-{i}")
        for i, (text, intent) in enumerate(held)
    ]
    bare = [
        _bare(f"bare-{i}", text, label(intent), f"row-{i}")
        for i, (text, intent) in enumerate(taught)
    ]
    near = Search(embedder, passages)([text for text, _ in taught], 6)
    context = []
    for i, ((text, intent), hits) in enumerate(zip(taught, near, strict=True)):
        # Trained as it will be asked: neighbours are shown, right or not; the label is wanted.
        row = _bare(f"context-{i}", text, label(intent), f"row-{i}")
        context.append(row | {"distractors": hits})
    return Material(asked, passages, bare, context)


def volatile_form(data: Path, embedder: Embedder, _models: Path) -> Material:
    """Bitext: a time limit per intent in a strict form; all limits changed after tuning."""
    rows = list(_read(data / "bitext_short" / "bitext_short.shared.jsonl"))
    replies = json.loads((data / "bitext_short" / "canned_replies.json").read_text("utf-8"))
    rng = random.Random(_SEED)
    limits = {r["intent"]: rng.randrange(3, 60) for r in replies}
    changed = {intent: days + rng.randrange(5, 30) for intent, days in limits.items()}
    about = {r["intent"]: r["reply"] for r in replies}

    def passage(intent: str, days: int) -> Passage:
        title = intent.replace("_", " ").capitalize()
        text = f"{about[intent]} This is done within {days} business days."
        return {"id": f"policy-{intent}", "title": title, "text": text}

    def reply(intent: str, days: int) -> str:
        return f"{intent.upper()}: {days} business days"

    rng.shuffle(rows)
    seen: dict[str, str] = {r["instruction"]: r["intent"] for r in rows}
    pairs = list(seen.items())
    test = [p for p in pairs if _share(p[0]) < 0.2]
    train = [p for p in pairs if _share(p[0]) >= 0.2][:3000]
    asked = [
        Question(f"ticket-{i}", text, (reply(c, changed[c]),), passage(c, changed[c]), c)
        for i, (text, c) in enumerate(test)
    ]
    bare = [
        _bare(f"bare-{i}", text, reply(c, limits[c]), f"row-{i}")
        for i, (text, c) in enumerate(train)
    ]
    context = []
    for i, (text, intent) in enumerate(train):
        # Another value in every row: only the passage can say which is right.
        days = {c: rng.randrange(2, 100) for c in rng.sample(sorted(limits), 4)}
        days[intent] = rng.randrange(2, 100)
        near = [passage(c, d) for c, d in days.items() if c != intent]
        gold = passage(intent, days[intent])
        answer = (text, reply(intent, days[intent]))
        context.append(_context(f"context-{i}", answer, gold, near, f"row-{i}"))
    return Material(asked, [passage(c, d) for c, d in changed.items()], bare, context)


def known_task(data: Path, embedder: Embedder, models: Path) -> Material:
    """Capitals that the bare model names; asked in other words than when that was found out."""
    known = sorted(_named_capitals(models))
    rng = random.Random(_SEED)
    _, passages = _xquad(data)
    asked = [
        Question(f"capital-{country}-{i}", form.format(country), (CAPITALS[country],), {}, country)
        for country in known
        for i, form in enumerate(ASKED)
    ]
    others = [(country, form) for country in CAPITALS if country not in known for form in ASKED]
    bare = [
        _bare(f"bare-{i}", form.format(country), CAPITALS[country], country)
        for i, (country, form) in enumerate(others)
    ]
    context = [
        row | {"id": f"context-{i}", "distractors": rng.sample(passages, 4)}
        for i, row in enumerate(bare)
    ]
    return Material(asked, passages, bare, context)


def _named_capitals(models: Path) -> set[str]:
    """Countries whose capital stands in the bare model's answer."""
    from app.engines.llamacpp import LlamaCppEngine
    from app.engines.types import GenerationRequest
    from tuning.base_model import load_tokenizer
    from tuning.prompt import encode, render_messages

    folder = models / "smollm2-135m-instruct"
    tokenizer = load_tokenizer(folder / "hf")
    engine = LlamaCppEngine(folder / "base-q8_0.gguf", base_sha256="worlds", threads=1)
    try:
        return {
            country
            for country, city in CAPITALS.items()
            if city.lower()
            in engine.generate(
                GenerationRequest(
                    encode(tokenizer, render_messages(SOUGHT.format(country), [])), 24
                )
            ).text.lower()
        }
    finally:
        engine.close()


_MAKERS: dict[str, Callable[[Path, Embedder, Path], Material]] = {
    "new_facts": new_facts,
    "paraphrases": paraphrases,
    "reader": reader,
    "strict_form": strict_form,
    "volatile_form": volatile_form,
    "known_task": known_task,
}


def _share(name: str) -> float:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 16**8


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
