"""Pictures of a report as inline SVG, drawn by hand so that they follow light and dark themes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evals.comparisons import PairedDifference
from evals.evaluation import Evaluation
from evals.report.svg import HALF, draw_line, draw_text, ends_of, nice_ticks, open_svg
from evals.statistics.intervals import Interval
from evals.text import number, signed

_WIDE = 1080


def series_class(evaluation: Evaluation, arm: str) -> str:
    """Give the colour class of an arm: by its place among the candidates, grey for baselines."""
    if arm in evaluation.table.baselines:
        return "sb"
    return f"s{evaluation.table.candidates.index(arm) % 5}"


def forest_plot(
    differences: Sequence[PairedDifference],
    margin: float | None,
    level: float,
    min_clusters: int,
) -> str:
    """Draw paired differences with intervals around zero; the margin is a band.

    A line has a colour only where one of the two is shown to be better at `level`, adjusted for
    all pairs. Twice: for wide pages with labels beside the lines, for narrow ones with labels
    above.
    """
    shown = [pair for pair in differences if pair.difference.estimate is not None]
    if not shown:
        return ""
    reached = [abs(x) for p in shown for x in ends_of(p.difference)]
    reach = max(0.05, max(reached) * 1.08, (margin or 0) * 1.5)
    rows = [(pair, _colour(pair, level, min_clusters)) for pair in shown]
    return (
        f'<div class="wide">{_forest(rows, margin, reach, _Frame(_WIDE, 230, 960, 30))}</div>'
        f'<div class="narrow">{_forest(rows, margin, reach, _Frame(360, 14, 346, 46))}</div>'
    )


def _colour(pair: PairedDifference, level: float, min_clusters: int) -> str:
    better = pair.shown_better(level, min_clusters)
    return "tie" if better is None else "up" if better == pair.b else "down"


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
    shown: Sequence[tuple[PairedDifference, str]],
    margin: float | None,
    reach: float,
    frame: _Frame,
) -> str:
    top = 14.0
    bottom = top + frame.row * len(shown)

    def x(value: float) -> float:
        return frame.left + (frame.right - frame.left) * (value + reach) / (2 * reach)

    parts = [open_svg(frame.width, bottom + 34, "Paired differences with intervals")]
    if margin:
        parts.append(
            f'<rect class="band" x="{x(-margin):.1f}" y="{top - 6:.1f}" '
            f'width="{x(margin) - x(-margin):.1f}" height="{bottom - top + 10:.1f}"/>'
        )
    parts.append(draw_line("zero", x(0), top - 6, x(0), bottom + 4))
    for i, (pair, colour) in enumerate(shown):
        parts.append(_forest_row(pair, colour, x, top + frame.row * (i + 0.5), frame))
    for tick in nice_ticks(-reach, reach):
        text = "0" if tick == 0 else signed(tick).rstrip("0")
        anchor = "middle"
        if frame.narrow and x(tick) > frame.right - 14:
            anchor = "end"
        elif frame.narrow and x(tick) < frame.left + 14:
            anchor = "start"
        parts.append(draw_text(x(tick), bottom + 20, text, "t2", anchor))
    return "".join([*parts, "</svg>"])


def _forest_row(
    pair: PairedDifference, colour: str, x: Callable[[float], float], y: float, frame: _Frame
) -> str:
    low, high = ends_of(pair.difference)
    estimate = pair.difference.estimate or 0.0
    known = pair.difference.low is not None
    at = y + 9 if frame.narrow else y
    label_y = y - 7 if frame.narrow else y + 4
    name_x, name_anchor = (frame.left, "start") if frame.narrow else (frame.left - 18, "end")
    return "".join(
        [
            draw_text(name_x, label_y, f"{pair.b} − {pair.a}", "", name_anchor),
            draw_line(colour, x(low), at, x(high), at, 2.2) if known else "",
            f'<rect class="{colour}" x="{x(estimate) - 4.5:.1f}" y="{at - 4.5:.1f}" '
            'width="9" height="9" rx="2"/>',
            draw_text(
                frame.right if frame.narrow else frame.width,
                label_y,
                signed(pair.difference.estimate),
                "",
                "end",
            ),
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
    parts, y = [open_svg(HALF, height, "Rates with intervals")], 4.0
    for title, bars in groups:
        parts.append(draw_text(0, y + 16, title, "t2", "start"))
        y += 26
        for arm, interval in bars:
            parts.append(_bar(series_class(evaluation, arm), arm, interval, (left, right), y))
            y += row
        y += 4
    return "".join([*parts, "</svg>"])


def _bar(colour: str, arm: str, interval: Interval, span: tuple[float, float], y: float) -> str:
    left, width = span[0], span[1] - span[0]
    low, high = ends_of(interval)
    estimate = interval.estimate or 0.0
    middle = y + 8
    return "".join(
        [
            draw_text(left - 12, middle + 4, arm, "", "end"),
            f'<rect class="band" x="{left}" y="{y:.1f}" width="{width}" height="16" rx="3"/>',
            f'<rect class="bar {colour}" x="{left}" y="{y:.1f}" '
            f'width="{width * estimate:.1f}" height="16" rx="3"/>',
            draw_line("whisk", left + width * low, middle, left + width * high, middle),
            draw_line("whisk", left + width * low, middle - 4, left + width * low, middle + 4),
            draw_line("whisk", left + width * high, middle - 4, left + width * high, middle + 4),
            draw_text(HALF, middle + 4, number(interval.estimate), "", "end"),
        ]
    )
