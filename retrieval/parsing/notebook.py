"""Jupyter notebooks: Markdown cells, code, and what the code printed."""

import re
from typing import Any

from retrieval.errors import ParseFailed
from retrieval.parsing.json_data import load_json, plain
from retrieval.parsing.markdown import parse_markdown
from retrieval.parsing.nested import add_document
from retrieval.parsing.text import DocumentBuilder, collapse, decode
from retrieval.types import ParsedDocument

_ANSI = re.compile("\x1b\\[[0-9;?]{0,20}[A-Za-z]")
# The text beside a picture or widget is the name of a Python object.
_OBJECT_NAME = re.compile(r"\s*<[\w.]+(?:\s[^<>]{0,200})?>\s*\Z")


def parse_notebook(data: bytes, name: str) -> ParsedDocument:
    """Parse a notebook of format 3 or 4; pictures and HTML outputs are left out.

    Raises:
        EmptyDocument: no cell holds text.
        ParseFailed: no notebook.
        ParseLimit: larger than JSON files may be.
    """
    notebook = load_json(decode(data, name), name)
    cells = _cells(notebook)
    if cells is None:
        raise ParseFailed(f"{name} is JSON but no notebook: it has no list of cells")
    builder = DocumentBuilder(name, "application/x-ipynb+json")
    for cell in cells:
        if isinstance(cell, dict):
            _add_cell(builder, cell, name)
    metadata = notebook.get("metadata")
    title = metadata.get("title") if isinstance(metadata, dict) else ""
    return builder.build(title=collapse(plain(title)) if isinstance(title, str) else "")


def _cells(notebook: Any) -> list[Any] | None:
    if not isinstance(notebook, dict):
        return None
    cells = notebook.get("cells")
    if isinstance(cells, list):
        return cells
    sheets = notebook.get("worksheets")
    if not isinstance(sheets, list):
        return None
    found: list[Any] = []
    for sheet in sheets:
        if isinstance(sheet, dict) and isinstance(sheet.get("cells"), list):
            found.extend(sheet["cells"])
    return found


def _add_cell(builder: DocumentBuilder, cell: dict[str, Any], name: str) -> None:
    kind = cell.get("cell_type")
    source = _joined(cell.get("source", cell.get("input")))
    if kind == "markdown":
        add_document(builder, parse_markdown, source.encode("utf-8"), name)
    elif kind == "heading":
        level = str(cell.get("level", "1"))
        builder.add("heading", collapse(source), level=int(level) if level in "123456" else 1)
    elif kind == "code":
        builder.add("code", source)
        outputs = cell.get("outputs")
        for output in outputs if isinstance(outputs, list) else []:
            if isinstance(output, dict):
                builder.add("paragraph", _output_text(output))
    else:
        builder.add("paragraph", source.strip())


def _output_text(output: dict[str, Any]) -> str:
    kind = output.get("output_type")
    if kind in ("error", "pyerr"):
        return f"{_joined(output.get('ename'))}: {_joined(output.get('evalue'))}".strip(": \n")
    if kind == "stream":
        return _joined(output.get("text")).strip()
    data = output.get("data", output)
    text = _joined(data.get("text/plain", data.get("text"))) if isinstance(data, dict) else ""
    return "" if _OBJECT_NAME.match(text) else text.strip()


def _joined(value: Any) -> str:
    """A text that may be stored as a list of lines."""
    if isinstance(value, list):
        value = "".join(part for part in value if isinstance(part, str))
    return plain(_ANSI.sub("", value)) if isinstance(value, str) else ""
