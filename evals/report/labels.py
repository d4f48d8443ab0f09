"""Where a label of a point can stand without covering lines, points and other labels."""

from collections.abc import Sequence

Point = tuple[float, float]
Box = tuple[float, float, float, float]

_CHARACTER, _HEIGHT = 9.0, 18.0  # drawing units, between the letters of wide and narrow pages
_GAP, _STEP = 9.0, 3.0


def place_label(at: Point, text: str, area: Box, taken: Sequence[Point]) -> Box:
    """Give the box (left, top, right, bottom) for the label that covers fewest of `taken`.

    Tried in this order: above left, above right, below right, below left, and the same again
    further away.

    Args:
        at: the point.
        text: its label.
        area: within which the box must lie.
        taken: points on everything that should stay visible.
    """
    width = _CHARACTER * len(text)
    boxes = []
    for away in (1, 2, 3):
        gap = _GAP + (away - 1) * _HEIGHT
        above, below = at[1] - gap - _HEIGHT, at[1] + gap
        left, right = at[0] - _GAP - width, at[0] + _GAP
        boxes += [(left, above), (right, above), (right, below), (left, below)]
    whole = [(x, y, x + width, y + _HEIGHT) for x, y in boxes]
    fitting = [box for box in whole if _within(box, area)] or whole[:1]
    return min(fitting, key=lambda box: sum(_covers(box, point) for point in taken))


def along(start: Point, end: Point) -> list[Point]:
    """Give points on a line, close enough that no label can slip between them."""
    count = max(1, int(max(abs(end[0] - start[0]), abs(end[1] - start[1])) / _STEP))
    return [
        (start[0] + (end[0] - start[0]) * i / count, start[1] + (end[1] - start[1]) * i / count)
        for i in range(count + 1)
    ]


def outline(box: Box) -> list[Point]:
    """Give points on the middle line and the edges of a box."""
    left, top, right, bottom = box
    return [p for y in (top, (top + bottom) / 2, bottom) for p in along((left, y), (right, y))]


def _within(box: Box, area: Box) -> bool:
    return box[0] >= area[0] and box[1] >= area[1] and box[2] <= area[2] and box[3] <= area[3]


def _covers(box: Box, point: Point) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
