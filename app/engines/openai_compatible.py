"""Any server that speaks OpenAI's protocol: vLLM first, then llama.cpp's server, TGI, Ollama."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import structlog

from app.engines.dialects import DIALECTS, Body, adapter_name, said
from app.engines.streams import Cancellation, Cancelled, Emit, PieceStream, drain
from app.engines.types import AdapterRef, EngineError, Generation, GenerationRequest
from app.errors import BadInput

log = structlog.get_logger(__name__)

_TRIES = 3
_PAUSE_S = 0.25
_BUSY = (429, 502, 503, 504)
_TOLD_S = 60.0
_AWAY_S = 1.0


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is and how it is spoken to.

    Attributes:
        url: Without the /v1, such as http://vllm:8000.
        model: The base model's name there; None takes the first one the server lists.
        dialect: One of `DIALECTS`.
        api_key: Sent as a bearer token.
        connect_s: Seconds to wait for a connection.
        token_s: Seconds to wait for the next bytes, the prefill included.
    """

    url: str
    model: str | None = None
    dialect: str = "vllm"
    api_key: str | None = None
    connect_s: float = 5.0
    token_s: float = 120.0


class OpenAICompatibleEngine:
    """One base model on a server, with adapters where the server can serve them."""

    def __init__(
        self,
        address: ServerAddress,
        *,
        base_sha256: str,
        context_tokens: int = 2048,
        max_adapters: int = 16,
    ) -> None:
        """Nothing is asked of the server yet, so that it may start later than this process.

        Raises:
            BadInput: A dialect that does not exist.
        """
        if address.dialect not in DIALECTS:
            raise BadInput(f"dialect {address.dialect!r} is unknown: choose {', '.join(DIALECTS)}")
        self._address = address
        self._dialect = DIALECTS[address.dialect]()
        self._base_sha256 = base_sha256
        self._context_tokens = context_tokens
        self._max_adapters = max_adapters
        self._ready: OrderedDict[str, Body] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._running = 0
        self._model = address.model
        self._version: str | None = None
        self._told_until = 0.0
        headers = {"Authorization": f"Bearer {address.api_key}"} if address.api_key else {}
        self._client = httpx.Client(
            base_url=address.url.rstrip("/").removesuffix("/v1"),
            headers=headers,
            timeout=httpx.Timeout(
                address.token_s, connect=address.connect_s, pool=address.connect_s
            ),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            trust_env=False,
        )

    @property
    def identity(self) -> dict[str, str]:
        """Server kind, its version where it tells, the base's digest and its name there.

        Version and name are asked for again after every new connection and at least once a minute,
        for a server may be replaced by another one. While it is away, what it said last counts.
        """
        self._ask_again()
        return {
            "engine": f"openai_compatible/{self._address.dialect}",
            "engine_version": self._version or "unknown",
            "base_sha256": self._base_sha256,
            "file": self._model or "unknown",
        }

    @property
    def context_tokens(self) -> int:
        """The most tokens of prompt and answer together."""
        return self._context_tokens

    @property
    def adapters(self) -> tuple[str, ...]:
        """Digests of the adapters made ready on the server."""
        return tuple(self._ready)

    @property
    def load(self) -> dict[str, int]:
        """Requests sent and not ended; the server queues them itself."""
        return {"running": self._running, "waiting": 0}

    def load_adapter(self, adapter: AdapterRef) -> None:
        """Make an adapter ready on the server; the least recently used one makes room.

        Raises:
            EngineError: If the server does not take it or does not answer.
        """
        self._prepare(adapter)

    def drop_adapter(self, digest: str) -> None:
        """Let the server free it, where it can."""
        with self._loading:
            with self._lock:
                known = self._ready.pop(digest, None)
            if known is not None:
                self._unload(digest)

    def generate(self, request: GenerationRequest) -> Generation:
        """The whole text at once."""
        return drain(self.stream(request))

    def stream(self, request: GenerationRequest) -> Iterator[str | Generation]:
        """Pieces of text as they come, then the `Generation`; `close()` hangs up at once."""

        def work(emit: Emit, cancellation: Cancellation) -> Generation:
            with self._lock:
                self._running += 1
            try:
                return self._attempts(request, emit, cancellation)
            except httpx.HTTPError as error:
                if cancellation.is_set():
                    raise Cancelled from error
                raise EngineError(f"{self._address.url}: {_reason(error)}") from error
            finally:
                with self._lock:
                    self._running -= 1

        return PieceStream(work, "openai-stream", stall_s=self._address.token_s + 30)

    def close(self) -> None:
        """Close the connections; the server stays as it is."""
        self._client.close()

    def _attempts(
        self, request: GenerationRequest, emit: Emit, cancellation: Cancellation
    ) -> Generation:
        """Try again, but only while the server has sent nothing of the answer."""
        for attempt in range(1, _TRIES + 1):
            answer = _Answer(emit, started=time.perf_counter())
            try:
                self._once(request, answer, cancellation)
            except (_Unavailable, httpx.TransportError) as error:
                timed_out = isinstance(error, httpx.ReadTimeout)
                over = attempt == _TRIES or timed_out or cancellation.is_set()
                if over or answer.begun:
                    raise
                log.warning("engine_retry", attempt=attempt, reason=_reason(error))
                time.sleep(_PAUSE_S * attempt)
                continue
            return answer.generation(len(request.prompt_ids))
        raise AssertionError("the last attempt returns or raises")

    def _once(
        self, request: GenerationRequest, answer: _Answer, cancellation: Cancellation
    ) -> None:
        body = self._dialect.body(self._fitting(request), self._model_name())
        if request.adapter is not None:
            body |= self._prepare(request.adapter)
        with (
            self._client.stream(
                "POST", self._dialect.path, json=body, extensions={"trace": self._on_connection}
            ) as response,
            _hang_up(response, cancellation),
        ):
            if response.status_code != 200:
                response.read()
                self._refused(response, request)
            for event in _server_sent(response):
                if cancellation.is_set():
                    raise Cancelled
                answer.take(event, self._dialect.piece)
        if not answer.finish_reason:
            raise httpx.RemoteProtocolError("the answer was cut off")

    def _fitting(self, request: GenerationRequest) -> GenerationRequest:
        room = self._context_tokens - len(request.prompt_ids)
        if room < 1:
            raise BadInput(
                f"the prompt has {len(request.prompt_ids)} tokens, the model reads at most "
                f"{self._context_tokens}: shorten the question or its history"
            )
        return replace(request, max_tokens=min(request.max_tokens, room))

    def _refused(self, response: httpx.Response, request: GenerationRequest) -> None:
        if response.status_code in _BUSY:
            raise _Unavailable(f"the server answers {said(response)}")
        if response.status_code == 404 and request.adapter is not None:
            with self._lock:
                self._ready.pop(request.adapter.digest, None)
            # The server was restarted, or another request or process unloaded it meanwhile.
            raise _Unavailable(f"the server no longer knows the adapter: {said(response)}")
        if response.status_code in (400, 422):
            raise BadInput(f"the server refuses the request: {said(response)}")
        raise EngineError(f"the server answers {said(response)}")

    def _prepare(self, adapter: AdapterRef) -> Body:
        with self._lock:
            if adapter.digest in self._ready:
                self._ready.move_to_end(adapter.digest)
                return self._ready[adapter.digest]
        with self._loading:
            if adapter.digest in self._ready:
                return self._ready[adapter.digest]
            while len(self._ready) >= self._max_adapters:
                with self._lock:
                    oldest, _ = self._ready.popitem(last=False)
                self._unload(oldest)
            try:
                extra = self._dialect.load(self._client, adapter, self._model_name())
            except httpx.HTTPError as error:
                raise EngineError(f"{self._address.url}: {_reason(error)}") from error
            with self._lock:
                self._ready[adapter.digest] = extra
            log.info("adapter_ready", digest=adapter.digest[:12], resident=len(self._ready))
            return extra

    def _unload(self, digest: str) -> None:
        try:
            self._dialect.unload(self._client, adapter_name(digest))
        except httpx.HTTPError as error:
            log.warning("adapter_not_unloaded", digest=digest[:12], reason=_reason(error))

    def _on_connection(self, event: str, _: Mapping[str, Any]) -> None:
        """Who needed a new connection may be talking to a server that was started anew."""
        if event == "connection.connect_tcp.complete":
            self._told_until = 0.0

    def _model_name(self) -> str:
        if self._model is None:
            self._model = self._listed()[0]
        return self._model

    def _listed(self) -> list[str]:
        try:
            reply = self._client.get("/v1/models")
            listed = reply.json()["data"] if reply.status_code == 200 else []
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise EngineError(f"{self._address.url} lists no models: {error}") from error
        if not listed:
            raise EngineError(f"{self._address.url} lists no models: set TANDEM_ENGINE_MODEL")
        return [str(model["id"]) for model in listed]

    def _ask_again(self) -> None:
        """Version and name, at most every minute, and after every new connection."""
        if self._version is not None and time.monotonic() < self._told_until:
            return
        until = time.monotonic() + _TOLD_S
        try:
            reply = self._client.get("/version", timeout=self._address.connect_s)
            told = reply.json() if reply.status_code == 200 else {}
            self._version = str(told.get("version", "unknown"))
            if self._address.model is None:
                listed = self._listed()
                # Some list the newest first: a model that is still there goes on being asked.
                self._model = self._model if self._model in listed else listed[0]
        except (httpx.HTTPError, ValueError, EngineError):
            # A server that is away has not changed yet: what it said last stays.
            until = time.monotonic() + _AWAY_S
        self._told_until = until


class _Unavailable(EngineError):
    """Worth another try."""


@dataclass(slots=True)
class _Answer:
    """What has come of an answer so far."""

    emit: Emit
    started: float
    pieces: list[str] = field(default_factory=list)
    finish_reason: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    first: float | None = None

    @property
    def begun(self) -> bool:
        return self.first is not None

    def take(self, event: Mapping[str, Any], piece_of: Any) -> None:
        if event.get("error"):
            raise EngineError(f"generation failed: {event['error']}")
        self.usage = event.get("usage") or self.usage
        for choice in event.get("choices", ())[:1]:
            self.first = self.first or time.perf_counter()
            if piece := piece_of(choice):
                self.pieces.append(piece)
                self.emit(piece)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def generation(self, prompt_tokens: int) -> Generation:
        ended = time.perf_counter()
        first = self.first or ended
        details = self.usage.get("prompt_tokens_details") or {}
        return Generation(
            text="".join(self.pieces),
            finish_reason="length" if self.finish_reason == "length" else "stop",
            prompt_tokens=int(self.usage.get("prompt_tokens") or prompt_tokens),
            completion_tokens=int(self.usage.get("completion_tokens") or len(self.pieces)),
            prefill_s=first - self.started,
            decode_s=ended - first,
            details={"cached_tokens": int(details.get("cached_tokens") or 0)},
        )


def _server_sent(response: httpx.Response) -> Iterator[Mapping[str, Any]]:
    for line in response.iter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            continue  # read to the end, or the connection could not be used again
        try:
            event = json.loads(data)
        except ValueError as error:
            raise EngineError(f"the server sent what is no JSON: {data[:80]!r}") from error
        yield event


@contextmanager
def _hang_up(response: httpx.Response, cancellation: Cancellation) -> Iterator[None]:
    """While open, cancelling wakes the thread that waits for the server's next bytes."""
    raw = response.extensions["network_stream"].get_extra_info("socket")
    ours = threading.Lock()

    def shut() -> None:
        if raw is not None and ours.acquire(blocking=False):
            with suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)

    cancellation.on_set(shut)
    try:
        yield
    finally:
        ours.acquire(blocking=False)  # the connection goes back to the pool


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
