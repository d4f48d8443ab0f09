"""Completions of a llama.cpp server object, and what their replies say."""

from __future__ import annotations

from typing import Any

from app.engines.streams import Cancellation, Cancelled, Emit
from app.engines.types import EngineError, Generation
from app.errors import BadInput


def stream_completion(
    server: Any, body: dict[str, Any], emit: Emit, cancellation: Cancellation
) -> Generation:
    """Run a streamed completion, each piece given to `emit` as it comes.

    Raises:
        Cancelled: If it was cancelled meanwhile.
        BadInput: If llama.cpp refuses the request.
        EngineError: If it fails.
    """
    pieces: list[str] = []
    last: dict[str, Any] = {}

    def on_event(event: dict[str, Any]) -> bool:
        """True ends the generation in llama.cpp."""
        last.clear()
        last.update(event)
        if cancellation.is_set() or "error" in event:
            return True
        piece = event["choices"][0]["text"]
        if piece:
            pieces.append(piece)
            emit(piece)
        return False

    # Progress of the prompt comes as events too, so that it can be ended before its first token.
    server.handle_completions(body | {"stream": True, "return_progress": True}, on_event)
    if cancellation.is_set():
        raise Cancelled
    raise_on_error(last)
    return as_generation(last, "".join(pieces))


def raise_on_error(reply: dict[str, Any]) -> None:
    """Turn an error in a reply into ours: a refused request is the caller's."""
    error = reply.get("error")
    if error and error.get("code") == 400:
        raise BadInput(f"llama.cpp refuses the request: {error.get('message', error)}")
    if error:
        raise EngineError(f"generation failed: {error.get('message', error)}")


def as_generation(reply: dict[str, Any], text: str) -> Generation:
    """A reply's numbers with its text."""
    timings = reply.get("timings", {})
    usage = reply["usage"]
    return Generation(
        text=text,
        finish_reason=str(reply["choices"][0]["finish_reason"]),
        prompt_tokens=int(usage["prompt_tokens"]),
        completion_tokens=int(usage["completion_tokens"]),
        prefill_s=float(timings.get("prompt_ms", 0.0)) / 1000,
        decode_s=float(timings.get("predicted_ms", 0.0)) / 1000,
        details={"cached_tokens": int(timings.get("cache_n", 0))},
    )
