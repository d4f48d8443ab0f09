"""What an Edge shard is made of: its vectors, its filters, and how its files reach the disk."""

import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.index import DENSE, LEXICAL, NO_NARROWING, Narrowing
from retrieval.scope_filter import scope_filter
from retrieval.types import Scope

if TYPE_CHECKING:
    from qdrant_edge import EdgeConfig, Filter


def shard_config(dimension: int) -> "EdgeConfig":
    """Dense vectors with an HNSW graph beside BM25 sparse vectors with IDF."""
    from qdrant_edge import (
        Distance,
        EdgeConfig,
        EdgeSparseVectorParams,
        EdgeVectorParams,
        HnswIndexConfig,
        Modifier,
    )

    # Below full_scan_threshold (in KB of vectors) an exact scan is faster than the graph.
    # m=16 found .96 of the 10 nearest of 10,000 mixed chunks at any sensible ef, m=32 finds .99.
    hnsw = HnswIndexConfig(m=32, ef_construct=256, full_scan_threshold=10_000)
    dense = EdgeVectorParams(size=dimension, distance=Distance.Cosine, hnsw_config=hnsw)
    sparse = EdgeSparseVectorParams(modifier=Modifier.Idf)
    return EdgeConfig(vectors={DENSE: dense}, sparse_vectors={LEXICAL: sparse})


def shard_filter(
    scope: Scope,
    *,
    field: tuple[str, str] | None = None,
    narrowing: Narrowing = NO_NARROWING,
) -> "Filter":
    """`scope_filter` in Edge's own types."""
    import qdrant_edge

    made: Filter = scope_filter(qdrant_edge, scope, field=field, narrowing=narrowing)
    return made


def require_room(path: Path, least_bytes: int) -> None:
    """Refuse to touch a shard's files on a disk that is nearly full.

    Edge maps sparse files into memory; a write to a page that finds no space ends the process with
    SIGBUS, where no `except` helps.

    Raises:
        OSError: ENOSPC, with the folder.
    """
    while not path.exists():
        path = path.parent
    if shutil.disk_usage(path).free < least_bytes:
        reason = f"less than {least_bytes >> 20} MiB free, which the vector index must have"
        raise OSError(errno.ENOSPC, reason, str(path))


def fsync(path: Path) -> None:
    """Return once the file or directory is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
