"""Old Excel workbooks (.xls, BIFF 2 to 8) through xlrd."""

import io
import struct
from collections.abc import Iterator
from typing import Any, TypeAlias

from retrieval.errors import ParseFailed, ParseLimit
from retrieval.parsing.grid import CellBudget, Row, add_sheet, file_stem
from retrieval.parsing.number_format import show_number
from retrieval.parsing.text import DocumentBuilder, clean, collapse
from retrieval.types import ParsedDocument

Sheet: TypeAlias = Any  # xlrd ships no types
Book: TypeAlias = Any

MAX_SHEETS = 1_000
MAX_PLACES = 20_000_000
MEDIA_TYPE = "application/vnd.ms-excel"

# What xlrd lets escape on damaged files: it indexes and unpacks without checks.
_BROKEN = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, TypeError,
    ValueError, struct.error,
)  # fmt: skip


def parse_xls(data: bytes, name: str) -> ParsedDocument:
    """Parse an old workbook: a heading for each visible sheet, a table for each block of cells.

    Raises:
        EmptyDocument: no visible sheet holds a value.
        ParseFailed: damaged or encrypted.
        ParseLimit: more cells or text than is allowed.
    """
    import xlrd
    from xlrd.compdoc import CompDocError

    budget = CellBudget(name)
    builder = DocumentBuilder(name, MEDIA_TYPE)
    try:
        # xlrd writes warnings about odd files to this log.
        with xlrd.open_workbook(
            file_contents=data, logfile=io.StringIO(), formatting_info=True, on_demand=True,
            ragged_rows=True,
        ) as book:  # fmt: skip
            if book.nsheets > MAX_SHEETS:
                raise ParseLimit(f"{name} has {book.nsheets} sheets; the limit is {MAX_SHEETS}")
            places = 0
            for index in range(book.nsheets):
                sheet = book.sheet_by_index(index)
                places += sum(sheet.row_len(row) for row in range(sheet.nrows))
                # Sheets may share their bytes, so a small file can hold many large ones.
                if places > MAX_PLACES:
                    raise ParseLimit(f"{name} has more than {MAX_PLACES} cells, empty ones too")
                if sheet.visibility == 0:
                    add_sheet(builder, sheet.name, _rows(book, sheet, budget), budget)
                book.unload_sheet(index)
    except (xlrd.XLRDError, CompDocError) as error:
        if "encrypted" in str(error).lower():
            raise ParseFailed(
                f"{name} is password protected; save it without a password"
            ) from error
        raise ParseFailed(
            f"{name} is no readable Excel workbook: {collapse(clean(str(error)))[:200]}"
        ) from error
    except _BROKEN as error:
        raise ParseFailed(f"{name} is a damaged Excel workbook ({type(error).__name__})") from error
    return builder.build(title=file_stem(name))


def _rows(book: Book, sheet: Sheet, budget: CellBudget) -> Iterator[tuple[int, Row]]:
    # (first row, past the last row, first column, past the last column)
    merged = {(low, left): high for low, high, left, _ in sheet.merged_cells if high > low + 1}
    filling: dict[int, tuple[int, str]] = {}
    for number in range(sheet.nrows):
        row: Row = {}
        for column, kind in enumerate(sheet.row_types(number)):
            text = _shown(book, sheet, number, column, kind)
            if text and not text.isspace():
                budget.spend(text)
                row[column] = text
        if not row:
            continue
        _fill_down(number, row, merged, filling, budget)
        yield number, row


def _fill_down(
    number: int,
    row: Row,
    merged: dict[tuple[int, int], int],
    filling: dict[int, tuple[int, str]],
    budget: CellBudget,
) -> None:
    """Repeat a vertically merged cell in its other rows, so that a row explains itself."""
    for column, (end, text) in list(filling.items()):
        if number >= end:
            del filling[column]
        elif column not in row:
            budget.spend(text)
            row[column] = text
    for column in list(row) if merged else ():
        if (number, column) in merged:
            filling[column] = (merged[number, column], row[column])


def _shown(book: Book, sheet: Sheet, row: int, column: int, kind: int) -> str:
    """The text of a cell; `kind` is one of xlrd's cell types."""
    import xlrd

    if kind in (xlrd.XL_CELL_EMPTY, xlrd.XL_CELL_BLANK):
        return ""
    value = sheet.cell_value(row, column)
    if kind == xlrd.XL_CELL_TEXT:
        return str(value)
    if kind == xlrd.XL_CELL_BOOLEAN:
        return "TRUE" if value else "FALSE"
    if kind == xlrd.XL_CELL_ERROR:
        return str(xlrd.error_text_from_code.get(value, ""))
    style = book.xf_list[sheet.cell_xf_index(row, column)]
    code = book.format_map[style.format_key].format_str
    return show_number(float(value), code, date_1904=bool(book.datemode))
