"""The ingest job: sources in, document versions made visible one by one, exactly once.

Per batch: read and parse (the next batch meanwhile), chunk, embed, publish. Killed anywhere, a
restart repeats at most one batch, and repeating it writes the same ids again.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from app.db.session import Database
from app.db.tables import KnowledgeBase
from app.jobs.runner import JobContext
from app.knowledge import moves, repository
from app.knowledge.indexes import KnowledgeIndexes
from app.knowledge.publishing import Outcome, Pending, move_to_past, publish
from app.knowledge.reading import read_source, sha256_of
from app.knowledge.sources import (
    Fetcher,
    SitemapSpec,
    UrlSpec,
    WebRules,
    collect,
    parse_spec,
)
from app.knowledge.sources.types import FoundDocument
from retrieval.parsing import SUPPORTED_EXTENSIONS

_BATCH_FILES = 64
KINDS = ("added", "changed", "moved", "unchanged", "scheduled", "deleted", "skipped", "failed")


class Ingestion:
    """Runs ingest jobs for one process."""

    def __init__(
        self,
        database: Database,
        indexes: KnowledgeIndexes,
        root: Path,
        rules: WebRules | None = None,
    ) -> None:
        """Wire it.

        Args:
            database: the application database.
            indexes: vectors and embedders.
            root: the data directory; what is fetched lies under it until the job ends.
            rules: which addresses web sources may use; public ones by default.
        """
        self._rules = rules or WebRules()
        self._database = database
        self._indexes = indexes
        self._root = root
        self._ahead: dict[int, Future[list[Outcome | Pending]]] = {}

    def run(self, job: JobContext) -> dict[str, Any]:
        """Handler of `ingest` jobs.

        Payload: knowledge_base_id, specs (or paths), sync, valid_from, groups, attributes.
        """
        with self._database.session() as session:
            kb = session.get_one(KnowledgeBase, job.payload["knowledge_base_id"])
        folder = self._root / "sources" / job.job_id
        job.progress(0, 0, "listing the sources")
        listed = job.step("list", lambda: self._list(kb, job.payload, folder))
        sources = [FoundDocument.from_row(row) for row in listed]
        moved: dict[str, str] = {}
        if job.payload["sync"]:
            moved = job.step("moves", lambda: moves.follow(self._database, kb, sources))
        # A step of its own: after a restart the batches must hold the same sources again.
        to_read = set(job.step("changes", lambda: self._to_read(kb, sources, moved)))
        waiting = [source for i, source in enumerate(sources) if i in to_read]
        outcomes = [
            Outcome(source.external_id, "unchanged")
            for i, source in enumerate(sources)
            if i not in to_read
        ]
        outcomes += self._read_all(job, kb, waiting, moved, len(outcomes))
        if job.payload["sync"]:
            rows = job.step("sync", lambda: self._delete_gone(kb, sources))
            outcomes += [Outcome(**row) for row in rows]
        shutil.rmtree(folder, ignore_errors=True)
        return summarise(outcomes)

    def _list(
        self, kb: KnowledgeBase, payload: dict[str, Any], folder: Path
    ) -> list[dict[str, Any]]:
        specs = payload.get("specs") or [{"kind": "files", "path": p} for p in payload["paths"]]
        asked = [parse_spec(spec) for spec in specs]
        with contextlib.ExitStack() as stack:
            fetcher = None
            # Only for the web: reading the certificates takes longer than listing 500 files.
            if any(isinstance(spec, UrlSpec | SitemapSpec) for spec in asked):
                # A page memory per knowledge base: what one tenant fetched is never another's.
                pages = self._root / "pages" / kb.id
                fetcher = stack.enter_context(Fetcher(self._rules, cache=pages))
            found = collect(asked, folder, fetcher=fetcher)
        extra: dict[str, Any] = {}
        if payload.get("valid_from"):
            extra["valid_from"] = payload["valid_from"]
        if payload.get("groups") is not None:
            extra["groups"] = tuple(payload["groups"])
        attributes = payload.get("attributes") or {}
        if extra or attributes:
            found = [
                replace(item, **extra, metadata={**item.metadata, **attributes}) for item in found
            ]
        return [item.as_row() for item in found]

    def _to_read(
        self, kb: KnowledgeBase, sources: Sequence[FoundDocument], moved: Mapping[str, str]
    ) -> list[int]:
        """Places of the sources that are not known to be what is answered from already."""
        with self._database.reading() as session:
            known = repository.contents(session, kb)
        return [
            i
            for i, source in enumerate(sources)
            if source.external_id in moved or not _is_same(source, known.get(source.external_id))
        ]

    def _read_all(
        self,
        job: JobContext,
        kb: KnowledgeBase,
        sources: Sequence[FoundDocument],
        moved: dict[str, str],
        unchanged: int,
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        total = unchanged + len(sources)
        job.progress(unchanged, total, "reading")
        with ThreadPoolExecutor(1, "read-ahead") as pool:
            for start in range(0, len(sources), _BATCH_FILES):
                work = functools.partial(self._batch, pool, kb, sources, start, moved)
                rows = job.step(f"files {start}", work)
                outcomes += [Outcome(**row) for row in rows]
                done = min(start + _BATCH_FILES, len(sources))
                job.progress(unchanged + done, total, sources[done - 1].external_id)
        self._ahead.clear()
        return outcomes

    def _batch(
        self,
        pool: ThreadPoolExecutor,
        kb: KnowledgeBase,
        sources: Sequence[FoundDocument],
        start: int,
        moved: dict[str, str],
    ) -> list[dict[str, Any]]:
        """Ingest some files together (full embedding batches, one flush, one flip)."""

        def read(at: int) -> list[Outcome | Pending]:
            return [
                read_source(self._database, kb, source, moved_from=moved.get(source.external_id))
                for source in sources[at : at + _BATCH_FILES]
                if not source.deleted
            ]

        waiting = self._ahead.pop(start, None)
        items = waiting.result() if waiting is not None else read(start)
        following = start + _BATCH_FILES
        if following < len(sources):
            # The parser is another process: it reads the next files while these are embedded.
            self._ahead[following] = pool.submit(read, following)
        pending = [item for item in items if isinstance(item, Pending)]
        published = publish(self._database, self._indexes, kb, pending)
        outcomes = [
            published[item.document.external_id] if isinstance(item, Pending) else item
            for item in items
        ]
        gone = {s.external_id: s.problem for s in sources[start:following] if s.deleted}
        return [asdict(outcome) for outcome in outcomes] + self._delete(kb, gone)

    def _delete_gone(
        self, kb: KnowledgeBase, sources: Sequence[FoundDocument]
    ) -> list[dict[str, Any]]:
        unlisted = [source for source in sources if source.incomplete]
        if unlisted:
            reason = f"nothing was deleted, the sources are not complete: {unlisted[0].problem}"
            return [asdict(Outcome(unlisted[0].external_id, "skipped", reason))]
        kept = {source.external_id for source in sources}
        with self._database.reading() as session:
            live = repository.live_ids(session, kb)
        return self._delete(kb, {name: "" for name in live if name not in kept})

    def _delete(self, kb: KnowledgeBase, names: Mapping[str, str]) -> list[dict[str, Any]]:
        """Documents that are gone from their source: no more answers, but kept in the past.

        `names` tells why, where the source said so.
        """
        if not names:
            return []
        deleted, ended = [], []
        with self._indexes.writing(kb.id):
            with self._database.session() as session:
                serving = session.get_one(KnowledgeBase, kb.id)
                for name in names:
                    document = repository.find_document(session, kb, name)
                    if document is not None and document.deleted_at is None:
                        ended += repository.delete_document(session, document, purge=False)
                        deleted.append(name)
            move_to_past(self._indexes.of(serving), serving, ended)
        return [asdict(Outcome(name, "deleted", names[name])) for name in deleted]


def _is_same(source: FoundDocument, known: tuple[str, Mapping[str, str]] | None) -> bool:
    """Whether reading the source could change nothing, told without parsing it."""
    if known is None or source.path is None or source.deleted or source.groups is not None:
        return False
    digest, attributes = known
    if source.metadata and dict(source.metadata) != dict(attributes):
        return False
    try:
        return sha256_of(source.path) == digest
    except OSError:
        return False  # reading it will say why


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Counts per outcome, chunk totals, and every document that was skipped or failed."""
    counts = Counter(outcome.outcome for outcome in outcomes)
    told = ("skipped", "failed", "moved", "scheduled", "deleted")
    return {
        "counts": {kind: counts.get(kind, 0) for kind in KINDS},
        "chunks": sum(outcome.chunks for outcome in outcomes),
        "embedded": sum(outcome.embedded for outcome in outcomes),
        "problems": [asdict(o) for o in outcomes if o.outcome in told[:2]],
        "notes": [asdict(o) for o in outcomes if o.outcome in told[2:] and o.reason],
        "supported": sorted(SUPPORTED_EXTENSIONS),
    }
