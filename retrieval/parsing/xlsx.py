"""Excel workbooks (.xlsx): cells streamed from the sheets' XML, shown as Excel shows them.

A file may claim a million rows or share one long text a million times, so cells are counted as
they are read and no tree is built.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from retrieval.errors import ParseFailed, ParseLimit
from retrieval.parsing.grid import CellBudget, Row, add_sheet, file_stem
from retrieval.parsing.number_format import BUILTIN_FORMATS, show_number
from retrieval.parsing.office import OfficePackage
from retrieval.parsing.safe_xml import Element, attribute, child, integer, local_name, stream_xml
from retrieval.parsing.text import DocumentBuilder
from retrieval.types import ParsedDocument

MAX_SHEETS = 1_000
MAX_MERGES = 20_000
MAX_COLUMNS = 16_384
MAX_ROWS = 1_048_576
MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

_REFERENCE = re.compile(r"\$?([A-Za-z]{1,3})\$?(\d{1,7})\Z")
_MERGE = re.compile(rb"<(?:\w+:)?mergeCell\s[^<>]{0,200}?ref=[\"']([A-Z]+\d+):([A-Z]+\d+)[\"']")
_NUMBER = re.compile(r"\s*[+-]?(?:\d{1,400}\.?\d{0,400}|\.\d{1,400})(?:[eE][+-]?\d{1,4})?\s*\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")


@dataclass(frozen=True, slots=True)
class _Book:
    """What all sheets of a workbook need."""

    texts: list[str]
    formats: list[str]
    date_1904: bool


def parse_xlsx(data: bytes, name: str) -> ParsedDocument:
    """Parse a workbook: a heading for each visible sheet, a table for each block of cells.

    Formulas give the value that Excel stored with them.

    Raises:
        EmptyDocument: no visible sheet holds a value.
        ParseFailed: damaged or encrypted.
        ParseLimit: more sheets, cells or text than is allowed.
    """
    package = OfficePackage(data, name)
    path = package.main_part("xl/workbook.xml")
    workbook = package.xml(path)
    relations = package.relations(path)
    budget = CellBudget(name)
    properties = child(workbook, "workbookPr")
    book = _Book(
        _shared_texts(package, path, name),
        _formats(package, path),
        properties is not None and attribute(properties, "date1904") in ("1", "true", "on"),
    )
    builder = DocumentBuilder(name, MEDIA_TYPE)
    for title, relation in _visible_sheets(workbook, name):
        target = relations.get(relation)
        if target is None or not package.has(target.path):
            raise ParseFailed(f"{name} is damaged: its sheet {title!r} is missing")
        if target.kind == "worksheet":
            rows = _Sheet(package.raw(target.path), f"sheet {title!r} of {name}", book, budget)
            add_sheet(builder, title, rows.read(), budget)
    return builder.build(title=package.title() or file_stem(name))


def _visible_sheets(workbook: Element, name: str) -> list[tuple[str, str]]:
    """Names and relation ids of the sheets that a reader sees."""
    sheets = child(workbook, "sheets")
    found = [s for s in ([] if sheets is None else sheets) if local_name(s) == "sheet"]
    if len(found) > MAX_SHEETS:
        raise ParseLimit(f"{name} has {len(found)} sheets; the limit is {MAX_SHEETS}")
    shown = (s for s in found if attribute(s, "state", "visible") == "visible")
    return [(attribute(s, "name"), attribute(s, "id")) for s in shown]


def _formats(package: OfficePackage, workbook: str) -> list[str]:
    """The format code of each cell style."""
    path = package.related(workbook, "styles")
    if path is None:
        return []
    styles = package.xml(path)
    custom = child(styles, "numFmts")
    codes = dict(BUILTIN_FORMATS)
    for item in [] if custom is None else custom:
        codes[integer(attribute(item, "numFmtId"))] = attribute(item, "formatCode")
    cell_styles = child(styles, "cellXfs")
    return [
        codes.get(integer(attribute(item, "numFmtId")), "General")
        for item in ([] if cell_styles is None else cell_styles)
    ]


def _shared_texts(package: OfficePackage, workbook: str, name: str) -> list[str]:
    path = package.related(workbook, "sharedStrings")
    if path is None:
        return []
    reader = _SharedTexts(CellBudget(name))
    for _ in stream_xml(
        package.raw(path), f"the shared texts of {name}", reader.start, reader.end, reader.text
    ):
        pass
    return reader.found


class _SharedTexts:
    """Gathers the `si` elements; phonetic hints (`rPh`) repeat a text and are left out."""

    def __init__(self, budget: CellBudget) -> None:
        self.found: list[str] = []
        self._budget = budget
        self._parts: list[str] = []
        self._open = False
        self._phonetic = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "t":
            self._open = not self._phonetic
        elif tag == "rPh":
            self._phonetic = True

    def text(self, text: str) -> None:
        if self._open:
            self._parts.append(text)

    def end(self, tag: str) -> None:
        if tag == "t":
            self._open = False
        elif tag == "rPh":
            self._phonetic = False
        elif tag == "si":
            text = "".join(self._parts)
            self._budget.spend(text)
            self.found.append(_unescape(text))
            self._parts.clear()


class _Sheet:
    """Reads one sheet: rows of shown cell texts, vertical merges filled down."""

    def __init__(self, data: bytes, what: str, book: _Book, budget: CellBudget) -> None:
        self._data = data
        self._what = what
        self._book = book
        self._budget = budget
        self._merges = _vertical_merges(data, what)
        self._done: list[tuple[int, Row]] = []
        self._row: Row = {}
        self._number = 0
        self._column = -1
        self._type = ""
        self._style = 0
        self._parts: list[str] = []
        self._open = False
        self._phonetic = False
        self._filling: dict[int, tuple[int, str]] = {}

    def read(self) -> Iterator[tuple[int, Row]]:
        """The non-empty rows as (row number, cells)."""
        for _ in stream_xml(self._data, self._what, self._start, self._end, self._text):
            yield from self._done
            self._done.clear()

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "c":
            self._column = _column(attributes.get("r", ""), self._column + 1)
            self._type = attributes.get("t", "n")
            self._style = integer(attributes.get("s", ""))
            self._parts.clear()
        elif tag in ("v", "t"):
            self._open = not self._phonetic
        elif tag == "row":
            number = integer(attributes.get("r", ""), self._number + 1, low=1, high=MAX_ROWS)
            self._number, self._column, self._row = number, -1, {}
        elif tag == "rPh":
            self._phonetic = True

    def _text(self, text: str) -> None:
        if self._open:
            self._parts.append(text)

    def _end(self, tag: str) -> None:
        if tag in ("v", "t"):
            self._open = False
        elif tag == "c":
            text = self._shown("".join(self._parts)) if self._parts else ""
            if text and not text.isspace() and self._column < MAX_COLUMNS:
                self._budget.spend(text)
                self._row[self._column] = text
        elif tag == "row" and self._row:
            self._fill_down()
            self._done.append((self._number, self._row))
        elif tag == "rPh":
            self._phonetic = False

    def _shown(self, text: str) -> str:
        kind = self._type
        if kind == "s":
            index = integer(text, -1, low=-1, high=1 << 31)
            return self._book.texts[index] if 0 <= index < len(self._book.texts) else ""
        if kind == "b":
            return "TRUE" if text.strip() == "1" else "FALSE"
        if kind in ("str", "inlineStr"):
            return _unescape(text)
        if kind == "n" and _NUMBER.match(text):
            formats = self._book.formats
            code = formats[self._style] if self._style < len(formats) else "General"
            return show_number(float(text), code, date_1904=self._book.date_1904) or text
        return text

    def _fill_down(self) -> None:
        """Repeat a vertically merged cell in its other rows, so that a row explains itself."""
        for column, (last, text) in list(self._filling.items()):
            if self._number > last:
                del self._filling[column]
            elif column not in self._row:
                self._budget.spend(text)
                self._row[column] = text
        for column in list(self._row) if self._merges else ():
            last = self._merges.get((self._number, column), 0)
            if last > self._number:
                self._filling[column] = (last, self._row[column])


def _vertical_merges(data: bytes, what: str) -> dict[tuple[int, int], int]:
    """The last row of each range merged over rows, by its first row and column."""
    merges: dict[tuple[int, int], int] = {}
    for count, match in enumerate(_MERGE.finditer(data), start=1):
        if count > MAX_MERGES:
            raise ParseLimit(f"{what} has more than {MAX_MERGES} merged ranges")
        first, last = (_REFERENCE.match(g.decode("ascii")) for g in match.groups())
        if first and last and int(last.group(2)) > int(first.group(2)):
            place = int(first.group(2)), _column(first.group(), 0)
            merges[place] = min(int(last.group(2)), MAX_ROWS)
    return merges


@lru_cache(maxsize=65_536)
def _column_number(letters: str) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - 64
    return number - 1


def _column(reference: str, default: int) -> int:
    """The column of a reference like "AB12", from 0."""
    match = _REFERENCE.match(reference)
    return _column_number(match.group(1)) if match else default


def _unescape(text: str) -> str:
    """Office writes characters that XML forbids as `_x000D_`."""
    if "_x" not in text:
        return text
    # Halves of surrogate pairs are no characters of their own.
    return _SURROGATE.sub("\ufffd", _ESCAPED.sub(lambda m: chr(int(m.group(1), 16)), text))
