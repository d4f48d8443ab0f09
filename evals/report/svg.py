"""The parts that charts are drawn with, as inline SVG."""

from evals.statistics.intervals import Interval
from evals.text import escape

HALF = 520  # drawing units are pixels where the page is at its full width


def ends_of(interval: Interval) -> tuple[float, float]:
    """Give both bounds of an interval; the estimate where one is missing."""
    estimate = interval.estimate or 0.0
    low = estimate if interval.low is None else interval.low
    high = estimate if interval.high is None else interval.high
    return low, high


def nice_ticks(low: float, high: float) -> list[float]:
    """Give about five round numbers from low to high."""
    span = high - low
    step = next(s * 10.0**e for e in range(-6, 9) for s in (1, 2, 5) if span / (s * 10.0**e) <= 6)
    first = int(low / step) - 1
    return [
        round(i * step, 10)
        for i in range(first, first + 20)
        if low - 1e-9 <= i * step <= high + 1e-9
    ]


def open_svg(width: int, height: float, title: str) -> str:
    """Open a picture of so many drawing units; half a page wide if `width` is `HALF`."""
    css = ' class="half"' if width == HALF else ""
    return f'<svg{css} viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(title)}">'


def draw_line(name: str, x1: float, y1: float, x2: float, y2: float, width: float = 1) -> str:
    """Give a line of a style class."""
    return (
        f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke-width="{width}"/>'
    )


def draw_text(x: float, y: float, text: str, name: str = "", anchor: str = "middle") -> str:
    """Give escaped text of a style class."""
    return (
        f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
