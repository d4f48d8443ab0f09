"""BM25 as sparse vectors, made with Qdrant Edge's own encoder for both kinds of index.

The encoder yields term weights (k=1.2, b=0.75); Qdrant multiplies in the inverse document
frequency at query time (the IDF modifier). Source: Robertson, Zaragoza (2009), "The Probabilistic
Relevance Framework: BM25 and Beyond".
"""

from typing import TYPE_CHECKING

from retrieval.types import IndexedChunk

if TYPE_CHECKING:
    from qdrant_edge import Bm25, SparseVector


class LexicalEncoder:
    """Stems, drops stop words and folds accents of one language; safe to share."""

    def __init__(self, language: str) -> None:
        self._language = language
        self._bm25: Bm25 | None = None

    def passage(self, chunk: IndexedChunk) -> "SparseVector":
        """Term weights of a chunk: its headings and its text."""
        return self._encoder().embed_document("\n".join([*chunk.heading_path, chunk.text]))

    def query(self, text: str) -> "SparseVector":
        """Terms of a question; empty when all of them are stop words."""
        return self._encoder().embed_query(text)

    def _encoder(self) -> "Bm25":
        if self._bm25 is None:
            from qdrant_edge import Bm25, Bm25Config

            self._bm25 = Bm25(Bm25Config(language=self._language, ascii_folding=True))
        return self._bm25
