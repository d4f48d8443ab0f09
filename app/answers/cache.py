"""Generations given again: to the same request, or to one of the same meaning.

A cached generation is looked up after retrieval, under everything that determined it: engine, base,
adapter, template, prompt, chunks with their versions, decoding, workspace and groups. What changed
since therefore has another key, whether or not its old entries are gone already. Entries are rows
that a changed, deleted or closed document takes with it (`knowledge.repository`).

What goes wrong with caches keyed by the question's text: a stale answer after an update, another
tenant's answer on a colliding question (arXiv 2601.23088).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, cast

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from app.db.base import new_id, now
from app.db.session import Database
from app.db.tables import CachedAnswer, CachedAnswerVersion, DocumentVersion
from app.engines.types import Generation
from evals.metrics.values import extract_values
from retrieval.words import content_words, fold

_CACHED = cast(sa.Table, CachedAnswer.__table__)
_CACHED_VERSIONS = cast(sa.Table, CachedAnswerVersion.__table__)
_MOST_CANDIDATES = 200
_NEGATION = re.compile(
    r"\b(?:not|no|nor|never|none|nobody|nothing|without|except|unless|cannot|neither)\b|n['’]t\b",
    re.I,
)
# Words that turn a question round although both kinds share most of their letters.
_COMPARISON = re.compile(
    r"\b(?:before|after|until|since|more|less|most|least|maximum|minimum|first|last|earliest|latest"
    r"|cheapest|highest|lowest|above|below|over|under|from|to|in|out|on|off|start|end|begin)\b",
    re.I,
)
# "How much" asks what "what" asks; any other question word asks for something of its own.
_ASKED = re.compile(r"\b(?:who|whom|whose|when|where|why|how(?!\s+(?:much|many)\b))\b", re.I)


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Under which a generation is kept. `vector` is the question's embedding, None for `exact`."""

    workspace_id: str
    use_case_id: str
    key_sha256: str
    scope_sha256: str
    question: str
    passages: tuple[str, ...]
    versions: tuple[str, ...]
    seconds: int
    similarity: float | None = None
    vector: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A generation that was made for `answer_id`."""

    answer_id: str
    generation: Generation


class AnswerCache:
    """Finds cached generations; rows in SQL, so that all processes share them."""

    def __init__(
        self, database: Database, count: Callable[[str], None] = lambda _outcome: None
    ) -> None:
        """`count` is told `exact`, `semantic` or `miss` for every look-up, and `stale`."""
        self._database = database
        self._count = count

    def find(self, key: CacheKey) -> Hit | None:
        """The generation under the key, or under one of the same meaning."""
        with self._database.reading() as session:
            row = session.scalar(_live(key).where(CachedAnswer.key_sha256 == key.key_sha256))
            outcome = "exact"
            if row is None and key.vector is not None:
                row, outcome = _same_meaning(session, key), "semantic"
        self._count("miss" if row is None else outcome)
        return None if row is None else Hit(row.answer_id, Generation(**row.generation))

    def found_stale(self) -> None:
        """A generation was found that may not be given any more."""
        self._count("stale")


def make_key(
    *,
    identity: Mapping[str, Any],
    outside: Mapping[str, Any],
    turns: Mapping[str, Any],
    base: CacheKey,
) -> CacheKey:
    """The key of a request.

    Args:
        identity: all that determines the text, `prompt_sha256` included.
        outside: what must be equal besides, such as workspace and groups.
        turns: what the prompt holds but the question: the system text and the history.
        base: the other fields of the key.
    """
    whole = {**identity, **outside}
    scope = {name: value for name, value in whole.items() if name != "prompt_sha256"} | {**turns}
    values = {name: getattr(base, name) for name in base.__slots__}
    return CacheKey(**{**values, "key_sha256": _sha256(whole), "scope_sha256": _sha256(scope)})


def store(rows: sa.Connection, key: CacheKey, answer_id: str, generation: Generation) -> None:
    """Keep a generation, unless what it was made of has ended meanwhile."""
    query = sa.select(sa.func.count()).where(
        DocumentVersion.id.in_(key.versions), DocumentVersion.state.in_(("visible", "retired"))
    )
    if rows.scalar(query) != len(key.versions):
        return
    outdated = sa.and_(
        CachedAnswer.workspace_id == key.workspace_id,
        CachedAnswer.use_case_id == key.use_case_id,
        CachedAnswer.created_at < now() - timedelta(seconds=key.seconds),
    )
    rows.execute(
        sa.delete(CachedAnswer).where(sa.or_(CachedAnswer.key_sha256 == key.key_sha256, outdated))
    )
    vector = None if key.vector is None else np.asarray(key.vector, np.float32).tobytes()
    row = {
        "id": new_id(),
        "workspace_id": key.workspace_id,
        "use_case_id": key.use_case_id,
        "key_sha256": key.key_sha256,
        "scope_sha256": key.scope_sha256,
        "question": key.question,
        "vector": vector,
        "generation": asdict(generation),
        "answer_id": answer_id,
        "created_at": now(),
    }
    rows.execute(_CACHED.insert(), row)
    if key.versions:
        made_of = [{"cached_id": row["id"], "version_id": version} for version in key.versions]
        rows.execute(_CACHED_VERSIONS.insert(), made_of)


def same_question(first: str, second: str, passages: Sequence[str]) -> bool:
    """Whether nothing that could change the answer tells two similar questions apart.

    Their values, negations, comparisons and question words must be the same, and no content word
    that only one of them has may occur in the passages: a word the passages use is one they tell
    facts apart by. Those that both have must stand in the same order ("from A to B" is not "from
    B to A"). Without passages nothing tells which words matter, so all do.
    """
    for pattern in (_NEGATION, _COMPARISON, _ASKED):
        if _found(pattern, first) != _found(pattern, second):
            return False
    values = [Counter((v.kind, v.key) for v in extract_values(text)) for text in (first, second)]
    if values[0] != values[1]:
        return False
    said = [[fold(word) for word in content_words(text)] for text in (first, second)]
    if passages:
        told = {fold(word) for text in passages for word in content_words(text)}
        said = [[word for word in words if word in told] for words in said]
    return said[0] == said[1]


def _same_meaning(session: Session, key: CacheKey) -> CachedAnswer | None:
    """The nearest question above the threshold that `same_question` lets pass."""
    query = _live(key).where(
        CachedAnswer.scope_sha256 == key.scope_sha256, CachedAnswer.vector.is_not(None)
    )
    newest = query.order_by(CachedAnswer.created_at.desc()).limit(_MOST_CANDIDATES)
    wanted = np.asarray(key.vector, np.float32)
    near: list[tuple[float, CachedAnswer]] = []
    for row in session.scalars(newest):
        cosine = _cosine(wanted, np.frombuffer(row.vector or b"", np.float32))
        if cosine >= (key.similarity or 1.0):
            near.append((cosine, row))
    for _, row in sorted(near, key=lambda item: -item[0]):
        if same_question(key.question, row.question, key.passages):
            return row
    return None


def _live(key: CacheKey) -> sa.Select[CachedAnswer]:
    return sa.select(CachedAnswer).where(
        CachedAnswer.workspace_id == key.workspace_id,
        CachedAnswer.use_case_id == key.use_case_id,
        CachedAnswer.created_at >= now() - timedelta(seconds=key.seconds),
    )


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    if a.shape != b.shape:
        return -1.0
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) or 1.0))


def _found(pattern: re.Pattern[str], text: str) -> Counter[str]:
    return Counter(match.lower() for match in pattern.findall(text))


def _sha256(data: Mapping[str, Any]) -> str:
    canonical = json.dumps(data, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()
