"""What every vector index offers, and the payload format its implementations share."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import VectorIndexError
from retrieval.types import Hit, IndexedChunk, Scope, WorkspaceId

DENSE = "dense"
LEXICAL = "bm25"

TENANT_FIELD = "workspace_id"
INDEXED_FIELDS = (TENANT_FIELD, "knowledge_base_id", "document_id", "version_id")


FusionMethod = Literal["rrf", "scores", "dbsf"]


@dataclass(frozen=True, slots=True)
class FusionOptions:
    """How the dense and the lexical candidates of a search become one list.

    `rrf` adds reciprocal ranks with `k`, `scores` cosines and scaled BM25 scores, `dbsf`
    standardised scores; see `retrieval.fusion`. `prefetch` is the least number of candidates each
    side contributes.
    """

    k: int = 60
    dense_weight: float = 1.0
    lexical_weight: float = 1.0
    prefetch: int = 50
    method: FusionMethod = "rrf"

    def __post_init__(self) -> None:
        if self.method not in get_args(FusionMethod):
            valid = ", ".join(get_args(FusionMethod))
            raise ValueError(f"the fusion method {self.method!r} is none of {valid}")


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What a search leaves out inside its scope. It can only take hits away, never add any.

    `only_documents` None means every document; an empty set means none of them.
    """

    only_documents: frozenset[str] | None = None
    without_documents: frozenset[str] = frozenset()
    without_versions: frozenset[str] = frozenset()


NO_NARROWING = Narrowing()


@dataclass(frozen=True, slots=True, eq=False)
class IndexQuery:
    """What an index is asked.

    `vector` is (dim,) float32 and may be None when `dense` is False; `fusion` None takes the
    index's own. `exact` compares every vector instead of walking the graph: slow, for measuring.
    """

    text: str
    vector: NDArray[np.float32] | None
    dense: bool = True
    lexical: bool = True
    narrowing: Narrowing = NO_NARROWING
    fusion: FusionOptions | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Ranked:
    """A point's place among the fused candidates; `lexical_score` as in `Candidate`."""

    id: str
    score: float
    lexical_score: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A hit with what later stages need of it.

    `lexical_score` is its BM25 score, None outside the lexical candidates. `vector` is (dim,)
    float32 of length 1, None when the query had no vector.
    """

    hit: Hit
    lexical_score: float | None
    vector: NDArray[np.float32] | None


class VectorIndex(Protocol):
    """Points of many knowledge bases; every call names the one it is about.

    `upsert` overwrites points of the same id. Writes are durable once `flush` returned.
    """

    def upsert(self, chunks: Iterable[IndexedChunk]) -> None:
        """Write points; the chunks may belong to several scopes."""

    def delete_version(self, scope: Scope, version_id: str) -> None:
        """Remove every chunk of a document version; none is no error."""

    def delete_document(self, scope: Scope, document_id: str) -> None:
        """Remove every chunk of a document in all its versions; none is no error."""

    def search(
        self,
        scope: Scope,
        query_text: str,
        query_vector: NDArray[np.float32] | None,
        limit: int,
        *,
        dense: bool = True,
        lexical: bool = True,
        narrowing: Narrowing = NO_NARROWING,
    ) -> list[Hit]:
        """The best hits, highest score first; ties go by cosine, then chunk id.

        An empty or unknown knowledge base gives no hits. `query_vector` may be None when `dense`
        is False.
        """

    def candidates(self, scope: Scope, query: IndexQuery, limit: int) -> list[Candidate]:
        """What `search` finds, with BM25 scores and vectors, for any fusion."""

    def flush(self) -> None:
        """Return once all writes before it are on disk."""

    def count(self, scope: Scope) -> int:
        """The number of chunks in the scope."""

    def chunk_ids(self, scope: Scope) -> set[str]:
        """The ids of all chunks in the scope."""

    def chunk_hashes(self, scope: Scope) -> dict[str, str]:
        """Content hash by chunk id, for all chunks in the scope."""

    def chunks_of_version(self, scope: Scope, version_id: str) -> list[IndexedChunk]:
        """A version's points as they are stored, vectors included; by ordinal."""

    def delete_chunks(self, scope: Scope, chunk_ids: Collection[str]) -> None:
        """Remove the chunks of these ids; unknown ones are no error."""

    def stored_vectors(self, scope: Scope, document_id: str) -> dict[str, NDArray[np.float32]]:
        """Vectors of a document's chunks by content hash; spares embedding unchanged text."""

    def optimize(self, scope: Scope) -> bool:
        """Tidy the stored form for faster search; True if anything changed."""

    def drop(self, scope: Scope) -> None:
        """Remove a whole knowledge base, readable or not."""

    def close(self) -> None:
        """Flush and release files or connections."""


def to_payload(chunk: IndexedChunk) -> dict[str, Any]:
    """All fields but id and vector, as JSON values."""
    return {
        "workspace_id": chunk.workspace_id,
        "knowledge_base_id": chunk.knowledge_base_id,
        "document_id": chunk.document_id,
        "version_id": chunk.version_id,
        "text": chunk.text,
        "title": chunk.title,
        "heading_path": list(chunk.heading_path),
        "page_start": chunk.page_start,
        "page_end": chunk.page_end,
        "start_char": chunk.start_char,
        "end_char": chunk.end_char,
        "ordinal": chunk.ordinal,
        "content_hash": chunk.content_hash,
    }


def to_hit(
    chunk_id: str, score: float, dense_score: float | None, payload: Mapping[str, Any]
) -> Hit:
    """A point found by a search as a `Hit`."""
    return Hit(
        chunk_id=chunk_id,
        score=score,
        dense_score=dense_score,
        **_fields(payload),
    )


def to_chunk(chunk_id: str, payload: Mapping[str, Any], vectors: object) -> IndexedChunk:
    """A stored point as the `IndexedChunk` it was written from."""
    if not isinstance(vectors, dict) or DENSE not in vectors:
        raise VectorIndexError("a point has lost its dense vector; rebuild the knowledge base")
    return IndexedChunk(
        chunk_id=chunk_id,
        vector=np.asarray(vectors[DENSE], dtype=np.float32),
        **_fields(payload),
    )


def _fields(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What `to_payload` stored, under the names that hits and chunks share."""
    return {
        "document_id": payload["document_id"],
        "version_id": payload["version_id"],
        "workspace_id": WorkspaceId(payload["workspace_id"]),
        "knowledge_base_id": payload["knowledge_base_id"],
        "text": payload["text"],
        "title": payload["title"],
        "heading_path": tuple(payload["heading_path"]),
        "page_start": payload["page_start"],
        "page_end": payload["page_end"],
        "start_char": payload["start_char"],
        "end_char": payload["end_char"],
        "ordinal": payload["ordinal"],
        "content_hash": payload.get("content_hash", ""),
    }


def cosine(vectors: object, query_vector: NDArray[np.float32] | None) -> float | None:
    """Cosine of the question with a point's returned (length 1) dense vector, None without one."""
    if query_vector is None:
        return None
    if not isinstance(vectors, dict) or DENSE not in vectors:
        raise VectorIndexError("a point has lost its dense vector; rebuild the knowledge base")
    stored = np.asarray(vectors[DENSE], dtype=np.float32)
    return float(stored @ query_vector) / max(float(np.linalg.norm(query_vector)), 1e-12)


def in_order(candidates: Iterable[Candidate]) -> list[Candidate]:
    """By score, ties by cosine, then by id, so that equal searches give equal lists."""
    return sorted(
        candidates, key=lambda c: (-c.hit.score, -(c.hit.dense_score or 0.0), c.hit.chunk_id)
    )


def to_candidate(
    ranked: Ranked,
    payload: Mapping[str, Any],
    vectors: object,
    query_vector: NDArray[np.float32] | None,
) -> Candidate:
    """A ranked point and what the index stores of it."""
    vector = None
    if query_vector is not None and isinstance(vectors, dict) and DENSE in vectors:
        vector = np.asarray(vectors[DENSE], dtype=np.float32)
        vectors = {DENSE: vector}
    hit = to_hit(ranked.id, ranked.score, cosine(vectors, query_vector), payload)
    return Candidate(hit, ranked.lexical_score, vector)


def check_query(query_vector: object, limit: int, *, dense: bool, lexical: bool) -> None:
    """Refuse a search that no index could answer."""
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if not (dense or lexical):
        raise ValueError("a search needs dense=True, lexical=True or both")
    if dense and query_vector is None:
        raise ValueError("a dense search needs a query vector")
