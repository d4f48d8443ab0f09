"""The derived side of knowledge: per embedding model an embedder, an index and the search on both.

Which one serves a knowledge base stands in SQL (`embedder`, `index_name`), so a change of the
model is one commit, and a question under way keeps what it started with.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.db.tables import KnowledgeBase
from app.errors import BadInput
from retrieval.chunking import ChunkingOptions
from retrieval.embedding import TextEncoder
from retrieval.index import VectorIndex
from retrieval.search import HybridSearcher
from retrieval.types import Scope, WorkspaceId

_PAST = "-past"


@dataclass(frozen=True, slots=True)
class KnowledgeIndex:
    """One embedding model with the vectors it made and the search over them."""

    index: VectorIndex
    embedder: TextEncoder
    searcher: HybridSearcher
    chunking: ChunkingOptions


Load = Callable[[str | None], KnowledgeIndex]


class KnowledgeIndexes:
    """All embedding models in use, each loaded at first use. Safe to share between threads."""

    def __init__(self, load: Load) -> None:
        """`load` makes the index of a model by its source; None is the configured model."""
        self._load = load
        self._lock = threading.RLock()
        self._by_source: dict[str | None, KnowledgeIndex] = {}
        self._writing: dict[str, threading.RLock] = {}

    def by_source(self, source: str | None) -> KnowledgeIndex:
        """The index of a model by folder or name; None is the configured model."""
        found = self._by_source.get(source)
        if found is None:
            with self._lock:
                found = self._by_source.get(source)
                if found is None:
                    found = self._by_source[source] = self._load(source)
        return found

    def of(self, kb: KnowledgeBase) -> KnowledgeIndex:
        """The index that serves a knowledge base.

        Raises:
            BadInput: Its vectors were made by a model that is not the configured one.
        """
        found = self.by_source(kb.embedder_source)
        if found.embedder.identity != kb.embedder:
            raise BadInput(
                f"the vectors of knowledge base {kb.name!r} were made with {kb.embedder}, the "
                f"configured model is {found.embedder.identity}: run `tandem kb migrate {kb.name}`"
            )
        return found

    @contextmanager
    def writing(self, kb_id: str) -> Iterator[None]:
        """One writer of a knowledge base's visible state at a time, for moments only."""
        with self._lock:
            lock = self._writing.setdefault(kb_id, threading.RLock())
        with lock:
            yield

    def close(self) -> None:
        """Flush and close everything that was opened."""
        with self._lock:
            for found in self._by_source.values():
                found.index.close()
            self._by_source.clear()


def live_scope(kb: KnowledgeBase) -> Scope:
    """Where the chunks lie that answers come from now."""
    return Scope(WorkspaceId(kb.workspace_id), kb.index_name)


def past_scope(kb: KnowledgeBase) -> Scope:
    """Where the chunks of retired versions lie, for answers from the past."""
    return Scope(WorkspaceId(kb.workspace_id), kb.index_name + _PAST)
