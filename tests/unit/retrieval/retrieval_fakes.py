"""Stand-ins without weights: a hashing embedder and factories of points and hits."""

import re
import zlib
from collections.abc import Sequence

import numpy as np

from retrieval.types import Hit, IndexedChunk, Scope, WorkspaceId, make_chunk_id

_WORD = re.compile(r"\w+")


def count_words(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


class HashingEmbedder:
    """Bag of hashed words, so that texts sharing words have a higher cosine. Deterministic."""

    dimension = 64
    identity = "hashing@0"

    def __init__(self) -> None:
        self.n_passages = 0

    def embed_passages(self, texts: Sequence[str], batch_size: int | None = None) -> np.ndarray:
        self.n_passages += len(texts)
        return np.stack([self._vector(t) for t in texts]) if texts else np.empty((0, 64), "f4")

    def embed_query(self, text: str) -> np.ndarray:
        return self._vector(text)

    def count_tokens(self, text: str) -> int:
        return count_words(text)

    def _vector(self, text: str) -> np.ndarray:
        vector = np.full(self.dimension, 1e-3, dtype=np.float32)
        for word in _WORD.findall(text.lower()):
            vector[zlib.crc32(word.encode()) % self.dimension] += 1
        return (vector / np.linalg.norm(vector)).astype(np.float32)


EMBEDDER = HashingEmbedder()
ALPHA = Scope(WorkspaceId("alpha"), "kb-1")


def point(
    text: str,
    *,
    scope: Scope = ALPHA,
    document: str = "doc",
    version: str = "doc-v1",
    ordinal: int = 0,
) -> IndexedChunk:
    return IndexedChunk(
        chunk_id=make_chunk_id(scope, version, ordinal),
        document_id=document,
        version_id=version,
        workspace_id=scope.workspace_id,
        knowledge_base_id=scope.knowledge_base_id,
        text=text,
        title="Title",
        heading_path=("Section",),
        page_start=2,
        page_end=3,
        start_char=10,
        end_char=10 + len(text),
        ordinal=ordinal,
        vector=EMBEDDER.embed_query(text),
        content_hash=f"hash of {text}",
    )


def hit(text: str, *, rank: int = 1, version: str = "v", title: str = "") -> Hit:
    return Hit(
        chunk_id=f"{rank:04d}",
        document_id="d",
        version_id=version,
        score=1 / rank,
        dense_score=0.5,
        workspace_id=WorkspaceId("alpha"),
        knowledge_base_id="kb-1",
        text=text,
        title=title,
        heading_path=(),
        page_start=None,
        page_end=None,
        start_char=0,
        end_char=len(text),
        ordinal=rank,
    )
