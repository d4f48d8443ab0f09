"""Prove that the index holds what SQL says, nothing less, nothing more; mend it where not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog

from app.db.session import Database
from app.db.tables import KnowledgeBase
from app.errors import AppError
from app.knowledge import repository
from app.knowledge.indexes import KnowledgeIndex, KnowledgeIndexes, live_scope, past_scope
from app.knowledge.service import index_chunks
from retrieval.errors import RetrievalError
from retrieval.types import Scope, located_text

log = structlog.get_logger(__name__)

_SAME_VECTOR = 0.99


@dataclass(frozen=True, slots=True)
class ShardReport:
    """One shard against SQL, in chunks.

    Attributes:
        shard: "present" or "past".
        expected: chunks by SQL.
        missing: chunks by SQL that the shard lacks.
        ghosts: chunks of the shard that SQL does not know there.
        changed: chunks whose text in the shard is another one.
        wrong_vectors: of those sampled, chunks whose vector is not that of their text.
    """

    shard: str
    expected: int
    missing: int
    ghosts: int
    changed: int
    wrong_vectors: int

    @property
    def drift(self) -> int:
        """Chunks that are not as SQL says."""
        return self.missing + self.ghosts + self.changed + self.wrong_vectors


@dataclass(frozen=True, slots=True)
class Report:
    """All shards of a knowledge base; `repaired` chunks were mended."""

    knowledge_base: str
    shards: tuple[ShardReport, ...]
    repaired: int

    @property
    def clean(self) -> bool:
        """Whether the index was as SQL says before any repair."""
        return not any(shard.drift for shard in self.shards)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"clean": self.clean}


def verify(
    database: Database,
    indexes: KnowledgeIndexes,
    kb_id: str,
    *,
    repair: bool,
    sample: int = 0,
) -> Report:
    """Compare the shards of a knowledge base with SQL, and with `repair` make them equal.

    Ids and content hashes of all chunks are compared; `sample` chunks per shard are embedded
    again and their vectors compared too. Questions go on being answered meanwhile.
    """
    with indexes.writing(kb_id):
        with database.reading() as session:
            kb = session.get_one(KnowledgeBase, kb_id)
            expected = [
                repository.expected_hashes(session, kb, past=past) for past in (False, True)
            ]
        knowledge = indexes.of(kb)
        shards, repaired = [], 0
        for name, scope, hashes in zip(
            ("present", "past"), (live_scope(kb), past_scope(kb)), expected, strict=True
        ):
            report, wrong, ghosts = _compare(database, knowledge, name, scope, hashes, sample)
            shards.append(report)
            if repair and report.drift:
                knowledge.index.delete_chunks(scope, ghosts)
                index_chunks(database, knowledge, scope, wrong)
                knowledge.index.flush()
                repaired += report.drift
    return Report(kb.name, tuple(shards), repaired)


def _compare(
    database: Database,
    knowledge: KnowledgeIndex,
    name: str,
    scope: Scope,
    expected: Mapping[str, str],
    sample: int,
) -> tuple[ShardReport, list[str], list[str]]:
    """The report, the chunks to write again, the chunks to remove."""
    stored = knowledge.index.chunk_hashes(scope)
    missing = [chunk_id for chunk_id in expected if chunk_id not in stored]
    # A point written before hashes were kept has an empty one.
    changed = [i for i, digest in expected.items() if stored.get(i, "") not in ("", digest)]
    ghosts = sorted(set(stored) - set(expected))
    known = {*missing, *changed}
    every = max(1, len(expected) // sample) if sample else len(expected) + 1
    chosen = [i for i in list(expected)[every - 1 :: every] if i not in known]
    wrong = _wrong_vectors(database, knowledge, scope, chosen)
    report = ShardReport(name, len(expected), len(missing), len(ghosts), len(changed), len(wrong))
    return report, [*missing, *changed, *wrong], ghosts


def _wrong_vectors(
    database: Database, knowledge: KnowledgeIndex, scope: Scope, chunk_ids: Sequence[str]
) -> list[str]:
    """Those chunks whose stored vector is not the one of their text."""
    if not chunk_ids:
        return []
    with database.reading() as session:
        rows = repository.chunks_with_titles(session, chunk_ids)
    vectors = {
        point.chunk_id: point.vector
        for version_id in dict.fromkeys(chunk.version_id for _, chunk in rows)
        for point in knowledge.index.chunks_of_version(scope, version_id)
    }
    texts = [located_text(title, chunk.heading_path, chunk.text) for title, chunk in rows]
    fresh = knowledge.embedder.embed_passages(texts)
    return [
        chunk.id
        for (_, chunk), vector in zip(rows, fresh, strict=True)
        if chunk.id not in vectors or float(vectors[chunk.id] @ vector) < _SAME_VECTOR
    ]


_MARK = "index.clean"


def mark_clean(root: Path) -> None:
    """Say that this process left the index as SQL has it."""
    (root / _MARK).touch()


def mend_after_crash(database: Database, indexes: KnowledgeIndexes, root: Path) -> list[Report]:
    """Verify and repair everything, unless the last process ended in good order."""
    mark = root / _MARK
    if mark.exists():
        mark.unlink()
        return []
    with database.reading() as session:
        kb_ids = list(session.scalars(sa.select(KnowledgeBase.id)))
    reports = []
    for kb_id in kb_ids:
        try:
            report = verify(database, indexes, kb_id, repair=True)
        except (AppError, RetrievalError) as error:
            # Questions to this knowledge base will say the same; others must not suffer.
            log.warning("not_verified", knowledge_base=kb_id, reason=str(error))
            continue
        if not report.clean:
            log.warning("index_mended", **report.as_json())
        reports.append(report)
    return reports
