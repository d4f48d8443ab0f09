"""From a question to visible, ranked hits: embed, search both ways, hide retired versions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retrieval.embedding import TextEncoder
from retrieval.index import VectorIndex
from retrieval.reranking import Reranker
from retrieval.types import Hit, Scope

Visible = Callable[[Sequence[str]], set[str]]

_OVERFETCH = 3
_MAX_ROUNDS = 12


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first, without two of the same text.

    `best_dense_score` is the highest cosine with the question among them, in [-1, 1]; None when
    there are no hits or the search had no dense part. Low means the knowledge base likely does
    not cover the question.
    """

    hits: tuple[Hit, ...]
    best_dense_score: float | None


class HybridSearcher:
    """Dense and BM25 search fused by the index, with an optional reranker behind it."""

    def __init__(
        self, index: VectorIndex, embedder: TextEncoder, reranker: Reranker | None = None
    ) -> None:
        self._index = index
        self._embedder = embedder
        self._reranker = reranker

    def search(
        self,
        scope: Scope,
        question: str,
        limit: int,
        visible: Visible | None = None,
        *,
        dense: bool = True,
        lexical: bool = True,
    ) -> SearchResult:
        """The `limit` best hits whose document version is visible.

        Args:
            scope: where to look.
            question: the user's words; blank finds nothing.
            limit: the most hits to return, at least 1.
            visible: given distinct version ids, returns those that may be shown now. Versions it
                leaves out are excluded from a further search, so they take nobody's place.
            dense: use the embeddings.
            lexical: use BM25.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        if not question.strip():
            return SearchResult((), None)
        vector = self._embedder.embed_query(question) if dense else None
        hidden: set[str] = set()
        fetch = limit * _OVERFETCH
        kept: list[Hit] = []
        for _ in range(_MAX_ROUNDS):
            found = self._index.search(
                scope,
                question,
                vector,
                fetch,
                dense=dense,
                lexical=lexical,
                exclude_versions=hidden,
            )
            retired = _retired(found, visible)
            kept = _distinct([hit for hit in found if hit.version_id not in retired])
            if len(kept) >= limit or len(found) < fetch:
                break
            hidden |= retired
            fetch *= 2
        if self._reranker is not None:
            kept = self._reranker.rerank(question, kept)
        hits = tuple(kept[:limit])
        scores = [hit.dense_score for hit in hits if hit.dense_score is not None]
        return SearchResult(hits, max(scores, default=None))


def _retired(hits: Sequence[Hit], visible: Visible | None) -> set[str]:
    if visible is None or not hits:
        return set()
    versions = list(dict.fromkeys(hit.version_id for hit in hits))
    return set(versions) - visible(versions)


def _distinct(hits: Sequence[Hit]) -> list[Hit]:
    """The first hit of every text; case and blanks do not tell texts apart."""
    seen: set[str] = set()
    kept = []
    for hit in hits:
        key = " ".join(hit.text.lower().split())
        if key not in seen:
            seen.add(key)
            kept.append(hit)
    return kept
