"""Change a knowledge base's embedding model while it goes on answering.

A second shard is filled beside the serving one, both answer the same questions, and one SQL
commit switches if the new model is not worse by more than a margin; otherwise nothing happened.
"""

from __future__ import annotations

import time
from typing import Any

from app.db.session import Database
from app.db.tables import KnowledgeBase
from app.errors import BadInput
from app.jobs.runner import JobContext
from app.knowledge import migration_gate, repository
from app.knowledge.indexes import KnowledgeIndex, KnowledgeIndexes, live_scope, past_scope
from app.knowledge.service import index_chunks
from retrieval.types import Scope

_WINDOW = 512
_GRACE_S = 5.0


class EmbeddingMigration:
    """Runs `migrate` jobs. Every part finds what an interrupted run has done already."""

    def __init__(self, database: Database, indexes: KnowledgeIndexes) -> None:
        self._database = database
        self._indexes = indexes

    def run(self, job: JobContext) -> dict[str, Any]:
        """Handler. Payload: knowledge_base_id, model, golden, margin, limit, dry_run."""
        kb = self._kb(job)
        old = job.step("remember", lambda: {"name": kb.index_name, "source": kb.embedder_source})
        new = self._target(kb, job)
        if kb.index_name != new.index_name:
            self._fill(job, new)
        # Steps that were done before an interruption return what they returned then.
        report = job.step("compare", lambda: self._compare(job, kb, new))
        if not report["accepted"] or job.payload.get("dry_run"):
            self._drop(new, self._knowledge(new))
            return report | {"switched": False}
        if kb.index_name != new.index_name:
            self._switch(job, kb, new)
        self._retire(kb, str(old["name"]), old["source"])
        return report | {"switched": True}

    def _kb(self, job: JobContext) -> KnowledgeBase:
        with self._database.reading() as session:
            return session.get_one(KnowledgeBase, job.payload["knowledge_base_id"])

    def _target(self, kb: KnowledgeBase, job: JobContext) -> KnowledgeBase:
        """The knowledge base as it will be; not stored before the switch."""
        source = job.payload.get("model")
        embedder = self._indexes.by_source(source).embedder.identity
        name = f"{kb.id}-{job.job_id[:8]}"
        if embedder == kb.embedder and kb.index_name != name:
            raise BadInput(f"knowledge base {kb.name!r} is embedded with {embedder} already")
        return KnowledgeBase(
            id=kb.id,
            workspace_id=kb.workspace_id,
            name=kb.name,
            embedder=embedder,
            embedder_source=source,
            index_name=name,
        )

    def _knowledge(self, kb: KnowledgeBase) -> KnowledgeIndex:
        return self._indexes.by_source(kb.embedder_source)

    def _fill(self, job: JobContext, new: KnowledgeBase) -> None:
        """Embed all that is there, again until nothing came in meanwhile."""
        while True:
            work = self._missing(new)
            todo = sum(len(ids) for _, ids in work)
            if not todo:
                return
            done = 0
            for scope, ids in work:
                for start in range(0, len(ids), _WINDOW):
                    window = ids[start : start + _WINDOW]
                    index_chunks(self._database, self._knowledge(new), scope, window)
                    done += len(window)
                    job.progress(min(done, todo), todo, f"embedding with {new.embedder}")
            self._knowledge(new).index.flush()

    def _missing(self, new: KnowledgeBase) -> list[tuple[Scope, list[str]]]:
        """Per shard of the new model, the chunks it lacks; what SQL has dropped is removed."""
        index = self._knowledge(new).index
        work = []
        for scope, past in ((live_scope(new), False), (past_scope(new), True)):
            with self._database.reading() as session:
                wanted = repository.expected_hashes(session, new, past=past)
            stored = index.chunk_hashes(scope)
            index.delete_chunks(scope, sorted(set(stored) - set(wanted)))
            work.append((scope, [i for i, h in wanted.items() if stored.get(i) != h]))
        return work

    def _compare(self, job: JobContext, kb: KnowledgeBase, new: KnowledgeBase) -> dict[str, Any]:
        job.progress(0, 1, "asking both models the same questions")
        questions = migration_gate.questions(
            self._database, kb, job.payload.get("golden") or [], job.payload.get("limit", 200)
        )
        pair = (self._knowledge(kb), live_scope(kb)), (self._knowledge(new), live_scope(new))
        return migration_gate.compare(
            self._database,
            kb,
            pair,
            questions,
            margin=job.payload.get("margin", migration_gate.MARGIN),
        )

    def _switch(self, job: JobContext, kb: KnowledgeBase, new: KnowledgeBase) -> None:
        with self._indexes.writing(kb.id):
            self._fill(job, new)  # what came in during the comparison; nothing can come now
            with self._database.session() as session:
                serving = session.get_one(KnowledgeBase, kb.id)
                serving.embedder = new.embedder
                serving.embedder_source = new.embedder_source
                serving.index_name = new.index_name

    def _retire(self, kb: KnowledgeBase, old_name: str, old_source: str | None) -> None:
        """Drop the old shards once no question that started on them can be under way."""
        time.sleep(_GRACE_S)
        old = KnowledgeBase(
            id=kb.id,
            workspace_id=kb.workspace_id,
            name=kb.name,
            embedder_source=old_source,
            index_name=old_name,
        )
        self._drop(old, self._knowledge(old))

    def _drop(self, kb: KnowledgeBase, knowledge: KnowledgeIndex) -> None:
        knowledge.index.drop(live_scope(kb))
        knowledge.index.drop(past_scope(kb))
