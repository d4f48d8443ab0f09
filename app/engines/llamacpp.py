"""llama.cpp in-process through xllamacpp: continuous batching, a LoRA adapter per request.

llama.cpp takes its adapters when a server object is made. A new adapter therefore gets a new
server object beside the old one, which shares the file-mapped weights with it; requests under way
finish on the old one, which is then freed.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from app.engines.adapter_files import check_adapter_file
from app.engines.prefixes import Held, boundary, priming
from app.engines.slots import SlotScheduler
from app.engines.streams import Cancellation, Cancelled, Emit, PieceStream
from app.engines.types import AdapterRef, EngineError, Generation, GenerationRequest
from app.errors import BadInput, ModelMissing

log = structlog.get_logger(__name__)

_CLOSE_S = 10.0


class _Resident:
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


class LlamaCppEngine:
    """One base GGUF file, any number of adapters up to `max_adapters` (least recent dropped)."""

    def __init__(  # noqa: PLR0913 - settings, each with a default and given by name
        self,
        model: Path,
        *,
        base_sha256: str,
        threads: int = 0,
        slots: int = 4,
        context_tokens: int = 2048,
        max_adapters: int = 16,
        patience_s: float = 1.0,
        turn_end: int | None = None,
    ) -> None:
        """Load the base model.

        Args:
            model: the GGUF file.
            base_sha256: identity of the base model, for `identity`.
            threads: for prefill and decoding; 0 takes every core.
            slots: requests generated at the same time; more wait.
            context_tokens: window of one slot.
            max_adapters: adapters held in memory; the least recently used one goes first.
            patience_s: how long requests of one adapter go before those of others, see
                `SlotScheduler`.
            turn_end: token id that ends a turn; with it the evaluated first turn of a prompt is
                reused, see `prefixes`.

        Raises:
            ModelMissing: If the file is not there.
        """
        if not model.is_file():
            raise ModelMissing(f"base model {model} is not here: run `tandem models pull`")
        self._model = model
        self._base_sha256 = base_sha256
        self._threads = threads or os.cpu_count() or 1
        self._slots = slots
        self._context_tokens = context_tokens
        self._max_adapters = max_adapters
        self._turn_end = turn_end
        self._scheduler = SlotScheduler(slots, patience_s=patience_s)
        self._recent: OrderedDict[str, AdapterRef] = OrderedDict()
        self._lock = threading.Lock()
        self._build_lock = threading.Lock()
        self._closed = False
        self._current = self._build(())

    @property
    def identity(self) -> dict[str, str]:
        """Engine, its version, the base's digest, the file served, and where prompts are split.

        The split decides the last bits of the logits, and so at times the answer.
        """
        import xllamacpp

        return {
            "engine": "llamacpp",
            "engine_version": str(xllamacpp.__version__),
            "base_sha256": self._base_sha256,
            "file": self._model.name,
            "prompt_split": "nowhere" if self._turn_end is None else "after the system text",
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
                keep = list(self._recent.values())[-(self._max_adapters - 1) :]
            if adapter.digest in current.slot_of:
                return
            check_adapter_file(adapter)
            fresh = self._replace((*(keep if self._max_adapters > 1 else ()), adapter))
            log.info("adapter_resident", digest=adapter.digest[:12], resident=len(fresh.adapters))

    def drop_adapter(self, digest: str) -> None:
        """Free an adapter's memory without interrupting requests under way."""
        with self._build_lock:
            with self._lock:
                kept = tuple(a for a in self._current.adapters if a.digest != digest)
                if len(kept) == len(self._current.adapters):
                    return
            self._replace(kept)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Digests of the resident adapters."""
        return tuple(self._current.slot_of)

    @property
    def load(self) -> dict[str, int]:
        """Requests that generate and requests that wait for a slot."""
        return {"running": self._scheduler.running, "waiting": self._scheduler.waiting}

    def generate(self, request: GenerationRequest) -> Generation:
        """The whole text at once."""
        with self._slot(request, Cancellation()) as slot, self._use(request.adapter) as resident:
            body, held = self._ready(request, resident, slot)
            reply = resident.server.handle_completions(body)
            _raise_on_error(reply)
            resident.held[slot] = held
            return _generation(reply, reply["choices"][0]["text"])

    def stream(self, request: GenerationRequest) -> Iterator[str | Generation]:
        """Pieces of text as they come, then the whole `Generation`.

        `close()`, from any thread, gives a waiting request's place up at once and ends a generating
        one at its next token.
        """

        def work(emit: Emit, cancellation: Cancellation) -> Generation:
            with (
                self._slot(request, cancellation) as slot,
                self._use(request.adapter) as resident,
            ):
                body, held = self._ready(request, resident, slot)
                done = _stream(resident.server, body | {"stream": True}, emit, cancellation)
                resident.held[slot] = held
                return done

        return PieceStream(work, "llamacpp-stream")

    def close(self) -> None:
        """Refuse later requests, let those under way end (10 s at most), free the model."""
        with self._lock:
            self._closed = True
            self._current.retired = True
        deadline = time.monotonic() + _CLOSE_S
        while self._current.users and time.monotonic() < deadline:
            time.sleep(0.05)
        with self._lock:
            unused = self._current.let_go()
        del unused

    @contextmanager
    def _slot(self, request: GenerationRequest, cancellation: Cancellation) -> Iterator[int]:
        self._room(request)
        if request.adapter is not None:
            # Before queueing: a slot must not stand idle while an adapter is read.
            self.load_adapter(request.adapter)
        start = tuple(request.prompt_ids[: boundary(request.prompt_ids, self._turn_end)])
        digest = request.adapter.digest if request.adapter else None
        ticket = self._scheduler.enter(digest, likes=(digest, start))
        try:
            cancellation.on_set(ticket.grant)
            ticket.wait()
            if cancellation.is_set():
                raise Cancelled
            yield ticket.slot
        finally:
            self._scheduler.leave(ticket)

    @contextmanager
    def _use(self, adapter: AdapterRef | None) -> Iterator[_Resident]:
        resident = self._hold(adapter)
        try:
            yield resident
        finally:
            with self._lock:
                resident.users -= 1
                unused = resident.let_go()
            del unused

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
                    if adapter is not None:
                        self._recent.move_to_end(adapter.digest)
                    resident.users += 1
                    return resident

    def _room(self, request: GenerationRequest) -> int:
        room = self._context_tokens - len(request.prompt_ids)
        if room < 1:
            raise BadInput(
                f"the prompt has {len(request.prompt_ids)} tokens, the model reads at most "
                f"{self._context_tokens}: shorten the question or its history"
            )
        return min(request.max_tokens, room)

    def _ready(
        self, request: GenerationRequest, resident: _Resident, slot: int
    ) -> tuple[dict[str, Any], Held]:
        """The body of a request after its slot was primed, and what the slot holds after it."""
        body = self._body(request, resident) | {"id_slot": slot}
        at = boundary(request.prompt_ids, self._turn_end)
        adapter = request.adapter.digest if request.adapter else None
        # Forgotten first: a request that fails or is cancelled leaves the slot in no known state.
        held = resident.held.pop(slot, None)
        if at:
            first = priming(request.prompt_ids, at, adapter, held)
            if first is not None:
                reply = resident.server.handle_completions(
                    body | {"prompt": first.ids, "n_predict": 0, "cache_prompt": first.keep}
                )
                _raise_on_error(reply)
            body["cache_prompt"] = True
        return body, Held(adapter, at, tuple(request.prompt_ids))

    def _body(self, request: GenerationRequest, resident: _Resident) -> dict[str, Any]:
        chosen = None if request.adapter is None else resident.slot_of[request.adapter.digest]
        constraint = {} if request.json_schema is None else {"json_schema": request.json_schema}
        return constraint | {
            "prompt": request.prompt_ids,
            "n_predict": self._room(request),
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "stop": list(request.stop),
            "cache_prompt": False,
            # Without the whole list llama.cpp applies every loaded adapter at its default scale.
            "lora": [
                {"id": index, "scale": 1.0 if index == chosen else 0.0}
                for index in range(len(resident.adapters))
            ],
        }

    def _replace(self, adapters: tuple[AdapterRef, ...]) -> _Resident:
        """Serve with these adapters from now on; the old server ends with its last request."""
        fresh = self._build(adapters)
        with self._lock:
            old, self._current = self._current, fresh
            recency = [digest for digest in self._recent if digest in fresh.slot_of]
            recency += [digest for digest in fresh.slot_of if digest not in recency]
            named = {adapter.digest: adapter for adapter in adapters}
            self._recent = OrderedDict((digest, named[digest]) for digest in recency)
            old.retired = True
            unused = old.let_go()
        del unused
        return fresh

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
            server = xllamacpp.Server(params)
            _answer_once(server, len(adapters) - 1)
        except RuntimeError as error:
            what = f"adapter {adapters[-1].digest[:12]}" if adapters else self._model.name
            raise EngineError(f"llama.cpp could not load {what}: {error}") from error
        return _Resident(server, adapters)


def _answer_once(server: Any, adapter: int) -> None:
    """Let a new server compute one token, with its newest adapter, before it takes over.

    It also makes sure that the server's loop has begun: one that is freed before that is waited
    for without end (its loop starts after it was told to stop).
    """
    lora = [{"id": adapter, "scale": 1.0}] if adapter >= 0 else []
    _raise_on_error(server.handle_completions({"prompt": [0, 0], "n_predict": 1, "lora": lora}))


def _stream(
    server: Any, body: dict[str, Any], emit: Emit, cancellation: Cancellation
) -> Generation:
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

    server.handle_completions(body, on_event)
    if cancellation.is_set():
        raise Cancelled
    _raise_on_error(last)
    return _generation(last, "".join(pieces))


def _raise_on_error(reply: dict[str, Any]) -> None:
    error = reply.get("error")
    if error and error.get("code") == 400:
        raise BadInput(f"llama.cpp refuses the request: {error.get('message', error)}")
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
