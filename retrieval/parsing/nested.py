"""Documents inside documents: chapters of a book, entries of a feed, cells of a notebook."""

from collections.abc import Callable

from retrieval.errors import EmptyDocument
from retrieval.parsing.text import DocumentBuilder
from retrieval.types import ParsedDocument

_DEEPEST_HEADING = 6


def add_document(
    builder: DocumentBuilder,
    parse: Callable[[bytes, str], ParsedDocument],
    data: bytes,
    name: str,
    *,
    deeper: int = 0,
) -> None:
    """Parse `data` and append its blocks, headings `deeper` levels down; nothing if it is empty."""
    try:
        document = parse(data, name)
    except EmptyDocument:
        return
    for block in document.blocks:
        level = block.level
        if block.kind == "heading":
            level = min(level + deeper, _DEEPEST_HEADING)
        builder.add(block.kind, block.text, level=level)
