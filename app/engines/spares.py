"""Engines that answer when the first one does not, in the order the settings name them."""

from __future__ import annotations

from app.config import Settings
from app.engines.openai_compatible import OpenAICompatibleEngine, ServerAddress
from app.engines.types import Engine
from app.models.service import BaseModel


def make_spares(settings: Settings, base: BaseModel) -> tuple[Engine, ...]:
    """Address the spare servers; none is asked for anything before it is needed."""
    return tuple(
        OpenAICompatibleEngine(
            ServerAddress(
                server.url,
                server.model,
                server.dialect,
                server.api_key.get_secret_value() if server.api_key else None,
                token_s=settings.engine_timeout_s,
            ),
            base_sha256=base.sha256,
            context_tokens=settings.context_tokens,
            max_adapters=settings.max_resident_adapters,
        )
        for server in settings.spare_engines
    )
