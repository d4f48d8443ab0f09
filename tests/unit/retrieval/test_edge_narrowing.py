"""Narrowing what was found gives what narrowing inside the index gives, and never more."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from retrieval_fakes import ALPHA, EMBEDDER, point

from retrieval import edge_narrowing
from retrieval.edge import EdgeIndex
from retrieval.index import IndexQuery, Narrowing

WORDS = ("refund", "shipping", "office", "receipt", "days", "France", "paid", "price", "parcel")
DOCUMENTS = [f"d{n}" for n in range(20)]
QUESTION = "refund of a parcel to France"


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    made = EdgeIndex(
        tmp_path_factory.mktemp("index"),
        dimension=EMBEDDER.dimension,
        model_identity=EMBEDDER.identity,
    )
    chance = random.Random(5)
    made.upsert(
        point(
            f"{' '.join(chance.choices(WORDS, k=6))} {document} {n}",
            ordinal=n,
            document=document,
            version=f"{document}-v{n % 2}",
        )
        for document in DOCUMENTS
        for n in range(16)
    )
    made.flush()
    yield made
    made.close()


def found(index, narrowing, limit=20):
    query = IndexQuery(QUESTION, EMBEDDER.embed_query(QUESTION), narrowing=narrowing)
    return index.candidates(ALPHA, query, limit)


def names(some):
    return frozenset(some)


NARROWINGS = st.builds(
    Narrowing,
    only_documents=st.none() | st.sets(st.sampled_from(DOCUMENTS)).map(names),
    without_documents=st.sets(st.sampled_from(DOCUMENTS)).map(names),
    without_versions=st.sets(st.sampled_from([f"{d}-v0" for d in DOCUMENTS])).map(names),
)


@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(narrowing=NARROWINGS)
def test_both_ways_find_the_same(index, monkeypatch, narrowing):
    monkeypatch.setattr(edge_narrowing, "MANY", 10**9)
    inside = found(index, narrowing)
    monkeypatch.setattr(edge_narrowing, "MANY", 0)
    afterwards = found(index, narrowing)
    assert [c.hit for c in afterwards] == [c.hit for c in inside]
    for candidate in afterwards:
        hit, only = candidate.hit, narrowing.only_documents
        assert only is None or hit.document_id in only
        assert hit.document_id not in narrowing.without_documents
        assert hit.version_id not in narrowing.without_versions


@pytest.mark.parametrize(("kept", "enough"), [(15, True), (1, False)])
def test_the_index_narrows_itself_where_too_few_are_left(index, monkeypatch, kept, enough):
    tried = []
    afterwards = edge_narrowing._narrow_afterwards

    def watched(*arguments):
        tried.append(afterwards(*arguments))
        return tried[-1]

    monkeypatch.setattr(edge_narrowing, "_narrow_afterwards", watched)
    monkeypatch.setattr(edge_narrowing, "MANY", 1)
    narrowing = Narrowing(only_documents=frozenset(DOCUMENTS[:kept]))
    hits = found(index, narrowing, 10)
    assert (tried[0] is not None) == enough
    assert len(hits) == 10
    assert {c.hit.document_id for c in hits} <= set(DOCUMENTS[:kept])


def test_short_narrowings_and_exact_searches_go_to_the_index(index, monkeypatch):
    monkeypatch.setattr(edge_narrowing, "_narrow_afterwards", None)
    assert found(index, Narrowing(only_documents=frozenset(DOCUMENTS[:3])))
    monkeypatch.setattr(edge_narrowing, "MANY", 1)
    query = IndexQuery(
        QUESTION,
        EMBEDDER.embed_query(QUESTION),
        narrowing=Narrowing(only_documents=frozenset(DOCUMENTS[:3])),
        exact=True,
    )
    assert index.candidates(ALPHA, query, 5)
