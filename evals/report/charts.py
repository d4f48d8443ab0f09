"""Pictures of a report as inline SVG, drawn by hand so that they follow light and dark themes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evals.comparisons import PairedDifference
from evals.evaluation import ArmSummary, Evaluation
from evals.pareto import pareto_front
from evals.statistics.intervals import Interval
from evals.text import escape, number, seconds, signed

_WIDE, _HALF = 1080, 520  # drawing units are pixels where the page is at its full width


def series_class(evaluation: Evaluation, arm: str) -> str:
    """Give the colour class of an arm: by its place among the candidates, grey for baselines."""
    if arm in evaluation.table.baselines:
        return "sb"
    return f"s{evaluation.table.candidates.index(arm) % 5}"


def forest_plot(differences: Sequence[PairedDifference], margin: float | None) -> str:
    """Draw paired differences with intervals around zero; the margin is a band.

    Twice: for wide pages with labels beside the lines, for narrow ones with labels above.
    """
    shown = [pair for pair in differences if pair.difference.estimate is not None]
    if not shown:
        return ""
    ends = [abs(x) for p in shown for x in _ends(p.difference)]
    reach = max(0.05, max(ends) * 1.08, (margin or 0) * 1.5)
    return (
        f'<div class="wide">{_forest(shown, margin, reach, _Frame(_WIDE, 230, 960, 30))}</div>'
        f'<div class="narrow">{_forest(shown, margin, reach, _Frame(360, 14, 346, 46))}</div>'
    )


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where rows lie: the line from `left` to `right`, `row` high each."""

    width: int
    left: float
    right: float
    row: float

    @property
    def narrow(self) -> bool:
        return self.left < 100


def _forest(
    shown: Sequence[PairedDifference], margin: float | None, reach: float, frame: _Frame
) -> str:
    top = 14.0
    bottom = top + frame.row * len(shown)

    def x(value: float) -> float:
        return frame.left + (frame.right - frame.left) * (value + reach) / (2 * reach)

    parts = [_open(frame.width, bottom + 34, "Paired differences with intervals")]
    if margin:
        parts.append(
            f'<rect class="band" x="{x(-margin):.1f}" y="{top - 6:.1f}" '
            f'width="{x(margin) - x(-margin):.1f}" height="{bottom - top + 10:.1f}"/>'
        )
    parts.append(_line("zero", x(0), top - 6, x(0), bottom + 4))
    for i, pair in enumerate(shown):
        parts.append(_forest_row(pair, x, top + frame.row * (i + 0.5), frame))
    for tick in _ticks(-reach, reach):
        text = "0" if tick == 0 else signed(tick).rstrip("0")
        anchor = "middle"
        if frame.narrow and x(tick) > frame.right - 14:
            anchor = "end"
        elif frame.narrow and x(tick) < frame.left + 14:
            anchor = "start"
        parts.append(_text(x(tick), bottom + 20, text, "t2", anchor))
    return "".join([*parts, "</svg>"])


def _forest_row(
    pair: PairedDifference, x: Callable[[float], float], y: float, frame: _Frame
) -> str:
    low, high = _ends(pair.difference)
    estimate = pair.difference.estimate or 0.0
    colour = "up" if low > 0 else "down" if high < 0 else "tie"
    known = pair.difference.low is not None
    at = y + 9 if frame.narrow else y
    label_y = y - 7 if frame.narrow else y + 4
    name_x, name_anchor = (frame.left, "start") if frame.narrow else (frame.left - 18, "end")
    return "".join(
        [
            _text(name_x, label_y, f"{pair.b} − {pair.a}", "", name_anchor),
            _line(colour, x(low), at, x(high), at, 2.2) if known else "",
            f'<rect class="{colour}" x="{x(estimate) - 4.5:.1f}" y="{at - 4.5:.1f}" '
            'width="9" height="9" rx="2"/>',
            _text(
                frame.right if frame.narrow else frame.width,
                label_y,
                signed(pair.difference.estimate),
                "",
                "end",
            ),
        ]
    )


def quality_latency_plot(evaluation: Evaluation) -> str:
    """Draw mean quality against p95 latency with both intervals and the Pareto front."""
    arms = [
        arm
        for arm in evaluation.arms
        if not arm.baseline
        and arm.latency_p95_s.estimate is not None
        and evaluation.primary in arm.metrics
    ]
    if not arms:
        return ""
    height, left, right, top, bottom = 388.0, 44.0, 506.0, 18.0, 340.0
    quality = {arm.arm: arm.metrics[evaluation.primary] for arm in arms}
    most_s = 1.12 * max(_ends(arm.latency_p95_s)[1] for arm in arms) or 1.0
    best = min(1.0, 1.1 * max(_ends(interval)[1] for interval in quality.values())) or 1.0

    def x(value: float) -> float:
        return left + (right - left) * value / most_s

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / best

    points = {
        arm.arm: (quality[arm.arm].estimate or 0.0, arm.latency_p95_s.estimate or 0.0)
        for arm in arms
    }
    parts = [_open(_HALF, height, "Quality against latency")]
    for tick in _ticks(0, best):
        parts.append(_line("axis", left, y(tick), right, y(tick)))
        parts.append(_text(left - 8, y(tick) + 4, f"{tick:.2f}", "t2", "end"))
    for tick in _ticks(0, most_s):
        parts.append(_text(x(tick), bottom + 18, seconds(tick), "t2", "middle"))
    front = sorted((points[name][1], points[name][0]) for name in pareto_front(points))
    path = " ".join(f"{x(t):.1f},{y(q):.1f}" for t, q in front)
    parts.append(f'<polyline class="front" points="{path}"/>')
    crowded: list[tuple[float, float]] = []
    for arm in arms:
        at = x(points[arm.arm][1]), y(points[arm.arm][0])
        near = any(abs(at[0] - px) < 60 and abs(at[1] - py) < 24 for px, py in crowded)
        crowded.append(at)
        parts.append(_cross(series_class(evaluation, arm.arm), arm, quality[arm.arm], x, y))
        side, anchor = (-10, "end") if near or at[0] > 420 else (10, "start")
        parts.append(_text(at[0] + side, at[1] - 10, arm.arm, "", anchor))
    parts.append(_text((left + right) / 2, height - 8, "p95 latency (dashed: Pareto front)", "t2"))
    return "".join([*parts, "</svg>"])


def _cross(
    colour: str,
    arm: ArmSummary,
    quality: Interval,
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> str:
    at_x, at_y = x(arm.latency_p95_s.estimate or 0.0), y(quality.estimate or 0.0)
    (q_low, q_high), (t_low, t_high) = _ends(quality), _ends(arm.latency_p95_s)
    return "".join(
        [
            _line(colour, at_x, y(q_low), at_x, y(q_high), 1.6),
            _line(colour, x(t_low), at_y, x(t_high), at_y, 1.6),
            f'<circle class="{colour}" cx="{at_x:.1f}" cy="{at_y:.1f}" r="6"/>',
        ]
    )


def rate_bars(evaluation: Evaluation, metrics: Sequence[tuple[str, str]]) -> str:
    """Draw bars with interval whiskers, one group per (metric, label), one bar per candidate."""
    groups = [
        (title, bars)
        for metric, title in metrics
        if (
            bars := [
                (arm.arm, arm.metrics[metric])
                for arm in evaluation.arms
                if not arm.baseline and metric in arm.metrics
            ]
        )
    ]
    if not groups:
        return ""
    row, left, right = 22.0, 84.0, 470.0
    height = sum(30 + row * len(bars) for _, bars in groups) + 8
    parts, y = [_open(_HALF, height, "Rates with intervals")], 4.0
    for title, bars in groups:
        parts.append(_text(0, y + 16, title, "t2", "start"))
        y += 26
        for arm, interval in bars:
            parts.append(_bar(series_class(evaluation, arm), arm, interval, (left, right), y))
            y += row
        y += 4
    return "".join([*parts, "</svg>"])


def _bar(colour: str, arm: str, interval: Interval, span: tuple[float, float], y: float) -> str:
    left, width = span[0], span[1] - span[0]
    low, high = _ends(interval)
    estimate = interval.estimate or 0.0
    middle = y + 8
    return "".join(
        [
            _text(left - 12, middle + 4, arm, "", "end"),
            f'<rect class="band" x="{left}" y="{y:.1f}" width="{width}" height="16" rx="3"/>',
            f'<rect class="bar {colour}" x="{left}" y="{y:.1f}" '
            f'width="{width * estimate:.1f}" height="16" rx="3"/>',
            _line("whisk", left + width * low, middle, left + width * high, middle),
            _line("whisk", left + width * low, middle - 4, left + width * low, middle + 4),
            _line("whisk", left + width * high, middle - 4, left + width * high, middle + 4),
            _text(_HALF, middle + 4, number(interval.estimate), "", "end"),
        ]
    )


def _ends(interval: Interval) -> tuple[float, float]:
    estimate = interval.estimate or 0.0
    low = estimate if interval.low is None else interval.low
    high = estimate if interval.high is None else interval.high
    return low, high


def _ticks(low: float, high: float) -> list[float]:
    span = high - low
    step = next(s * 10.0**e for e in range(-6, 9) for s in (1, 2, 5) if span / (s * 10.0**e) <= 6)
    first = int(low / step) - 1
    return [
        round(i * step, 10)
        for i in range(first, first + 20)
        if low - 1e-9 <= i * step <= high + 1e-9
    ]


def _open(width: int, height: float, title: str) -> str:
    css = ' class="half"' if width == _HALF else ""
    return f'<svg{css} viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(title)}">'


def _line(name: str, x1: float, y1: float, x2: float, y2: float, width: float = 1) -> str:
    return (
        f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke-width="{width}"/>'
    )


def _text(x: float, y: float, text: str, name: str = "", anchor: str = "middle") -> str:
    return (
        f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
