"""SQL of knowledge bases, documents, versions and chunks. Every query names the workspace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.base import UtcDateTime, now
from app.db.tables import (
    CachedAnswer,
    CachedAnswerVersion,
    Chunk,
    Document,
    DocumentGroup,
    DocumentVersion,
    KnowledgeBase,
)
from app.errors import NotFound
from app.knowledge.view import View
from retrieval.index import Narrowing
from retrieval.types import Chunk as Passage

_BASE_TABLE = cast(sa.Table, KnowledgeBase.__table__)
_BASES = sa.select(_BASE_TABLE).where(
    _BASE_TABLE.c.workspace_id == sa.bindparam("workspace"),
    _BASE_TABLE.c.id.in_(sa.bindparam("ids", expanding=True)),
)


def find_knowledge_base(session: Session, workspace_id: str, name: str) -> KnowledgeBase:
    """By name (or id), with the valid names in the error."""
    query = sa.select(KnowledgeBase).where(KnowledgeBase.workspace_id == workspace_id)
    bases = list(session.scalars(query.order_by(KnowledgeBase.name)))
    for kb in bases:
        if name in (kb.name, kb.id):
            return kb
    known = ", ".join(kb.name for kb in bases) or "none yet"
    raise NotFound(f"no knowledge base {name!r}: there are {known}")


def find_document(session: Session, kb: KnowledgeBase, external_id: str) -> Document | None:
    """A document by its external id, deleted ones too."""
    return session.scalar(
        sa.select(Document).where(
            Document.workspace_id == kb.workspace_id,
            Document.knowledge_base_id == kb.id,
            Document.external_id == external_id,
        )
    )


def external_ids(session: Session, kb: KnowledgeBase) -> set[str]:
    """The names of all documents there ever were, deleted ones too."""
    query = sa.select(Document.external_id).where(Document.knowledge_base_id == kb.id)
    return set(session.scalars(query))


def contents(session: Session, kb: KnowledgeBase) -> dict[str, tuple[str, dict[str, str]]]:
    """Content hash and attributes of what is answered from now, by external id."""
    query = (
        sa.select(Document.external_id, DocumentVersion.content_sha256, Document.attributes)
        .join(DocumentVersion, DocumentVersion.id == Document.current_version_id)
        .where(Document.knowledge_base_id == kb.id, Document.deleted_at.is_(None))
    )
    return {name: (digest, attributes) for name, digest, attributes in session.execute(query)}


def live_ids(session: Session, kb: KnowledgeBase) -> dict[str, str]:
    """Ids of the documents that answers may come from, by external id, in its order."""
    query = sa.select(Document.external_id, Document.id).where(
        Document.workspace_id == kb.workspace_id,
        Document.knowledge_base_id == kb.id,
        Document.deleted_at.is_(None),
        Document.current_version_id.is_not(None),
    )
    rows = session.execute(query.order_by(Document.external_id))
    return {name: document_id for name, document_id in rows}


def visible_versions(
    rows: Session | sa.Connection, workspace_id: str, version_ids: Sequence[str], view: View
) -> set[str]:
    """Those of the versions that answers may come from under the view."""
    if not version_ids:
        return set()
    named = dict(enumerate(sorted(view.where.items())))
    shape = (view.as_of is not None, view.groups is not None, bool(view.without))
    query = _visible(*shape, tuple(key for key, _ in named.values()))
    given: dict[str, Any] = {
        "workspace": workspace_id,
        "versions": list(version_ids),
        "as_of": view.as_of,
        "groups": sorted(view.groups or ()),
        "without": list(view.without),
    }
    given |= {f"where_{index}": value for index, (_, value) in named.items()}
    return set(rows.scalars(query, given))  # what a shape does not bind is not looked at


@lru_cache(maxsize=64)  # building it takes several times as long as running it
def _visible(
    dated: bool, grouped: bool, narrowed: bool, attributes: tuple[str, ...]
) -> sa.Select[str]:
    """The query of `visible_versions` for one shape of views; the values are bound."""
    conditions = _valid(sa.bindparam("as_of", type_=UtcDateTime()) if dated else None)
    conditions += [
        Document.attributes[key].as_string() == sa.bindparam(f"where_{index}", type_=sa.String())
        for index, key in enumerate(attributes)
    ]
    if narrowed:
        conditions.append(Document.external_id.not_in(sa.bindparam("without", expanding=True)))
    if grouped:
        conditions.append(_open_to(sa.bindparam("groups", expanding=True)))
    return (
        sa.select(DocumentVersion.id)
        .join(Document, Document.id == DocumentVersion.document_id)
        .where(
            DocumentVersion.workspace_id == sa.bindparam("workspace"),
            DocumentVersion.id.in_(sa.bindparam("versions", expanding=True)),
            *conditions,
        )
    )


def _valid(as_of: sa.BindParameter[datetime] | None) -> list[sa.ColumnElement[bool]]:
    if as_of is None:
        return [
            Document.current_version_id == DocumentVersion.id,
            DocumentVersion.state == "visible",
            Document.deleted_at.is_(None),
        ]
    return [
        DocumentVersion.state.in_(("visible", "retired")),
        DocumentVersion.valid_from <= as_of,
        sa.or_(DocumentVersion.valid_to.is_(None), DocumentVersion.valid_to > as_of),
    ]


def _having(attributes: Mapping[str, str]) -> list[sa.ColumnElement[bool]]:
    return [Document.attributes[key].as_string() == value for key, value in attributes.items()]


def _open_to(groups: Sequence[str] | sa.BindParameter[Any]) -> sa.ColumnElement[bool]:
    """The document has no groups, or one of these."""
    own = sa.select(DocumentGroup.name).where(DocumentGroup.document_id == Document.id)
    return sa.or_(~own.exists(), own.where(DocumentGroup.name.in_(groups)).exists())


def any_closed(session: Session, document_ids: Sequence[str], groups: frozenset[str]) -> bool:
    """Whether one of the documents has groups, and none of these."""
    query = sa.select(Document.id).where(Document.id.in_(document_ids), ~_open_to(sorted(groups)))
    return session.scalar(query.limit(1)) is not None


def narrow(
    session: Session | sa.Connection, kb: KnowledgeBase, view: View, most: int = 5_000
) -> Narrowing:
    """What the index can leave out for the view, so that hidden documents take nobody's place.

    SQL stays the judge: every hit is checked again. Beyond `most` documents the index is not told
    and the check alone decides.
    """
    without: set[str] = set()
    if view.without:
        query = _ids(kb).where(Document.external_id.in_(view.without))
        without |= set(session.scalars(query))
    if view.groups is not None:
        query = _ids(kb).where(~_open_to(sorted(view.groups))).limit(most + 1)
        hidden: set[str] = set(session.scalars(query))
        without |= hidden if len(hidden) <= most else set()
    only = None
    if view.where:
        wanted: set[str] = set(session.scalars(_ids(kb).where(*_having(view.where))))
        others: set[str] = set(session.scalars(_ids(kb))) - wanted
        # The index leaves a few documents out far faster than it keeps to many.
        if len(others) <= min(most, len(wanted)):
            without |= others
        elif len(wanted) <= most:
            only = frozenset(wanted)
    return Narrowing(only_documents=only, without_documents=frozenset(without))


def _ids(kb: KnowledgeBase) -> sa.Select[Any]:
    return sa.select(Document.id).where(Document.knowledge_base_id == kb.id)


def set_groups(session: Session, document: Document, groups: Iterable[str]) -> None:
    """Who may be answered from the document from this commit on; none means everyone."""
    session.execute(sa.delete(DocumentGroup).where(DocumentGroup.document_id == document.id))
    _evict_answers(session, DocumentVersion.document_id == document.id)
    session.add_all(
        DocumentGroup(
            document_id=document.id, name=name, knowledge_base_id=document.knowledge_base_id
        )
        for name in sorted(set(groups))
    )
    session.flush()


def groups_by_document(session: Session, kb: KnowledgeBase) -> dict[str, list[str]]:
    """Group names by document id, sorted; documents for everyone are left out."""
    query = sa.select(DocumentGroup).where(DocumentGroup.knowledge_base_id == kb.id)
    found: dict[str, list[str]] = {}
    for row in session.scalars(query.order_by(DocumentGroup.name)):
        found.setdefault(row.document_id, []).append(row.name)
    return found


def knowledge_bases(
    rows: sa.Connection, workspace_id: str, kb_ids: Sequence[str]
) -> list[KnowledgeBase]:
    """The workspace's knowledge bases of these ids, in their order; unknown ids are left out.

    They are no part of a session: for reading only.
    """
    found = rows.execute(_BASES, {"workspace": workspace_id, "ids": list(kb_ids)})
    by_id = {row.id: KnowledgeBase(**row._mapping) for row in found}
    return [by_id[kb_id] for kb_id in kb_ids if kb_id in by_id]


def expected_hashes(session: Session, kb: KnowledgeBase, *, past: bool) -> dict[str, str]:
    """What a shard must hold by SQL: content hash by chunk id.

    The serving shard holds visible and scheduled versions, that of the past retired ones; purged
    ones are in neither.
    """
    states = ("retired",) if past else ("visible", "scheduled")
    query = (
        sa.select(Chunk.id, Chunk.content_sha256)
        .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
        .where(
            DocumentVersion.knowledge_base_id == kb.id,
            DocumentVersion.state.in_(states),
        )
        .order_by(Chunk.document_id, Chunk.version_id, Chunk.ordinal)
    )
    return {chunk_id: digest for chunk_id, digest in session.execute(query)}


def chunks_with_titles(session: Session, chunk_ids: Sequence[str]) -> list[tuple[str, Chunk]]:
    """(title of its version, chunk) for ids, in no particular order; unknown ids are left out."""
    query = (
        sa.select(DocumentVersion.title, Chunk)
        .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
        .where(Chunk.id.in_(chunk_ids))
    )
    return [(title, chunk) for title, chunk in session.execute(query)]


def add_pending_version(session: Session, version: DocumentVersion, chunks: list[Chunk]) -> None:
    """Store a version nobody sees yet; what an interrupted run left of it is replaced."""
    session.execute(sa.delete(Chunk).where(Chunk.version_id == version.id))
    session.merge(version)
    session.flush()
    session.add_all(chunks)
    session.flush()


def make_visible(session: Session, version_id: str, moment: datetime | None = None) -> str | None:
    """The one flip: the version is answered from, the one before it no more.

    A version valid only later becomes `scheduled`; `activate_due` shows it when its time comes.

    Returns:
        The id of the version retired by it, if there was one.
    """
    version = session.get_one(DocumentVersion, version_id)
    document = session.get_one(Document, version.document_id)
    document.deleted_at = None
    if version.valid_from > (moment or now()):
        version.state = "scheduled"
        session.flush()
        return None
    retired = None
    if document.current_version_id and document.current_version_id != version.id:
        retired = document.current_version_id
        before = session.get_one(DocumentVersion, retired)
        # Content that holds from an earlier day replaces the old one from that day on.
        retire(session, retired, max(version.valid_from, before.valid_from))
    version.state = "visible"
    document.current_version_id = version.id
    document.title = version.title
    session.flush()
    return retired


def due_versions(session: Session, moment: datetime) -> list[DocumentVersion]:
    """Scheduled versions whose time has come, in the order they hold from."""
    query = sa.select(DocumentVersion).where(
        DocumentVersion.state == "scheduled", DocumentVersion.valid_from <= moment
    )
    return list(session.scalars(query.order_by(DocumentVersion.valid_from)))


def retire(session: Session, version_id: str, moment: datetime) -> None:
    """The version is history from `moment` on."""
    session.execute(
        sa.update(DocumentVersion)
        .where(DocumentVersion.id == version_id)
        .values(state="retired", valid_to=moment)
    )
    _evict_answers(session, DocumentVersion.id == version_id)


def purge_version(session: Session, version_id: str) -> None:
    """The version is not answered from, now or ever."""
    session.execute(
        sa.update(DocumentVersion)
        .where(DocumentVersion.id == version_id)
        .values(state="purged", valid_to=now())
    )
    _evict_answers(session, DocumentVersion.id == version_id)


def delete_document(session: Session, document: Document, *, purge: bool) -> list[str]:
    """The tombstone: from its commit on nothing of the document is answered from.

    `purge` is the owner's deletion, which holds for answers from the past too; a document that is
    only gone from its source stays in the past.

    Returns:
        The ids of the versions ended by it.
    """
    moment = now()
    states = ["visible", "scheduled", "pending"] + (["retired"] if purge else [])
    live = sa.select(DocumentVersion.id).where(
        DocumentVersion.document_id == document.id, DocumentVersion.state.in_(states)
    )
    ended = list(session.scalars(live))
    session.execute(
        sa.update(DocumentVersion)
        .where(DocumentVersion.id.in_(ended))
        .values(
            state="purged" if purge else "retired",
            valid_to=sa.func.coalesce(DocumentVersion.valid_to, moment),
        )
    )
    _evict_answers(session, DocumentVersion.document_id == document.id)
    document.current_version_id = None
    document.deleted_at = moment
    session.add(document)
    session.flush()
    return ended


def _evict_answers(session: Session, of: sa.ColumnElement[bool]) -> None:
    """Forget the cached answers that were made of these versions, and no others."""
    versions = sa.select(DocumentVersion.id).where(of)
    used = sa.select(CachedAnswerVersion.cached_id).where(
        CachedAnswerVersion.version_id.in_(versions)
    )
    session.execute(
        sa.delete(CachedAnswer).where(CachedAnswer.id.in_(used)),
        execution_options={"synchronize_session": False},
    )


def chunks_at(
    session: Session, places: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], Passage]:
    """Chunks by version id and ordinal; places that do not exist are left out."""
    versions = {version_id for version_id, _ in places}
    ordinals = {ordinal for _, ordinal in places}
    query = sa.select(Chunk).where(Chunk.version_id.in_(versions), Chunk.ordinal.in_(ordinals))
    wanted = set(places)
    return {
        (row.version_id, row.ordinal): passage_of(row)
        for row in session.scalars(query)
        if (row.version_id, row.ordinal) in wanted
    }


def passage_of(row: Chunk) -> Passage:
    """A stored chunk as the retrieval library knows it."""
    return Passage(
        ordinal=row.ordinal,
        text=row.text,
        heading_path=tuple(row.heading_path),
        page_start=row.page_start,
        page_end=row.page_end,
        start_char=row.start_char,
        end_char=row.end_char,
        n_tokens=row.n_tokens,
        content_hash=row.content_sha256,
    )


def chunks_of(session: Session, version_id: str) -> list[Chunk]:
    """Chunks of a version in document order."""
    query = sa.select(Chunk).where(Chunk.version_id == version_id)
    return list(session.scalars(query.order_by(Chunk.ordinal)))
