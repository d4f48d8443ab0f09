"""Further tables that a caller adds to a report: freshness, resources, anything with rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from evals.errors import EvalError

Cell = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Section:
    """A titled table of plain values; no HTML, everything is escaped.

    Attributes:
        note: a paragraph above the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

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
