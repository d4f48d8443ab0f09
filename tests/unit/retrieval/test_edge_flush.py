"""A flush of the embedded index waits for every write before it, and for nothing else."""

from typing import Any

import pytest
from retrieval_fakes import ALPHA, EMBEDDER, point

from retrieval.edge import EdgeIndex
from retrieval.errors import IndexUnreadable
from retrieval.types import Scope, WorkspaceId

OTHER = Scope(WorkspaceId("alpha"), "kb-2")


class Watched:
    """A shard that tells when it is flushed, and does something first."""

    def __init__(self, shard: Any, flushed: list[Scope], scope: Scope) -> None:
        self._shard, self._flushed, self._scope = shard, flushed, scope
        self.before = lambda: None

    def flush(self) -> None:
        self.before()
        self._flushed.append(self._scope)
        self._shard.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shard, name)


@pytest.fixture
def index(tmp_path):
    made = EdgeIndex(
        tmp_path, dimension=EMBEDDER.dimension, model_identity=EMBEDDER.identity,
    )  # fmt: skip
    for scope in (ALPHA, OTHER):
        made.upsert([point("Refunds are paid.", scope=scope, ordinal=0)])
    made.flush()
    yield made
    made.close()


@pytest.fixture
def flushed(index):
    seen: list[Scope] = []
    for scope, shard in list(index._shards.items()):
        index._shards[scope] = Watched(shard, seen, scope)
    return seen


def test_only_shards_that_were_written_are_flushed(index, flushed):
    index.flush()
    assert flushed == []
    index.upsert([point("Refunds take five days.", scope=OTHER, ordinal=1)])
    index.flush()
    index.flush()
    assert flushed == [OTHER]


def test_deletions_and_optimising_are_flushed_too(index, flushed):
    index.delete_document(ALPHA, "nobody")
    index.flush()
    index.optimize(OTHER)
    index.flush()
    assert flushed == [ALPHA, OTHER]


def test_what_is_written_during_a_flush_waits_for_the_next(index, flushed):
    def write() -> None:
        index._shards[ALPHA].before = lambda: None
        index.upsert([point("Written meanwhile.", ordinal=2)])

    index._shards[ALPHA].before = write
    index.upsert([point("Refunds take five days.", ordinal=1)])
    index.flush()
    index.flush()
    assert flushed == [ALPHA, ALPHA]


def test_a_flush_that_failed_is_tried_again(index, flushed):
    def fail() -> None:
        index._shards[ALPHA].before = lambda: None
        raise ValueError("no space")

    index._shards[ALPHA].before = fail
    index.upsert([point("Refunds take five days.", ordinal=1)])
    with pytest.raises(IndexUnreadable, match="no space"):
        index.flush()
    index.flush()
    assert flushed == [ALPHA]
