"""llama.cpp in-process through xllamacpp: continuous batching, a LoRA adapter per request.

llama.cpp takes its adapters when a server object is made. A new adapter therefore gets a new
server object beside the old one; requests under way finish on the old one, which is then freed.
"""

from __future__ import annotations

import os
import queue
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from app.engines.types import AdapterRef, EngineError, Generation, GenerationRequest
from app.errors import AppError, BadInput, ModelMissing

log = structlog.get_logger(__name__)

_STALL_S = 300.0
_CLOSE_S = 10.0


class _Resident:
    """One server object with its adapters and the number of requests that use it."""

    def __init__(self, server: Any, adapters: tuple[AdapterRef, ...]) -> None:
        self.server = server
        self.adapters = adapters
        self.slot_of = {adapter.digest: index for index, adapter in enumerate(adapters)}
        self.users = 0
        self.retired = False


class LlamaCppEngine:
    """One base GGUF file, any number of adapters up to `max_adapters` (least recent dropped)."""

    def __init__(
        self,
        model: Path,
        *,
        base_sha256: str,
        threads: int = 0,
        slots: int = 4,
        context_tokens: int = 2048,
        max_adapters: int = 16,
    ) -> None:
        if not model.is_file():
            raise ModelMissing(f"base model {model} is not here: run `tandem models pull`")
        self._model = model
        self._base_sha256 = base_sha256
        self._threads = threads or os.cpu_count() or 1
        self._slots = slots
        self._context_tokens = context_tokens
        self._max_adapters = max_adapters
        self._lock = threading.Lock()
        self._build_lock = threading.Lock()
        self._closed = False
        self._current = self._build(())

    @property
    def identity(self) -> dict[str, str]:
        """Engine, its version, the base's digest and the file served."""
        import xllamacpp

        return {
            "engine": "llamacpp",
            "engine_version": str(xllamacpp.__version__),
            "base_sha256": self._base_sha256,
            "file": self._model.name,
        }

    @property
    def context_tokens(self) -> int:
        """Window of one slot, in tokens."""
        return self._context_tokens

    def load_adapter(self, adapter: AdapterRef) -> None:
        """Make an adapter resident without interrupting requests under way.

        Raises:
            EngineError: If llama.cpp refuses the file; the adapters served so far stay.
        """
        with self._build_lock:
            with self._lock:
                current = self._current
            if adapter.digest in current.slot_of:
                return
            _check_adapter_file(adapter)
            room = self._max_adapters - 1
            keep = current.adapters[-room:] if room else ()
            fresh = self._build((*keep, adapter))
            with self._lock:
                self._current = fresh
                current.retired = True
                if current.users == 0:
                    current.server = None
            log.info("adapter_resident", digest=adapter.digest[:12], resident=len(fresh.adapters))

    def generate(self, request: GenerationRequest) -> Generation:
        """The whole text at once."""
        with self._use(request.adapter) as resident:
            body = self._body(request, resident)
            reply = resident.server.handle_completions(body)
            _raise_on_error(reply)
            return _generation(reply, reply["choices"][0]["text"])

    def stream(self, request: GenerationRequest) -> Iterator[str | Generation]:
        """Pieces of text as they come, then the whole `Generation`.

        Closing the iterator early lets the answer run to its end unheard: it holds its slot for at
        most `max_tokens` more. With cancelling inside llama.cpp (a callback that returns True)
        later requests were seen to wait without end on a loaded machine (docs/LOG.md, Threads).
        """
        events: queue.SimpleQueue[dict[str, Any] | BaseException] = queue.SimpleQueue()

        def on_event(event: dict[str, Any]) -> bool:
            events.put(event)
            return False

        def work() -> None:
            try:
                with self._use(request.adapter) as resident:
                    body = self._body(request, resident) | {"stream": True}
                    resident.server.handle_completions(body, on_event)
            except (RuntimeError, ValueError, AppError) as error:
                events.put(error)

        threading.Thread(target=work, name="llamacpp-stream", daemon=True).start()
        yield from _drain(events)

    def close(self) -> None:
        """Refuse later requests, let those under way end (10 s at most), free the model."""
        with self._lock:
            self._closed = True
            self._current.retired = True
        deadline = time.monotonic() + _CLOSE_S
        while self._current.users and time.monotonic() < deadline:
            time.sleep(0.05)
        with self._lock:
            if self._current.users == 0:
                self._current.server = None

    @contextmanager
    def _use(self, adapter: AdapterRef | None) -> Iterator[_Resident]:
        resident = self._hold(adapter)
        try:
            yield resident
        finally:
            with self._lock:
                resident.users -= 1
                if resident.retired and resident.users == 0:
                    resident.server = None

    def _hold(self, adapter: AdapterRef | None) -> _Resident:
        """The present server object, counted as in use, with the adapter among its own."""
        while True:
            if adapter is not None:
                self.load_adapter(adapter)
            with self._lock:
                if self._closed:
                    raise EngineError("the engine is shutting down")
                resident = self._current
                # Another request's adapter may have pushed this one out in between.
                if adapter is None or adapter.digest in resident.slot_of:
                    resident.users += 1
                    return resident

    def _body(self, request: GenerationRequest, resident: _Resident) -> dict[str, Any]:
        room = self._context_tokens - len(request.prompt_ids)
        if room < 1:
            raise BadInput(
                f"the prompt has {len(request.prompt_ids)} tokens, the model reads at most "
                f"{self._context_tokens}: shorten the question or its history"
            )
        chosen = None if request.adapter is None else resident.slot_of[request.adapter.digest]
        return {
            "prompt": request.prompt_ids,
            "n_predict": min(request.max_tokens, room),
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "stop": list(request.stop),
            # A prefix reused from an earlier request changes the batches and so the last bits of
            # the logits: one prompt then gave three different greedy answers.
            "cache_prompt": False,
            # Without the whole list llama.cpp applies every loaded adapter at its default scale.
            "lora": [
                {"id": index, "scale": 1.0 if index == chosen else 0.0}
                for index in range(len(resident.adapters))
            ],
        }

    def _build(self, adapters: tuple[AdapterRef, ...]) -> _Resident:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(self._model)
        params.n_ctx = self._context_tokens * self._slots
        params.n_parallel = self._slots
        params.cpuparams.n_threads = self._threads
        params.cpuparams_batch.n_threads = self._threads
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
            return _Resident(xllamacpp.Server(params), adapters)
        except RuntimeError as error:
            what = f"adapter {adapters[-1].digest[:12]}" if adapters else self._model.name
            raise EngineError(f"llama.cpp could not load {what}: {error}") from error


def _check_adapter_file(adapter: AdapterRef) -> None:
    """Refuse a missing, foreign or cut file by name, before the base is loaded a second time.

    Whether a whole file fits the base was tried by the probe process when it was admitted.
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


def _drain(
    events: queue.SimpleQueue[dict[str, Any] | BaseException],
) -> Iterator[str | Generation]:
    pieces: list[str] = []
    while True:
        try:
            event = events.get(timeout=_STALL_S)
        except queue.Empty as error:
            raise EngineError(f"no token for {_STALL_S:.0f} s") from error
        if isinstance(event, AppError):
            raise event
        if isinstance(event, BaseException):
            raise EngineError(f"generation failed: {event}") from event
        _raise_on_error(event)
        piece = event["choices"][0]["text"]
        if piece:
            pieces.append(piece)
            yield piece
        if event["choices"][0]["finish_reason"]:
            yield _generation(event, "".join(pieces))
            return


def _raise_on_error(reply: dict[str, Any]) -> None:
    error = reply.get("error")
    if error:
        raise EngineError(f"generation failed: {error.get('message', error)}")


def _generation(reply: dict[str, Any], text: str) -> Generation:
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
