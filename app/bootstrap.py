"""Composition root: the one place that turns Settings into objects.

Cheap parts (database, jobs) are made at once; models load at first use, so that `tandem keys list`
does not wait for them.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa

from app.answers.chain import AnswerChain
from app.answers.service import AnswerService, describe_versions
from app.answers.types import AnswerRequest, Plan
from app.config import Settings
from app.db.migrations import upgrade
from app.db.session import Database
from app.engines.llamacpp import LlamaCppEngine
from app.engines.types import Engine
from app.errors import Conflict
from app.evaluations.jobs import EvaluationJob
from app.jobs.runner import JobContext, JobRunner
from app.knowledge import service as knowledge_service
from app.knowledge.ingest import Ingestion
from app.knowledge.service import KnowledgeIndex
from app.models.service import BaseModel, ModelStore
from app.tuning_runs import reader as shipped_reader
from app.tuning_runs.jobs import TuningJob
from app.workspaces import service as workspaces
from app.workspaces.operator import operator_secret
from retrieval.chunking import ChunkingOptions
from retrieval.edge import EdgeIndex
from retrieval.embedding import Embedder
from retrieval.index import VectorIndex
from retrieval.search import HybridSearcher, SearchResult
from tuning.base_model import load_tokenizer


def _quiet_progress_bars() -> None:
    """Model loading is not the user's progress; transformers draws bars for it."""
    from transformers.utils import logging

    logging.disable_progress_bar()


class HomeLock:
    """The data directory belongs to one process; `server.json` says where a server listens."""

    def __init__(self, root: Path) -> None:
        self._path = root / "tandem.lock"
        self._address = root / "server.json"
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the directory, or say who has it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise Conflict(
                f"the data directory {self._path.parent} is in use by {holder}: wait for it to end"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        self._file = file

    def publish(self, url: str) -> None:
        """Tell commands where the running server listens."""
        self._address.write_text(json.dumps({"url": url, "pid": os.getpid()}), "utf-8")

    def release(self) -> None:
        """Give the directory free."""
        if self._file is not None:
            self._address.unlink(missing_ok=True)
            self._file.truncate(0)
            self._file.close()
            self._file = None


class Container:
    """Everything the endpoints need, made once per process."""

    def __init__(
        self,
        settings: Settings,
        *,
        knowledge: KnowledgeIndex | None = None,
        engine: Engine | None = None,
        tokenizer: Any = None,
    ) -> None:
        """Make the cheap parts; `knowledge`, `engine` and `tokenizer` replace the real ones."""
        self.settings = settings
        for name, part in (
            ("_knowledge", knowledge),
            ("_engine", engine),
            ("tokenizer", tokenizer),
        ):
            if part is not None:
                self.__dict__[name] = part
        self.database = Database(settings.sql_url)
        self.models = ModelStore(settings)
        self.jobs = JobRunner(
            self.database,
            settings.jobs_sql_url,
            {"ingest": self._ingest, "tune": self._tune, "evaluate": self._evaluate},
        )
        self._lock = threading.RLock()

    def prepare(self) -> None:
        """Bring the database up to date and make the default workspace."""
        upgrade(self.database)
        with self.database.session() as session:
            workspaces.ensure_default_workspace(session)

    @cached_property
    def operator_proof(self) -> str:
        """The secret that proves access to the data directory."""
        return operator_secret(self.settings.root)

    @property
    def knowledge(self) -> KnowledgeIndex:
        """Embedder and vector index; loads the embedding model at first use."""
        with self._lock:
            return self._knowledge

    @property
    def engine(self) -> Engine:
        """The text generator; loads the base model at first use."""
        with self._lock:
            return self._engine

    @property
    def answers(self) -> AnswerService:
        """The answer service; loads both models at first use."""
        with self._lock:
            return self._answers

    @cached_property
    def base(self) -> BaseModel:
        """The configured base model's files."""
        return self.models.base()

    @cached_property
    def embedder_name(self) -> str:
        """What a new knowledge base records as its embedding model."""
        return self.knowledge.embedder.identity

    @cached_property
    def _knowledge(self) -> KnowledgeIndex:
        _quiet_progress_bars()
        embedder = Embedder(self.models.embedding(), name=self.settings.embedding_model)
        index = self._vector_index(embedder)
        chunking = ChunkingOptions(
            max_tokens=self.settings.chunk_tokens,
            min_tokens=min(40, self.settings.chunk_tokens // 3),
        )
        return KnowledgeIndex(index, embedder, HybridSearcher(index, embedder), chunking)

    def _vector_index(self, embedder: Embedder) -> VectorIndex:
        shape: dict[str, Any] = {
            "dimension": embedder.dimension,
            "model_identity": embedder.identity,
        }
        if self.settings.qdrant_url is None:
            return EdgeIndex(self.settings.root / "index", **shape)
        from qdrant_client import QdrantClient

        from retrieval.server import ServerIndex

        return ServerIndex(QdrantClient(url=self.settings.qdrant_url), **shape)

    @cached_property
    def tokenizer(self) -> Any:
        """The base model's tokenizer, the same in tuning and serving."""
        return load_tokenizer(self.base.hf)

    @cached_property
    def _engine(self) -> Engine:
        if self.base.gguf is None:
            from app.engines.transformers import TransformersEngine

            return TransformersEngine(
                self.base.hf,
                base_sha256=self.base.sha256,
                context_tokens=self.settings.context_tokens,
            )
        return LlamaCppEngine(
            self.base.gguf,
            base_sha256=self.base.sha256,
            threads=self.settings.threads,
            slots=self.settings.slots,
            context_tokens=self.settings.context_tokens,
            max_adapters=self.settings.max_resident_adapters,
        )

    @cached_property
    def _answers(self) -> AnswerService:
        reader = self._reader()
        tokenizer = self.tokenizer

        def count_tokens(text: str) -> int:
            return len(tokenizer(text, add_special_tokens=False)["input_ids"])

        def search(request: AnswerRequest, plan: Plan) -> SearchResult:
            return knowledge_service.search(
                self.database,
                self.knowledge,
                request.workspace_id,
                plan.knowledge_base_ids,
                request.question,
                self.settings.passages,
                without=request.without_documents,
            )

        chain = AnswerChain(
            engine=self.engine,
            tokenizer=tokenizer,
            search=search,
            describe_versions=lambda ids: describe_versions(self.database, ids),
            count_tokens=count_tokens,
            context_budget_tokens=self.settings.context_budget_tokens,
            max_answer_tokens=self.settings.max_answer_tokens,
        )
        return AnswerService(self.database, chain, reader)

    def _reader(self) -> str | None:
        if isinstance(self.engine, LlamaCppEngine):
            return shipped_reader.ensure(self.database, self.base, self.settings.root)
        return None

    def _ingest(self, job: JobContext) -> dict[str, Any]:
        return Ingestion(self.database, self.knowledge).run(job)

    def _tune(self, job: JobContext) -> dict[str, Any]:
        return TuningJob(self.database, self.settings.root, self.base).run(job)

    def _evaluate(self, job: JobContext) -> dict[str, Any]:
        return EvaluationJob(self.database, self.settings.root, self.answers).run(job)

    def ready(self) -> dict[str, str]:
        """What `/ready` reports; raises when the database does not answer."""
        with self.database.session() as session:
            session.execute(sa.select(1))
        present = all(row["present"] for row in self.models.describe())
        return {"database": "ok", "models": "ok" if present else "run `tandem models pull`"}

    def close(self) -> None:
        """Stop jobs, flush the index, free the models."""
        self.jobs.close()
        if "_knowledge" in self.__dict__:
            self._knowledge.index.close()
        if "_engine" in self.__dict__:
            self._engine.close()
        self.database.close()
