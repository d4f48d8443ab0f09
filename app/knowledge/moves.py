"""Renamed and moved documents keep their identity, their history and their vectors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.db.session import Database
from app.db.tables import Document, DocumentVersion, KnowledgeBase
from app.knowledge import repository
from app.knowledge.reading import sha256_of
from app.knowledge.sources import is_complete
from app.knowledge.sources.types import FoundDocument


def follow(
    database: Database, kb: KnowledgeBase, sources: Sequence[FoundDocument]
) -> dict[str, str]:
    """Rename documents whose content now stands under another name: old names by new ones.

    A document moved when its name is gone from the sources and exactly one new name holds its
    very content. A moved document that also changed is a deletion and an addition. While a source
    cannot be listed completely nothing counts as gone.
    """
    if not is_complete(sources):
        return {}
    listed = {source.external_id for source in sources}
    with database.session() as session:
        gone = _gone(session, kb, listed)
        if not gone:
            return {}
        known = repository.external_ids(session, kb)
        new = [s for s in sources if s.external_id not in known and s.path is not None]
        by_content: dict[str, list[FoundDocument]] = defaultdict(list)
        for source in new:
            if source.path is not None and source.path.is_file():
                by_content[sha256_of(source.path)].append(source)
        moved = {}
        for digest, documents in gone.items():
            places = by_content.get(digest, [])
            if len(documents) == len(places) == 1:
                document, place = documents[0], places[0]
                moved[place.external_id] = document.external_id
                document.former_ids = [*document.former_ids, document.external_id]
                document.external_id = place.external_id
        return moved


def _gone(session: Session, kb: KnowledgeBase, listed: set[str]) -> dict[str, list[Document]]:
    """Live documents that no source names any more, by the content they are answered from."""
    gone: dict[str, list[Document]] = defaultdict(list)
    # Names only: nearly always every one of them is still listed.
    for name in repository.live_ids(session, kb):
        document = None if name in listed else repository.find_document(session, kb, name)
        if document is not None:
            current = session.get(DocumentVersion, document.current_version_id)
            if current is not None:
                gone[current.content_sha256].append(document)
    return gone
