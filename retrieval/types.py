"""Values that cross the package's borders: parsed documents, chunks, index points, hits.

All are frozen. Offsets are in characters (code points) of `ParsedDocument.text`, half open.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NewType

import numpy as np
from numpy.typing import NDArray

WorkspaceId = NewType("WorkspaceId", str)
"""A tenant's id; the service makes one only after its access check."""

BlockKind = Literal["heading", "paragraph", "list_item", "table", "code"]

_CHUNK_NAMESPACE = uuid.UUID("6f1d0f5e-4c7b-5b0a-9f0e-7a5f3c1d2b48")


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a search may look: one knowledge base of one workspace."""

    workspace_id: WorkspaceId
    knowledge_base_id: str

    def __post_init__(self) -> None:
        if not self.workspace_id or not self.knowledge_base_id:
            raise ValueError(
                "a Scope needs a workspace id and a knowledge base id, got "
                f"{self.workspace_id!r} and {self.knowledge_base_id!r}"
            )


@dataclass(frozen=True, slots=True)
class Block:
    """One structural element; `text[start:end]` of its document is its text.

    A table block holds one row a line, cells parted by ` | `, the header row first.
    `level` is 1-6 for headings, the nesting depth (from 0) for list items, otherwise 0.
    `page` counts from 1 and is None for formats without pages.
    """

    kind: BlockKind
    text: str
    level: int
    page: int | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """A document as text plus its structure; blocks are in order and do not overlap."""

    text: str
    title: str
    blocks: tuple[Block, ...]
    media_type: str
    pages: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage to index.

    `text` equals `document.text[start_char:end_char]`; only a table split by rows differs: its
    later chunks carry the header row and a newline in front of that slice.
    `content_hash` is the SHA-256 of the text that is embedded, so equal hash means equal vector.
    """

    ordinal: int
    text: str
    heading_path: tuple[str, ...]
    page_start: int | None
    page_end: int | None
    start_char: int
    end_char: int
    n_tokens: int
    content_hash: str


@dataclass(frozen=True, slots=True, eq=False)
class IndexedChunk:
    """A chunk with its identity and vector: one point of the index.

    `vector` is (dim,) float32 with length 1.
    """

    chunk_id: str
    document_id: str
    version_id: str
    workspace_id: WorkspaceId
    knowledge_base_id: str
    text: str
    title: str
    heading_path: tuple[str, ...]
    page_start: int | None
    page_end: int | None
    start_char: int
    end_char: int
    ordinal: int
    vector: NDArray[np.float32]
    content_hash: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk found for a question.

    `score` orders the hits of one search (higher is better); its scale is that of the last stage
    (fusion, cosine, BM25 or reranker). `dense_score` is the cosine with the question in [-1, 1],
    None when the search had no dense part.
    """

    chunk_id: str
    document_id: str
    version_id: str
    score: float
    dense_score: float | None
    workspace_id: WorkspaceId
    knowledge_base_id: str
    text: str
    title: str
    heading_path: tuple[str, ...]
    page_start: int | None
    page_end: int | None
    start_char: int
    end_char: int
    ordinal: int
    content_hash: str = ""


def make_chunk_id(scope: Scope, version_id: str, ordinal: int) -> str:
    """The UUID of a chunk: the same version and ordinal always give the same id.

    Writing a version twice therefore overwrites its points and never doubles them.
    """
    name = "\x1f".join((scope.workspace_id, scope.knowledge_base_id, version_id, str(ordinal)))
    return str(uuid.uuid5(_CHUNK_NAMESPACE, name))


def context_path(title: str, headings: Iterable[str]) -> str:
    """Title and headings joined by " > ", without blanks and repeats.

    The top heading of a document often repeats its title.
    """
    return " > ".join(dict.fromkeys(part for part in (title, *headings) if part))


def located_text(title: str, headings: Iterable[str], text: str) -> str:
    """A chunk under its path, a line each: what is embedded, and what a model reads of it."""
    path = context_path(title, headings)
    return f"{path}\n{text}" if path else text
