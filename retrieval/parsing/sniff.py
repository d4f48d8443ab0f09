"""What a file is by its content, whatever its name says."""

import re
from dataclasses import dataclass

from retrieval.errors import DocumentError, ParseFailed
from retrieval.parsing.archive import Archive


@dataclass(frozen=True, slots=True)
class Content:
    """A kind of file: the extension of its parser and a noun for messages.

    `extension` is "" where no parser fits, `noun` is "" for text of no special kind.
    """

    extension: str = ""
    noun: str = ""


_PLAIN = Content()
_HTML_START = re.compile(rb"\s*(?:<!doctype\s+html|<html[\s>])", re.IGNORECASE)
_FEED_START = re.compile(
    rb"(?:\s|<\?[^>]{0,400}>|<!--[^>]{0,2000}-->|<!DOCTYPE[^>\[]{0,400}>)*+"
    rb"<(?:\w+:)?(?:rss|feed|RDF)[\s>]"
)
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_OLE_START = b"\xd0\xcf\x11\xe0"
# The part that makes an archive a document of its kind.
_OFFICE_FOLDERS = (
    ("word/", Content(".docx", "a Word document")),
    ("ppt/", Content(".pptx", "a PowerPoint presentation")),
    ("xl/", Content(".xlsx", "an Excel workbook")),
)
_BINARY_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"{\\rtf", "an RTF file"),
)
# Names of streams in a compound file, which stores them in UTF-16.
_OLE_STREAMS = (
    ("EncryptedPackage", Content("", "a password protected Office file")),
    ("WordDocument", Content("", "an old Word document")),
    ("PowerPoint Document", Content("", "an old PowerPoint presentation")),
    ("Workbook", Content(".xls", "an old Excel workbook")),
    ("Book", Content(".xls", "an old Excel workbook")),
)


def sniff(data: bytes, name: str) -> Content:
    """The kind of a file's content.

    Raises:
        ParseFailed: an Office file that is locked with a password.
    """
    # The PDF specification lets up to 1024 bytes precede the header.
    if b"%PDF-" in data[:1024]:
        return Content(".pdf", "a PDF")
    if data.startswith(_ZIP_STARTS):
        return _zip_content(data, name)
    if data.startswith(_OLE_START):
        return _ole_content(data, name)
    for start, noun in _BINARY_STARTS:
        if data.startswith(start):
            return Content("", noun)
    if _HTML_START.match(data):
        return Content(".html", "an HTML page")
    if _FEED_START.match(data[:8192].removeprefix(b"\xef\xbb\xbf")):
        return Content(".xml", "an RSS or Atom feed")
    return _binary_content(data)


def is_text(content: Content) -> bool:
    """Whether text parsers can read the content."""
    return content.extension in (".html", ".xml") or not content.noun


def _zip_content(data: bytes, name: str) -> Content:
    try:
        archive = Archive(data, name)
    except DocumentError:
        # The parser tells what is wrong with it; here it is only an archive.
        return Content("", "a ZIP archive that cannot be opened")
    paths = archive.paths
    if "[Content_Types].xml" in paths:
        for folder, content in _OFFICE_FOLDERS:
            if any(path.startswith(folder) for path in paths):
                return content
    if "mimetype" in paths:
        kind = archive.read("mimetype", 4096).strip()
        if kind == b"application/epub+zip":
            return Content(".epub", "an e-book")
        if kind.startswith(b"application/vnd.oasis.opendocument"):
            return Content("", "an OpenDocument file (save it as .docx, .pptx or .xlsx)")
    if "META-INF/container.xml" in paths:
        return Content(".epub", "an e-book")
    return Content("", "a ZIP archive (unpack it first)")


def _ole_content(data: bytes, name: str) -> Content:
    for stream, content in _OLE_STREAMS:
        if stream.encode("utf-16-le") in data:
            if stream == "EncryptedPackage":
                raise ParseFailed(f"{name} is password protected; save it without a password")
            return content
    return Content("", "an old Office file")


def _binary_content(data: bytes) -> Content:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _PLAIN
    head = data[:4096]
    controls = sum(1 for byte in head if byte < 32 and byte not in b"\t\n\r\x0c\x1b\x08")
    if controls <= len(head) * 0.02:
        return _PLAIN
    import puremagic

    try:
        return Content("", f"of type {puremagic.from_string(head, mime=True)}")
    except puremagic.PureError:
        return Content("", "binary data")
