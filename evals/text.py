"""Numbers and untrusted text as they appear in a report."""

import html
import re

from evals.metrics.score import METRICS
from evals.sections import Cell
from evals.statistics.intervals import Interval

# Control characters, lone surrogates and bidirectional overrides can break a page or turn the
# order of its text around; documents are hostile input.
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
MISSING = "n/a"


def clean(text: str) -> str:
    """Replace characters that a page must not carry."""
    return _UNSAFE.sub("\ufffd", text)


def escape(text: object) -> str:
    """Make text safe between tags and inside quoted attributes."""
    return html.escape(clean(str(text)), quote=True)


def shorten(text: str, limit: int = 1200) -> str:
    """Cut long text and say how much was cut."""
    if len(text) <= limit:
        return text
    return f"{text[:limit].rstrip()} … ({len(text) - limit} more characters)"


def number(value: float | None, digits: int = 3) -> str:
    """Write a score with fixed digits; "n/a" when there is none."""
    return MISSING if value is None else f"{value:.{digits}f}"


def signed(value: float | None) -> str:
    """Write a difference with its sign."""
    return MISSING if value is None else f"{value:+.3f}".replace("-", "−")


def bounds(interval: Interval, digits: int = 3) -> str:
    """Write the two bounds of an interval."""
    if interval.low is None and interval.high is None:
        return "no interval"
    return f"{number(interval.low, digits)}–{number(interval.high, digits)}"


def signed_bounds(interval: Interval) -> str:
    """Write the two bounds of a difference."""
    if interval.low is None and interval.high is None:
        return "no interval"
    return f"{signed(interval.low)} to {signed(interval.high)}"


def seconds(value: float | None) -> str:
    """Write a latency in ms below one second, else in seconds."""
    if value is None:
        return MISSING
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s"


def second_bounds(interval: Interval) -> str:
    """Write the two bounds of a latency."""
    if interval.low is None and interval.high is None:
        return "no interval"
    low, high = seconds(interval.low), seconds(interval.high)
    if interval.high is None:
        return f"at least {low}"
    if interval.low is None:
        return f"at most {high}"
    if low.split()[1:] == high.split()[1:]:
        low = low.split()[0]  # the unit once is enough
    return f"{low}–{high}"


def has_tail(interval: Interval, q: float) -> bool:
    """Whether enough was measured for a high quantile to be more than the largest value.

    From 20 values on for the 95th percentile, from 100 on for the 99th.
    """
    return interval.estimate is not None and interval.n * (1 - q) >= 1 - 1e-9


def p_value(value: float | None) -> str:
    """Write a p-value; very small ones as a bound."""
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def cell(value: Cell) -> str:
    """Write one cell of a caller's table."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def label(metric: str, k: int) -> str:
    """Give a metric's name for a reader, with the depth filled in."""
    return METRICS[metric].label.replace("@k", f"@{k}")
