"""Approved examples into training rows: each with its passage, hard distractors and provenance.

What an example states must stand in its passage today. A value that the knowledge base holds is
never taught without it: it would be out of date in the weights (docs/adr/0004).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.datasets.repository import StoredPassage
from app.db.tables import Example, UseCase
from evals.metrics.values import Value, extract_values, is_supported, unsupported_values
from retrieval.types import Hit, context_path
from tuning.quality.personal_data import mask_personal_data
from tuning.snapshot import CITE, Row, RowPassage
from tuning.values import fingerprint

Search = Callable[[str, int], Sequence[Hit]]

_DISTRACTORS = 6
_MIN_OVERLAP = 0.3
_SAME_PASSAGE = 0.5
_WORD = re.compile(r"\w+")
_SURELY_FACTS = ("money", "percent", "date")


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What rows are made from besides the examples.

    Attributes:
        passages: Current passages by document.
        retired: Passages of former versions by document, newest first.
        served: Passages that the answer behind an example was given, by example id.
        search: The serving retriever.
    """

    passages: dict[str, list[StoredPassage]]
    retired: dict[str, list[StoredPassage]]
    served: dict[str, list[StoredPassage]]
    search: Search


@dataclass(slots=True)
class MadeRows:
    """Rows without splits, what was left out with its reason, and the time of each row's source."""

    rows: list[Row] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    when: dict[str, str] = field(default_factory=dict)
    conversation: dict[str, str] = field(default_factory=dict)

    def refuse(self, example: str, reason: str) -> None:
        """Leave an example out; the reason may quote it and is sealed with the manifest."""
        self.refused.append({"example": example, "reason": mask_personal_data(reason)[0]})


def make_rows(examples: Iterable[Example], knowledge: Knowledge, use_case: UseCase) -> MadeRows:
    """Turn examples into rows, in their order; the splits are not decided yet."""
    made = MadeRows()
    for example in examples:
        gold = None
        if example.kind == "grounded":
            gold = _gold(example, knowledge.passages)
            if gold is None:
                named = ", ".join(example.sources) or "no document"
                made.refuse(example.id, f"no current document among {named} holds its fact")
                continue
            wrong = _no_longer_said(example, gold)
            if wrong:
                made.refuse(example.id, f"{gold.document!r} does not say {wrong} today")
                continue
        hits = (
            knowledge.search(example.question, _DISTRACTORS + 1)
            if use_case.knowledge_base_ids
            else []
        )
        volatile = _volatile(example, hits) if example.kind == "style" else None
        if volatile:
            reason = f"states {volatile}, which the knowledge base holds: name its source document"
            made.refuse(example.id, reason)
            continue
        others = _distractors(gold, knowledge.served.get(example.id, []), hits)
        row = _row(example, gold, others, use_case)
        if gold is not None:
            _add_outdated(row, gold, knowledge.retired.get(gold.document, []))
            made.when[row["id"]] = gold.valid_from.isoformat()
        if example.conversation:
            made.conversation[row["id"]] = example.conversation
        made.rows.append(row)
    return made


def _row(
    example: Example, gold: StoredPassage | None, others: list[RowPassage], use_case: UseCase
) -> Row:
    provenance: dict[str, Any] = {
        "author": example.author,
        "reviewer": example.reviewer,
        "origin": example.origin,
        "sources": list(example.sources),
        "source_type": example.source_type,
        "consent": example.consent,
        "use_case": use_case.name,
        "document_versions": [gold.version] if gold else list(example.document_versions),
    }
    return {
        "id": example.content_sha256[:24],
        "question": example.question,
        "answer": example.answer,
        "kind": example.kind,  # type: ignore[typeddict-item]
        "gold": [gold.row_passage()] if gold else [],
        "distractors": others,
        "component": "",
        "split": "train",
        "system": use_case.system_prompt,
        "history": list(example.history),
        "provenance": provenance,
    }


def _gold(example: Example, passages: dict[str, list[StoredPassage]]) -> StoredPassage | None:
    """The current chunk of the example's documents that shares most with its supporting text."""
    wanted = set(_WORD.findall(f"{example.gold_text or ''} {example.answer}".lower()))
    best: tuple[float, StoredPassage] | None = None
    for source in example.sources:
        for passage in passages.get(source, []):
            share = _shared(wanted, passage.text)
            if best is None or share > best[0]:
                best = (share, passage)
    return None if best is None or best[0] < _MIN_OVERLAP else best[1]


def _no_longer_said(example: Example, gold: StoredPassage) -> str | None:
    """Values of the answer that neither its passage nor the question holds."""
    answer = example.answer.replace(CITE, "")
    said = [gold.text, gold.title, example.question, *(t["content"] for t in example.history)]
    wrong = unsupported_values(answer, said)
    return ", ".join(value.surface for value in wrong) or None


def _volatile(example: Example, hits: Sequence[Hit]) -> str | None:
    """A fact of a style answer that the passages about its question hold."""
    stated = [value for value in extract_values(example.answer) if _is_fact(value)]
    if not stated:
        return None
    held = [value for hit in hits for value in extract_values(hit.text)]
    asked = extract_values(example.question)
    facts = [v for v in stated if is_supported(v, held) and not is_supported(v, asked)]
    return ", ".join(value.surface for value in facts) or None


def _is_fact(value: Value) -> bool:
    """Whether a value is more than a small number that occurs anywhere."""
    if value.kind in _SURELY_FACTS:
        return True
    return value.kind in ("code", "number") and sum(c.isdigit() for c in value.surface) >= 4


def _distractors(
    gold: StoredPassage | None, served: Sequence[StoredPassage], hits: Sequence[Hit]
) -> list[RowPassage]:
    """Near misses: first what the answer was really given, then what the retriever finds."""
    pool = [passage.row_passage() for passage in served] + [_of_hit(hit) for hit in hits]
    taken = {gold.id} if gold else set()
    others: list[RowPassage] = []
    for passage in pool:
        if passage["id"] not in taken and (gold is None or passage["text"] != gold.text):
            taken.add(passage["id"])
            others.append(passage)
    return others[:_DISTRACTORS]


def _add_outdated(row: Row, gold: StoredPassage, retired: Sequence[StoredPassage]) -> None:
    """Former versions of the passage that say other values, with the days they held from."""
    wanted = set(_WORD.findall(gold.text.lower()))
    said = fingerprint(gold.text)
    former = [
        passage
        for passage in retired
        if _shared(wanted, passage.text) >= _SAME_PASSAGE and fingerprint(passage.text) != said
    ]
    if former:
        row["outdated"] = [passage.row_passage(dated=True) for passage in former[:2]]
        row["gold"] = [gold.row_passage(dated=True)]


def _shared(wanted: set[str], text: str) -> float:
    return len(wanted & set(_WORD.findall(text.lower()))) / max(1, len(wanted))


def _of_hit(hit: Hit) -> RowPassage:
    title = context_path(hit.title, hit.heading_path)
    return {"id": hit.chunk_id, "title": title, "text": hit.text}
