"""A knowledge base with real SQL and real vectors, ingested without a job queue."""

import sqlalchemy as sa
from factories import make_knowledge, make_settings, write_pages

from app.db.migrations import upgrade
from app.db.session import Database
from app.db.tables import Chunk, Document
from app.knowledge import service
from app.knowledge.indexes import KnowledgeIndexes
from app.knowledge.ingest import Ingestion
from app.knowledge.verify import verify
from app.knowledge.view import View
from app.workspaces import service as workspaces
from retrieval.types import Scope

RIPPLE = "# Plans\n\nThe Ripple plan costs {} euros a month.\n"
THREE = {
    "plans.md": RIPPLE.format(49),
    "sub/returns.md": "# Returns\n\nA helmet can be returned within 21 days.\n",
    "hours.txt": "Opening hours of the workshop are 8:30 to 18:00.\n",
}


class InlineJob:
    """Runs every step at once, as a job that is never interrupted does."""

    def __init__(self, **payload) -> None:
        self.job_id = "inline"
        self.payload = {"sync": False, "valid_from": None} | payload
        self.shown = []

    def step(self, name, work):
        return work()

    def progress(self, done, total, message=""):
        self.shown.append((done, total))


class World:
    def __init__(self, home, url=None):
        settings = make_settings(home, database_url=url)
        self.database = Database(settings.sql_url)
        upgrade(self.database)
        self.part = make_knowledge(settings)
        self.knowledge = KnowledgeIndexes(lambda _source: self.part)
        self.root = settings.root
        with self.database.session() as session:
            self.workspace = workspaces.ensure_default_workspace(session).id
            self.kb = service.create(session, self.workspace, "docs", "hashing@0")
        self.scope = Scope(self.workspace, self.kb.id)
        self.pages = home / "pages"

    def ingest(self, pages=None, **payload):
        if pages is not None:
            write_pages(self.pages, pages)
        paths = payload.pop("paths", [str(self.pages)])
        job = InlineJob(knowledge_base_id=self.kb.id, paths=paths, **payload)
        return Ingestion(self.database, self.knowledge, self.root).run(job)

    def counts(self, *args, **payload):
        return {k: n for k, n in self.ingest(*args, **payload)["counts"].items() if n}

    def search(self, question, limit=5, **view):
        asked = service.Question(self.workspace, (self.kb.id,), question, limit, View(**view))
        return service.search(self.database, self.knowledge, asked).hits

    def best(self, question, **view):
        hits = self.search(question, 1, **view)
        return hits[0].text if hits else None

    def visible_chunks(self):
        with self.database.session() as session:
            query = sa.select(Chunk.id).join(
                Document, Document.current_version_id == Chunk.version_id
            )
            return sorted(session.scalars(query))

    def assert_sql_and_vectors_agree(self):
        assert sorted(self.part.index.chunk_ids(self.scope)) == self.visible_chunks()
        assert self.part.index.count(self.scope) == len(self.visible_chunks())
        assert verify(self.database, self.knowledge, self.kb.id, repair=False, sample=50).clean

    def close(self):
        self.part.index.close()
        self.database.close()
