"""CSV and TSV: the delimiter told from the first rows, the whole file as one table."""

import csv
import io
from collections import Counter
from collections.abc import Iterator

from retrieval.errors import ParseFailed
from retrieval.parsing.grid import CellBudget, Row, add_rows, file_stem
from retrieval.parsing.text import DocumentBuilder, clean, decode
from retrieval.types import ParsedDocument

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_CHARS = 65_536
_SAMPLE_ROWS = 200
_MAX_COLUMNS = 16_384


def parse_csv(data: bytes, name: str) -> ParsedDocument:
    """Parse delimited text; rows of one cell above the header become paragraphs.

    Raises:
        BrokenEncoding: see `text.decode`.
        EmptyDocument: no cell holds text.
        ParseFailed: a field is endless, as after a quote that nobody closed.
        ParseLimit: more cells or text than is allowed.
    """
    text = clean(decode(data, name))
    tabs = name.lower().endswith((".tsv", ".tab"))
    budget = CellBudget(name)
    builder = DocumentBuilder(name, "text/tab-separated-values" if tabs else "text/csv")
    rows = _rows(text, "\t" if tabs else sniff_delimiter(text), name, budget)
    add_rows(builder, rows, budget, one_table=True)
    return builder.build(title=file_stem(name))


def sniff_delimiter(text: str) -> str:
    """The delimiter under which most of the first rows agree on their number of cells."""
    best, best_score = ",", (0.0, _MAX_COLUMNS)
    for delimiter in _DELIMITERS:
        widths = _sample_widths(text, delimiter)
        width, agreeing = max(widths.most_common(1), default=(0, 0))
        score = (agreeing / max(widths.total(), 1) if width > 1 else 0.0, width)
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _sample_widths(text: str, delimiter: str) -> Counter[int]:
    sample = text[:_SAMPLE_CHARS]
    if len(sample) < len(text):
        # The last line is cut, so its width says nothing.
        sample = sample.rpartition("\n")[0] or sample
    widths: Counter[int] = Counter()
    try:
        for row in csv.reader(io.StringIO(sample), delimiter=delimiter):
            if any(row):
                widths[len(row)] += 1
            if widths.total() >= _SAMPLE_ROWS:
                break
    except csv.Error:
        return Counter()
    return widths


def _rows(text: str, delimiter: str, name: str, budget: CellBudget) -> Iterator[tuple[int, Row]]:
    # Blank lines part no tables here, so rows are numbered without them.
    number = 0
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        for cells in reader:
            if len(cells) > _MAX_COLUMNS:
                raise ParseFailed(
                    f"line {reader.line_num} of {name} has {len(cells)} cells; "
                    f"the limit is {_MAX_COLUMNS}"
                )
            row = {i: cell for i, cell in enumerate(cells) if cell and not cell.isspace()}
            if row:
                budget.spend_many(len(row), sum(map(len, row.values())))
                number += 1
                yield number, row
    except csv.Error as error:
        raise ParseFailed(
            f"line {reader.line_num} of {name} is no delimited text ({error}); "
            "is a quote left open?"
        ) from error
