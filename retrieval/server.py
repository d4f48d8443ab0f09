"""The vector index on a Qdrant server or cluster: one collection per embedding model.

All workspaces share the collection; the workspace is its tenant key, every call filters by the
scope, and BM25 statistics are taken over the scope alone, so no tenant's words weigh in another's
ranking. Sparse vectors are made here with the encoder that Edge uses, so no inference service is
needed. Proven: the contract tests of `EdgeIndex` against qdrant-client's in-memory mode (requests
and semantics). Not proven here: behaviour of a real cluster under load or failure.
"""

import hashlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import VectorIndexError
from retrieval.fusion import fuse_points, join_records
from retrieval.index import (
    DENSE,
    INDEXED_FIELDS,
    LEXICAL,
    NO_NARROWING,
    TENANT_FIELD,
    Candidate,
    FusionOptions,
    IndexQuery,
    Narrowing,
    check_query,
    to_chunk,
    to_payload,
)
from retrieval.lexical import LexicalEncoder
from retrieval.scope_filter import scope_filter
from retrieval.types import Hit, IndexedChunk, Scope

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models

T = TypeVar("T")

_BATCH = 256
_SCROLL = 1_000


class ServerIndex:
    """`VectorIndex` through a `QdrantClient`; the client's owner closes it."""

    def __init__(
        self,
        client: "QdrantClient",
        *,
        dimension: int,
        model_identity: str,
        fusion: FusionOptions | None = None,
        language: str = "english",
        collection: str | None = None,
    ) -> None:
        """Nothing is sent before the first call; the first write makes the collection.

        Args:
            client: a connected client.
            dimension: length of the dense vectors.
            model_identity: `Embedder.identity`; it names the collection unless `collection` does.
            fusion: weights of dense and lexical search.
            language: stop words and stemmer of BM25.
            collection: the collection's name.
        """
        self._client = client
        self._dimension = dimension
        self._fusion = fusion or FusionOptions()
        self._language = language
        digest = hashlib.sha256(f"{model_identity}/{dimension}/{language}".encode()).hexdigest()
        self._collection = collection or f"tandem-{digest[:24]}"
        self._lock = threading.Lock()
        self._ready = False
        self._lexical = LexicalEncoder(language)

    @property
    def collection(self) -> str:
        """The collection's name."""
        return self._collection

    def upsert(self, chunks: Iterable[IndexedChunk]) -> None:
        """Write points in batches, each acknowledged by the server before the next."""
        from qdrant_client import models

        self._create()
        iterator = iter(chunks)
        while batch := list(islice(iterator, _BATCH)):
            points = []
            for chunk in batch:
                sparse = self._lexical.passage(chunk)
                vector: dict[str, Any] = {
                    DENSE: np.asarray(chunk.vector, dtype=np.float32).tolist(),
                    LEXICAL: models.SparseVector(indices=sparse.indices, values=sparse.values),
                }
                points.append(
                    models.PointStruct(id=chunk.chunk_id, vector=vector, payload=to_payload(chunk))
                )
            self._call(partial(self._client.upsert, self._collection, points, wait=True))

    def delete_version(self, scope: Scope, version_id: str) -> None:
        """Remove every chunk of a document version; none is no error."""
        self._delete(_filter(scope, field=("version_id", version_id)))

    def delete_document(self, scope: Scope, document_id: str) -> None:
        """Remove every chunk of a document in all its versions; none is no error."""
        self._delete(_filter(scope, field=("document_id", document_id)))

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
        """The best hits of one scope; see `VectorIndex`."""
        query = IndexQuery(query_text, query_vector, dense, lexical, narrowing)
        return [candidate.hit for candidate in self.candidates(scope, query, limit)]

    def candidates(self, scope: Scope, query: IndexQuery, limit: int) -> list[Candidate]:
        """The best candidates of one scope; see `VectorIndex`. Two round trips."""
        check_query(query.vector, limit, dense=query.dense, lexical=query.lexical)
        if not self._exists():
            return []
        fusion = query.fusion or self._fusion
        requests = self._queries(scope, query, max(fusion.prefetch, limit))
        found = self._call(partial(self._client.query_batch_points, self._collection, requests))
        ranked = fuse_points([response.points for response in found], query, fusion)[:limit]
        retrieve = partial(
            self._client.retrieve,
            self._collection,
            [point.id for point in ranked],
            with_payload=True,
            with_vectors=[DENSE] if query.vector is not None else False,
        )
        return join_records(ranked, self._call(retrieve) if ranked else [], query)

    def flush(self) -> None:
        """Nothing to do: every write waits until the server has it in its log."""

    def count(self, scope: Scope) -> int:
        """The number of chunks in the scope."""
        if not self._exists():
            return 0
        call = partial(
            self._client.count, self._collection, count_filter=_filter(scope), exact=True
        )
        return int(self._call(call).count)

    def chunk_ids(self, scope: Scope) -> set[str]:
        """The ids of all chunks in the scope."""
        return {str(record.id) for record in self._scroll(_filter(scope))}

    def chunk_hashes(self, scope: Scope) -> dict[str, str]:
        """Content hash by chunk id, for all chunks in the scope."""
        records = self._scroll(_filter(scope), with_payload=["content_hash"])
        return {str(r.id): str((r.payload or {}).get("content_hash", "")) for r in records}

    def chunks_of_version(self, scope: Scope, version_id: str) -> list[IndexedChunk]:
        """A version's points as they are stored; see `VectorIndex`."""
        where = _filter(scope, field=("version_id", version_id))
        records = self._scroll(where, with_payload=True, with_vectors=[DENSE])
        chunks = [to_chunk(str(r.id), r.payload, r.vector) for r in records]
        return sorted(chunks, key=lambda chunk: chunk.ordinal)

    def delete_chunks(self, scope: Scope, chunk_ids: Collection[str]) -> None:
        """Remove the chunks of these ids; unknown ones are no error."""
        from qdrant_client import models

        if chunk_ids:
            where = _filter(scope)
            where.must = [*(where.must or []), models.HasIdCondition(has_id=sorted(chunk_ids))]
            self._delete(where)

    def stored_vectors(self, scope: Scope, document_id: str) -> dict[str, NDArray[np.float32]]:
        """Vectors of a document's chunks by content hash; spares embedding unchanged text."""
        where = _filter(scope, field=("document_id", document_id))
        return {
            record.payload["content_hash"]: np.asarray(record.vector[DENSE], dtype=np.float32)
            for record in self._scroll(where, with_payload=True, with_vectors=[DENSE])
            if record.payload.get("content_hash")
        }

    def optimize(self, scope: Scope) -> bool:
        """False: a server optimises its segments by itself."""
        return False

    def drop(self, scope: Scope) -> None:
        """Remove a whole knowledge base."""
        self._delete(_filter(scope))

    def close(self) -> None:
        """Nothing to do: the client belongs to whoever made it."""

    def _queries(self, scope: Scope, query: IndexQuery, depth: int) -> "list[models.QueryRequest]":
        """The dense request, then the lexical one, ids and scores only; absent sides left out."""
        from qdrant_client import models

        where = _filter(scope, narrowing=query.narrowing)
        requests = []
        if query.dense and query.vector is not None:
            vector = query.vector.tolist()
            params = models.SearchParams(exact=query.exact)
            requests.append(
                models.QueryRequest(
                    query=vector, using=DENSE, filter=where, limit=depth, params=params
                )
            )
        if query.lexical:
            sparse = self._lexical.query(query.text)
            terms = models.SparseVector(indices=sparse.indices, values=sparse.values)
            idf = models.SearchParams(idf=models.IdfCorpusParams(corpus=_filter(scope)))
            requests.append(
                models.QueryRequest(
                    query=terms, using=LEXICAL, filter=where, limit=depth, params=idf
                )
            )
        return requests

    def _exists(self) -> bool:
        if not self._ready:
            self._ready = self._call(partial(self._client.collection_exists, self._collection))
        return self._ready

    def _create(self) -> None:
        from qdrant_client import models

        dense = models.VectorParams(size=self._dimension, distance=models.Distance.COSINE)
        sparse = models.SparseVectorParams(modifier=models.Modifier.IDF)
        create = partial(
            self._client.create_collection,
            self._collection,
            vectors_config={DENSE: dense},
            sparse_vectors_config={LEXICAL: sparse},
            # One small graph per tenant instead of one big graph over all of them.
            hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
        )
        with self._lock:
            if self._exists():
                return
            try:
                self._call(create)
            except VectorIndexError:
                # Another process may have made it in between.
                if not self._exists():
                    raise
            for field in INDEXED_FIELDS:
                schema = models.KeywordIndexParams(
                    type=models.KeywordIndexType.KEYWORD, is_tenant=field == TENANT_FIELD
                )
                self._call(
                    partial(
                        self._client.create_payload_index,
                        self._collection,
                        field_name=field,
                        field_schema=schema,
                        wait=True,
                    )
                )
            self._ready = True

    def _delete(self, where: "models.Filter") -> None:
        from qdrant_client import models

        if self._exists():
            selector = models.FilterSelector(filter=where)
            self._call(
                partial(self._client.delete, self._collection, points_selector=selector, wait=True)
            )

    def _scroll(
        self,
        where: "models.Filter",
        *,
        with_payload: bool | list[str] = False,
        with_vectors: bool | list[str] = False,
    ) -> Iterator[Any]:
        offset = None
        while self._exists():
            records, offset = self._call(
                partial(
                    self._client.scroll,
                    self._collection,
                    scroll_filter=where,
                    limit=_SCROLL,
                    offset=offset,
                    with_payload=with_payload,
                    with_vectors=with_vectors,
                )
            )
            yield from records
            if offset is None:
                return

    def _call(self, action: Callable[[], T]) -> T:
        """Run a client call, its errors mapped once."""
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException

        try:
            return action()
        except (ApiException, QdrantException, ValueError, ConnectionError) as error:
            reason = " ".join(str(error).split())[:300]
            raise VectorIndexError(
                f"the Qdrant server refused a request on {self._collection}: {reason}"
            ) from error


def _filter(
    scope: Scope,
    *,
    field: tuple[str, str] | None = None,
    narrowing: Narrowing = NO_NARROWING,
) -> "models.Filter":
    """`scope_filter` in the client's types."""
    from qdrant_client import models

    made: models.Filter = scope_filter(models, scope, field=field, narrowing=narrowing)
    return made
