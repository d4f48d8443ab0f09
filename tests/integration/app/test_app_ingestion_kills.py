"""SIGKILL at random moments of an ingest job; a restart finishes it, its effect exactly once."""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa
from factories import make_container, write_pages

from app.db.tables import Chunk, Document, DocumentVersion, Job, KnowledgeBase
from app.knowledge import service
from app.knowledge.verify import verify
from retrieval.types import Scope

TESTS = Path(__file__).parents[2]
PROCESS = Path(__file__).parent / "ingest_process.py"
N_PAGES = 40
KILLS = int(os.environ.get("TANDEM_TEST_KILLS", "6"))  # 120 for the proof in docs/LOG.md


def page(number, edition):
    return f"# Page {number}\n\nPage {number} in edition {edition} tells fact{number}x{edition}.\n"


def run(home, pages, job, kill_at=0):
    """Run the job in a process of its own; its moments, or None if it was killed."""
    environment = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    done = subprocess.run(
        [sys.executable, str(PROCESS), str(home), str(pages), job, str(kill_at)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr
    word, moments = done.stdout.split()
    assert word == "finished"
    return int(moments)


def moments_of(home, pages, tmp_path):
    """How many moments the coming job has, tried on a copy."""
    copy = tmp_path / "copy"
    if home.exists():
        shutil.copytree(home, copy)
    moments = run(copy, pages, "trial")
    shutil.rmtree(copy)
    return moments


def kill_twice_then_finish(home, pages, job, moments, chance):
    """Kill the job midway, its restart too if that gets so far, then let it finish."""
    assert run(home, pages, job, chance.randint(1, moments * 9 // 10)) is None
    killed = 1 + (run(home, pages, job, chance.randint(1, moments // 2)) is None)
    assert run(home, pages, job) is not None
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
            assert sum(f"fact{number}x{edition}." in text for text in texts) == 1
        scope = Scope(kb.workspace_id, kb.id)
        index = container.knowledge.of(kb).index
        assert index.chunk_ids(scope) == {chunk_id for chunk_id, _ in rows}
        assert verify(container.database, container.knowledge, kb.id, repair=False).clean
        fact = f"fact7x{editions['p07.md']}"
        question = service.Question(kb.workspace_id, (kb.id,), fact, 3)
        found = service.search(container.database, container.knowledge, question)
        assert fact in found.hits[0].text
    finally:
        container.close()


def edit(pages, editions, chance):
    """Change half of the pages, drop two, bring back those dropped before."""
    for number in range(N_PAGES):
        name = f"p{number:02}.md"
        if name not in editions:
            editions[name] = 2
    for name in ["p07.md", *chance.sample(sorted(set(editions) - {"p07.md"}), N_PAGES // 2)]:
        editions[name] += 1
    for name in chance.sample(sorted(set(editions) - {"p07.md"}), 2):
        del editions[name]
        (pages / name).unlink(missing_ok=True)
    write_pages(pages, {name: page(int(name[1:3]), n) for name, n in editions.items()})


@pytest.mark.timeout(600 + 30 * KILLS)
def test_killed_ingestion_ends_with_every_document_exactly_once(tmp_path):
    chance = random.Random(20)
    home, pages = tmp_path / "home", tmp_path / "pages"
    editions = {f"p{n:02}.md": 1 for n in range(N_PAGES)}
    write_pages(pages, {name: page(int(name[1:3]), 1) for name in editions})
    moments = moments_of(home, pages, tmp_path)
    killed = kill_twice_then_finish(home, pages, "first", moments, chance)
    check(home, editions)

    moments = None
    for number in range(1, KILLS // 2):
        edit(pages, editions, chance)
        moments = moments or moments_of(home, pages, tmp_path)
        killed += kill_twice_then_finish(home, pages, f"edit {number}", moments, chance)
        check(home, editions)
        print(f"{number + 1} jobs, {killed} runs killed, all whole", flush=True)
    print(f"{killed} runs of {KILLS // 2} jobs were killed midway")
    shutil.rmtree(home)
