"""All tables, one file per aggregate. Imported as a whole so that the metadata is complete."""

from app.db.base import Base
from app.db.tables.answers import Answer, AnswerChunk, CachedAnswer, CachedAnswerVersion
from app.db.tables.feedback import Example, Feedback, Review, Ticket
from app.db.tables.jobs import Job
from app.db.tables.knowledge import (
    Chunk,
    Document,
    DocumentGroup,
    DocumentVersion,
    KnowledgeBase,
    SyncSource,
)
from app.db.tables.measurement import Decision, DecisionRequest, Evaluation, Look, TriggerCheck
from app.db.tables.tuning import Adapter, AdapterMove, DatasetSnapshot, HeldOutItem, TuningRun
from app.db.tables.use_cases import UseCase
from app.db.tables.workspaces import ApiKey, Workspace

__all__ = [
    "Adapter",
    "AdapterMove",
    "Answer",
    "AnswerChunk",
    "ApiKey",
    "Base",
    "CachedAnswer",
    "CachedAnswerVersion",
    "Chunk",
    "DatasetSnapshot",
    "Decision",
    "DecisionRequest",
    "Document",
    "DocumentGroup",
    "DocumentVersion",
    "Evaluation",
    "Example",
    "Feedback",
    "HeldOutItem",
    "Job",
    "KnowledgeBase",
    "Look",
    "Review",
    "SyncSource",
    "Ticket",
    "TriggerCheck",
    "TuningRun",
    "UseCase",
    "Workspace",
]
