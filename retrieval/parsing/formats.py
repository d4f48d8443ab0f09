"""Which parser reads a file: by its extension, confirmed by its content."""

import re
from collections.abc import Callable

from retrieval.errors import EmptyDocument, UnsupportedFormat
from retrieval.parsing.html import parse_html
from retrieval.parsing.markdown import parse_markdown
from retrieval.parsing.pdf import parse_pdf
from retrieval.parsing.plain import parse_plain
from retrieval.types import ParsedDocument

_PARSERS: dict[str, Callable[[bytes, str], ParsedDocument]] = {
    ".htm": parse_html,
    ".html": parse_html,
    ".markdown": parse_markdown,
    ".md": parse_markdown,
    ".pdf": parse_pdf,
    ".text": parse_plain,
    ".txt": parse_plain,
    ".xhtml": parse_html,
}
SUPPORTED_EXTENSIONS: tuple[str, ...] = tuple(sorted(_PARSERS))

_HTML_START = re.compile(rb"\s*(?:<!doctype\s+html|<html[\s>])", re.IGNORECASE)
_BINARY_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive or Office file"),
    (b"\xd0\xcf\x11\xe0", "an old Office file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"{\\rtf", "an RTF file"),
)


def parse_bytes(data: bytes, name: str) -> ParsedDocument:
    """Parse a file's content in this process; `name` decides the format with the content.

    A name without extension is judged by content alone.

    Raises:
        DocumentError: the subclass tells why; nothing but these is raised for bad input.
    """
    if not data.strip():
        raise EmptyDocument(f"{name} is empty ({len(data)} bytes); nothing was indexed")
    return _PARSERS[detect_extension(data, name)](data, name)


def detect_extension(data: bytes, name: str) -> str:
    """The supported extension whose parser fits.

    Raises:
        UnsupportedFormat: an unknown extension, or a content that contradicts it.
    """
    content = _content_extension(data)
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    extension = f".{base.rsplit('.', 1)[1].lower()}" if "." in base.lstrip(".") else ""
    choices = ", ".join(SUPPORTED_EXTENSIONS)
    if extension and extension not in _PARSERS:
        raise UnsupportedFormat(
            f"{name} has the unsupported extension {extension}; supported: {choices}"
        )
    binary = _binary_kind(data)
    if binary:
        raise UnsupportedFormat(f"{name} is {binary} by its content; supported: {choices}")
    if not extension:
        return content or ".txt"
    if (content == ".pdf") != (extension == ".pdf"):
        found = "a PDF" if content == ".pdf" else "no PDF"
        raise UnsupportedFormat(
            f"{name} is {found} by its content, which its extension {extension} contradicts; "
            f"rename it (supported: {choices})"
        )
    return extension


def _content_extension(data: bytes) -> str:
    # The PDF specification lets up to 1024 bytes precede the header.
    if b"%PDF-" in data[:1024]:
        return ".pdf"
    return ".html" if _HTML_START.match(data) else ""


def _binary_kind(data: bytes) -> str:
    """What a binary content is, empty for text and PDF."""
    for start, kind in _BINARY_STARTS:
        if data.startswith(start):
            return kind
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"%PDF-" in data[:1024]:
        return ""
    head = data[:4096]
    controls = sum(1 for byte in head if byte < 32 and byte not in b"\t\n\r\x0c\x1b\x08")
    if controls <= len(head) * 0.02:
        return ""
    import puremagic

    try:
        return f"of type {puremagic.from_string(head, mime=True)}"
    except puremagic.PureError:
        return "binary data"
