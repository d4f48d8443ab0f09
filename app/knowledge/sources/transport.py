"""Connections that go only where they may.

The name is looked up once, every address is checked, and the socket is opened to a checked
address while `Host` and SNI keep the name. A name server that answers differently the next time
(DNS rebinding) is therefore without effect.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpcore
import httpx

from app.knowledge.sources.addresses import AddressRules, BlockedAddress, refusal_of

Resolver = Callable[[str, int], Sequence[str]]
_SocketOptions = Iterable[
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
]


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, as the system's resolver gives them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(slots=True)
class Deadline:
    """The moment by which a request must be over; shared by all connections of one client."""

    clock: Callable[[], float] = time.monotonic
    at: float = field(default=float("inf"))

    def start(self, seconds: float) -> None:
        """Give the request that begins now so much time."""
        self.at = self.clock() + seconds

    def limit(self, timeout: float | None) -> float:
        """A timeout for one operation that also ends at the deadline.

        Raises:
            httpcore.ReadTimeout: The deadline has passed.
        """
        left = self.at - self.clock()
        if left <= 0:
            raise httpcore.ReadTimeout("the request took too long")
        return min(left, timeout) if timeout is not None else left


class GuardedTransport(httpx.BaseTransport):
    """An httpx transport over `GuardedBackend`; no proxies, HTTP/1.1 only."""

    def __init__(
        self,
        rules: AddressRules,
        *,
        deadline: Deadline,
        resolver: Resolver = resolve,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context or httpx.create_ssl_context(),
            max_connections=4,
            max_keepalive_connections=2,
            keepalive_expiry=30.0,
            network_backend=GuardedBackend(rules, resolver, deadline),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; `BlockedAddress` where the host leads to what is not permitted."""
        core = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _as_httpx_errors():
            response = self._pool.handle_request(core)
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class GuardedBackend(httpcore.NetworkBackend):
    """Opens sockets to checked addresses only."""

    def __init__(self, rules: AddressRules, resolver: Resolver, deadline: Deadline) -> None:
        self._rules = rules
        self._resolver = resolver
        self._deadline = deadline
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: _SocketOptions | None = None,
    ) -> httpcore.NetworkStream:
        """Look the name up once, check every address, connect to the first that answers.

        Raises:
            BlockedAddress: One of the addresses is not permitted.
        """
        try:
            addresses = self._resolver(host.strip("[]"), port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name {host} cannot be looked up") from error
        if not addresses:
            raise httpcore.ConnectError(f"the name {host} has no address")
        for address in addresses:
            what = refusal_of(address, self._rules, host)
            if what:
                # A name with one forbidden address is not used at all: which one a later look-up
                # or another stack would take is anybody's guess.
                raise BlockedAddress(f"the host {host} leads to {address}, which is {what}")
        failure: Exception | None = None
        for address in addresses:
            try:
                stream = self._plain.connect_tcp(
                    address,
                    port,
                    self._deadline.limit(timeout),
                    local_address,
                    socket_options or (),
                )
                return _TimedStream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure


class _TimedStream(httpcore.NetworkStream):
    """A stream whose every operation also ends at the deadline, however slowly bytes drip."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.limit(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.limit(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        limit = self._deadline.limit(timeout)
        return _TimedStream(
            self._stream.start_tls(ssl_context, server_hostname, limit), self._deadline
        )

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx_errors():
            yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


@contextmanager
def _as_httpx_errors() -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as error:
        raise httpx.ReadTimeout(str(error) or "no answer in time") from error
    except (
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.UnsupportedProtocol,
    ) as error:
        raise httpx.TransportError(str(error) or type(error).__name__) from error
