"""Rows from PolicyQA (questions on website privacy policies, MIT licence), filtered.

Source: Ahmad et al., PolicyQA, Findings of EMNLP 2020, github.com/wasiahmad/PolicyQA.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from tuning.errors import SnapshotError
from tuning.snapshot import Row, RowPassage
from tuning.splits import normalise_question

MIN_ANSWER_WORDS = 2
MAX_ANSWER_WORDS = 14
MAX_PASSAGE_WORDS = 220
MIN_PASSAGE_WORDS = 20


@lru_cache(maxsize=2)
def policyqa_rows(folder: str) -> tuple[Row, ...]:
    """Grounded rows whose answer is a short literal span; one per question and passage.

    Raises:
        SnapshotError: If the folder lacks the data set's files.
    """
    passages = {record["passage_id"]: record for record in _records(folder, "passages")}
    by_site: dict[str, list[str]] = {}
    for passage_id, record in passages.items():
        by_site.setdefault(record["title"], []).append(passage_id)
    rows: list[Row] = []
    seen: set[tuple[str, str]] = set()
    for record in _records(folder, "questions"):
        gold = passages.get(record["gold_passage"])
        if gold is None:
            continue
        answer = _literal_span(record["answers"], gold["text"])
        key = (normalise_question(record["question"]), record["gold_passage"])
        if answer is None or key in seen:
            continue
        seen.add(key)
        near = _neighbours(by_site[gold["title"]], record["gold_passage"])
        rows.append(
            {
                "id": f"policyqa-{record['id']}",
                "question": record["question"],
                "answer": answer,
                "kind": "grounded",
                "gold": [_passage(gold)],
                "distractors": [_passage(passages[passage_id]) for passage_id in near],
                "component": f"policyqa:{gold['title']}",
                "split": "train",
                "provenance": {"source": "policyqa", "licence": "MIT"},
            }
        )
    if not rows:
        raise SnapshotError(f"no usable PolicyQA questions in {folder!r}")
    return tuple(rows)


def _neighbours(site: list[str], gold: str) -> list[str]:
    at = site.index(gold)
    # Adjacent passages of a policy often continue the gold one and may hold the answer too.
    distant = [name for i, name in enumerate(site) if abs(i - at) > 2]
    return distant[:: max(1, len(distant) // 5)][:5]


def _literal_span(answers: list[str], text: str) -> str | None:
    if not MIN_PASSAGE_WORDS <= len(text.split()) <= MAX_PASSAGE_WORDS:
        return None
    spans = [answer.strip() for answer in answers if answer.strip() in text]
    # The annotators' one-word spans are mostly cut too short to answer anything.
    short = [s for s in spans if MIN_ANSWER_WORDS <= len(s.split()) <= MAX_ANSWER_WORDS]
    return max(short, key=len, default=None)


def _passage(record: dict[str, Any]) -> RowPassage:
    title = f"{record['title']} > Privacy policy"
    return {"id": record["passage_id"], "title": title, "text": record["text"]}


def _records(folder: str, kind: str) -> list[dict[str, Any]]:
    files = sorted(Path(folder).glob(f"{kind}.*.jsonl"))
    if not files:
        raise SnapshotError(f"{folder!r} holds no {kind}.*.jsonl of PolicyQA")
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [json.loads(line) for line in lines if line.strip()]
