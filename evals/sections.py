"""Further tables that a caller adds to a report: freshness, resources, anything with rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from evals.errors import EvalError

Cell = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart; `name` is an arm, whose colour it takes."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over two axes from 0 to 1.

    Attributes:
        diagonal: draw the line on which both are equal.
        marks: draw the points themselves.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    diagonal: bool = False
    marks: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A titled table of plain values; no HTML, everything is escaped.

    Attributes:
        note: a paragraph above the table.
        charts: pictures above the table.
        heat: shade numbers by their share of the largest in the row, as in a confusion matrix.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    charts: tuple[Chart, ...] = ()
    heat: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise EvalError(
                    f"section {self.title!r} has {len(self.columns)} columns "
                    f"but a row of {len(row)} cells"
                )


def flatten(values: object, prefix: str = "") -> Sequence[tuple[str, str]]:
    """Turn nested mappings and lists into (dotted key, text) rows, in their own order."""
    if isinstance(values, dict):
        return [
            row
            for key, value in values.items()
            for row in flatten(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(values, list | tuple):
        if all(not isinstance(value, dict | list | tuple) for value in values):
            return [(prefix, ", ".join(str(value) for value in values))]
        return [row for i, value in enumerate(values) for row in flatten(value, f"{prefix}[{i}]")]
    return [(prefix, "" if values is None else str(values))]
