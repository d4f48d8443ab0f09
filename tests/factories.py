"""Builders of containers, workspaces and answers for tests of the service."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fakes import FakeEngine, HashingEncoder, make_byte_tokenizer

from app.bootstrap import Container
from app.config import Settings
from app.db.base import now
from app.db.session import Database
from app.db.tables import (
    Adapter,
    Answer,
    AnswerChunk,
    Chunk,
    Document,
    DocumentVersion,
    KnowledgeBase,
    UseCase,
)
from app.knowledge.indexes import KnowledgeIndex
from app.models.service import BaseModel
from app.workspaces import service as workspaces
from app.workspaces.policy import Principal
from retrieval.chunking import ChunkingOptions
from retrieval.edge import EdgeIndex
from retrieval.search import HybridSearcher

READER_DIGEST = "ab" * 32


def make_settings(home: Path, **changes) -> Settings:
    values = {
        "home": home,
        "context_budget_tokens": 6000,
        "chunk_tokens": 60,
        "max_answer_tokens": 160,
        "max_upload_bytes": 200_000,
        **changes,
    }
    return Settings(_env_file=None, **values)


def make_knowledge(settings: Settings, encoder: HashingEncoder | None = None) -> KnowledgeIndex:
    encoder = encoder or HashingEncoder()
    index = EdgeIndex(
        settings.root / "index", dimension=encoder.dimension, model_identity=encoder.identity
    )
    chunking = ChunkingOptions(max_tokens=settings.chunk_tokens, min_tokens=10)
    return KnowledgeIndex(index, encoder, HybridSearcher(index, encoder), chunking)


def make_container(home: Path, *, answers: bool = True, **changes) -> Container:
    """A container with real SQL and vectors, and models that need no weights.

    `answers=False` leaves engine and tokenizer out, whose imports take seconds.
    """
    settings = make_settings(home, **changes)
    container = Container(settings, load_index=lambda _source: make_knowledge(settings))
    if answers:
        tokenizer = make_byte_tokenizer()
        container.__dict__.update(
            _engine=FakeEngine(tokenizer),
            tokenizer=tokenizer,
            base=BaseModel("fake", "0" * 64, str(home), None),
        )
    return container


def add_adapter(
    container: Container, name: str, digest: str = READER_DIGEST, workspace_id: str | None = None
) -> str:
    """An adapter row whose files the fake engine never opens; returns its id."""
    with container.database.session() as session:
        row = Adapter(
            workspace_id=workspace_id,
            name=name,
            digest=digest,
            path="/nowhere",
            gguf_path="/nowhere.gguf",
            base_sha256="0" * 64,
            manifest={"rank": 8},
        )
        session.add(row)
        session.flush()
        return row.id


def make_database(url: str = "sqlite://") -> Database:
    """An empty database with all tables (made from the models, not by migrations)."""
    from sqlalchemy.pool import StaticPool

    from app.db.base import Base

    database = Database(url)
    if url == "sqlite://":
        database.engine.pool = StaticPool(database.engine.pool._creator)
    Base.metadata.create_all(database.engine)
    return database


def principal_of(session, name: str, role: str = "owner", workspace: str = "default") -> Principal:
    from app.db.tables import Workspace

    found = session.query(Workspace).filter_by(name=workspace).one_or_none()
    found = found or workspaces.create_workspace(session, workspace)
    return Principal(found.id, workspace, name, role)


def add_answer(session, principal: Principal, passages: Iterable[str], **fields) -> Answer:
    """A recorded answer that was given `passages`, each the only chunk of its own document."""
    kb = KnowledgeBase(
        workspace_id=principal.workspace_id, name=f"kb-{time.monotonic_ns()}", embedder="x"
    )
    session.add(kb)
    session.flush()
    use_case = UseCase(
        workspace_id=principal.workspace_id,
        name=f"uc-{time.monotonic_ns()}",
        knowledge_base_ids=[kb.id],
        system_prompt="",
        abstain_sentence="I could not find this in the knowledge base.",
        options={},
    )
    session.add(use_case)
    session.flush()
    answer = Answer(
        workspace_id=principal.workspace_id,
        use_case_id=use_case.id,
        history=[],
        identity={},
        identity_sha256="0" * 64,
        timings={},
        prompt_tokens=1,
        completion_tokens=1,
        asked_by="someone",
        finish_reason="stop",
        abstained=False,
        **{"question": "What does Ripple cost?", "text": "?", "arm": "hybrid"} | fields,
    )
    session.add(answer)
    session.flush()
    for number, text in enumerate(passages, start=1):
        document = Document(
            workspace_id=principal.workspace_id,
            knowledge_base_id=kb.id,
            external_id=f"doc-{number}.md",
            title=f"Document {number}",
        )
        session.add(document)
        session.flush()
        version = DocumentVersion(
            workspace_id=principal.workspace_id,
            knowledge_base_id=kb.id,
            document_id=document.id,
            number=1,
            content_sha256="0" * 64,
            title=document.title,
            media_type="text/markdown",
            state="visible",
            valid_from=now(),
        )
        session.add(version)
        session.flush()
        document.current_version_id = version.id
        chunk = Chunk(
            id=f"chunk-{number}-{answer.id}",
            version_id=version.id,
            document_id=document.id,
            ordinal=0,
            text=text,
            heading_path=[],
            start_char=0,
            end_char=len(text),
            n_tokens=len(text.split()),
            content_sha256="0" * 64,
        )
        session.add(chunk)
        session.flush()
        session.add(
            AnswerChunk(
                answer_id=answer.id,
                number=number,
                chunk_id=chunk.id,
                document_id=document.id,
                version_id=version.id,
                score=1.0 / number,
                cited=number == 1,
            )
        )
    session.flush()
    return answer


def write_pages(folder: Path, pages: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return folder


def write_jsonl(path: Path, rows: Iterable[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


@contextmanager
def listening(app, *, patience_s):
    """The address at which a real server answers for the app."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + patience_s
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(patience_s)
