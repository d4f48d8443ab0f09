"""Another embedding model takes over only when it is not worse, and nobody notices meanwhile."""

import threading
import time

import numpy as np
import pytest
from factories import make_knowledge, make_settings
from fakes import HashingEncoder
from knowledge_world import InlineJob, World

from app.db.tables import KnowledgeBase
from app.errors import BadInput
from app.knowledge import migration, service
from app.knowledge.migration import EmbeddingMigration
from app.knowledge.verify import verify

SUBJECTS = """
brake-pads helmets locks tyres lights saddles pedals chains bells racks pumps gloves wheels spokes
mirrors cables levers grips stands bags trailers seats batteries chargers displays motors sensors
fenders reflectors bottles
""".split()  # noqa: SIM905
PAGES = {
    f"{subject}.md": (
        f"# {subject.title()}\n\nThe workshop replaces {subject} within {n + 2} working days "
        f"after the customer has booked a visit for the {subject}.\n"
    )
    for n, subject in enumerate(SUBJECTS)
}


class Renamed(HashingEncoder):
    """The same quality under another identity."""

    identity = "renamed@1"


class Sabotaged(HashingEncoder):
    """Vectors that have nothing to do with the text."""

    identity = "sabotaged@1"

    def embed_passages(self, texts, batch_size=None):
        rng = np.random.default_rng(7)
        made = rng.normal(size=(len(texts), self.dimension)).astype(np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True) if len(texts) else made


@pytest.fixture
def local(tmp_path, monkeypatch):
    monkeypatch.setattr(migration, "_GRACE_S", 0.2)
    world = World(tmp_path)
    settings = make_settings(tmp_path)
    for source, encoder in (("renamed", Renamed()), ("sabotaged", Sabotaged())):
        part = make_knowledge(settings, encoder)
        world.knowledge._by_source[source] = part
    world.knowledge._by_source[None] = world.part
    world.ingest(PAGES)
    yield world
    world.close()


def migrate(world, model, **payload):
    job = InlineJob(knowledge_base_id=world.kb.id, model=model, **payload)
    job.job_id = f"{model}-0123456789"
    return EmbeddingMigration(world.database, world.knowledge).run(job)


def serving(world):
    with world.database.session() as session:
        return session.get_one(KnowledgeBase, world.kb.id)


class Asking:
    """Asks without pause on threads of its own and keeps every failure."""

    def __init__(self, world):
        self.world, self.asked, self.failed = world, 0, []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stop.is_set():
            subject = SUBJECTS[self.asked % len(SUBJECTS)]
            hits = self.world.search(f"workshop replaces {subject} working days", 3)
            if not any(subject in hit.text for hit in hits):
                self.failed.append((subject, [hit.text for hit in hits]))
            self.asked += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def test_a_model_as_good_takes_over_without_a_failed_question(local):
    before = serving(local)
    with Asking(local) as asking:
        result = migrate(local, "renamed")
        time.sleep(0.3)
    assert result["accepted"]
    assert result["switched"]
    assert asking.asked > 20
    assert asking.failed == []
    after = serving(local)
    assert (after.embedder, after.embedder_source) == ("renamed@1", "renamed")
    assert after.index_name != before.index_name
    assert local.part.index.count(local.scope) == 0
    assert verify(local.database, local.knowledge, local.kb.id, repair=False, sample=100).clean
    assert local.counts({"locks.md": "# Locks\n\nLocks are replaced within 99 days.\n"}) == {
        "changed": 1,
        "unchanged": len(PAGES) - 1,
    }
    assert "99 days" in local.best("Locks are replaced within days")
    assert verify(local.database, local.knowledge, local.kb.id, repair=False, sample=100).clean


def test_a_sabotaged_model_is_rejected_and_nothing_changes(local):
    before = serving(local)
    with Asking(local) as asking:
        result = migrate(local, "sabotaged")
    assert not result["accepted"]
    assert not result["switched"]
    assert "below the margin" in result["reason"]
    assert asking.failed == []
    after = serving(local)
    assert (after.embedder, after.index_name) == (before.embedder, before.index_name)
    folders = {f.name for f in (local.root / "index" / local.workspace).iterdir()}
    assert folders == {before.index_name}
    local.assert_sql_and_vectors_agree()


def test_golden_questions_have_a_say_of_their_own(local):
    golden = [
        {"question": f"When are {s} replaced?", "gold": [name], "answers": [f"{n + 2} working"]}
        for n, (s, name) in enumerate(zip(SUBJECTS, PAGES, strict=True))
    ]
    result = migrate(local, "renamed", golden=golden, dry_run=True)
    assert result["accepted"]
    assert not result["switched"]
    rows = {row["questions"]: row for row in result["table"]}
    assert rows["golden"]["n"] == 30
    assert rows["golden"]["answer_in_passages_new"] == 1.0
    assert serving(local).embedder == "hashing@0"


def test_too_few_questions_are_no_evidence(local):
    result = migrate(local, "renamed", limit=5)
    assert not result["accepted"]
    assert "at least 20" in result["reason"]


def test_the_model_in_use_is_no_migration(local):
    with pytest.raises(BadInput, match="already"):
        migrate(local, None)


def test_documents_that_come_in_meanwhile_are_there_after_the_switch(local, monkeypatch):
    compare = EmbeddingMigration._compare

    def meanwhile(self, job, kb, new):
        local.ingest({"extra.md": "# Extra\n\nExtra words about unicycles.\n"})
        service.delete_document(
            local.database, local.knowledge, local.workspace, "docs", "bells.md"
        )
        return compare(self, job, kb, new)

    monkeypatch.setattr(EmbeddingMigration, "_compare", meanwhile)
    assert migrate(local, "renamed")["switched"]
    assert "unicycles" in local.best("words about unicycles")
    assert all("bells" not in hit.text for hit in local.search("workshop replaces bells"))
    assert verify(local.database, local.knowledge, local.kb.id, repair=False, sample=100).clean
