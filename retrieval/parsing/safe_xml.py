"""XML from strangers: no DTD, no entities, no network, and a bound on the size of the tree."""

import codecs
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from retrieval.errors import ParseFailed, ParseLimit
from retrieval.parsing.text import collapse

Element: TypeAlias = Any  # lxml ships no types

# libxml2 spends about 120 bytes on a node: a tree stays below half a gigabyte.
MAX_NODES = 3_000_000
MAX_STREAMED_TAGS = 16_000_000
_STEP = 1 << 20
_DOCTYPES = tuple("<!DOCTYPE".encode(e) for e in ("ascii", "utf-16-le", "utf-16-be"))
# ISO "strict" files differ from common ones in these addresses alone.
_STRICT = b"http://purl.oclc.org/ooxml/"
_STRICT_NAMESPACES = tuple(
    (_STRICT + strict, b"http://schemas.openxmlformats.org/" + common)
    for strict, common in (
        (b"wordprocessingml/main", b"wordprocessingml/2006/main"),
        (b"spreadsheetml/main", b"spreadsheetml/2006/main"),
        (b"presentationml/main", b"presentationml/2006/main"),
        (b"drawingml/", b"drawingml/2006/"),
        (b"officeDocument/relationships", b"officeDocument/2006/relationships"),
        (b"officeDocument/math", b"officeDocument/2006/math"),
    )
)


def parse_xml(data: bytes, what: str) -> Element:
    """The root element of `data` in UTF-8 or UTF-16; `what` names it in messages.

    Raises:
        ParseFailed: not well-formed, or it brings a document type declaration.
        ParseLimit: the tree would have more than `MAX_NODES` nodes.
    """
    from lxml import etree  # type: ignore[import-untyped]

    data = prepare(data, what)
    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False,
        dtd_validation=False, remove_comments=True, remove_pis=True, huge_tree=False,
    )  # fmt: skip
    _check_nodes(data, what)
    try:
        root = etree.fromstring(data, parser=parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise ParseFailed(f"{what} is not well-formed XML: {_reason(error)}") from error
    if root is None:
        raise ParseFailed(f"{what} is XML without a root element")
    return root


def stream_xml(
    data: bytes,
    what: str,
    start: Callable[[str, dict[str, str]], None],
    end: Callable[[str], None],
    text: Callable[[str], None],
) -> Iterator[None]:
    """Call back for every tag (local name, attributes) and text: constant memory, no tree.

    Yields after each slice of the input, so that the caller can hand on what it has so far.

    Raises:
        ParseFailed: as in `parse_xml`.
        ParseLimit: more than `MAX_STREAMED_TAGS` tags, empty ones too: they cost time.
    """
    from xml.parsers import expat

    data = prepare(data, what)
    tags = data.count(b"<")
    if tags > MAX_STREAMED_TAGS:
        raise ParseLimit(f"{what} has {tags} XML tags; the limit is {MAX_STREAMED_TAGS}")
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartElementHandler = lambda tag, attributes: start(tag.rpartition(":")[2], attributes)
    parser.EndElementHandler = lambda tag: end(tag.rpartition(":")[2])
    parser.CharacterDataHandler = text
    try:
        for offset in range(0, max(len(data), 1), _STEP):
            parser.Parse(data[offset : offset + _STEP], offset + _STEP >= len(data))
            yield
    except (expat.ExpatError, UnicodeError) as error:
        raise ParseFailed(f"{what} is not well-formed XML: {_reason(error)}") from error


def prepare(data: bytes, what: str) -> bytes:
    """`data` as UTF-8 with the namespaces of common Office files.

    Raises:
        ParseFailed: it has a document type declaration, or is in no supported encoding.
    """
    if any(mark in data for mark in _DOCTYPES):
        raise ParseFailed(f"{what} has a document type declaration, which is refused")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            data = data.decode("utf-16").encode("utf-8")
        except UnicodeError as error:
            raise ParseFailed(f"{what} starts like UTF-16 but is not: {_reason(error)}") from error
    if _STRICT in data:
        for strict, common in _STRICT_NAMESPACES:
            data = data.replace(strict, common)
    return data


def local_name(element: Element) -> str:
    """The tag without its namespace, empty for comments and instructions."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Element, name: str, default: str = "") -> str:
    """The attribute with the local name `name`, whatever its namespace."""
    value = element.get(name)
    if value is None:
        ending = "}" + name
        value = next((v for key, v in element.items() if key.endswith(ending)), default)
    return str(value)


def integer(text: str, default: int = 0, *, low: int = 0, high: int = 1 << 20) -> int:
    """`text` as an integer between `low` and `high`; `default` where it is none."""
    digits = text.strip()
    if not digits.lstrip("-").isdecimal() or len(digits) > 12:
        return default
    return min(max(int(digits), low), high)


def child(element: Element | None, *names: str) -> Element | None:
    """The first element down the path of local names, None where one is missing."""
    for name in names:
        if element is None:
            return None
        element = next((c for c in element if local_name(c) == name), None)
    return element


def _reason(error: Exception) -> str:
    """A parser's message on one line, without the name it gives to bytes in memory."""
    return collapse(str(error).replace("(<string>, line", "(line"))[:200]


def _check_nodes(data: bytes, what: str) -> None:
    # Closing tags stand for text nodes; an attribute is a node with a text node below.
    nodes = data.count(b"<") + 2 * data.count(b"=")
    if nodes > MAX_NODES:
        raise ParseLimit(f"{what} has about {nodes} XML nodes; the limit is {MAX_NODES}")
