"""llama.cpp in-process through xllamacpp: continuous batching, a LoRA adapter per request.

llama.cpp takes its adapters when a server object is made. A new adapter therefore gets a new
server object beside the old one, which shares the file-mapped weights with it; requests under way
finish on the old one, which is then freed. An adapter may instead be merged into a copy of the
base, which then has a server object of its own.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import structlog

from app.engines.adapter_files import check_adapter_file
from app.engines.llamacpp_calls import as_generation, raise_on_error, stream_completion
from app.engines.llamacpp_server import Resident, ServerMaker
from app.engines.prefixes import Held, boundary, priming
from app.engines.slots import SlotScheduler
from app.engines.streams import Cancellation, Cancelled, Emit, PieceStream
from app.engines.types import AdapterRef, EngineError, Generation, GenerationRequest
from app.errors import BadInput, ModelMissing

log = structlog.get_logger(__name__)

_CLOSE_S = 10.0


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
        merged: bool = False,
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
            merged: merge every adapter into a copy of the base when it is loaded: no overhead per
                token, but seconds to load and a base's worth of memory each.

        Raises:
            ModelMissing: If the file is not there.
        """
        if not model.is_file():
            raise ModelMissing(f"base model {model} is not here: run `tandem models pull`")
        self._model = model
        self._base_sha256 = base_sha256
        self._maker = ServerMaker(model, threads or os.cpu_count() or 1, slots, context_tokens)
        self._merges = merged
        self._merged: OrderedDict[str, Resident] = OrderedDict()
        self._context_tokens = context_tokens
        self._max_adapters = max_adapters
        self._turn_end = turn_end
        self._scheduler = SlotScheduler(slots, patience_s=patience_s)
        self._recent: OrderedDict[str, AdapterRef] = OrderedDict()
        self._lock = threading.Lock()
        self._build_lock = threading.Lock()
        self._closed = False
        self._current = self._maker.beside(())

    @property
    def identity(self) -> dict[str, str]:
        """Engine, its version, the base's digest, the file served, and where prompts are split.

        The split decides the last bits of the logits, and so at times the answer; so does an
        adapter that is merged, and the bytes of the file: its name is followed by their digest.
        """
        import xllamacpp

        merged = {"adapters": "merged into the base"} if self._merges else {}
        return merged | {
            "engine": "llamacpp",
            "engine_version": str(xllamacpp.__version__),
            "base_sha256": self._base_sha256,
            "file": f"{self._model.name}@{self._file_digest[:16]}",
            "prompt_split": "nowhere" if self._turn_end is None else "after the system text",
        }

    @cached_property
    def _file_digest(self) -> str:
        with self._model.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def context_tokens(self) -> int:
        """Window of one slot, in tokens."""
        return self._context_tokens

    def load_adapter(self, adapter: AdapterRef) -> None:
        """Make an adapter resident without interrupting requests under way.

        Raises:
            EngineError: If llama.cpp refuses the file; the adapters served so far stay.
        """
        if self._merges:
            self._load_merged(adapter)
            return
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
            self._drop_merged(digest)
            with self._lock:
                kept = tuple(a for a in self._current.adapters if a.digest != digest)
                if len(kept) == len(self._current.adapters):
                    return
            self._replace(kept)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Digests of the resident adapters."""
        return tuple(self._merged if self._merges else self._current.slot_of)

    @property
    def load(self) -> dict[str, int]:
        """Requests that generate and requests that wait for a slot."""
        return {"running": self._scheduler.running, "waiting": self._scheduler.waiting}

    def generate(self, request: GenerationRequest) -> Generation:
        """The whole text at once."""
        with self._slot(request, Cancellation()) as slot, self._use(request.adapter) as resident:
            body, held = self._ready(request, resident, slot)
            reply = resident.server.handle_completions(body)
            raise_on_error(reply)
            resident.held[slot] = held
            return as_generation(reply, reply["choices"][0]["text"])

    def stream(self, request: GenerationRequest) -> Iterator[str | Generation]:
        """Pieces of text as they come, then the whole `Generation`.

        `close()`, from any thread, gives a waiting request's place up at once and ends a generating
        one at its next token, or at the next `BATCH_TOKENS` of its prompt.
        """

        def work(emit: Emit, cancellation: Cancellation) -> Generation:
            with (
                self._slot(request, cancellation) as slot,
                self._use(request.adapter) as resident,
            ):
                body, held = self._ready(request, resident, slot)
                done = stream_completion(resident.server, body, emit, cancellation)
                resident.held[slot] = held
                return done

        return PieceStream(work, "llamacpp-stream")

    def close(self) -> None:
        """Refuse later requests, let those under way end (10 s at most), free the model."""
        with self._lock:
            self._closed = True
            held = [self._current, *self._merged.values()]
            for resident in held:
                resident.retired = True
        deadline = time.monotonic() + _CLOSE_S
        while any(resident.users for resident in held) and time.monotonic() < deadline:
            time.sleep(0.05)
        with self._lock:
            unused = [resident.let_go() for resident in held]
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
    def _use(self, adapter: AdapterRef | None) -> Iterator[Resident]:
        resident = self._hold(adapter)
        try:
            yield resident
        finally:
            with self._lock:
                resident.users -= 1
                unused = resident.let_go()
            del unused

    def _hold(self, adapter: AdapterRef | None) -> Resident:
        """The present server object, counted as in use, with the adapter among its own."""
        while True:
            if adapter is not None:
                self.load_adapter(adapter)
            with self._lock:
                if self._closed:
                    raise EngineError("the engine is shutting down")
                resident = self._chosen(adapter)
                if resident is not None:
                    resident.users += 1
                    return resident

    def _chosen(self, adapter: AdapterRef | None) -> Resident | None:
        """Who serves it; None where another request's adapter pushed this one out in between."""
        if adapter is None:
            return self._current
        order = self._merged if self._merges else self._recent
        if adapter.digest not in order:
            return None
        order.move_to_end(adapter.digest)
        return self._merged[adapter.digest] if self._merges else self._current

    def _load_merged(self, adapter: AdapterRef) -> None:
        with self._build_lock:
            if adapter.digest in self._merged:
                return
            check_adapter_file(adapter)
            fresh = self._maker.merged(adapter)
            with self._lock:
                self._merged[adapter.digest] = fresh
                oldest = list(self._merged)[: -self._max_adapters]
            for digest in oldest:
                self._drop_merged(digest)
            log.info("adapter_merged", digest=adapter.digest[:12], resident=len(self._merged))

    def _drop_merged(self, digest: str) -> None:
        unused = None
        with self._lock:
            resident = self._merged.pop(digest, None)
            if resident is not None:
                resident.retired = True
                unused = resident.let_go()
        del unused

    def _room(self, request: GenerationRequest) -> int:
        room = self._context_tokens - len(request.prompt_ids)
        if room < 1:
            raise BadInput(
                f"the prompt has {len(request.prompt_ids)} tokens, the model reads at most "
                f"{self._context_tokens}: shorten the question or its history"
            )
        return min(request.max_tokens, room)

    def _ready(
        self, request: GenerationRequest, resident: Resident, slot: int
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
                raise_on_error(reply)
            body["cache_prompt"] = True
        return body, Held(adapter, at, tuple(request.prompt_ids))

    def _body(self, request: GenerationRequest, resident: Resident) -> dict[str, Any]:
        digest = request.adapter.digest if request.adapter else None
        chosen = resident.slot_of.get(digest) if digest else None
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

    def _replace(self, adapters: tuple[AdapterRef, ...]) -> Resident:
        """Serve with these adapters from now on; the old server ends with its last request."""
        fresh = self._maker.beside(adapters)
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
