"""One document, pushed by its owner: answered from when the call returns."""

from __future__ import annotations

from app.db.session import Database
from app.db.tables import KnowledgeBase
from app.errors import BadInput
from app.knowledge.indexes import KnowledgeIndexes
from app.knowledge.publishing import Outcome, publish
from app.knowledge.reading import read_source
from app.knowledge.sources.records import MAX_ID_CHARS
from app.knowledge.sources.types import FoundDocument
from app.workspaces.service import check_name
from retrieval.parsing import SUPPORTED_EXTENSIONS, ParseLimits

# A worker process of its own, so that a push never waits behind a long file of a sync.
_LIMITS = ParseLimits(cpu_s=30, wall_s=45.0)

_EXTENSION = {
    "text/markdown": ".md",
    "text/html": ".html",
    "text/plain": ".txt",
    "application/pdf": ".pdf",
    "text/csv": ".csv",
    "application/json": ".json",
}


def check_id(external_id: str) -> None:
    """Refuse names that no store could keep.

    Raises:
        BadInput: Too long, empty, or with control characters.
    """
    if not external_id or len(external_id) > MAX_ID_CHARS or not external_id.isprintable():
        raise BadInput(
            f"document id {external_id[:60]!r} is not usable: 1 to {MAX_ID_CHARS} printable "
            "characters"
        )


def push(
    database: Database, indexes: KnowledgeIndexes, kb: KnowledgeBase, found: FoundDocument
) -> Outcome:
    """Make the file's content the document's version; the same content again changes nothing.

    Raises:
        BadInput: The name, the groups or the content cannot be used; nothing has changed.
    """
    check_id(found.external_id)
    for group in found.groups or ():
        check_name("group", group)
    item = read_source(database, kb, found, limits=_LIMITS)
    if isinstance(item, Outcome):
        outcome = item
    else:
        outcome = publish(database, indexes, kb, [item])[found.external_id]
    if outcome.outcome in ("failed", "skipped"):
        raise BadInput(outcome.reason)
    return outcome


def file_name(external_id: str, media_type: str) -> str:
    """The name that decides the format: the id's own extension, else the media type's."""
    last = external_id.replace("\\", "/").rsplit("/", 1)[-1].lower()
    if any(last.endswith(extension) for extension in SUPPORTED_EXTENSIONS):
        return external_id
    kind = media_type.partition(";")[0].strip().lower()
    return f"document{_EXTENSION.get(kind, '')}"
