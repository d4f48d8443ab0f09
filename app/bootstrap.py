"""Composition root: the one place that turns Settings into objects.

Cheap parts (database, jobs) are made at once; models load at first use, so that `tandem keys list`
does not wait for them.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa

from app.admission.callers import Callers
from app.admission.gate import Gate
from app.admission.quotas import MemoryQuotas, QuotaStore
from app.admission.redis_quotas import RedisQuotas
from app.admission.service import Admission
from app.answers.cache import AnswerCache
from app.answers.chain import AnswerChain, Bounds, Ports
from app.answers.generating import Generator
from app.answers.running import AnswerRunner
from app.answers.service import AnswerService, describe_versions
from app.answers.types import AnswerRequest, Plan
from app.config import Settings
from app.db.base import now
from app.db.migrations import upgrade
from app.db.session import Database
from app.engines.choice import OWN_ENGINES, make_engine
from app.engines.spares import make_spares
from app.engines.types import Engine
from app.errors import Conflict
from app.evaluations.jobs import EvaluationJob
from app.evaluations.judge import JudgeJob
from app.jobs.runner import JobContext, JobRunner
from app.knowledge import repository as knowledge_rows
from app.knowledge import service as knowledge_service
from app.knowledge.indexes import KnowledgeIndex, KnowledgeIndexes, Load
from app.knowledge.ingest import Ingestion
from app.knowledge.migration import EmbeddingMigration
from app.knowledge.schedule import Ticker, activate_due
from app.knowledge.sources import AddressRules, WebRules
from app.knowledge.verify import mark_clean, mend_after_crash
from app.knowledge.view import View
from app.metrics import Gauge, Metrics
from app.models.service import BaseModel, ModelStore
from app.tuning_runs import reader as shipped_reader
from app.tuning_runs.jobs import TuningJob
from app.workspaces import service as workspaces
from app.workspaces.operator import operator_secret
from retrieval.chunking import ChunkingOptions
from retrieval.edge import EdgeIndex
from retrieval.embedding import Embedder, Passes
from retrieval.followup import Turn, standalone_query
from retrieval.index import VectorIndex
from retrieval.reranking import CrossEncoderReranker, Reranker
from retrieval.search import HybridSearcher, SearchOptions, SearchResult
from tuning.base_model import load_tokenizer
from tuning.prompt import encode_text

# Renewed while a request runs, so it bounds only how long those of a killed process count.
_LEASE_S = 30.0


def _quiet_progress_bars() -> None:
    """Model loading is not the user's progress; transformers draws bars for it."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _one_torch_thread_each() -> int:
    """Hold torch to one thread per forward pass; how many passes to run side by side instead.

    Torch starts an OpenMP team for every Python thread that embeds. With more team threads than
    cores, libgomp hardly spins at barriers any more, and llama.cpp, which shares the library and
    meets at a barrier per operation, answers about 2.5 times slower (docs/LOG.md, Threads).
    """
    import torch

    torch.set_num_threads(1)
    return os.cpu_count() or 1


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
        load_index: Load | None = None,
        engine: Engine | None = None,
        tokenizer: Any = None,
    ) -> None:
        """Make the cheap parts; `load_index`, `engine` and `tokenizer` replace the real ones."""
        self.settings = settings
        for name, part in (("_engine", engine), ("tokenizer", tokenizer)):
            if part is not None:
                self.__dict__[name] = part
        self._load_index = load_index or self._real_index
        self.database = Database(settings.sql_url)
        self.models = ModelStore(settings)
        self.metrics = Metrics()
        self.callers = Callers(self.database, lambda: self.operator_proof)
        self.admission = self._admission()
        self.runner = AnswerRunner(settings.answers_at_once)
        self.jobs = JobRunner(
            self.database,
            settings.jobs_sql_url,
            {
                "ingest": self._ingest,
                "migrate": self._migrate,
                "tune": self._tune,
                "evaluate": self._evaluate,
                "judge": self._judge,
            },
        )
        self._lock = threading.RLock()
        self.ticker = Ticker(self.database, lambda: self.knowledge, self.jobs.submit)

    def _admission(self) -> Admission:
        settings = self.settings
        gate = Gate(settings.answers_at_once, settings.answers_waiting, settings.patience_s)
        about = "Requests being answered."
        self.metrics.gauges += [
            Gauge("tandem_requests_inside", about, lambda: gate.inside),
            Gauge("tandem_requests_waiting", "Requests in the queue.", lambda: gate.waiting),
        ]
        quotas: QuotaStore = MemoryQuotas()
        if settings.redis_url is not None:
            quotas = RedisQuotas(settings.redis_url, lease_s=_LEASE_S)
        return Admission(self.database, quotas, gate)

    def prepare(self) -> None:
        """Bring the database up to date and make the default workspace."""
        upgrade(self.database)
        with self.database.session() as session:
            workspaces.ensure_default_workspace(session)
        activate_due(self.database, lambda: self.knowledge, now())

    @cached_property
    def operator_proof(self) -> str:
        """The secret that proves access to the data directory."""
        return operator_secret(self.settings.root)

    @property
    def knowledge(self) -> KnowledgeIndexes:
        """Embedders and vector indexes; what a killed process left is mended at first use."""
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
        return self.knowledge.by_source(None).embedder.identity

    @cached_property
    def _knowledge(self) -> KnowledgeIndexes:
        indexes = KnowledgeIndexes(self._load_index)
        mend_after_crash(self.database, indexes, self.settings.root)
        return indexes

    def _real_index(self, source: str | None) -> KnowledgeIndex:
        """The index of the configured embedding model, or of another one by folder or name."""
        _quiet_progress_bars()
        embedder = Embedder(
            self.models.embedding(source),
            name=Path(source).name if source else self.settings.embedding_model,
            passes=Passes(_one_torch_thread_each(), self.settings.questions_per_pass),
        )
        index = self._vector_index(embedder)
        chunking = ChunkingOptions(
            max_tokens=self.settings.chunk_tokens,
            min_tokens=min(40, self.settings.chunk_tokens // 3),
        )
        options = SearchOptions(
            diversity=self.settings.search_diversity, neighbours=self.settings.search_neighbours
        )
        searcher = HybridSearcher(index, embedder, self._reranker, options=options)
        return KnowledgeIndex(index, embedder, searcher, chunking)

    @cached_property
    def _reranker(self) -> Reranker | None:
        name = self.settings.reranker
        return None if name is None else CrossEncoderReranker(name)

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
        return make_engine(self.settings, self.base)

    @cached_property
    def _spare_engines(self) -> tuple[Engine, ...]:
        return make_spares(self.settings, self.base)

    @cached_property
    def _answers(self) -> AnswerService:
        reader = self.admit_reader()
        tokenizer = self.tokenizer

        @lru_cache(maxsize=4096)  # the same passages are found again and again
        def count_tokens(text: str) -> int:
            return len(encode_text(tokenizer, text))

        def search(request: AnswerRequest, plan: Plan) -> SearchResult:
            view = View(request.groups, request.as_of, request.without_documents, request.where)
            turns = [
                Turn(turn["role"], turn["content"])
                for turn in request.history
                if turn["role"] != "system"
            ]
            question = knowledge_service.Question(
                request.workspace_id,
                plan.knowledge_base_ids,
                standalone_query(request.question, turns),
                self.settings.passages,
                view,
            )
            return knowledge_service.search(self.database, self.knowledge, question)

        def embed(request: AnswerRequest, plan: Plan) -> list[float] | None:
            with self.database.rows() as rows:
                bases = knowledge_rows.knowledge_bases(
                    rows, request.workspace_id, plan.knowledge_base_ids
                )
            if not bases:
                return None
            vector = self.knowledge.of(bases[0]).embedder.embed_query(request.question)
            return [float(value) for value in vector]

        def still_visible(request: AnswerRequest, versions: Sequence[str]) -> bool:
            view = View(request.groups, request.as_of, request.without_documents, request.where)
            with self.database.rows() as rows:
                visible = knowledge_rows.visible_versions(
                    rows, request.workspace_id, versions, view
                )
            return visible == set(versions)

        chain = AnswerChain(
            generator=Generator(self.engine, self.settings.answers_at_once),
            tokenizer=tokenizer,
            ports=Ports(
                search=search,
                describe_versions=lambda ids: describe_versions(self.database, ids),
                embed=embed,
                still_visible=still_visible,
            ),
            count_tokens=count_tokens,
            bounds=Bounds(
                self.settings.context_budget_tokens,
                self.settings.max_answer_tokens,
                self.settings.answer_timeout_s,
            ),
            cache=AnswerCache(self.database, self.metrics.count_cache),
        )
        return AnswerService(self.database, chain, reader, self._before_spares(chain))

    def _before_spares(self, chain: AnswerChain) -> list[AnswerChain]:
        at_once = self.settings.answers_at_once
        return [chain.on(Generator(engine, at_once)) for engine in self._spare_engines]

    def admit_reader(self) -> str | None:
        """Digest of the shipped reader, now ready to serve; None where it does not fit."""
        if isinstance(self.engine, OWN_ENGINES):
            return shipped_reader.ensure(self.database, self.base, self.settings.root)
        return None

    def _ingest(self, job: JobContext) -> dict[str, Any]:
        rules = WebRules(AddressRules.of(self.settings.source_allow, self.settings.source_ports))
        return Ingestion(self.database, self.knowledge, self.settings.root, rules).run(job)

    def _migrate(self, job: JobContext) -> dict[str, Any]:
        return EmbeddingMigration(self.database, self.knowledge).run(job)

    def _tune(self, job: JobContext) -> dict[str, Any]:
        return TuningJob(self.database, self.settings.root, self.base).run(job)

    def _evaluate(self, job: JobContext) -> dict[str, Any]:
        return EvaluationJob(self.database, self.settings.root, self.answers).run(job)

    def _judge(self, job: JobContext) -> dict[str, Any]:
        return JudgeJob(self.database, lambda: self.engine, lambda: self.tokenizer).run(job)

    def ready(self) -> dict[str, str]:
        """What `/ready` reports; raises when the database does not answer."""
        with self.database.session() as session:
            session.execute(sa.select(1))
        present = all(row["present"] for row in self.models.describe())
        return {"database": "ok", "models": "ok" if present else "run `tandem models pull`"}

    def close(self) -> None:
        """Stop jobs, flush the index, free the models."""
        self.ticker.stop()
        self.runner.close()
        if "_answers" in self.__dict__:
            self._answers.close()
        self.jobs.close()
        if "_knowledge" in self.__dict__:
            self._knowledge.close()
            # A job that was cut short may have left vectors that only the next start can judge.
            if not self.jobs.has_unfinished():
                mark_clean(self.settings.root)
        if "_engine" in self.__dict__:
            self._engine.close()
        for engine in self.__dict__.get("_spare_engines", ()):
            engine.close()
        self.database.close()
