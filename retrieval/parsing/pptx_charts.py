"""The numbers of a chart on a slide, from the values that PowerPoint stores with it."""

from collections.abc import Iterator

from retrieval.parsing.grid import CellBudget
from retrieval.parsing.number_format import general_number
from retrieval.parsing.safe_xml import Element, attribute, child, integer, local_name
from retrieval.parsing.text import clean, collapse, table_text

_MAX_POINTS = 10_000
_MAX_SERIES = 64


def add_chart(root: Element, budget: CellBudget) -> Iterator[tuple[str, str]]:
    """The chart's title as a paragraph and its series as a table: (kind, text)."""
    title = child(root, "chart", "title")
    if title is not None:
        text = "".join(t.text or "" for t in title.iter("{*}t", "{*}v"))
        yield "paragraph", collapse(clean(text))
    series = list(root.iter("{*}ser"))[:_MAX_SERIES]
    names = [_texts(child(s, "tx")).get(0, "") for s in series]
    labels: dict[int, str] = {}
    for item in series:
        labels = labels or _texts(_first(item, "cat", "xVal"))
    values = [_texts(_first(item, "val", "yVal")) for item in series]
    points = sorted({index for column in (labels, *values) for index in column})
    rows = [["", *names]]
    for point in points:
        row = [labels.get(point, ""), *(column.get(point, "") for column in values)]
        budget.spend_many(len(row), sum(map(len, row)))
        rows.append(row)
    if points:
        yield "table", clean(table_text(rows))


def _first(element: Element, *names: str) -> Element | None:
    return next((c for c in element if local_name(c) in names), None)


def _texts(element: Element | None) -> dict[int, str]:
    """The cached points of a reference by their index."""
    found: dict[int, str] = {}
    for point in () if element is None else element.iter("{*}pt"):
        value = child(point, "v")
        index = integer(attribute(point, "idx"), high=_MAX_POINTS)
        if value is not None and index < _MAX_POINTS:
            found[index] = _shown(value.text or "")
    return found


def _shown(text: str) -> str:
    try:
        return general_number(float(text)) or text
    except ValueError:
        return text
