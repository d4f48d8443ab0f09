"""Fetching one page: politely, within limits, and only from permitted addresses."""

from __future__ import annotations

import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit

import httpx

from app.knowledge.sources import robots
from app.knowledge.sources.addresses import AddressRules, BlockedAddress, SafeUrl, check_url
from app.knowledge.sources.content import as_utf8, extension_of, media_type
from app.knowledge.sources.http_cache import CachedPage, HttpCache
from app.knowledge.sources.transport import Deadline, GuardedTransport, Resolver, resolve

MAX_REDIRECTS = 5
AGENT = "TandemBot"
_REDIRECTS = (301, 302, 303, 307, 308)
_GONE = (404, 410)
_GZIP = 31


@dataclass(frozen=True, slots=True)
class WebRules:
    """Limits of web sources. Times in seconds; sizes in bytes, also after decompression.

    `timeout_s` bounds each wait for the network, `page_s` one request as a whole, `delay_s` lies
    between two requests to one host (a longer Crawl-delay counts, up to 30 s).
    """

    addresses: AddressRules = field(default_factory=AddressRules)
    max_bytes: int = 20 * 1024 * 1024
    timeout_s: float = 10.0
    page_s: float = 60.0
    delay_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Page:
    """A fetched page: where it was in the end, its bytes (text as UTF-8) and what they are."""

    url: SafeUrl
    body: bytes
    content_type: str
    last_modified: str
    unchanged: bool


class FetchProblem(Exception):
    """A page that could not be fetched; one sentence.

    `gone`: the server says that it does not exist. `lasting`: trying again would not help.
    """

    def __init__(self, message: str, *, gone: bool = False, lasting: bool = False) -> None:
        super().__init__(message)
        self.gone = gone
        self.lasting = lasting


class Fetcher:
    """Fetches pages one after the other; use as a context manager. Not for several threads."""

    def __init__(
        self,
        rules: WebRules | None = None,
        cache: Path | None = None,
        *,
        resolver: Resolver = resolve,
        ssl_context: ssl.SSLContext | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`cache` is a folder that lasts between runs; without one nothing is ever "unchanged"."""
        self.rules = rules or WebRules()
        self._cache = HttpCache(cache) if cache else None
        self._sleep = sleep
        self._deadline = Deadline()
        self._robots: dict[str, robots.Robots] = {}
        self._last_request: dict[str, float] = {}
        # Without httpx's client there are no cookies, no environment, and nobody but us follows
        # or even parses a redirect.
        self._transport = GuardedTransport(
            self.rules.addresses,
            deadline=self._deadline,
            resolver=resolver,
            ssl_context=ssl_context,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transport.close()

    def check(self, url: str) -> SafeUrl:
        """Read and permit an address.

        Raises:
            FetchProblem: It is malformed or not permitted.
        """
        try:
            return check_url(url, self.rules.addresses)
        except BlockedAddress as error:
            raise FetchProblem(str(error)) from error

    def fetch(self, url: str, *, documents_only: bool = True) -> Page:
        """A page, at most five redirects away, each of them checked like the first address.

        Raises:
            FetchProblem: With the reason.
        """
        here = self.check(url)
        for _ in range(MAX_REDIRECTS + 1):
            self._obey_robots(here)
            cached = self._cache.find(here.text) if self._cache else None
            with self._response(here, cached) as response:
                target = self._redirect(here, response)
                if target is None:
                    return self._page(here, response, cached, documents_only)
            here = target
        raise FetchProblem(f"{url} redirects more than {MAX_REDIRECTS} times")

    @contextmanager
    def _response(self, url: SafeUrl, cached: CachedPage | None = None) -> Iterator[httpx.Response]:
        self._wait(url)
        headers = {"User-Agent": AGENT, "Accept": "*/*", "Accept-Encoding": "gzip"}
        if cached and cached.etag:
            headers["If-None-Match"] = cached.etag
        if cached and cached.last_modified:
            headers["If-Modified-Since"] = cached.last_modified
        timeouts = {"timeout": httpx.Timeout(self.rules.timeout_s).as_dict()}
        request = httpx.Request("GET", url.text, headers=headers, extensions=timeouts)
        self._deadline.start(self.rules.page_s)
        try:
            response = self._transport.handle_request(request)
            try:
                yield response
            finally:
                response.close()
        except BlockedAddress as error:
            raise FetchProblem(str(error)) from error
        except httpx.HTTPError as error:
            raise FetchProblem(f"{url.text} could not be fetched: {error}") from error
        finally:
            self._last_request[url.origin] = time.monotonic()

    def _wait(self, url: SafeUrl) -> None:
        known = self._robots.get(url.origin, robots.ALLOW_ALL)
        due = self._last_request.get(url.origin, float("-inf"))
        due += max(self.rules.delay_s, known.delay_s)
        left = due - time.monotonic()
        if left > 0:
            self._sleep(left)

    def _redirect(self, here: SafeUrl, response: httpx.Response) -> SafeUrl | None:
        if response.status_code not in _REDIRECTS:
            return None
        location = response.headers.get("location", "")
        try:
            target = self.check(urljoin(here.text, location)) if location else None
        except ValueError as error:
            raise FetchProblem(f"{here.text} redirects to a malformed address") from error
        if target is None:
            raise FetchProblem(f"{here.text} redirects to nowhere")
        if here.scheme == "https" and target.scheme == "http":
            raise FetchProblem(f"{here.text} redirects to an unencrypted address, {target.text}")
        return target

    def _page(
        self,
        url: SafeUrl,
        response: httpx.Response,
        cached: CachedPage | None,
        documents_only: bool,
    ) -> Page:
        status = response.status_code
        if status == 304 and cached and self._cache:
            body = self._cache.body(url.text).read_bytes()
            return Page(url, body, cached.content_type, cached.last_modified, unchanged=True)
        if status in _GONE:
            raise FetchProblem(f"{url.text} does not exist (status {status})", gone=True)
        if status != 200:
            raise FetchProblem(f"{url.text} answered with status {status}")
        content_type = response.headers.get("content-type", "")
        if documents_only and extension_of(content_type, url.text) is None:
            kind = media_type(content_type)[0] or "unknown"
            raise FetchProblem(f"{url.text} is of type {kind}, which holds no text", lasting=True)
        body = as_utf8(read_limited(response, self.rules.max_bytes, url.text), content_type)
        etag = response.headers.get("etag", "")
        modified = response.headers.get("last-modified", "")
        if self._cache and (etag or modified):
            self._cache.keep(url.text, content_type, etag, modified, body)
        return Page(url, body, content_type, modified, unchanged=False)

    def _obey_robots(self, url: SafeUrl) -> None:
        if url.origin not in self._robots:
            self._robots[url.origin] = self._read_robots(url)
        parts = urlsplit(url.text)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not self._robots[url.origin].allows(path):
            raise FetchProblem(f"{url.text} is closed to us by the site's robots.txt", lasting=True)

    def _read_robots(self, url: SafeUrl) -> robots.Robots:
        """The site's rules: none where it has no file; where it cannot be read, no page is.

        Raises:
            FetchProblem: The site's answer is an error or none (RFC 9309, 2.3.1.4).
        """
        here = self.check(urljoin(url.text, "/robots.txt"))
        for _ in range(MAX_REDIRECTS + 1):
            with self._response(here) as response:
                target = self._redirect(here, response)
                if target is None:
                    status = response.status_code
                    if 400 <= status < 500 and status != 429:
                        return robots.ALLOW_ALL
                    if status != 200:
                        raise FetchProblem(f"{here.text} answered with status {status}")
                    text = read_limited(response, robots.MAX_BYTES, here.text, cut=True)
                    return robots.parse_robots(text.decode("utf-8", "replace"), AGENT)
            here = target
        return robots.ALLOW_ALL


def read_limited(response: httpx.Response, limit: int, url: str, *, cut: bool = False) -> bytes:
    """The body, of which never more than `limit` bytes are held, packed or not.

    With `cut` a longer body is cut there.

    Raises:
        FetchProblem: It is longer, or packed in a way that was not asked for, or damaged.
    """
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "gzip", "x-gzip", ""):
        raise FetchProblem(f"{url} is packed as {packing[:40]!r}, which was not asked for")
    inflate = zlib.decompressobj(_GZIP) if "gzip" in packing else None
    body = bytearray()
    try:
        for chunk in response.iter_raw():
            body += inflate.decompress(chunk, limit + 1 - len(body)) if inflate else chunk
            if len(body) > limit and cut:
                return bytes(body[:limit])
            if len(body) > limit:
                raise FetchProblem(f"{url} is larger than the limit of {limit} bytes")
    except zlib.error as error:
        raise FetchProblem(f"{url} is damaged: {error}") from error
    if inflate and body and (not inflate.eof or inflate.unused_data):
        raise FetchProblem(f"{url} is damaged: its packed content does not end where it should")
    return bytes(body)
