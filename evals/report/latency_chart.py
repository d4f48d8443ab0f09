"""Quality against latency, with both intervals and the Pareto front."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from evals.evaluation import ArmSummary, Evaluation
from evals.pareto import pareto_front
from evals.report.charts import series_class
from evals.report.labels import Box, Point, along, outline, place_label
from evals.report.svg import HALF, draw_line, draw_text, ends_of, nice_ticks, open_svg
from evals.statistics.intervals import Interval
from evals.text import escape, has_tail, label, seconds

_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 388.0, 66.0, 506.0, 18.0, 340.0
_AREA: Box = (_LEFT, 0.0, float(HALF), _BOTTOM)
Scale = Callable[[float], float]


def shown_latency(evaluation: Evaluation) -> tuple[dict[str, Interval], str]:
    """Give the latency to draw by candidate, and its name: the p95 if all have enough answers."""
    arms = [arm for arm in evaluation.arms if not arm.baseline]
    if all(has_tail(arm.latency_p95_s, 0.95) for arm in arms):
        return {arm.arm: arm.latency_p95_s for arm in arms}, "p95 latency"
    return {arm.arm: arm.latency_p50_s for arm in arms}, "median latency"


def quality_latency_plot(evaluation: Evaluation) -> str:
    """Draw mean quality against latency with both intervals and the Pareto front."""
    latency, name = shown_latency(evaluation)
    arms = [
        arm
        for arm in evaluation.arms
        if arm.arm in latency
        and latency[arm.arm].estimate is not None
        and evaluation.primary in arm.metrics
    ]
    if not arms:
        return ""
    quality = {arm.arm: arm.metrics[evaluation.primary] for arm in arms}
    most_s = 1.12 * max(ends_of(latency[arm.arm])[1] for arm in arms) or 1.0
    best = min(1.0, 1.1 * max(ends_of(interval)[1] for interval in quality.values())) or 1.0

    def x(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * value / most_s

    def y(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * value / best

    points = {
        arm.arm: (quality[arm.arm].estimate or 0.0, latency[arm.arm].estimate or 0.0)
        for arm in arms
    }
    front = sorted((x(points[arm][1]), y(points[arm][0])) for arm in pareto_front(points))
    taken = [p for start, end in pairwise(front) for p in along(start, end)]
    parts = [open_svg(HALF, _HEIGHT, "Quality against latency"), *_axes(x, y, most_s, best)]
    path = " ".join(f"{at[0]:.1f},{at[1]:.1f}" for at in front)
    parts.append(f'<polyline class="front" points="{path}"/>')
    for arm in arms:
        cross = _lines(latency[arm.arm], quality[arm.arm], x, y)
        taken += [p for start, end in cross for p in along(start, end)]
        parts += _cross(series_class(evaluation, arm.arm), cross, latency[arm.arm].estimate, x)
    parts += _labels(arms, points, taken, x, y)
    title = f"{name} (dashed: Pareto front)"
    parts.append(draw_text((_LEFT + _RIGHT) / 2, _HEIGHT - 8, title, "t2"))
    middle = (_TOP + _BOTTOM) / 2
    parts.append(
        f'<text class="t2" x="13" y="{middle:.1f}" text-anchor="middle" '
        f'transform="rotate(-90 13 {middle:.1f})">'
        f"{escape(label(evaluation.primary, evaluation.k))}</text>"
    )
    return "".join([*parts, "</svg>"])


def _axes(x: Scale, y: Scale, most_s: float, best: float) -> list[str]:
    parts = []
    for tick in nice_ticks(0, best):
        parts.append(draw_line("axis", _LEFT, y(tick), _RIGHT, y(tick)))
        parts.append(draw_text(_LEFT - 8, y(tick) + 4, f"{tick:.2f}", "t2", "end"))
    for tick in nice_ticks(0, most_s):
        parts.append(draw_text(x(tick), _BOTTOM + 18, seconds(tick), "t2", "middle"))
    return parts


def _lines(latency: Interval, quality: Interval, x: Scale, y: Scale) -> list[tuple[Point, Point]]:
    """The interval of quality, then that of latency, through the point of an arm."""
    at = x(latency.estimate or 0.0), y(quality.estimate or 0.0)
    (q_low, q_high), (t_low, t_high) = ends_of(quality), ends_of(latency)
    return [
        ((at[0], y(q_low)), (at[0], y(q_high))),
        ((x(t_low), at[1]), (x(t_high), at[1])),
    ]


def _cross(
    colour: str, lines: Sequence[tuple[Point, Point]], took: float | None, x: Scale
) -> list[str]:
    parts = [draw_line(colour, *start, *end, 1.6) for start, end in lines]
    at_x, at_y = x(took or 0.0), lines[1][0][1]
    return [*parts, f'<circle class="{colour}" cx="{at_x:.1f}" cy="{at_y:.1f}" r="6"/>']


def _labels(
    arms: Sequence[ArmSummary],
    points: dict[str, tuple[float, float]],
    taken: list[Point],
    x: Scale,
    y: Scale,
) -> list[str]:
    parts = []
    for arm in arms:
        at = x(points[arm.arm][1]), y(points[arm.arm][0])
        box = place_label(at, arm.arm, _AREA, taken)
        taken += outline(box)
        side, anchor = (box[2], "end") if box[2] <= at[0] else (box[0], "start")
        parts.append(draw_text(side, box[3] - 3, arm.arm, "", anchor))
    return parts
