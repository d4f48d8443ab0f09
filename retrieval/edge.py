"""The embedded vector index: one Qdrant Edge shard per knowledge base, dense and BM25 together.

A shard belongs to one process. Inside it, reads and writes of many threads may overlap (the shard
does its own locking); opening, creating and dropping a shard is serialised here.
"""

import json
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.edge_narrowing import search_shard
from retrieval.edge_shard import fsync, require_room, shard_config, shard_filter
from retrieval.errors import IndexBusy, IndexUnreadable, VectorIndexError
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
from retrieval.types import Hit, IndexedChunk, Scope

if TYPE_CHECKING:
    from qdrant_edge import EdgeShard, Filter

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
        least_free_bytes: int = 96 * 2**20,
    ) -> None:
        """Nothing is opened or created before it is needed.

        Args:
            root: folder of all shards.
            dimension: length of the dense vectors.
            model_identity: `Embedder.identity` of the model that makes them.
            fusion: weights of dense and lexical search.
            language: stop words and stemmer of BM25.
            least_free_bytes: with less room on the disk shards are neither opened nor written;
                those that are open go on answering.
        """
        self._least_free = least_free_bytes
        self._root = Path(root)
        self._dimension = dimension
        self._model_identity = model_identity
        self._fusion = fusion or FusionOptions()
        self._language = language
        self._lock = threading.RLock()
        self._shards: dict[Scope, EdgeShard] = {}
        self._unflushed: set[Scope] = set()
        self._flushing = threading.Lock()
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
        narrowing: Narrowing = NO_NARROWING,
    ) -> list[Hit]:
        """The best hits of one scope; see `VectorIndex`."""
        query = IndexQuery(query_text, query_vector, dense, lexical, narrowing)
        return [candidate.hit for candidate in self.candidates(scope, query, limit)]

    def candidates(self, scope: Scope, query: IndexQuery, limit: int) -> list[Candidate]:
        """The best candidates of one scope; see `VectorIndex`."""
        check_query(query.vector, limit, dense=query.dense, lexical=query.lexical)
        shard = self._open(scope, create=False)
        if shard is None:
            return []
        fusion = query.fusion or self._fusion
        depth = max(fusion.prefetch, limit)
        found = self._call(scope, lambda: search_shard(shard, scope, query, depth, self._lexical))
        ranked = fuse_points(found, query, fusion)[:limit]
        with_vector = [DENSE] if query.vector is not None else False
        ids: list[Any] = [point.id for point in ranked]
        records = self._call(scope, lambda: shard.retrieve(ids, True, with_vector))
        try:
            return join_records(ranked, records, query)
        except VectorIndexError as error:
            raise self._unreadable(scope, "dense vectors are missing") from error

    def flush(self) -> None:
        """Return once all writes before it are on disk; shards without new ones cost nothing."""
        # One at a time: whoever finds a shard flushed by another returns after that other is done.
        with self._flushing:
            with self._lock:
                scopes = self._unflushed.copy()
                waiting = [(s, self._shards[s]) for s in scopes if s in self._shards]
            for scope, shard in waiting:
                self._unflushed.discard(scope)
                try:
                    self._call(scope, shard.flush)
                except VectorIndexError:
                    self._unflushed.add(scope)
                    raise

    def count(self, scope: Scope) -> int:
        """The number of chunks in the scope."""
        from qdrant_edge import CountRequest

        shard = self._open(scope, create=False)
        if shard is None:
            return 0
        request = CountRequest(exact=True, filter=shard_filter(scope))
        return self._call(scope, lambda: shard.count(request))

    def chunk_ids(self, scope: Scope) -> set[str]:
        """The ids of all chunks in the scope."""
        return {str(record.id) for record in self._scroll(scope, shard_filter(scope))}

    def chunk_hashes(self, scope: Scope) -> dict[str, str]:
        """Content hash by chunk id, for all chunks in the scope."""
        records = self._scroll(scope, shard_filter(scope), with_payload=["content_hash"])
        return {str(r.id): str((r.payload or {}).get("content_hash", "")) for r in records}

    def chunks_of_version(self, scope: Scope, version_id: str) -> list[IndexedChunk]:
        """A version's points as they are stored; see `VectorIndex`."""
        where = shard_filter(scope, field=("version_id", version_id))
        records = self._scroll(scope, where, with_payload=True, with_vector=[DENSE])
        chunks = [to_chunk(str(r.id), r.payload, r.vector) for r in records]
        return sorted(chunks, key=lambda chunk: chunk.ordinal)

    def delete_chunks(self, scope: Scope, chunk_ids: Collection[str]) -> None:
        """Remove the chunks of these ids; unknown ones are no error."""
        from qdrant_edge import UpdateOperation

        if chunk_ids:
            self._write(scope, UpdateOperation.delete_points(list(chunk_ids)), create=False)

    def stored_vectors(self, scope: Scope, document_id: str) -> dict[str, NDArray[np.float32]]:
        """Vectors of a document's chunks by content hash."""
        where = shard_filter(scope, field=("document_id", document_id))
        return {
            record.payload["content_hash"]: np.asarray(record.vector[DENSE], dtype=np.float32)
            for record in self._scroll(scope, where, with_payload=True, with_vector=[DENSE])
            if record.payload.get("content_hash")
        }

    def optimize(self, scope: Scope) -> bool:
        """Merge segments, build HNSW graphs and drop deleted points; True if anything changed."""
        shard = self._open(scope, create=False)
        if shard is None:
            return False
        try:
            return self._call(scope, shard.optimize)
        finally:
            self._unflushed.add(scope)

    def drop(self, scope: Scope) -> None:
        """Remove a whole knowledge base, readable or not."""
        with self._lock:
            shard = self._shards.pop(scope, None)
            self._unflushed.discard(scope)
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

        where = shard_filter(scope, field=(field, value))
        self._write(scope, UpdateOperation.delete_points_by_filter(where), create=False)

    def _write(self, scope: Scope, operation: Any, *, create: bool) -> None:
        shard = self._open(scope, create=create)
        if shard is not None:
            require_room(self._root, self._least_free)
            try:
                self._call(scope, lambda: shard.update(operation))
            finally:
                # Marked behind the write: a flush that runs meanwhile may have missed it.
                self._unflushed.add(scope)

    def _scroll(
        self,
        scope: Scope,
        where: "Filter",
        *,
        with_payload: bool | list[str] = False,
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
                if not folder.exists() and not create:
                    return None
                require_room(self._root, self._least_free)
                if not folder.exists():
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
        shard = self._call(
            scope, lambda: EdgeShard.create(str(draft), shard_config(self._dimension))
        )
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
        fsync(draft / _STAMP)
        draft.rename(folder)
        fsync(folder.parent)

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


def _batched(items: Iterable[IndexedChunk], size: int) -> Iterator[list[IndexedChunk]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
