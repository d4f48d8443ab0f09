"""Whether another embedding model may take over: the same questions to both, compared in pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import sqlalchemy as sa

from app.db.session import Database
from app.db.tables import Answer, AnswerChunk, Chunk, Document, DocumentVersion, KnowledgeBase
from app.knowledge import repository
from app.knowledge.indexes import KnowledgeIndex
from app.knowledge.view import EVERYTHING_NOW
from evals.statistics.clustered import cluster_t
from retrieval.search import DEFAULTS, SearchOptions
from retrieval.types import Hit, Scope

MARGIN = 0.05
LEAST = 20
_K = 5
_SENTENCE = re.compile(r"[^.!?\n]{40,}[.!?]")

Kind = Literal["golden", "live", "known item"]

_Scores = tuple[float, float, float | None]
"""Recall, reciprocal rank, and whether an answer stands in the passages (None: none is known)."""

_DENSE = SearchOptions(lexical=False, coverage=False, diversity=None)


@dataclass(frozen=True, slots=True)
class GateQuestion:
    """A question with the documents that should be found.

    `golden` ones were given, `live` ones were asked and answered with citations that nobody
    corrected since, `known item` ones are sentences of the knowledge base itself.
    """

    kind: Kind
    text: str
    documents: frozenset[str]
    answers: tuple[str, ...] = ()


def questions(
    database: Database, kb: KnowledgeBase, golden: Sequence[dict[str, Any]], limit: int
) -> list[GateQuestion]:
    """Golden questions as given, and up to `limit` live and known-item ones each."""
    with database.reading() as session:
        names = repository.live_ids(session, kb)
        live = _live(session, kb, limit)
        known = _known_items(session, kb, limit)
    given = [
        GateQuestion(
            "golden",
            str(row["question"]),
            frozenset(names[g] for g in row.get("gold") or () if g in names),
            tuple(row.get("answers") or ()),
        )
        for row in golden
    ]
    return [q for q in (*given, *live, *known) if q.documents]


def compare(
    database: Database,
    kb: KnowledgeBase,
    pair: tuple[tuple[KnowledgeIndex, Scope], tuple[KnowledgeIndex, Scope]],
    asked: Sequence[GateQuestion],
    *,
    margin: float,
) -> dict[str, Any]:
    """Recall@5, MRR@5 and whether an accepted answer stands in the passages, old and new.

    Accepted when, for every kind of question with at least `LEAST` of them and for all together,
    the 95 % interval of the paired difference in recall@5 lies above minus `margin` (a one-sided
    non-inferiority test at 2.5 %), in hybrid search and, for all together, in dense search alone:
    BM25 hides much of what a bad embedding model does. Questions about one document count as one
    cluster.
    """

    def visible(version_ids: Sequence[str]) -> set[str]:
        with database.reading() as session:
            return repository.visible_versions(
                session, kb.workspace_id, version_ids, EVERYTHING_NOW
            )

    table = []
    for options in (_DENSE, DEFAULTS):
        scores: list[list[_Scores]] = [[], []]
        for question in asked:
            for side, (knowledge, scope) in enumerate(pair):
                searcher = knowledge.searcher
                hits = searcher.search(scope, question.text, _K, visible, options=options).hits
                scores[side].append(_scored(question, hits))
        kinds = ("all",) if options is _DENSE else ("golden", "live", "known item", "all")
        for kind in kinds:
            row = _row(kind, asked, scores)
            if row is not None:
                name = f"{kind}, dense search alone" if options is _DENSE else kind
                table.append(row | {"questions": name})
    return _verdict(table, margin)


def _scored(question: GateQuestion, hits: Sequence[Hit]) -> _Scores:
    found = list(dict.fromkeys(hit.document_id for hit in hits))
    text = " ".join(hit.text.lower() for hit in hits)
    answered = None
    if question.answers:
        answered = float(any(answer.lower() in text for answer in question.answers))
    return (
        len(question.documents & set(found)) / len(question.documents),
        next((1 / n for n, d in enumerate(found, 1) if d in question.documents), 0.0),
        answered,
    )


def _row(
    kind: str,
    asked: Sequence[GateQuestion],
    scores: Sequence[Sequence[_Scores]],
) -> dict[str, Any] | None:
    chosen = [i for i, q in enumerate(asked) if kind in (q.kind, "all")]
    if not chosen:
        return None
    recall = np.array([[side[i][0] for i in chosen] for side in scores])
    mrr = np.array([[side[i][1] for i in chosen] for side in scores])
    clusters = {key: n for n, key in enumerate({min(asked[i].documents) for i in chosen})}
    interval = cluster_t(
        recall[1] - recall[0], np.array([clusters[min(asked[i].documents)] for i in chosen])
    )
    held = [
        (old, new)
        for i in chosen
        if (old := scores[0][i][2]) is not None and (new := scores[1][i][2]) is not None
    ]
    return {
        "questions": kind,
        "n": len(chosen),
        "recall_old": round(float(recall[0].mean()), 4),
        "recall_new": round(float(recall[1].mean()), 4),
        "difference_low": interval.low,
        "difference_high": interval.high,
        "mrr_old": round(float(mrr[0].mean()), 4),
        "mrr_new": round(float(mrr[1].mean()), 4),
        "answer_in_passages_old": round(sum(a for a, _ in held) / len(held), 4) if held else None,
        "answer_in_passages_new": round(sum(b for _, b in held) / len(held), 4) if held else None,
    }


def _verdict(table: list[dict[str, Any]], margin: float) -> dict[str, Any]:
    total = table[-1]["n"] if table else 0
    if total < LEAST:
        reason = f"only {total} questions to compare on, at least {LEAST} are needed: give --golden"
        return {"accepted": False, "reason": reason, "margin": margin, "table": table}
    for row in table:
        if row["n"] >= LEAST and not _holds(row, margin):
            low = "unknown" if row["difference_low"] is None else f"{row['difference_low']:+.3f}"
            reason = (
                f"recall@{_K} on {row['questions']} questions goes from {row['recall_old']:.3f} to "
                f"{row['recall_new']:.3f}, its interval reaches down to {low}, "
                f"below the margin of -{margin}"
            )
            return {"accepted": False, "reason": reason, "margin": margin, "table": table}
    row = table[-1]
    reason = (
        f"recall@{_K} {row['recall_old']:.3f} before, {row['recall_new']:.3f} after "
        f"on {row['n']} questions; not worse by more than {margin}"
    )
    return {"accepted": True, "reason": reason, "margin": margin, "table": table}


def _holds(row: dict[str, Any], margin: float) -> bool:
    if row["recall_new"] == row["recall_old"] and row["difference_low"] is None:
        return True
    return row["difference_low"] is not None and row["difference_low"] > -margin


def _live(session: Any, kb: KnowledgeBase, limit: int) -> list[GateQuestion]:
    """The newest grounded answers whose cited documents are still there as they were cited."""
    query = (
        sa.select(Answer.question, AnswerChunk.document_id)
        .join(AnswerChunk, AnswerChunk.answer_id == Answer.id)
        .join(Document, Document.id == AnswerChunk.document_id)
        .where(
            Document.knowledge_base_id == kb.id,
            Document.current_version_id == AnswerChunk.version_id,
            AnswerChunk.cited.is_(True),
            Answer.grounded.is_(True),
        )
        .order_by(Answer.created_at.desc())
        .limit(limit * 3)
    )
    found: dict[str, set[str]] = {}
    for question, document_id in session.execute(query):
        found.setdefault(question, set()).add(document_id)
    return [GateQuestion("live", q, frozenset(ids)) for q, ids in list(found.items())[:limit]]


def _known_items(session: Any, kb: KnowledgeBase, limit: int) -> list[GateQuestion]:
    """One sentence of each of `limit` chunks, spread over the knowledge base."""
    query = (
        sa.select(Chunk.text, Chunk.document_id)
        .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
        .where(DocumentVersion.knowledge_base_id == kb.id, DocumentVersion.state == "visible")
        .order_by(Chunk.content_sha256)
        .limit(limit * 3)
    )
    made: list[GateQuestion] = []
    for text, document_id in session.execute(query):
        sentence = _SENTENCE.search(text)
        if sentence and len(made) < limit:
            made.append(GateQuestion("known item", sentence.group(), frozenset({document_id})))
    return made
