"""What a web server sent: which kind of file it is, in UTF-8, and where it links to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit

_OFFICE = "application/vnd.openxmlformats-officedocument"
_EXTENSIONS = {
    "text/html": ".html",
    "application/xhtml+xml": ".xhtml",
    "text/markdown": ".md",
    "text/x-markdown": ".md",
    "text/plain": ".txt",
    "application/pdf": ".pdf",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/json": ".json",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
    "application/rss+xml": ".rss",
    "application/atom+xml": ".atom",
    "application/xml": ".xml",
    "text/xml": ".xml",
    "application/epub+zip": ".epub",
    "application/x-ipynb+json": ".ipynb",
    f"{_OFFICE}.wordprocessingml.document": ".docx",
    f"{_OFFICE}.presentationml.presentation": ".pptx",
    f"{_OFFICE}.spreadsheetml.sheet": ".xlsx",
    "application/vnd.ms-excel": ".xls",
}
_KNOWN = frozenset(_EXTENSIONS.values()) | {".htm", ".markdown", ".text"}
# Servers send these for files whose kind they do not know.
_VAGUE = ("", "application/octet-stream", "binary/octet-stream", "application/x-download")
# A text file's own extension tells more than `text/plain` does.
_SHARPER = {".txt": (".md", ".markdown", ".csv", ".tsv", ".jsonl", ".json")}
_NEVER_DOCUMENTS = re.compile(
    r"\.(png|jpe?g|gif|svg|webp|avif|ico|bmp|css|m?js|map|woff2?|[to]tf|mp[34]|m4a|webm|avi|mov|wav"
    r"|ogg|zip|t?gz|bz2|xz|7z|rar|tar|exe|msi|dmg|iso|apk|deb|rpm|jar|bin|wasm)"
)


def media_type(header: str) -> tuple[str, str]:
    """Type and charset of a Content-Type header, lower case; the charset may be empty."""
    kind, _, rest = header.partition(";")
    charset = ""
    for parameter in rest.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset":
            charset = value.strip().strip("\"'").lower()
    return kind.strip().lower(), charset


def extension_of(header: str, url: str) -> str | None:
    """The file extension by which a page is parsed; None where it can be no document."""
    kind, _ = media_type(header)
    own = _suffix(url)
    if kind in _VAGUE:
        return own if own in _KNOWN else (".html" if not own and not kind else None)
    extension = _EXTENSIONS.get(kind)
    if extension is not None and own in _SHARPER.get(extension, ()):
        return own
    return extension


def file_name(url: str, extension: str) -> str:
    """A name for people and for the parser: the last part of the path with the extension."""
    last = PurePosixPath(unquote(urlsplit(url).path, errors="replace")).name or "index"
    printable = "".join(char for char in last if char.isprintable() and char not in '/\\"')
    stem = printable[: -len(extension)] if printable.lower().endswith(extension) else printable
    return f"{stem[:100] or 'index'}{extension}"


def as_utf8(body: bytes, header: str) -> bytes:
    """Text in the encoding its header names, as UTF-8; other content, and wrong names, as is."""
    kind, charset = media_type(header)
    is_text = kind.startswith("text/") or kind.endswith(("xml", "json"))
    if not is_text or not charset:
        return body
    try:
        return body.decode(charset).encode()
    except (LookupError, ValueError):
        return body


def links_of(body: bytes, url: str) -> Iterator[str]:
    """Absolute addresses a page links to, without fragments.

    Links marked `nofollow` and those to files that hold no text are left out.
    """
    from lxml import etree  # type: ignore[import-untyped]
    from lxml import html as lxml_html

    parser = lxml_html.HTMLParser(encoding="utf-8", no_network=True)
    try:
        root = lxml_html.document_fromstring(body, parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError):
        return
    base = next(iter(root.xpath("//base/@href")), "")
    start = _joined(url, str(base)) or url
    for anchor in root.iter("a", "area"):
        target = _joined(start, str(anchor.get("href") or "").strip())
        follow = "nofollow" not in str(anchor.get("rel") or "").lower().split()
        is_web = target.lower().startswith(("http://", "https://"))
        if is_web and follow and not _NEVER_DOCUMENTS.fullmatch(_suffix(target)):
            yield target.partition("#")[0]


def _joined(base: str, target: str) -> str:
    try:
        return urljoin(base, target) if target else ""
    except ValueError:
        return ""


def _suffix(url: str) -> str:
    try:
        return PurePosixPath(urlsplit(url).path).suffix.lower()
    except ValueError:
        return ""
