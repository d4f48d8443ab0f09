"""Which parser reads a file: by its extension, confirmed by its content."""

from collections.abc import Callable

from retrieval.errors import EmptyDocument, ParseFailed, ParseLimit, UnsupportedFormat
from retrieval.parsing.archive import Archive
from retrieval.parsing.delimited import parse_csv
from retrieval.parsing.docx import parse_docx
from retrieval.parsing.epub import parse_epub
from retrieval.parsing.feed import parse_feed
from retrieval.parsing.html import parse_html
from retrieval.parsing.json_data import parse_json, parse_jsonl
from retrieval.parsing.markdown import parse_markdown
from retrieval.parsing.notebook import parse_notebook
from retrieval.parsing.pdf import parse_pdf
from retrieval.parsing.plain import parse_plain
from retrieval.parsing.pptx import parse_pptx
from retrieval.parsing.sniff import Content, is_text, sniff
from retrieval.parsing.xls import parse_xls
from retrieval.parsing.xlsx import parse_xlsx
from retrieval.types import ParsedDocument

_PARSERS: dict[str, Callable[[bytes, str], ParsedDocument]] = {
    ".atom": parse_feed,
    ".csv": parse_csv,
    ".docx": parse_docx,
    ".epub": parse_epub,
    ".htm": parse_html,
    ".html": parse_html,
    ".ipynb": parse_notebook,
    ".json": parse_json,
    ".jsonl": parse_jsonl,
    ".markdown": parse_markdown,
    ".md": parse_markdown,
    ".ndjson": parse_jsonl,
    ".pdf": parse_pdf,
    ".pptx": parse_pptx,
    ".rss": parse_feed,
    ".text": parse_plain,
    ".tsv": parse_csv,
    ".txt": parse_plain,
    ".xhtml": parse_html,
    ".xls": parse_xls,
    ".xlsx": parse_xlsx,
    ".xml": parse_feed,
}
SUPPORTED_EXTENSIONS: tuple[str, ...] = tuple(sorted(_PARSERS))

# Binary formats: the content must be what the extension says.
_CONFIRMED = {
    ".docx": "Word document",
    ".epub": "e-book",
    ".pdf": "PDF",
    ".pptx": "PowerPoint presentation",
    ".xls": "old Excel workbook",
    ".xlsx": "Excel workbook",
}
_ZIPPED = (".docx", ".epub", ".pptx", ".xlsx")
_ADVICE = {
    ".doc": "save it as .docx",
    ".docm": "save it as .docx",
    ".odp": "save it as .pptx",
    ".ods": "save it as .xlsx",
    ".odt": "save it as .docx",
    ".pages": "save it as .docx",
    ".ppt": "save it as .pptx",
    ".pptm": "save it as .pptx",
    ".rtf": "save it as .docx",
    ".xlsb": "save it as .xlsx",
    ".xlsm": "save it as .xlsx",
    ".zip": "unpack it first",
    **dict.fromkeys(
        (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
        "run text recognition (OCR) first",
    ),
}


def parse_bytes(data: bytes, name: str) -> ParsedDocument:
    """Parse a file's content in this process; `name` decides the format with the content.

    A name without extension is judged by content alone.

    Raises:
        DocumentError: the subclass tells why; nothing but these is raised for bad input.
    """
    if not data.strip():
        raise EmptyDocument(f"{name} is empty ({len(data)} bytes); nothing was indexed")
    parse = _PARSERS[detect_extension(data, name)]
    try:
        return parse(data, name)
    except RecursionError as error:
        raise ParseLimit(f"{name} is nested too deeply to be parsed") from error


def detect_extension(data: bytes, name: str) -> str:
    """The supported extension whose parser fits.

    Raises:
        ParseFailed: an Office file or e-book that is damaged or locked.
        ParseLimit: an archive with too many members or bytes.
        UnsupportedFormat: an unknown extension, or a content that contradicts it.
    """
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    extension = f".{base.rsplit('.', 1)[1].lower()}" if "." in base.lstrip(".") else ""
    choices = ", ".join(SUPPORTED_EXTENSIONS)
    if extension and extension not in _PARSERS:
        advice = f"; {_ADVICE[extension]}" if extension in _ADVICE else ""
        raise UnsupportedFormat(
            f"{name} has the unsupported extension {extension}{advice} (supported: {choices})"
        )
    content = sniff(data, name)
    if not extension and (content.extension or not content.noun):
        return content.extension or ".txt"
    if extension in _CONFIRMED:
        _confirm(data, name, extension, content)
    elif not is_text(content):
        advice = f"; rename it to {content.extension}" if content.extension else ""
        raise UnsupportedFormat(
            f"{name} is {content.noun} by its content{advice} (supported: {choices})"
        )
    return extension


def _confirm(data: bytes, name: str, extension: str, content: Content) -> None:
    """Refuse a content that is not what its extension promises."""
    if content.extension == extension:
        return
    if extension in _ZIPPED and data.startswith(b"PK"):
        # Opening it again raises what is wrong with a damaged or oversized archive.
        Archive(data, name)
    found = content.noun or f"no {_CONFIRMED[extension]}"
    advice = f"rename it to {content.extension}" if content.extension else "check the file"
    if content.noun == "an old Office file":
        raise ParseFailed(f"{name} is a damaged Office file: none of its streams is known")
    raise UnsupportedFormat(
        f"{name} is {found} by its content, which its extension {extension} contradicts; "
        f"{advice} (supported: {', '.join(SUPPORTED_EXTENSIONS)})"
    )
