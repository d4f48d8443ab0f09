"""From a question to visible, ranked hits: embed once, search both ways, hide retired versions.

The stages behind the index (reranker, diversity, neighbours, coverage) are switched by one
`SearchOptions`; `python -m benchmarks.retrieval_quality` measures each of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from retrieval.coverage import CoverageModel, shipped_coverage
from retrieval.diversity import mmr
from retrieval.embedding import TextEncoder
from retrieval.index import (
    NO_NARROWING,
    Candidate,
    FusionOptions,
    IndexQuery,
    Narrowing,
    VectorIndex,
    in_order,
)
from retrieval.neighbours import Neighbours, widen
from retrieval.reranking import Reranker
from retrieval.types import Hit, Scope

Visible = Callable[[Sequence[str]], set[str]]

TUNED_FUSION = FusionOptions(method="scores", dense_weight=0.85, lexical_weight=0.15)
"""Chosen on one half of four question sets; on the other half it beat reciprocal ranks on all."""

_OVERFETCH = 3
_MAX_ROUNDS = 12


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Every switch of a search; the defaults are what measured best.

    Attributes:
        dense: use the embeddings.
        lexical: use BM25.
        fusion: how both lists become one; None takes the index's own way.
        candidates: the least number of fused candidates that the later stages choose from.
        rerank: use the searcher's reranker, if it has one.
        diversity: `balance` of maximal marginal relevance in [0, 1]; None leaves the order.
        neighbours: chunks joined to a hit on either side, where the caller supplies them.
        coverage: estimate whether the knowledge base covers the question.
    """

    dense: bool = True
    lexical: bool = True
    fusion: FusionOptions | None = TUNED_FUSION
    candidates: int = 15
    rerank: bool = True
    diversity: float | None = None
    neighbours: int = 0
    coverage: bool = True

    def __post_init__(self) -> None:
        if self.candidates < 1 or self.neighbours < 0:
            raise ValueError(
                "candidates must be at least 1 and neighbours not negative, got "
                f"{self.candidates} and {self.neighbours}"
            )
        if self.diversity is not None and not 0 <= self.diversity <= 1:
            raise ValueError(f"diversity must be between 0 and 1 or None, got {self.diversity}")


DEFAULTS = SearchOptions()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first, without two of the same text.

    `best_dense_score` is the highest cosine with the question among them, in [-1, 1]; None when
    there are no hits or the search had no dense part. `coverage` is the estimated probability
    that the knowledge base answers the question; None when it was switched off or the search
    lacked one of its two sides; 0 when nothing was found.
    """

    hits: tuple[Hit, ...]
    best_dense_score: float | None
    coverage: float | None = None


class HybridSearcher:
    """Dense and BM25 search over one index, with an optional reranker behind it."""

    def __init__(
        self,
        index: VectorIndex,
        embedder: TextEncoder,
        reranker: Reranker | None = None,
        *,
        options: SearchOptions = DEFAULTS,
        coverage: CoverageModel | None = None,
    ) -> None:
        """Nothing is loaded or searched yet.

        Args:
            index: where the chunks are.
            embedder: the model that made their vectors.
            reranker: a second stage over the candidates.
            options: what a search does unless it is told otherwise.
            coverage: the model behind `SearchResult.coverage`; the shipped one by default.
        """
        self._index = index
        self._embedder = embedder
        self._reranker = reranker
        self._options = options
        self._coverage = coverage or shipped_coverage()

    def search(
        self,
        scope: Scope | Sequence[Scope],
        question: str,
        limit: int,
        visible: Visible | None = None,
        *,
        narrowing: Narrowing = NO_NARROWING,
        neighbours: Neighbours | None = None,
        options: SearchOptions | None = None,
    ) -> SearchResult:
        """The `limit` best hits whose document version is visible.

        Args:
            scope: where to look; several scopes are searched with one embedding of the question.
            question: the user's words; blank finds nothing.
            limit: the most hits to return, at least 1.
            visible: given distinct version ids, returns those that may be shown now. Versions it
                leaves out are excluded from a further search, so they take nobody's place.
            narrowing: documents and versions to leave out inside the index.
            neighbours: gives chunks by version and ordinal, for `SearchOptions.neighbours`.
            options: the searcher's own when None.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        if not question.strip():
            return SearchResult((), None)
        options = options or self._options
        vector = self._embedder.embed_query(question) if options.dense else None
        query = IndexQuery(
            question, vector, options.dense, options.lexical, narrowing, options.fusion
        )
        wanted = max(limit, options.candidates if self._stages(options) else 0)
        scopes = [scope] if isinstance(scope, Scope) else list(scope)
        found = [c for each in scopes for c in self._visible(each, query, limit, wanted, visible)]
        candidates = _distinct(in_order(found))
        coverage = None
        if options.coverage and options.dense and options.lexical:
            coverage = self._coverage.probability(question, candidates)
        chosen = self._choose(question, candidates, limit, options)
        if options.neighbours and neighbours is not None and chosen:
            chosen = widen(chosen, neighbours, options.neighbours)
        scores = [hit.dense_score for hit in chosen if hit.dense_score is not None]
        return SearchResult(tuple(chosen), max(scores, default=None), coverage)

    def _stages(self, options: SearchOptions) -> bool:
        reranks = options.rerank and self._reranker is not None
        return reranks or options.diversity is not None or options.coverage

    def _visible(
        self, scope: Scope, query: IndexQuery, limit: int, wanted: int, visible: Visible | None
    ) -> list[Candidate]:
        """At least `limit` candidates of visible versions, if there are so many."""
        hidden = query.narrowing.without_versions
        fetch = max(limit * _OVERFETCH, wanted)
        kept: list[Candidate] = []
        for _ in range(_MAX_ROUNDS):
            narrowing = replace(query.narrowing, without_versions=hidden)
            found = self._index.candidates(scope, replace(query, narrowing=narrowing), fetch)
            retired = _retired(found, visible)
            kept = _distinct([c for c in found if c.hit.version_id not in retired])
            if len(kept) >= limit or len(found) < fetch:
                break
            hidden |= retired
            fetch *= 2
        return kept

    def _choose(
        self, question: str, candidates: Sequence[Candidate], limit: int, options: SearchOptions
    ) -> list[Hit]:
        hits = [candidate.hit for candidate in candidates]
        if options.rerank and self._reranker is not None:
            hits = self._reranker.rerank(question, hits)
        if options.diversity is None or not options.dense or not hits:
            return hits[:limit]
        vectors = {c.hit.chunk_id: c.vector for c in candidates}
        rows = np.stack([np.asarray(vectors[hit.chunk_id]) for hit in hits])
        return [hits[i] for i in mmr([h.score for h in hits], rows, limit, options.diversity)]


def _retired(candidates: Sequence[Candidate], visible: Visible | None) -> set[str]:
    if visible is None or not candidates:
        return set()
    versions = list(dict.fromkeys(candidate.hit.version_id for candidate in candidates))
    return set(versions) - visible(versions)


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first candidate of every text; case and blanks do not tell texts apart."""
    seen: set[str] = set()
    kept = []
    for candidate in candidates:
        key = " ".join(candidate.hit.text.lower().split())
        if key not in seen:
            seen.add(key)
            kept.append(candidate)
    return kept
