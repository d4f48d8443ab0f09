"""Lines over two axes from 0 to 1, as inline SVG."""

from collections.abc import Callable

from evals.sections import Chart
from evals.text import escape

_WIDTH, _HEIGHT = 520.0, 400.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 508.0, 44.0, 348.0
_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def line_chart(chart: Chart, colour_of: Callable[[str], str]) -> str:
    """Draw a chart; `colour_of` gives the colour class of a line's name."""
    parts = [
        f'<svg class="half" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" '
        f'aria-label="{escape(chart.title)}">'
    ]
    for tick in _TICKS:
        parts.append(_line("axis", _LEFT, _y(tick), _RIGHT, _y(tick)))
        parts.append(_text(_LEFT - 8, _y(tick) + 4, f"{tick:.1f}", "t2", "end"))
        parts.append(_text(_x(tick), _BOTTOM + 20, f"{tick:.1f}", "t2", "middle"))
    if chart.diagonal:
        parts.append(_line("zero", _x(0), _y(0), _x(1), _y(1)))
    for line in chart.lines:
        colour = colour_of(line.name)
        path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline class="curve {colour}" points="{path}"/>')
        if chart.marks or len(line.points) == 1:
            parts += [
                f'<circle class="{colour}" cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="3.5"/>'
                for x, y in line.points
            ]
    step = (_RIGHT - _LEFT) / max(4, len(chart.lines))
    for i, line in enumerate(chart.lines):
        at = _LEFT + step * i
        colour = colour_of(line.name)
        parts.append(f'<circle class="{colour}" cx="{at + 5:.1f}" cy="18" r="5"/>')
        parts.append(_text(at + 15, 22, line.name, "", "start"))
    parts.append(_text((_LEFT + _RIGHT) / 2, _HEIGHT - 8, chart.x_label, "t2", "middle"))
    middle = (_TOP + _BOTTOM) / 2
    parts.append(
        f'<text class="t2" x="13" y="{middle:.1f}" text-anchor="middle" '
        f'transform="rotate(-90 13 {middle:.1f})">{escape(chart.y_label)}</text>'
    )
    return "".join([*parts, "</svg>"])


def _x(value: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * min(1.0, max(0.0, value))


def _y(value: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * min(1.0, max(0.0, value))


def _line(name: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, name: str, anchor: str) -> str:
    return (
        f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
