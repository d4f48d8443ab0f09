"""Word documents (.docx): headings, lists, tables and notes, in reading order.

Read from the XML itself: what libraries hide (footnotes, numbers of lists and headings, text
boxes, inserted and deleted text) is part of what a reader sees.
"""

from collections.abc import Iterator

from retrieval.errors import ParseFailed
from retrieval.parsing.docx_styles import (
    Numbering,
    ParagraphStyle,
    heading_level,
    list_place,
    read_styles,
)
from retrieval.parsing.grid import CellBudget
from retrieval.parsing.office import OfficePackage, visible_children
from retrieval.parsing.office_math import math_text
from retrieval.parsing.safe_xml import Element, attribute, child, integer, local_name
from retrieval.parsing.text import DocumentBuilder, clean, collapse, collapse_lines, table_text
from retrieval.types import ParsedDocument

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
# Word itself stops at 63 columns.
MAX_COLUMNS = 64

_WRAPPERS = frozenset(
    {"bdo", "customXml", "dir", "fldSimple", "hyperlink", "ins", "moveTo", "sdtContent", "smartTag"}
)
_OFF = ("0", "false", "off")
_NO_STYLE = ParagraphStyle()


def parse_docx(data: bytes, name: str) -> ParsedDocument:
    """Parse a Word document; headers, footers, comments and deleted text are left out.

    Raises:
        EmptyDocument: it holds no visible text.
        ParseFailed: damaged or encrypted.
        ParseLimit: more parts, nodes or cell text than is allowed.
    """
    package = OfficePackage(data, name)
    path = package.main_part("word/document.xml")
    body = child(package.xml(path), "body")
    if body is None:
        raise ParseFailed(f"{name} is a damaged Word document: it has no body")
    builder = DocumentBuilder(name, MEDIA_TYPE)
    reader = _Reader(package, path, builder)
    reader.read(body)
    return builder.build(title=package.title() or reader.title)


class _Reader:
    """Walks the body; `title` is the first paragraph in the style Title."""

    def __init__(self, package: OfficePackage, path: str, builder: DocumentBuilder) -> None:
        self.title = ""
        self._builder = builder
        self._styles = read_styles(package, path)
        self._numbering = Numbering(package, path)
        self._notes = _read_notes(package, path)
        self._budget = CellBudget(package.name)
        self._pending: list[str] = []
        self._boxes: list[Element] = []
        self._n_notes = 0

    def read(self, container: Element) -> None:
        for element in visible_children(container):
            name = local_name(element)
            if name == "p":
                self._paragraph(element)
                self._flush_asides()
            elif name == "tbl":
                self._table(element)
                self._flush_asides()
            elif name == "sdt":
                content = child(element, "sdtContent")
                if content is not None:
                    self.read(content)
            elif name in _WRAPPERS:
                self.read(element)

    def _style_of(self, properties: Element | None) -> ParagraphStyle:
        style = child(properties, "pStyle")
        style_id = "" if style is None else attribute(style, "val")
        return self._styles.get(style_id, self._styles.get("", _NO_STYLE))

    def _paragraph(self, paragraph: Element) -> None:
        text = collapse_lines(clean(self._text(paragraph)))
        properties = child(paragraph, "pPr")
        style = self._style_of(properties)
        if not text or style.is_contents:
            return
        outline = child(properties, "outlineLvl")
        level = style.heading if outline is None else heading_level(attribute(outline, "val"))
        list_id, depth = list_place(properties) or (style.list_id, style.list_level)
        numbered = list_id not in ("", "0")
        marker = self._numbering.marker(list_id, depth) if numbered else ""
        if style.is_title and not self.title:
            self.title = collapse(text)
        if level or style.is_title:
            number = f"{marker} " if marker not in ("", "-") else ""
            self._builder.add("heading", number + collapse(text), level=level or 1)
        elif numbered:
            indent = "  " * depth
            lead = f"{indent}{marker} " if marker else indent
            self._builder.add("list_item", lead + text.replace("\n", f"\n{indent}  "), level=depth)
        else:
            self._builder.add("paragraph", text)

    def _flush_asides(self) -> None:
        """Append notes and text boxes below the block that mentions or anchors them."""
        while self._pending or self._boxes:
            notes, self._pending = self._pending, []
            for note in notes:
                self._builder.add("paragraph", note)
            boxes, self._boxes = self._boxes, []
            for box in boxes:
                self.read(box)

    def _text(self, element: Element) -> str:
        """The visible text below a paragraph or a part of it; notes and boxes are put aside."""
        parts: list[str] = []
        for item in visible_children(element):
            name = local_name(item)
            if name == "r":
                if not _is_hidden(item):
                    parts.extend(self._run(item))
            elif name in ("oMath", "oMathPara"):
                parts.append(f" {math_text(item)} ")
            elif name == "sdt":
                content = child(item, "sdtContent")
                parts.append("" if content is None else self._text(content))
            elif name in _WRAPPERS:
                parts.append(self._text(item))
        return "".join(parts)

    def _run(self, run: Element) -> Iterator[str]:
        for item in visible_children(run):
            name = local_name(item)
            if name == "t":
                yield item.text or ""
            elif name in ("tab", "ptab"):
                yield " "
            elif name in ("br", "cr"):
                yield "\n"
            elif name == "noBreakHyphen":
                yield "-"
            elif name in ("footnoteReference", "endnoteReference"):
                yield self._note(name.removesuffix("Reference"), attribute(item, "id"))
            elif name in ("drawing", "pict", "object"):
                self._boxes.extend(_text_boxes(item))

    def _note(self, kind: str, note_id: str) -> str:
        # A note is told once, however often it is pointed to.
        text = self._notes.pop((kind, note_id), "")
        if not text:
            return ""
        self._n_notes += 1
        self._pending.append(f"[{self._n_notes}] {text}")
        return f" [{self._n_notes}]"

    def _table(self, table: Element) -> None:
        rows = [list(_descend(row, "tc")) for row in _descend(table, "tr") if not _is_deleted(row)]
        if all(len(row) <= 1 for row in rows):
            # One cell a row lays out a page, it is no data.
            for row in rows:
                for cell in row:
                    self.read(cell)
            return
        self._builder.add("table", clean(table_text(self._rows(rows))))

    def _rows(self, rows: list[list[Element]]) -> list[list[str]]:
        laid_out: list[list[str]] = []
        for cells in rows:
            row: list[str] = []
            above = laid_out[-1] if laid_out else []
            for cell in cells:
                properties = child(cell, "tcPr")
                span = child(properties, "gridSpan")
                width = 1 if span is None else integer(attribute(span, "val"), 1, low=1)
                merge = child(properties, "vMerge")
                if merge is not None and attribute(merge, "val", "continue") == "continue":
                    text = above[len(row)] if len(row) < len(above) else ""
                else:
                    text = self._cell_text(cell)
                self._budget.spend(text)
                row.append(text)
                room = max(MAX_COLUMNS - len(row), 0)
                row.extend([""] * min(width - 1, room))
            laid_out.append(row)
        return laid_out

    def _cell_text(self, cell: Element) -> str:
        """A cell on one line; the rows of a table inside are parted by semicolons."""
        parts = []
        for element in visible_children(cell):
            name = local_name(element)
            if name == "p":
                parts.append(self._text(element))
            elif name == "tbl":
                for row in _descend(element, "tr"):
                    cells = (collapse(self._cell_text(c)) for c in _descend(row, "tc"))
                    parts.append(", ".join(text for text in cells if text) + ";")
            elif name in ("sdt", "sdtContent") or name in _WRAPPERS:
                parts.append(self._cell_text(element))
        return collapse(" ".join(parts))


def _descend(element: Element, wanted: str) -> Iterator[Element]:
    """Rows of a table or cells of a row, also those inside content controls."""
    for item in visible_children(element):
        name = local_name(item)
        if name == wanted:
            yield item
        elif name == "sdt" or name in _WRAPPERS:
            yield from _descend(item, wanted)


def _text_boxes(element: Element) -> Iterator[Element]:
    for item in visible_children(element):
        if local_name(item) == "txbxContent":
            yield item
        else:
            yield from _text_boxes(item)


def _is_hidden(run: Element) -> bool:
    vanish = child(run, "rPr", "vanish")
    return vanish is not None and attribute(vanish, "val", "1") not in _OFF


def _is_deleted(row: Element) -> bool:
    return child(row, "trPr", "del") is not None


def _read_notes(package: OfficePackage, document: str) -> dict[tuple[str, str], str]:
    """The footnotes and endnotes by kind and id; the lines that part them are left out."""
    notes: dict[tuple[str, str], str] = {}
    for kind in ("footnote", "endnote"):
        path = package.related(document, f"{kind}s")
        if path is None:
            continue
        for note in package.xml(path):
            if attribute(note, "type", "normal") == "normal":
                # Runs alone: a note that points to notes would never end.
                text = " ".join(
                    "".join(run.text or "" for run in paragraph.iter("{*}t"))
                    for paragraph in note.iter("{*}p")
                )
                notes[kind, attribute(note, "id")] = collapse(clean(text))
    return notes
