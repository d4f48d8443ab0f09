"""A search of an Edge shard that keeps to some documents, by the cheaper of two ways.

Edge weighs a filter by looking up each of its values, once a side: fast for one document, slow for
thousands, where most of the search went into it. Thousands of values leave out a large part of a
collection or keep a large part, so a search without them, three times as deep, nearly always holds
enough of what is wanted. Where it does not, the filter inside the index decides.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retrieval.edge_query import shard_queries
from retrieval.edge_shard import shard_filter
from retrieval.index import IndexQuery, Narrowing
from retrieval.lexical import LexicalEncoder
from retrieval.types import Scope

if TYPE_CHECKING:
    from qdrant_edge import EdgeShard

# Document and version ids in a narrowing from which on it is applied to what was found.
MANY = 1_000
_DEEPER = 3


def search_shard(
    shard: "EdgeShard", scope: Scope, query: IndexQuery, depth: int, encoder: LexicalEncoder
) -> Sequence[Sequence[Any]]:
    """At most `depth` points a side, best first, the dense side first; ids and scores only.

    Both ways keep to the narrowing strictly and give the best points among those it leaves.
    """
    narrowing = query.narrowing
    if _n_values(narrowing) >= MANY and not query.exact:
        found = _narrow_afterwards(shard, scope, query, depth, encoder)
        if found is not None:
            return found
    where = shard_filter(scope, narrowing=narrowing)
    return shard.query_batch(shard_queries(query, where, depth, encoder))


def _narrow_afterwards(
    shard: "EdgeShard", scope: Scope, query: IndexQuery, depth: int, encoder: LexicalEncoder
) -> list[list[Any]] | None:
    """None where too few of the points are left to be sure of the best `depth`."""
    deep = depth * _DEEPER
    found = shard.query_batch(shard_queries(query, shard_filter(scope), deep, encoder))
    kept = []
    for side in found:
        left = _first_left(shard, side, query.narrowing, depth)
        # A side that is not full holds every point it has, so nothing can be missing behind it.
        if len(left) < depth and len(side) >= deep:
            return None
        kept.append(left)
    return kept


def _first_left(
    shard: "EdgeShard", points: Sequence[Any], narrowing: Narrowing, depth: int
) -> list[Any]:
    """The first `depth` points that the narrowing leaves."""
    left: list[Any] = []
    # Reading payloads costs more than searching, so no more are read than it takes.
    step = max(depth // 2, 1)
    for start in range(0, len(points), step):
        some = points[start : start + step]
        records = shard.retrieve([p.id for p in some], ["document_id", "version_id"], False)
        passing = {record.id for record in records if _passes(record.payload or {}, narrowing)}
        left += [point for point in some if point.id in passing]
        if len(left) >= depth:
            break
    return left[:depth]


def _passes(payload: Any, narrowing: Narrowing) -> bool:
    document, only = payload["document_id"], narrowing.only_documents
    return (
        (only is None or document in only)
        and document not in narrowing.without_documents
        and payload["version_id"] not in narrowing.without_versions
    )


def _n_values(narrowing: Narrowing) -> int:
    return (
        len(narrowing.only_documents or ())
        + len(narrowing.without_documents)
        + len(narrowing.without_versions)
    )
