"""How a parse travels between the sandbox and its worker: JSON behind an eight-byte length."""

from typing import Any

from retrieval import errors
from retrieval.types import Block, ParsedDocument

LENGTH_BYTES = 8


def encode_document(document: ParsedDocument) -> dict[str, Any]:
    """A JSON-ready form; block texts are left out, the offsets restore them."""
    return {
        "text": document.text,
        "title": document.title,
        "media_type": document.media_type,
        "pages": document.pages,
        "metadata": dict(document.metadata),
        "blocks": [[b.kind, b.level, b.page, b.start, b.end] for b in document.blocks],
    }


def decode_document(value: dict[str, Any]) -> ParsedDocument:
    """Inverse of `encode_document`."""
    text = value["text"]
    return ParsedDocument(
        text=text,
        title=value["title"],
        blocks=tuple(
            Block(kind, text[start:end], level, page, start, end)
            for kind, level, page, start, end in value["blocks"]
        ),
        media_type=value["media_type"],
        pages=value["pages"],
        metadata=value["metadata"],
    )


def decode_error(value: dict[str, str]) -> errors.DocumentError:
    """The error a worker reported; an unknown name becomes `ParseFailed`."""
    kind = getattr(errors, value["error"], errors.ParseFailed)
    if not (isinstance(kind, type) and issubclass(kind, errors.DocumentError)):
        kind = errors.ParseFailed
    return kind(value["message"])
