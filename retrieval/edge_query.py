"""What a search sends to an Edge shard: one request a side, ids and scores only.

Payloads and vectors are read afterwards for the few points that survive fusion; sending them along
with every candidate took three times as long as the search itself.
"""

from typing import TYPE_CHECKING

from retrieval.index import DENSE, LEXICAL, IndexQuery
from retrieval.lexical import LexicalEncoder

if TYPE_CHECKING:
    from qdrant_edge import Filter, QueryBatchRequest

# Candidates the graph walk keeps in hand; `python -m benchmarks.search` measures its recall.
_EF = 128


def shard_queries(
    query: IndexQuery, where: "Filter", depth: int, encoder: LexicalEncoder
) -> "QueryBatchRequest":
    """The dense request, then the lexical one, each for `depth` points; absent sides left out."""
    from qdrant_edge import Query, QueryBatchRequest, QueryRequest, SearchParams

    requests = []
    if query.dense and query.vector is not None:
        nearest = Query.Nearest(query.vector.tolist(), using=DENSE)
        params = SearchParams(exact=True) if query.exact else SearchParams(hnsw_ef=max(_EF, depth))
        requests.append(QueryRequest(limit=depth, query=nearest, filter=where, params=params))
    if query.lexical:
        nearest = Query.Nearest(encoder.query(query.text), using=LEXICAL)
        requests.append(QueryRequest(limit=depth, query=nearest, filter=where))
    return QueryBatchRequest(requests)
