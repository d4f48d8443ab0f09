"""SIGKILL at random moments of an ingest job; a restart finishes it, its effect exactly once."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import sqlalchemy as sa
from factories import make_container, write_pages

from app.db.tables import Chunk, Document, DocumentVersion, Job, KnowledgeBase
from app.knowledge import service
from app.knowledge.verify import verify
from retrieval.types import Scope

TESTS = Path(__file__).parents[2]
PROCESS = Path(__file__).parent / "ingest_process.py"
N_PAGES = 40
KILLS = int(os.environ.get("TANDEM_TEST_KILLS", "8"))  # 100 for the proof in docs/LOG.md


def page(number, edition):
    return f"# Page {number}\n\nPage {number} in edition {edition} tells fact{number}x{edition}.\n"


def start(home, pages, job):
    environment = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    process = subprocess.Popen(
        [sys.executable, str(PROCESS), str(home), str(pages), job],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout.readline().strip() == "ready", process.stderr.read()
    return process


def kill_then_finish(home, pages, job, kills, chance):
    """Kill `kills` runs of the job midway, then let one finish; the number really killed."""
    killed = 0
    for _ in range(kills):
        process = start(home, pages, job)
        time.sleep(chance.uniform(0.1, 1.4))
        if process.poll() is None:
            process.kill()
            killed += 1
        process.communicate()
    process = start(home, pages, job)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "finished" in out
    return killed


def check(home, editions):
    container = make_container(home, answers=False)
    try:
        with container.database.session() as session:
            kb = session.scalar(sa.select(KnowledgeBase))
            states = list(session.scalars(sa.select(Job.state)))
            visible = list(
                session.scalars(
                    sa.select(DocumentVersion).where(DocumentVersion.state == "visible")
                )
            )
            documents = list(session.scalars(sa.select(Document)))
            live = [d for d in documents if d.deleted_at is None]
            rows = session.execute(
                sa.select(Chunk.id, Chunk.text)
                .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
                .where(DocumentVersion.state == "visible")
            ).all()
        assert set(states) == {"succeeded"}
        assert Counter(v.document_id for v in visible) == Counter(d.id for d in live)
        assert {d.external_id for d in live} == set(editions)
        assert all(d.current_version_id in {v.id for v in visible} for d in live)
        texts = Counter(text for _, text in rows)
        assert max(texts.values()) == 1, "a passage is there twice"
        for name, edition in editions.items():
            number = int(name[1:3])
            assert sum(f"fact{number}x{edition}" in text for text in texts) == 1
        scope = Scope(kb.workspace_id, kb.id)
        index = container.knowledge.of(kb).index
        assert index.chunk_ids(scope) == {chunk_id for chunk_id, _ in rows}
        assert verify(container.database, container.knowledge, kb.id, repair=False).clean
        question = service.Question(kb.workspace_id, (kb.id,), "fact7x2", 3)
        found = service.search(container.database, container.knowledge, question)
        assert "fact7x2" in found.hits[0].text or editions["p07.md"] == 1
    finally:
        container.close()


def test_killed_ingestion_ends_with_every_document_exactly_once(tmp_path):
    chance = random.Random(20)
    home, pages = tmp_path / "home", tmp_path / "pages"
    editions = {f"p{n:02}.md": 1 for n in range(N_PAGES)}
    write_pages(pages, {name: page(int(name[1:3]), 1) for name in editions})
    killed = kill_then_finish(home, pages, "first", KILLS // 2, chance)
    check(home, editions)

    for name in list(editions)[::2]:
        editions[name] = 2
        write_pages(pages, {name: page(int(name[1:3]), 2)})
    editions["p07.md"] = 2
    write_pages(pages, {"p07.md": page(7, 2)})
    for name in ("p01.md", "p03.md"):
        del editions[name]
        (pages / name).unlink()
    killed += kill_then_finish(home, pages, "second", KILLS // 2, chance)
    check(home, editions)
    assert killed >= KILLS * 3 // 4
    print(f"{killed} of {KILLS} runs were killed midway")
    shutil.rmtree(home)
