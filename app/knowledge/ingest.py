"""The ingest job: files in, document versions made visible one by one, exactly once.

Per document: parse, chunk, embed, store the version unseen, write and flush its vectors, then one
SQL flip shows it and retires the one before. Killed anywhere, a restart repeats at most one batch,
and repeating it writes the same ids again.
"""

from __future__ import annotations

import functools
import hashlib
import os
import uuid
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from app.db.base import now
from app.db.session import Database
from app.db.tables import Chunk, Document, DocumentVersion, KnowledgeBase
from app.errors import BadInput, NotFound
from app.jobs.runner import JobContext
from app.knowledge import repository
from app.knowledge.service import KnowledgeIndex
from retrieval.errors import DocumentError, UnsupportedFormat
from retrieval.ingestion import DocumentVersion as PreparedVersion
from retrieval.ingestion import PreparedDocument, prepare_documents
from retrieval.parsing import SUPPORTED_EXTENSIONS, parse_file
from retrieval.types import ParsedDocument, Scope, WorkspaceId

_BATCH_FILES = 16
_VERSION_NAMESPACE = uuid.UUID("5f0c4f0e-52f4-4b67-9a5e-1f7ab1d7d0b3")


@dataclass(frozen=True, slots=True)
class Source:
    """A file to ingest. `external_id` is its lasting name; `named` if the caller named the file."""

    external_id: str
    path: str
    named: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one document: added, changed, unchanged, deleted, skipped or failed."""

    document: str
    outcome: str
    reason: str = ""
    chunks: int = 0
    embedded: int = 0


@dataclass(frozen=True, slots=True)
class _Pending:
    """A file that was read and is to become a version."""

    source: Source
    document: Document
    parsed: ParsedDocument
    digest: str
    previous: str | None
    number: int
    version_id: str


def list_sources(paths: list[str]) -> list[Source]:
    """Files under the given files and folders, by external id (path inside the folder given).

    Raises:
        NotFound: A path that does not exist.
        BadInput: Two files that would share an external id.
    """
    sources: dict[str, Source] = {}
    for given in paths:
        root = Path(given)
        if root.is_file():
            found = [Source(_readable(root.name), str(root), True)]
        elif root.is_dir():
            found = [
                Source(_readable(file.relative_to(root).as_posix()), str(file), False)
                for file in sorted(root.rglob("*"))
                if file.is_file() and not _hidden(file.relative_to(root))
            ]
        else:
            raise NotFound(f"{given!r} does not exist: give a file or a folder")
        for source in found:
            if source.external_id in sources:
                raise BadInput(f"two sources are called {source.external_id!r}: give one folder")
            sources[source.external_id] = source
    return list(sources.values())


class Ingestion:
    """Runs ingest jobs for one process."""

    def __init__(self, database: Database, knowledge: KnowledgeIndex) -> None:
        self._database = database
        self._knowledge = knowledge

    def run(self, job: JobContext) -> dict[str, Any]:
        """Handler of `ingest` jobs. Payload: knowledge_base_id, paths, sync, valid_from."""
        with self._database.session() as session:
            kb = session.get_one(KnowledgeBase, job.payload["knowledge_base_id"])
        listed = job.step(
            "list", lambda: [asdict(source) for source in list_sources(job.payload["paths"])]
        )
        sources = [Source(**row) for row in listed]
        outcomes: list[Outcome] = []
        job.progress(0, len(sources), "reading")
        for start in range(0, len(sources), _BATCH_FILES):
            batch = sources[start : start + _BATCH_FILES]
            work = functools.partial(self._batch, kb, batch, job.payload)
            rows = job.step(f"files {start}", work)
            outcomes += [Outcome(**row) for row in rows]
            job.progress(start + len(batch), len(sources), batch[-1].external_id)
        if job.payload["sync"]:
            kept = {source.external_id for source in sources}
            rows = job.step("sync", lambda: self._delete_gone(kb, kept))
            outcomes += [Outcome(**row) for row in rows]
        job.step("tidy", lambda: self._remove_retired_vectors(kb))
        return summarise(outcomes)

    def _batch(
        self, kb: KnowledgeBase, batch: list[Source], payload: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Ingest some files together: full embedding batches, one flush, one flip."""
        read = [self._read(kb, source) for source in batch]
        pending = [item for item in read if isinstance(item, _Pending)]
        published = self._publish(kb, pending, payload.get("valid_from"))
        outcomes = [published[i.source.external_id] if isinstance(i, _Pending) else i for i in read]
        return [asdict(outcome) for outcome in outcomes]

    def _read(self, kb: KnowledgeBase, source: Source) -> Outcome | _Pending:
        try:
            digest = _sha256(source.path)
            with self._database.session() as session:
                document, unchanged = self._document(session, kb, source, digest)
                if unchanged:
                    return Outcome(source.external_id, "unchanged")
                previous = document.current_version_id
                number = self._next_number(session, document.id, digest)
            parsed = parse_file(source.path, name=source.external_id)
        except UnsupportedFormat as error:
            # A folder may hold anything; a file that was named must be readable.
            return Outcome(source.external_id, "failed" if source.named else "skipped", str(error))
        except (DocumentError, FileNotFoundError, PermissionError) as error:
            return Outcome(source.external_id, "failed", str(error))
        version_id = str(uuid.uuid5(_VERSION_NAMESPACE, f"{document.id}\x1f{number}\x1f{digest}"))
        return _Pending(source, document, parsed, digest, previous, number, version_id)

    def _document(
        self, session: Any, kb: KnowledgeBase, source: Source, digest: str
    ) -> tuple[Document, bool]:
        document = repository.find_document(session, kb, source.external_id)
        if document is None:
            document = Document(
                id=str(uuid.uuid5(_VERSION_NAMESPACE, f"{kb.id}\x1f{source.external_id}")),
                workspace_id=kb.workspace_id,
                knowledge_base_id=kb.id,
                external_id=source.external_id,
                title=source.external_id,
            )
            return document, False
        if document.deleted_at is not None or document.current_version_id is None:
            return document, False
        current = session.get(DocumentVersion, document.current_version_id)
        return document, current is not None and current.content_sha256 == digest

    def _publish(
        self, kb: KnowledgeBase, pending: list[_Pending], valid_from: str | None
    ) -> dict[str, Outcome]:
        """Store unseen, write and flush the vectors, then show: outcomes by external id."""
        if not pending:
            return {}
        scope = Scope(WorkspaceId(kb.workspace_id), kb.id)
        index = self._knowledge.index
        versions = [
            PreparedVersion(
                item.parsed,
                item.document.id,
                item.version_id,
                index.stored_vectors(scope, item.document.id) if item.previous else {},
            )
            for item in pending
        ]
        prepared = list(
            prepare_documents(
                versions, self._knowledge.embedder, scope, options=self._knowledge.chunking
            )
        )
        since = datetime.fromisoformat(valid_from) if valid_from else now()
        with self._database.session() as session:
            for item, made in zip(pending, prepared, strict=True):
                if session.get(Document, item.document.id) is None:
                    session.add(item.document)
                    session.flush()
                version = _version_row(kb, item, since)
                repository.add_pending_version(session, version, _chunk_rows(made))
        index.upsert(point for made in prepared for point in made.points)
        index.flush()
        retired = self._show(pending)
        for version_id in filter(None, retired.values()):
            index.delete_version(scope, version_id)
        if any(retired.values()):
            index.flush()
        return {
            item.source.external_id: _outcome(item, made, retired)
            for item, made in zip(pending, prepared, strict=True)
        }

    def _show(self, pending: list[_Pending]) -> dict[str, str | None]:
        """The flip. Versions now visible, each with the version it retired.

        A document that was deleted while it was being read stays deleted.
        """
        retired: dict[str, str | None] = {}
        with self._database.session() as session:
            for item in pending:
                document = session.get_one(Document, item.document.id)
                if document.deleted_at == item.document.deleted_at:
                    retired[item.version_id] = repository.make_visible(session, item.version_id)
                else:
                    repository.retire(session, item.version_id, document.deleted_at or now())
        return retired

    def _next_number(self, session: Any, document_id: str, digest: str) -> int:
        """The number of a version an interrupted run left pending, else the next one."""
        newest = session.scalar(
            sa.select(DocumentVersion)
            .where(DocumentVersion.document_id == document_id)
            .order_by(DocumentVersion.number.desc())
            .limit(1)
        )
        if newest is None:
            return 1
        left_pending = newest.state == "pending" and newest.content_sha256 == digest
        return int(newest.number) + (not left_pending)

    def _delete_gone(self, kb: KnowledgeBase, kept: set[str]) -> list[dict[str, Any]]:
        scope = Scope(WorkspaceId(kb.workspace_id), kb.id)
        with self._database.session() as session:
            gone = [
                document
                for document in repository.live_documents(session, kb)
                if document.external_id not in kept
            ]
            for document in gone:
                repository.delete_document(session, document)
        for document in gone:
            self._knowledge.index.delete_document(scope, document.id)
        self._knowledge.index.flush()
        return [asdict(Outcome(document.external_id, "deleted")) for document in gone]

    def _remove_retired_vectors(self, kb: KnowledgeBase) -> int:
        """Vectors that a killed run left behind; nobody could see them, they only cost space."""
        scope = Scope(WorkspaceId(kb.workspace_id), kb.id)
        indexed = self._knowledge.index.chunk_ids(scope)
        current = aliased(DocumentVersion)
        # A pending version older than the visible one was left by a killed run.
        overtaken = sa.and_(
            DocumentVersion.state == "pending", DocumentVersion.number < current.number
        )
        with self._database.session() as session:
            rows = session.execute(
                sa.select(Chunk.id, Chunk.version_id)
                .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
                .join(Document, Document.id == DocumentVersion.document_id)
                .outerjoin(current, current.id == Document.current_version_id)
                .where(
                    DocumentVersion.knowledge_base_id == kb.id,
                    sa.or_(DocumentVersion.state == "retired", overtaken),
                )
            ).all()
        stale = {version_id for chunk_id, version_id in rows if chunk_id in indexed}
        for version_id in stale:
            self._knowledge.index.delete_version(scope, version_id)
        if stale:
            self._knowledge.index.flush()
        return len(stale)


def _outcome(item: _Pending, made: PreparedDocument, retired: dict[str, str | None]) -> Outcome:
    name = item.source.external_id
    if item.version_id not in retired:
        return Outcome(name, "skipped", f"{name!r} was deleted while it was being read")
    kind = "changed" if retired[item.version_id] else "added"
    return Outcome(name, kind, "", len(made.chunks), made.n_embedded)


def _version_row(kb: KnowledgeBase, item: _Pending, since: datetime) -> DocumentVersion:
    return DocumentVersion(
        id=item.version_id,
        workspace_id=kb.workspace_id,
        knowledge_base_id=kb.id,
        document_id=item.document.id,
        number=item.number,
        content_sha256=item.digest,
        title=item.parsed.title or item.source.external_id,
        media_type=item.parsed.media_type,
        state="pending",
        supersedes_id=item.previous,
        valid_from=since,
        created_at=now(),
    )


def _chunk_rows(prepared: PreparedDocument) -> list[Chunk]:
    return [
        Chunk(
            id=point.chunk_id,
            version_id=point.version_id,
            document_id=point.document_id,
            ordinal=chunk.ordinal,
            text=chunk.text,
            heading_path=list(chunk.heading_path),
            page_start=chunk.page_start,
            page_end=chunk.page_end,
            start_char=chunk.start_char,
            end_char=chunk.end_char,
            n_tokens=chunk.n_tokens,
            content_sha256=chunk.content_hash,
        )
        for chunk, point in zip(prepared.chunks, prepared.points, strict=True)
    ]


def summarise(outcomes: list[Outcome]) -> dict[str, Any]:
    """Counts per outcome, chunk totals, and every document that was skipped or failed."""
    counts = Counter(outcome.outcome for outcome in outcomes)
    kinds = ("added", "changed", "unchanged", "deleted", "skipped", "failed")
    return {
        "counts": {kind: counts.get(kind, 0) for kind in kinds},
        "chunks": sum(outcome.chunks for outcome in outcomes),
        "embedded": sum(outcome.embedded for outcome in outcomes),
        "problems": [asdict(o) for o in outcomes if o.outcome in ("skipped", "failed")],
        "supported": sorted(SUPPORTED_EXTENSIONS),
    }


def _readable(name: str) -> str:
    """A file name as text; bytes of it that are not UTF-8 become replacement characters."""
    return os.fsencode(name).decode("utf-8", "replace")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _sha256(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
