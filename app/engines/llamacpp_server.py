"""llama.cpp server objects: one base file with LoRA adapters beside it, or one merged into it."""

from __future__ import annotations

import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.engines.llamacpp_calls import raise_on_error
from app.engines.prefixes import Held
from app.engines.types import AdapterRef, EngineError
from tuning.errors import TuningError
from tuning.fold import fold_gguf

BATCH_TOKENS = 512
"""Prompt tokens between two chances to end a closed stream; llama.cpp computes them in one go."""


class Resident:
    """One server object with its adapters and the number of requests that use it."""

    def __init__(self, server: Any, adapters: tuple[AdapterRef, ...]) -> None:
        self.server = server
        self.adapters = adapters
        self.slot_of = {adapter.digest: index for index, adapter in enumerate(adapters)}
        self.users = 0
        self.retired = False
        self.held: dict[int, Held] = {}

    def let_go(self) -> Any:
        """The server, once nobody uses it any more; it is freed outside of the engine's lock."""
        if not self.retired or self.users:
            return None
        server, self.server = self.server, None
        return server


@dataclass(frozen=True, slots=True)
class ServerMaker:
    """How server objects are made.

    Attributes:
        model: The base file.
        threads: For prefill and decoding.
        slots: Requests computed side by side.
        context_tokens: Window of one slot.
    """

    model: Path
    threads: int
    slots: int
    context_tokens: int

    def beside(self, adapters: tuple[AdapterRef, ...]) -> Resident:
        """The base file with LoRA adapters beside it, each chosen per request.

        Raises:
            EngineError: If llama.cpp refuses a file.
        """
        what = f"adapter {adapters[-1].digest[:12]}" if adapters else self.model.name
        return Resident(self._server(self.model, adapters, what), adapters)

    def merged(self, adapter: AdapterRef) -> Resident:
        """The adapter folded into a copy of the base file; the copy goes when nothing maps it.

        Raises:
            EngineError: If the two do not fit or llama.cpp refuses the file.
        """
        what = f"the base with adapter {adapter.digest[:12]} merged into it"
        with tempfile.TemporaryDirectory(prefix="tandem-merged-") as folder:
            file = Path(folder) / f"{adapter.digest[:32]}.gguf"
            try:
                fold_gguf(self.model, adapter.gguf, file)
            except TuningError as error:
                raise EngineError(f"cannot make {what}: {error}") from error
            # A mapped file stays readable after its name is gone.
            return Resident(self._server(file, (), what), ())

    def _server(self, file: Path, adapters: tuple[AdapterRef, ...], what: str) -> Any:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx = self.context_tokens * self.slots
        params.n_parallel = self.slots
        params.n_batch = BATCH_TOKENS
        params.cpuparams.n_threads = self.threads
        params.cpuparams_batch.n_threads = self.threads
        params.warmup = False
        # llama.cpp would keep up to 8 GiB of old prompts in memory.
        params.cache_ram_mib = 0
        params.verbosity = -1
        # xllamacpp always opens a loopback port: nobody learns this key, so nobody can use it.
        params.api_keys = [secrets.token_urlsafe(32)]
        params.cors_origins = ""
        params.endpoint_slots = False
        params.endpoint_props = False
        params.ui = False
        loras = []
        for adapter in adapters:
            if not adapter.gguf.is_file():
                raise EngineError(f"adapter file {adapter.gguf.name} is missing")
            info = xllamacpp.CommonAdapterLoraInfo()
            info.path = str(adapter.gguf)
            info.scale = 0.0
            loras.append(info)
        params.lora_adapters = loras
        try:
            server = xllamacpp.Server(params)
            _answer_once(server, len(adapters) - 1)
        except RuntimeError as error:
            raise EngineError(f"llama.cpp could not load {what}: {error}") from error
        return server


def _answer_once(server: Any, adapter: int) -> None:
    """Let a new server compute one token, with its newest adapter, before it takes over.

    It also makes sure that the server's loop has begun: one that is freed before that is waited
    for without end (its loop starts after it was told to stop).
    """
    lora = [{"id": adapter, "scale": 1.0}] if adapter >= 0 else []
    raise_on_error(server.handle_completions({"prompt": [0, 0], "n_predict": 1, "lora": lora}))
