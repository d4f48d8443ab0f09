"""Web pages: one, a crawl of what it links to, or what a sitemap lists."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.knowledge.sources.addresses import BlockedAddress, SafeUrl, check_url
from app.knowledge.sources.content import extension_of, file_name, links_of
from app.knowledge.sources.fetching import Fetcher, FetchProblem, Page
from app.knowledge.sources.store import server_name, write_whole
from app.knowledge.sources.types import FoundDocument, SitemapSpec, UrlSpec

_MAX_SITEMAPS = 100
_MAX_WAITING = 100_000
_LINKING = (".html", ".xhtml")


def find_pages(spec: UrlSpec, into: Path, fetcher: Fetcher) -> Iterator[FoundDocument]:
    """The page and, breadth first, the pages it leads to; the external id is the final address.

    With `same_host` the crawl stays on the host of the first page. A page that is gone is a
    deletion. What could not be read makes the listing incomplete, unless the site's rules or the
    kind of file leave it out for good.
    """
    start = check_url(spec.url).text
    waiting, known = deque([(start, 0)]), {start}
    walk = _Walk(fetcher, into)
    home = ""
    tried = 0
    while waiting and tried < spec.max_pages:
        address, depth = waiting.popleft()
        tried += 1
        try:
            page = fetcher.fetch(address)
        except FetchProblem as error:
            first = depth == 0
            yield walk.problem(address, error, first, first or depth < spec.depth)
            continue
        home = home or page.url.host
        known.add(page.url.text)
        if spec.same_host and page.url.host != home:
            away = FetchProblem(f"{address} leads away to {page.url.host}", lasting=True)
            yield walk.problem(address, away, False, False)
            continue
        yield from walk.document(page, named=depth == 0)
        if depth < spec.depth and len(known) < _MAX_WAITING:
            for link in _links(page, home if spec.same_host else ""):
                if link.text not in known:
                    known.add(link.text)
                    waiting.append((link.text, depth + 1))
    if waiting:
        yield _more(spec.url, f"stopped after {spec.max_pages} pages, {len(waiting)} were left")


def find_sitemap(spec: SitemapSpec, into: Path, fetcher: Fetcher) -> Iterator[FoundDocument]:
    """The pages of a sitemap; those on other hosts than the sitemap's are left out."""
    walk = _Walk(fetcher, into)
    listing = _Listing(check_url(spec.url).host)
    yield from listing.read(fetcher, spec.url)
    if listing.away:
        note = f"{spec.url} lists {listing.away} addresses that are malformed or on other hosts"
        yield FoundDocument(f"{spec.url} (listing)", "", problem=f"{note}; they were skipped")
    for address in list(listing.pages)[: spec.max_pages]:
        try:
            yield from walk.document(fetcher.fetch(address), named=False)
        except FetchProblem as error:
            yield walk.problem(address, error, False, False)
    left = len(listing.pages) - spec.max_pages
    if left > 0:
        yield _more(spec.url, f"stopped after {spec.max_pages} pages, {left} were left")


@dataclass(slots=True)
class _Listing:
    """The pages of a sitemap and of the sitemaps it names; `away` counts what was left out."""

    home: str
    pages: dict[str, None] = field(default_factory=dict)
    away: int = 0

    def read(self, fetcher: Fetcher, start: str) -> Iterator[FoundDocument]:
        """Fill `pages`; yields a problem for every sitemap that cannot be read."""
        waiting, known = deque([start]), {start}
        while waiting:
            address = waiting.popleft()
            try:
                maps, pages = _read_sitemap(fetcher, address)
            except FetchProblem as error:
                yield _more(address, str(error))
                continue
            self.pages.update(dict.fromkeys(self._own(pages)))
            for url in self._own(maps):
                if url not in known and len(known) < _MAX_SITEMAPS:
                    known.add(url)
                    waiting.append(url)
                elif url not in known:
                    yield _more(url, f"{start} names over {_MAX_SITEMAPS} sitemaps")

    def _own(self, addresses: list[str]) -> Iterator[str]:
        for address in addresses:
            url = _checked(address)
            if url is not None and url.host == self.home:
                yield url.text
            else:
                self.away += 1


@dataclass(slots=True)
class _Walk:
    """Writes pages, each final address once."""

    fetcher: Fetcher
    into: Path
    seen: set[str] = field(default_factory=set)

    def document(self, page: Page, *, named: bool) -> Iterator[FoundDocument]:
        """The page as a document, unless another address led to it before."""
        url = page.url.text
        extension = extension_of(page.content_type, url)
        if url in self.seen or extension is None:
            return
        self.seen.add(url)
        path = write_whole(
            self.into / server_name(f"url\x1f{url}", extension), page.body, flush=False
        )
        metadata = {"url": url} | (
            {"last_modified": page.last_modified} if page.last_modified else {}
        )
        yield FoundDocument(
            url, file_name(url, extension), path, named, metadata, unchanged=page.unchanged
        )

    def problem(
        self, address: str, error: FetchProblem, named: bool, hides_links: bool
    ) -> FoundDocument:
        """A page that was not read; one that is gone counts as deleted."""
        checked = _checked(address)
        name = checked.text if checked else address
        if error.gone:
            problem = str(error) if named else ""
            return FoundDocument(
                name, "", named=named, deleted=True, problem=problem,
                incomplete=named and hides_links,
            )  # fmt: skip
        incomplete = not error.lasting or (named and hides_links)
        return FoundDocument(name, "", named=named, problem=str(error), incomplete=incomplete)


def _more(address: str, why: str) -> FoundDocument:
    return FoundDocument(f"{address} (listing)", "", problem=why, incomplete=True)


def _checked(address: str) -> SafeUrl | None:
    try:
        return check_url(address)
    except BlockedAddress:
        return None


def _links(page: Page, home: str) -> Iterator[SafeUrl]:
    if extension_of(page.content_type, page.url.text) not in _LINKING:
        return
    for link in links_of(page.body, page.url.text):
        url = _checked(link)
        if url is not None and (not home or url.host == home):
            yield url


def _read_sitemap(fetcher: Fetcher, address: str) -> tuple[list[str], list[str]]:
    """Sitemaps and pages that a sitemap (XML, packed or not, or plain text) lists."""
    page = fetcher.fetch(address, documents_only=False)
    body = page.body
    if body.startswith(b"\x1f\x8b"):
        body = _unpacked(body, fetcher.rules.max_bytes, address)
    if not body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        lines = body.decode("utf-8", "replace").splitlines()
        return [], [line.strip() for line in lines if line.strip().startswith("http")]
    return _read_sitemap_xml(body, address)


def _read_sitemap_xml(body: bytes, address: str) -> tuple[list[str], list[str]]:
    from lxml import etree  # type: ignore[import-untyped]

    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise FetchProblem(f"{address} declares XML entities, which a sitemap must not")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        root = etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise FetchProblem(f"{address} is no sitemap: {error}") from error
    kind = etree.QName(root).localname
    if kind not in ("urlset", "sitemapindex"):
        raise FetchProblem(f"{address} is no sitemap: it starts with <{kind}>")
    found = [
        (node.text or "").strip()
        for entry in root
        if isinstance(entry.tag, str)
        for node in entry
        if isinstance(node.tag, str) and etree.QName(node).localname == "loc"
    ]
    return (found, []) if kind == "sitemapindex" else ([], found)


def _unpacked(body: bytes, limit: int, address: str) -> bytes:
    inflate = zlib.decompressobj(31)
    try:
        content = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise FetchProblem(f"{address} is damaged: {error}") from error
    if len(content) > limit:
        raise FetchProblem(f"{address} is larger than the limit of {limit} bytes once unpacked")
    return content
