"""Passages that a search joined of several chunks, put together again from what SQL has."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.tables import Chunk
from app.knowledge.service import passage_of
from retrieval.neighbours import Place, widen
from retrieval.types import Chunk as Part
from retrieval.types import Hit, WorkspaceId


def passage_text(session: Session, chunk: Chunk, span: Sequence[int] | None) -> str | None:
    """The text a chunk was shown with.

    Args:
        session: where the chunks are.
        chunk: the one that was found.
        span: characters of the document that the passage covered; None where it was not recorded.

    Returns:
        The chunk's own text, or that of all chunks of its version within the span; None where
        they do not cover it any more.
    """
    own = (chunk.start_char, chunk.end_char)
    if span is None or tuple(span) == own:
        return chunk.text
    start, end = span
    query = sa.select(Chunk).where(
        Chunk.version_id == chunk.version_id, Chunk.start_char >= start, Chunk.end_char <= end
    )
    parts = {(row.version_id, row.ordinal): passage_of(row) for row in session.scalars(query)}
    if not parts:
        return None
    reach = max(abs(ordinal - chunk.ordinal) for _, ordinal in parts)
    if reach == 0:
        return None

    def within(places: Sequence[Place]) -> dict[Place, Part]:
        return {place: parts[place] for place in places if place in parts}

    (whole,) = widen([_hit(chunk)], within, reach)
    return whole.text if (whole.start_char, whole.end_char) == (start, end) else None


def _hit(row: Chunk) -> Hit:
    return Hit(
        chunk_id=row.id,
        document_id=row.document_id,
        version_id=row.version_id,
        score=0.0,
        dense_score=None,
        workspace_id=WorkspaceId(""),
        knowledge_base_id="",
        text=row.text,
        title="",
        heading_path=tuple(row.heading_path),
        page_start=row.page_start,
        page_end=row.page_end,
        start_char=row.start_char,
        end_char=row.end_char,
        ordinal=row.ordinal,
    )
