"""The embedded vector index: one Qdrant Edge shard per knowledge base, dense and BM25 together.

A shard belongs to one process. Inside it, reads and writes of many threads may overlap (the shard
does its own locking); opening, creating and dropping a shard is serialised here.
"""

import json
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import IndexBusy, IndexUnreadable, VectorIndexError
from retrieval.index import (
    DENSE,
    INDEXED_FIELDS,
    LEXICAL,
    TENANT_FIELD,
    FusionOptions,
    check_query,
    cosine,
    in_order,
    to_hit,
    to_payload,
)
from retrieval.lexical import LexicalEncoder
from retrieval.types import Hit, IndexedChunk, Scope

if TYPE_CHECKING:
    from qdrant_edge import EdgeConfig, EdgeShard, Filter

T = TypeVar("T")

_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_BATCH = 256
_SCROLL = 1_000
_STAMP = "tandem.json"
_FORMAT = 1


class EdgeIndex:
    """`VectorIndex` over Edge shards in `root/<workspace>/<knowledge base>/`.

    A shard remembers which embedding model filled it; opening it with another one is refused.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        dimension: int,
        model_identity: str,
        fusion: FusionOptions | None = None,
        language: str = "english",
    ) -> None:
        """Nothing is opened or created before it is needed.

        Args:
            root: folder of all shards.
            dimension: length of the dense vectors.
            model_identity: `Embedder.identity` of the model that makes them.
            fusion: weights of dense and lexical search.
            language: stop words and stemmer of BM25.
        """
        self._root = Path(root)
        self._dimension = dimension
        self._model_identity = model_identity
        self._fusion = fusion or FusionOptions()
        self._language = language
        self._lock = threading.RLock()
        self._shards: dict[Scope, EdgeShard] = {}
        self._lexical = LexicalEncoder(language)

    def upsert(self, chunks: Iterable[IndexedChunk]) -> None:
        """Write points in batches; see `VectorIndex`."""
        from qdrant_edge import Point, UpdateOperation

        def scope_of(chunk: IndexedChunk) -> Scope:
            return Scope(chunk.workspace_id, chunk.knowledge_base_id)

        for scope, group in groupby(chunks, key=scope_of):
            for batch in _batched(group, _BATCH):
                points = [
                    Point(
                        id=chunk.chunk_id,
                        vector={
                            DENSE: np.asarray(chunk.vector, dtype=np.float32).tolist(),
                            LEXICAL: self._lexical.passage(chunk),
                        },
                        payload=to_payload(chunk),
                    )
                    for chunk in batch
                ]
                self._write(scope, UpdateOperation.upsert_points(points), create=True)

    def delete_version(self, scope: Scope, version_id: str) -> None:
        """Remove every chunk of a document version; none is no error."""
        self._delete(scope, "version_id", version_id)

    def delete_document(self, scope: Scope, document_id: str) -> None:
        """Remove every chunk of a document in all its versions; none is no error."""
        self._delete(scope, "document_id", document_id)

    def search(
        self,
        scope: Scope,
        query_text: str,
        query_vector: NDArray[np.float32] | None,
        limit: int,
        *,
        dense: bool = True,
        lexical: bool = True,
        exclude_versions: Collection[str] = (),
    ) -> list[Hit]:
        """The best hits of one scope; see `VectorIndex`."""
        from qdrant_edge import Fusion, Prefetch, Query, QueryRequest

        check_query(query_vector, limit, dense=dense, lexical=lexical)
        shard = self._open(scope, create=False)
        if shard is None:
            return []
        where = _filter(scope, exclude_versions=exclude_versions)
        queries, weights = [], []
        if dense and query_vector is not None:
            queries.append(Query.Nearest(query_vector.tolist(), using=DENSE))
            weights.append(self._fusion.dense_weight)
        if lexical:
            queries.append(Query.Nearest(self._lexical.query(query_text), using=LEXICAL))
            weights.append(self._fusion.lexical_weight)
        options: dict[str, Any] = {
            "limit": limit,
            "filter": where,
            "with_payload": True,
            "with_vector": [DENSE] if query_vector is not None else False,
        }
        if len(queries) == 1:
            request = QueryRequest(query=queries[0], **options)
        else:
            depth = max(self._fusion.prefetch, limit)
            stages = [Prefetch(limit=depth, query=q, filter=where) for q in queries]
            # Qdrant counts ranks from 0, the published formula from 1.
            fused = Fusion.Rrf(k=self._fusion.k + 1, weights=weights)
            request = QueryRequest(query=cast(Fusion, fused), prefetches=stages, **options)
        points = self._call(scope, lambda: shard.query(request))
        if query_vector is not None and any(DENSE not in (p.vector or {}) for p in points):
            raise self._unreadable(scope, "dense vectors are missing")
        return in_order(
            to_hit(
                str(point.id),
                float(point.score),
                cosine(point.vector, query_vector),
                point.payload or {},
            )
            for point in points
        )

    def flush(self) -> None:
        """Return once all writes before it are on disk."""
        with self._lock:
            shards = list(self._shards.items())
        for scope, shard in shards:
            self._call(scope, shard.flush)

    def count(self, scope: Scope) -> int:
        """The number of chunks in the scope."""
        from qdrant_edge import CountRequest

        shard = self._open(scope, create=False)
        if shard is None:
            return 0
        request = CountRequest(exact=True, filter=_filter(scope))
        return self._call(scope, lambda: shard.count(request))

    def chunk_ids(self, scope: Scope) -> set[str]:
        """The ids of all chunks in the scope."""
        return {str(record.id) for record in self._scroll(scope, _filter(scope))}

    def stored_vectors(self, scope: Scope, document_id: str) -> dict[str, NDArray[np.float32]]:
        """Vectors of a document's chunks by content hash."""
        where = _filter(scope, field=("document_id", document_id))
        return {
            record.payload["content_hash"]: np.asarray(record.vector[DENSE], dtype=np.float32)
            for record in self._scroll(scope, where, with_payload=True, with_vector=[DENSE])
            if record.payload.get("content_hash")
        }

    def optimize(self, scope: Scope) -> bool:
        """Merge segments, build HNSW graphs and drop deleted points; True if anything changed."""
        shard = self._open(scope, create=False)
        return shard is not None and self._call(scope, shard.optimize)

    def drop(self, scope: Scope) -> None:
        """Remove a whole knowledge base, readable or not."""
        with self._lock:
            shard = self._shards.pop(scope, None)
            if shard is not None:
                self._call(scope, shard.close)
            folder = self._folder(scope)
            if folder.exists():
                # Renamed first: a killed removal must not leave half a shard under the real name.
                doomed = folder.with_name(f".dropped-{uuid.uuid4().hex}")
                folder.rename(doomed)
                shutil.rmtree(doomed)

    def close(self) -> None:
        """Flush and close all shards; the index opens them again when used again."""
        with self._lock:
            while self._shards:
                scope, shard = self._shards.popitem()
                self._call(scope, shard.flush)
                self._call(scope, shard.close)

    def _delete(self, scope: Scope, field: str, value: str) -> None:
        from qdrant_edge import UpdateOperation

        where = _filter(scope, field=(field, value))
        self._write(scope, UpdateOperation.delete_points_by_filter(where), create=False)

    def _write(self, scope: Scope, operation: Any, *, create: bool) -> None:
        shard = self._open(scope, create=create)
        if shard is not None:
            self._call(scope, lambda: shard.update(operation))

    def _scroll(
        self,
        scope: Scope,
        where: "Filter",
        *,
        with_payload: bool = False,
        with_vector: bool | list[str] = False,
    ) -> Iterator[Any]:
        from qdrant_edge import ScrollRequest

        shard = self._open(scope, create=False)
        offset = None
        while shard is not None:
            request = ScrollRequest(
                offset=offset,
                limit=_SCROLL,
                filter=where,
                with_payload=with_payload,
                with_vector=with_vector,
            )
            records, offset = self._call(scope, partial(shard.scroll, request))
            yield from records
            if offset is None:
                return

    def _folder(self, scope: Scope) -> Path:
        for part in (scope.workspace_id, scope.knowledge_base_id):
            # Ids become folder names, so nothing that a path could mean gets through.
            if not _SAFE_ID.fullmatch(part):
                raise VectorIndexError(
                    f"{part!r} cannot name an index folder; ids are letters, digits, - and _"
                )
        return self._root / scope.workspace_id / scope.knowledge_base_id

    def _open(self, scope: Scope, *, create: bool) -> "EdgeShard | None":
        shard = self._shards.get(scope)
        if shard is not None:
            return shard
        with self._lock:
            shard = self._shards.get(scope)
            if shard is None:
                folder = self._folder(scope)
                if not folder.exists():
                    if not create:
                        return None
                    self._create(scope, folder)
                shard = self._load(scope, folder)
                self._shards[scope] = shard
            return shard

    def _create(self, scope: Scope, folder: Path) -> None:
        """Make an empty shard beside its place and move it there whole."""
        from qdrant_edge import EdgeShard, KeywordIndexParams, UpdateOperation

        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = folder.with_name(f".new-{uuid.uuid4().hex}")
        draft.mkdir()
        shard = self._call(scope, lambda: EdgeShard.create(str(draft), self._config()))
        for field in INDEXED_FIELDS:
            params = KeywordIndexParams(is_tenant=field == TENANT_FIELD)
            shard.update(UpdateOperation.create_field_index(field, params))
        shard.flush()
        shard.close()
        stamp = {
            "format": _FORMAT,
            "model": self._model_identity,
            "dimension": self._dimension,
            "language": self._language,
        }
        (draft / _STAMP).write_text(json.dumps(stamp))
        _fsync(draft / _STAMP)
        draft.rename(folder)
        _fsync(folder.parent)

    def _config(self) -> "EdgeConfig":
        from qdrant_edge import (
            Distance,
            EdgeConfig,
            EdgeSparseVectorParams,
            EdgeVectorParams,
            HnswIndexConfig,
            Modifier,
        )

        # Below full_scan_threshold (in KB of vectors) an exact scan is faster than the graph.
        hnsw = HnswIndexConfig(m=16, ef_construct=128, full_scan_threshold=10_000)
        dense = EdgeVectorParams(size=self._dimension, distance=Distance.Cosine, hnsw_config=hnsw)
        sparse = EdgeSparseVectorParams(modifier=Modifier.Idf)
        return EdgeConfig(vectors={DENSE: dense}, sparse_vectors={LEXICAL: sparse})

    def _load(self, scope: Scope, folder: Path) -> "EdgeShard":
        from qdrant_edge import EdgeShard

        try:
            stamp = json.loads((folder / _STAMP).read_text())
        except (OSError, ValueError) as error:
            raise self._unreadable(scope, str(error)) from error
        wanted = (_FORMAT, self._model_identity, self._dimension, self._language)
        found = tuple(stamp.get(key) for key in ("format", "model", "dimension", "language"))
        if found != wanted:
            raise IndexUnreadable(
                f"the vectors of knowledge base {scope.knowledge_base_id} were made with "
                f"{found[1]}, the configured model is {self._model_identity}; run "
                f"`tandem kb rebuild {scope.knowledge_base_id}`"
            )
        return self._call(scope, lambda: EdgeShard.load(str(folder)))

    def _call(self, scope: Scope, action: Callable[[], T]) -> T:
        """Run a shard call; Edge raises plain `Exception` for all its errors."""
        try:
            return action()
        except Exception as error:
            message = str(error)
            if "WouldBlock" in message:
                raise IndexBusy(
                    f"the vectors of knowledge base {scope.knowledge_base_id} are open in "
                    "another process; stop it or send the request to the running server"
                ) from error
            if "Vector dimension error" in message or "not initialized" in message:
                raise VectorIndexError(message) from error
            raise self._unreadable(scope, message) from error
        except BaseException as error:
            # A Rust panic on damaged files derives from BaseException.
            if type(error).__name__ != "PanicException":
                raise
            raise self._unreadable(scope, str(error)) from error

    def _unreadable(self, scope: Scope, reason: str) -> IndexUnreadable:
        return IndexUnreadable(
            f"the vectors of knowledge base {scope.knowledge_base_id} cannot be read "
            f"({reason[:200]}); run `tandem kb rebuild {scope.knowledge_base_id}`"
        )


def _filter(
    scope: Scope,
    *,
    field: tuple[str, str] | None = None,
    exclude_versions: Collection[str] = (),
) -> "Filter":
    """The scope, and what narrows it further; a filter without the scope cannot be made."""
    from qdrant_edge import FieldCondition, Filter, MatchAny, MatchValue

    wanted = [
        (TENANT_FIELD, str(scope.workspace_id)),
        ("knowledge_base_id", scope.knowledge_base_id),
    ]
    if field is not None:
        wanted.append(field)
    must: list[Any] = [
        FieldCondition(key=key, match=MatchValue(value=value)) for key, value in wanted
    ]
    if not exclude_versions:
        return Filter(must=must)
    excluded = FieldCondition(key="version_id", match=MatchAny(any=sorted(exclude_versions)))
    return Filter(must=must, must_not=[excluded])


def _batched(items: Iterable[IndexedChunk], size: int) -> Iterator[list[IndexedChunk]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
