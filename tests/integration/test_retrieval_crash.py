"""SIGKILL while an Edge shard is written: what was flushed is whole, and writing goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from retrieval.edge import EdgeIndex
from retrieval.types import IndexedChunk, Scope, WorkspaceId, make_chunk_id

ROOT = Path(__file__).resolve().parents[2]
SCOPE = Scope(WorkspaceId("w"), "kb")
IDENTITY = {"dimension": 32, "model_identity": "m@1"}
CHUNKS = 40


def version_points(number: int) -> list[IndexedChunk]:
    rng = np.random.default_rng(number)
    vectors = rng.standard_normal((CHUNKS, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    version = f"v{number}"
    return [
        IndexedChunk(
            chunk_id=make_chunk_id(SCOPE, version, n),
            document_id=f"d{number}",
            version_id=version,
            workspace_id=SCOPE.workspace_id,
            knowledge_base_id=SCOPE.knowledge_base_id,
            text=f"version {number} chunk {n} " + "word " * 60,
            title="T",
            heading_path=(),
            page_start=None,
            page_end=None,
            start_char=0,
            end_char=1,
            ordinal=n,
            vector=vectors[n],
        )
        for n in range(CHUNKS)
    ]


def write_forever(root: str, first: int) -> None:
    """Write version after version; a line on stdout says that one was flushed."""
    index = EdgeIndex(root, **IDENTITY)
    number = first
    while True:
        index.upsert(version_points(number))
        index.flush()
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        if number % 3 == 2:
            index.delete_version(SCOPE, f"v{number}")
            index.flush()
            sys.stdout.write(f"-{number}\n")
            sys.stdout.flush()
        number += 1


@pytest.mark.parametrize("seed", range(5))
def test_flushed_versions_survive_sigkill_whole(tmp_path, seed):
    rng = random.Random(seed)
    acknowledged: set[int] = set()
    deleted: set[int] = set()
    number = 0
    for _ in range(2):
        code = f"import test_retrieval_crash as t; t.write_forever({str(tmp_path)!r}, {number})"
        path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
        writer = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            text=True,
        )
        first = writer.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.25))
        writer.send_signal(signal.SIGKILL)
        lines = [int(x) for x in [first, *writer.stdout.read().splitlines()] if x.strip("-\n")]
        writer.wait()
        writer.stdout.close()
        acknowledged |= {n for n in lines if n > 0} | ({0} if number == 0 else set())
        deleted |= {-n for n in lines if n < 0}
        number = max(acknowledged) + 5

        index = EdgeIndex(tmp_path, **IDENTITY)
        found = index.chunk_ids(SCOPE)
        for version in acknowledged - deleted:
            wanted = {p.chunk_id for p in version_points(version)}
            # A deletion that was under way when the kill came may be done or not, per point.
            if version % 3 != 2:
                assert wanted <= found
        for version in deleted:
            assert not {p.chunk_id for p in version_points(version)} & found
        sample = version_points(min(acknowledged))[3]
        hit = index.search(SCOPE, sample.text, sample.vector, 1)[0]
        assert (hit.chunk_id, hit.text) == (sample.chunk_id, sample.text)
        assert hit.dense_score == pytest.approx(1.0, abs=1e-4)
        # A torn version is mended by writing it again, as the ingest job does.
        index.upsert(version_points(number))
        index.flush()
        assert {p.chunk_id for p in version_points(number)} <= index.chunk_ids(SCOPE)
        acknowledged.add(number)
        number += 1
        index.close()


def test_kill_while_a_shard_is_made_leaves_no_half_shard(tmp_path):
    folder = tmp_path / "w"
    (folder / ".new-0123").mkdir(parents=True)
    (folder / ".new-0123" / "edge_config.json").write_text("{")
    index = EdgeIndex(tmp_path, **IDENTITY)
    assert index.count(SCOPE) == 0
    index.upsert(version_points(1))
    index.flush()
    assert index.count(SCOPE) == CHUNKS
    index.close()
