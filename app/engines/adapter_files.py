"""Adapter files, looked at before an engine is given them."""

from __future__ import annotations

from app.engines.types import AdapterRef, EngineError


def check_adapter_file(adapter: AdapterRef) -> None:
    """Refuse a missing, foreign or cut file by name, before the base is loaded a second time.

    Whether a whole file fits the base was tried by the probe process when it was admitted.

    Raises:
        EngineError: With the reason.
    """
    from gguf import GGUFReader

    if not adapter.gguf.is_file():
        raise EngineError(f"adapter file {adapter.gguf.name} is missing")
    try:
        kind = GGUFReader(adapter.gguf).get_field("general.type")
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise EngineError(f"adapter file {adapter.gguf.name} is damaged: {error}") from error
    if kind is None or kind.contents() != "adapter":
        raise EngineError(f"{adapter.gguf.name} is no adapter file")
