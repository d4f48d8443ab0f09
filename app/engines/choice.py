"""The engine that the settings name."""

from __future__ import annotations

import json
import os
from pathlib import Path

from app.config import Settings
from app.engines.llamacpp import LlamaCppEngine
from app.engines.openai_compatible import OpenAICompatibleEngine, ServerAddress
from app.engines.transformers import TransformersEngine
from app.engines.types import Engine
from app.errors import BadInput
from app.models.service import BaseModel

OWN_ENGINES = (LlamaCppEngine, OpenAICompatibleEngine, TransformersEngine)


def make_engine(settings: Settings, base: BaseModel) -> Engine:
    """Load, or address, what generates.

    Raises:
        BadInput: Settings that do not go together.
    """
    kind: str = settings.engine
    if kind == "auto":
        here = "transformers" if base.gguf is None else "llamacpp"
        kind = "openai_compatible" if settings.engine_url else here
    if kind == "openai_compatible":
        return _remote(settings, base)
    if kind == "transformers":
        import torch

        torch.set_num_threads(os.cpu_count() or 1)  # here torch itself generates
        return TransformersEngine(
            base.hf,
            base_sha256=base.sha256,
            context_tokens=settings.context_tokens,
            max_adapters=settings.max_resident_adapters,
        )
    if base.gguf is None:
        raise BadInput(
            f"TANDEM_ENGINE is 'llamacpp', and {base.name!r} has no GGUF file: choose "
            "'transformers' or 'openai_compatible', or give a .gguf file as TANDEM_BASE_MODEL"
        )
    return LlamaCppEngine(
        base.gguf,
        base_sha256=base.sha256,
        threads=settings.threads,
        slots=settings.slots,
        context_tokens=settings.context_tokens,
        max_adapters=settings.max_resident_adapters,
        patience_s=settings.adapter_patience_s,
        turn_end=_turn_end(base) if settings.reuse_prefix else None,
        merged=settings.merge_adapters,
    )


def _turn_end(base: BaseModel) -> int | None:
    """The token that ends a turn, as the base model's configuration says."""
    try:
        config = json.loads((Path(base.hf) / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    token = config.get("eos_token_id")
    return token if isinstance(token, int) else None


def _remote(settings: Settings, base: BaseModel) -> Engine:
    if settings.engine_url is None:
        raise BadInput("TANDEM_ENGINE is 'openai_compatible': give TANDEM_ENGINE_URL too")
    key = settings.engine_api_key
    address = ServerAddress(
        settings.engine_url,
        settings.engine_model,
        settings.engine_dialect,
        key.get_secret_value() if key else None,
        token_s=settings.engine_timeout_s,
    )
    return OpenAICompatibleEngine(
        address,
        base_sha256=base.sha256,
        context_tokens=settings.context_tokens,
        max_adapters=settings.max_resident_adapters,
    )
