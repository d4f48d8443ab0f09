"""Cells of a sheet to blocks: one table for each block of rows, parted by empty rows."""

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise

from retrieval.errors import ParseLimit
from retrieval.parsing.text import DocumentBuilder, clean, collapse, table_text

Row = dict[int, str]
"""The non-empty cells of one row by column, from 0."""

MAX_CELLS = 2_000_000
MAX_CHARS = 64 * 1024 * 1024
_CHUNK_ROWS = 1_000


class CellBudget:
    """Counts what the sheets of one file hold and stops a file that holds too much."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._cells = 0
        self._chars = 0

    def spend(self, text: str) -> None:
        """Count one cell.

        Raises:
            ParseLimit: more than `MAX_CELLS` cells or `MAX_CHARS` characters.
        """
        self.spend_many(1, len(text))

    def spend_many(self, cells: int, chars: int) -> None:
        """Count `cells` cells of `chars` characters in all; see `spend`."""
        self._cells += cells
        self._chars += chars
        if self._cells > MAX_CELLS:
            raise ParseLimit(
                f"{self._name} has more than {MAX_CELLS} filled cells; split it into smaller files"
            )
        if self._chars > MAX_CHARS:
            raise ParseLimit(
                f"{self._name} has more than {MAX_CHARS} characters of cell text; "
                "split it into smaller files"
            )


def add_sheet(
    builder: DocumentBuilder, title: str, rows: Iterator[tuple[int, Row]], budget: CellBudget
) -> None:
    """Append a heading and the tables below it; nothing for a sheet without cells.

    `rows` are (row number, non-empty cells) in order.
    """
    first = next(rows, None)
    if first is not None:
        builder.add("heading", _flat(title), level=1)
        add_rows(builder, chain([first], rows), budget)


def file_stem(name: str) -> str:
    """The file's name without folder and extension; "Sheet1" would be a poor title."""
    return name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]


def add_rows(
    builder: DocumentBuilder,
    rows: Iterable[tuple[int, Row]],
    budget: CellBudget,
    *,
    one_table: bool = False,
) -> None:
    """Append the tables of one sheet; `rows` are (row number, non-empty cells).

    A row number that skips one ends a table: the row between is empty. `one_table` also keeps
    tables together that an empty column parts.
    """
    group: list[Row] = []
    previous = -2
    for number, row in rows:
        if group and number > previous + 1:
            _add_group(builder, group, budget, one_table)
            group = []
        group.append(row)
        previous = number
    if group:
        _add_group(builder, group, budget, one_table)


def _add_group(
    builder: DocumentBuilder, group: list[Row], budget: CellBudget, one_table: bool
) -> None:
    tables = _side_by_side(group)
    if one_table or len(tables) == 1:
        _add_table(builder, group, sorted(set().union(*tables)), budget)
        return
    for columns in tables:
        part = [{c: row[c] for c in row if c in columns} for row in group]
        _add_table(builder, [row for row in part if row], sorted(columns), budget)


def _side_by_side(group: list[Row]) -> list[set[int]]:
    """The columns of each table in a group of rows.

    Tables stand side by side where an empty column parts two of at least two columns each;
    a narrower part is a label or a spacer of one table.
    """
    used = sorted({column for row in group for column in row})
    runs = [[used[0]]]
    for left, right in pairwise(used):
        if right == left + 1:
            runs[-1].append(right)
        else:
            runs.append([right])
    if len(runs) == 1 or any(len(run) < 2 for run in runs):
        return [set(used)]
    return [set(run) for run in runs]


def _add_table(
    builder: DocumentBuilder, rows: list[Row], columns: list[int], budget: CellBudget
) -> None:
    """A table under its title lines: rows of one cell above a wider row are captions."""
    first = 0
    if len(columns) > 1:
        while first < len(rows) and len(rows[first]) == 1:
            first += 1
        # Nothing but single cells: an indented list, not captions of a table.
        first = 0 if first == len(rows) and first > 1 else first
    for row in rows[:first]:
        builder.add("paragraph", _flat(next(iter(row.values()))))
    rest = rows[first:]
    if not rest:
        return
    if len(rest) == 1 and len(rest[0]) == 1:
        builder.add("paragraph", _flat(next(iter(rest[0].values()))))
        return
    builder.add("table", _lay_out(rest, columns, budget))


def _lay_out(rows: list[Row], columns: list[int], budget: CellBudget) -> str:
    """The table's text; empty cells cost their separators, which sparse sheets have many of."""
    lines = []
    for start in range(0, len(rows), _CHUNK_ROWS):
        laid_out = []
        for row in rows[start : start + _CHUNK_ROWS]:
            last = max(row)
            cells = [row.get(column, "") for column in columns if column <= last]
            budget.spend_many(0, 3 * len(cells))
            laid_out.append(cells)
        lines.append(table_text(laid_out))
    return clean("\n".join(line for line in lines if line))


def _flat(text: str) -> str:
    return collapse(clean(text))
