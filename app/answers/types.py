"""Values of the answer pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.answers.cache import CacheKey
from app.engines.streams import Cancellation
from app.engines.types import AdapterRef
from app.use_cases.options import ServingOptions
from retrieval.context import Passage
from retrieval.types import WorkspaceId
from tuning.prompt import Message


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A question to a use case. `arm` and `adapter` override what the use case serves with.

    `system` is the client's own system text, put after the use case's.
    `without_documents` are external ids that retrieval leaves out: evaluations use it to ask what
    happens when the supporting document is gone. `groups`, `as_of` and `where` narrow what it is
    answered from: the asker's document groups, the knowledge of a past moment, and attributes
    that documents must have. `json_schema`: what the answer must follow
    instead of the use case's own. `with_threshold`: False answers below the use case's threshold
    of coverage too, as its calibration needs.
    """

    workspace_id: WorkspaceId
    use_case: str
    question: str
    history: tuple[Message, ...] = ()
    system: str = ""
    arm: str | None = None
    adapter: str | None = None
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    asked_by: str = ""
    record: bool = True
    without_documents: tuple[str, ...] = ()
    groups: frozenset[str] | None = None
    as_of: datetime | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    json_schema: Mapping[str, Any] | None = None
    with_threshold: bool = True


@dataclass(slots=True)
class Progress:
    """How far an answer has come: what it has cost so far, and whether anybody still waits."""

    cancelled: Cancellation = field(default_factory=Cancellation)
    prompt_tokens: int = 0
    pieces: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What serves one request, read once from SQL so that it cannot change midway."""

    use_case_id: str
    use_case: str
    arm: str
    knowledge_base_ids: tuple[str, ...]
    system_prompt: str
    abstain_sentence: str
    adapter: AdapterRef | None
    adapter_id: str | None
    adapter_name: str | None
    options: ServingOptions = field(default_factory=ServingOptions)

    @property
    def with_context(self) -> bool:
        """Whether passages go before the model."""
        return self.arm in ("rag", "hybrid")


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage the answer points to, with the sentence that supports it.

    `quote_start`/`quote_end` are characters of the document version's text. `superseded_by` is the
    number of the version that has replaced the cited one, 0 where the document is gone.
    `attached_at` is the span of the answer that the citation was attached to by alignment; None
    where the model cited it itself. `corrected_from` is the number the model cited instead, where
    that passage lacked a value or name of the sentence and this one alone held all of it.
    """

    number: int
    document: str
    document_id: str
    version_id: str
    version: int
    chunk_id: str
    title: str
    heading: str
    page: int | None
    quote: str
    quote_start: int
    quote_end: int
    superseded_by: int | None = None
    attached_at: tuple[int, int] | None = None
    corrected_from: int | None = None


@dataclass(frozen=True, slots=True)
class Fallback:
    """Why a request was not answered as its use case serves, and what answered instead.

    `wanted` and `used` are arms (`used` may be `passage`), the same where another engine answered;
    `engine` is the name of that engine, None for the first one.
    """

    wanted: str
    used: str
    reason: str
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class AnswerResult:
    """A finished answer with everything that determined it. Times in seconds.

    `coverage` is the estimated probability in [0, 1] that the knowledge base answers the question;
    None where nothing was searched. `raw_text` is what the engine said before citations were
    checked. `made_by`: engine, threshold (abstained without generating) or passage (quoted without
    a model). `cached_from` is the answer whose generation was given again.
    """

    id: str
    use_case: str
    arm: str
    question: str
    text: str
    abstained: bool
    grounded: bool | None
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    timings: dict[str, float]
    identity: dict[str, Any]
    identity_sha256: str
    adapter_id: str | None
    unsupported: tuple[str, ...] = field(default=())
    coverage: float | None = None
    raw_text: str = ""
    made_by: str = "engine"
    cached_from: str | None = None
    cache_key: CacheKey | None = None
    fallback: Fallback | None = None
