"""E-books (.epub 2 and 3): the chapters of the spine through the HTML parser."""

from urllib.parse import unquote

from retrieval.errors import ParseFailed, ParseLimit
from retrieval.parsing.archive import Archive, resolve
from retrieval.parsing.html import parse_html
from retrieval.parsing.nested import add_document
from retrieval.parsing.safe_xml import Element, attribute, child, local_name, parse_xml
from retrieval.parsing.text import DocumentBuilder, clean, collapse
from retrieval.types import ParsedDocument

MEDIA_TYPE = "application/epub+zip"
MAX_CHAPTER_BYTES = 16 * 1024 * 1024
# libxml2 spends about 120 bytes on a node.
MAX_CHAPTER_TAGS = 1_500_000

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_TEXT_TYPES = frozenset({"application/xhtml+xml", "text/html", "text/x-oeb1-document"})


def parse_epub(data: bytes, name: str) -> ParsedDocument:
    """Parse an e-book: chapters in reading order with their headings; the contents are left out.

    Raises:
        EmptyDocument: no chapter holds text.
        ParseFailed: damaged, or protected by a digital rights scheme.
        ParseLimit: a chapter is too large.
    """
    archive = Archive(data, name)
    container = parse_xml(archive.read(_CONTAINER), f"part {_CONTAINER} of {name}")
    path = next((attribute(e, "full-path") for e in container.iter("{*}rootfile")), "")
    package = parse_xml(archive.read(path), f"part {collapse(path)} of {name}")
    protected = _protected(archive, name)
    builder = DocumentBuilder(name, MEDIA_TYPE)
    for chapter in _spine(package, path):
        if chapter in protected:
            raise ParseFailed(
                f"{name} is protected by a digital rights scheme (part {collapse(chapter)})"
            )
        content = archive.read(chapter, MAX_CHAPTER_BYTES)
        tags = content.count(b"<")
        if tags > MAX_CHAPTER_TAGS:
            raise ParseLimit(
                f"part {collapse(chapter)} of {name} has {tags} tags; the limit is "
                f"{MAX_CHAPTER_TAGS}"
            )
        if content.strip():
            add_document(builder, parse_html, content, name)
    metadata = child(package, "metadata")
    fields = {
        key: text
        for key, field in (("author", "creator"), ("lang", "language"))
        if (text := _field(metadata, field))
    }
    return builder.build(title=_field(metadata, "title"), metadata=fields)


def _spine(package: Element, path: str) -> list[str]:
    """The paths of the text parts in reading order, each once."""
    manifest, spine = child(package, "manifest"), child(package, "spine")
    items = {attribute(item, "id"): item for item in ([] if manifest is None else manifest)}
    found: dict[str, None] = {}
    for reference in [] if spine is None else spine:
        item = items.get(attribute(reference, "idref"))
        if item is not None and attribute(item, "media-type") in _TEXT_TYPES:
            found[resolve(path, unquote(attribute(item, "href").partition("#")[0]))] = None
    return list(found)


def _protected(archive: Archive, name: str) -> set[str]:
    """The encrypted parts; fonts are often disguised, which does no harm."""
    if _ENCRYPTION not in archive:
        return set()
    root = parse_xml(archive.read(_ENCRYPTION), f"part {_ENCRYPTION} of {name}")
    return {unquote(attribute(item, "URI")).lstrip("/") for item in root.iter("{*}CipherReference")}


def _field(metadata: Element | None, name: str) -> str:
    for item in [] if metadata is None else metadata.iter("{*}" + name):
        if local_name(item) == name and (text := collapse(clean(item.text or ""))):
            return text
    return ""
