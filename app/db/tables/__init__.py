"""All tables, one file per aggregate. Imported as a whole so that the metadata is complete."""

from app.db.base import Base
from app.db.tables.answers import Answer, AnswerChunk
from app.db.tables.feedback import Example, Feedback, Review
from app.db.tables.jobs import Job
from app.db.tables.knowledge import (
    Chunk,
    Document,
    DocumentGroup,
    DocumentVersion,
    KnowledgeBase,
    SyncSource,
)
from app.db.tables.measurement import Decision, Evaluation
from app.db.tables.tuning import Adapter, DatasetSnapshot, TuningRun
from app.db.tables.use_cases import UseCase
from app.db.tables.workspaces import ApiKey, Workspace

__all__ = [
    "Adapter",
    "Answer",
    "AnswerChunk",
    "ApiKey",
    "Base",
    "Chunk",
    "DatasetSnapshot",
    "Decision",
    "Document",
    "DocumentGroup",
    "DocumentVersion",
    "Evaluation",
    "Example",
    "Feedback",
    "Job",
    "KnowledgeBase",
    "Review",
    "SyncSource",
    "TuningRun",
    "UseCase",
    "Workspace",
]
