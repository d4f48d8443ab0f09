"""What the answer pipeline asks of an engine, and what it gets back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from app.errors import DependencyDown


class EngineError(DependencyDown):
    """The engine could not generate."""


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """An adapter by content: `digest` is its identity.

    `gguf` is its file for llama.cpp, `directory` its safetensors for transformers.
    """

    digest: str
    gguf: Path
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Prompt token ids and decoding.

    Attributes:
        prompt_ids: The rendered prompt; every engine gets the same ids.
        max_tokens: Most tokens to generate.
        adapter: None for the bare base model.
        temperature: 0 is greedy.
        top_p: Nucleus of sampling, above 0 to 1.
        seed: Counts only with a temperature above 0.
        stop: Texts that end the answer; they are not part of it.
        json_schema: JSON schema the text must follow, or None.
        messages: The chat turns the ids were rendered from, for servers that take no ids.
        cache_salt: Requests with another salt share no cached prompt on a shared server (one per
            workspace).
    """

    prompt_ids: list[int]
    max_tokens: int
    adapter: AdapterRef | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None
    messages: tuple[Mapping[str, str], ...] = ()
    cache_salt: str | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished text. `finish_reason`: stop or length. Times in seconds."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    prefill_s: float
    decode_s: float
    details: dict[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """Generates text from token ids, with an adapter chosen per request."""

    @property
    def identity(self) -> dict[str, str]:
        """What determines the text besides the request: engine, version, base digest, file."""
        ...

    @property
    def context_tokens(self) -> int:
        """The most tokens of prompt and answer together."""
        ...

    def stream(self, request: GenerationRequest) -> Iterator[str | Generation]:
        """Pieces of text as they come, then one `Generation`.

        The iterator has a `close()` that any thread may call at any moment; it frees the slot.
        """
        ...

    def generate(self, request: GenerationRequest) -> Generation:
        """The whole text at once."""
        ...

    def load_adapter(self, adapter: AdapterRef) -> None:
        """Make an adapter resident; does nothing when it is."""
        ...

    def drop_adapter(self, digest: str) -> None:
        """Let go of an adapter; does nothing when it is not resident."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...
