"""Plain text: paragraphs parted by blank lines."""

import re

from retrieval.parsing.text import DocumentBuilder, clean, collapse_lines, decode
from retrieval.types import ParsedDocument

_PARAGRAPH_BREAK = re.compile(r"\n[^\S\n]*\n+")
_ITEM = re.compile(r"^\s*(?:[-*\u2022\u2013]|\d{1,3}[.)])\s+\S")


def parse_plain(data: bytes, name: str) -> ParsedDocument:
    """Parse a text file; lines that start like list items become list items."""
    builder = DocumentBuilder(name, "text/plain")
    for paragraph in _PARAGRAPH_BREAK.split(clean(decode(data, name))):
        lines = collapse_lines(paragraph)
        pending: list[str] = []
        kind_is_item = False
        for line in lines.split("\n"):
            starts_item = bool(_ITEM.match(line))
            if starts_item and pending:
                builder.add("list_item" if kind_is_item else "paragraph", "\n".join(pending))
                pending = []
            if not pending:
                kind_is_item = starts_item
            pending.append(line)
        builder.add("list_item" if kind_is_item else "paragraph", "\n".join(pending))
    return builder.build()
