"""Parsed documents to index points: chunk, reuse known vectors, embed the rest together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from retrieval.chunking import ChunkingOptions, chunk_document, embed_text
from retrieval.embedding import TextEncoder
from retrieval.types import Chunk, IndexedChunk, ParsedDocument, Scope, make_chunk_id


@dataclass(frozen=True, slots=True)
class DocumentVersion:
    """A parsed document with its ids.

    `known_vectors` are vectors by content hash (`VectorIndex.stored_vectors`); text that did not
    change is not embedded again. The version id and a chunk's ordinal fix the chunk's id.
    """

    document: ParsedDocument
    document_id: str
    version_id: str
    known_vectors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """Points ready for `VectorIndex.upsert`, the chunks behind them, and the work it took."""

    document_id: str
    version_id: str
    chunks: tuple[Chunk, ...]
    points: tuple[IndexedChunk, ...]
    n_embedded: int


def prepare_document(
    document: ParsedDocument,
    embedder: TextEncoder,
    scope: Scope,
    *,
    document_id: str,
    version_id: str,
    options: ChunkingOptions | None = None,
    known_vectors: Mapping[str, NDArray[np.float32]] | None = None,
) -> PreparedDocument:
    """Chunk and embed one document version; see `DocumentVersion` for the arguments."""
    version = DocumentVersion(document, document_id, version_id, known_vectors or {})
    return next(prepare_documents([version], embedder, scope, options=options))


def prepare_documents(
    versions: Iterable[DocumentVersion],
    embedder: TextEncoder,
    scope: Scope,
    *,
    options: ChunkingOptions | None = None,
    window: int = 256,
) -> Iterator[PreparedDocument]:
    """Chunk and embed many document versions, in order, with full batches.

    Chunks of several documents are embedded together once `window` of them wait, so batches are
    full and of like length. Versions are taken from `versions` as they are needed.
    """
    waiting: list[tuple[DocumentVersion, list[Chunk]]] = []
    n_chunks = 0
    for version in versions:
        chunks = chunk_document(version.document, embedder.count_tokens, options)
        waiting.append((version, chunks))
        n_chunks += len(chunks)
        if n_chunks >= window:
            yield from _embed(waiting, embedder, scope)
            waiting, n_chunks = [], 0
    yield from _embed(waiting, embedder, scope)


def _embed(
    waiting: Sequence[tuple[DocumentVersion, list[Chunk]]], embedder: TextEncoder, scope: Scope
) -> Iterator[PreparedDocument]:
    fresh: dict[str, str] = {}
    n_embedded = []
    for version, chunks in waiting:
        new = [c for c in chunks if c.content_hash not in version.known_vectors]
        fresh |= {c.content_hash: embed_text(c, version.document.title) for c in new}
        n_embedded.append(len(new))
    vectors = dict(zip(fresh, embedder.embed_passages(list(fresh.values())), strict=True))
    for (version, chunks), n in zip(waiting, n_embedded, strict=True):
        by_hash = {**version.known_vectors, **vectors} if version.known_vectors else vectors
        points = tuple(_point(version, c, scope, by_hash[c.content_hash]) for c in chunks)
        yield PreparedDocument(version.document_id, version.version_id, tuple(chunks), points, n)


def _point(
    version: DocumentVersion, chunk: Chunk, scope: Scope, vector: NDArray[np.float32]
) -> IndexedChunk:
    return IndexedChunk(
        chunk_id=make_chunk_id(scope, version.version_id, chunk.ordinal),
        document_id=version.document_id,
        version_id=version.version_id,
        workspace_id=scope.workspace_id,
        knowledge_base_id=scope.knowledge_base_id,
        text=chunk.text,
        title=version.document.title,
        heading_path=chunk.heading_path,
        page_start=chunk.page_start,
        page_end=chunk.page_end,
        start_char=chunk.start_char,
        end_char=chunk.end_char,
        ordinal=chunk.ordinal,
        vector=vector,
        content_hash=chunk.content_hash,
    )
