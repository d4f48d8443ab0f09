"""Bars and histograms as inline SVG, drawn by hand so that they follow light and dark themes."""

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

_WIDTH = 520


def bars(title: str, values: Mapping[str, float], *, shares: bool = False) -> str:
    """Horizontal bars in the order given; empty where there is nothing to show."""
    if not values:
        return ""
    return stacked_bars(title, {name: {"": value} for name, value in values.items()}, shares=shares)


def stacked_bars(
    title: str, values: Mapping[str, Mapping[str, float]], *, shares: bool = False
) -> str:
    """Horizontal bars made of named parts; a legend says which colour is which part."""
    if not values:
        return ""
    parts = list(dict.fromkeys(part for row in values.values() for part in row))
    longest = max(max(sum(row.values()) for row in values.values()), 1e-9)
    left, right, height = 168.0, _WIDTH - 62.0, 25.0
    top = 26.0 if parts != [""] else 4.0
    pieces = [_open(title, top + height * len(values) + 4)]
    if parts != [""]:
        pieces.append(_legend(parts))
    for index, (name, row) in enumerate(values.items()):
        y = top + height * index
        pieces.append(_text(left - 8, y + 15, _short(name), "end"))
        x = left
        for part, value in row.items():
            width = (right - left) * value / longest
            colour = parts.index(part) % 5
            pieces.append(
                f'<rect class="c{colour}" x="{x:.1f}" y="{y + 3:.1f}" width="{max(width, 0):.1f}" '
                f'height="16" rx="2"><title>{_escape(f"{name} {part}".strip())}: {value:g}'
                "</title></rect>"
            )
            x += width
        total = sum(row.values())
        shown = f"{total:.0%}" if shares else f"{total:,.0f}"
        pieces.append(_text(x + 6, y + 15, shown, "start", "soft"))
    return "".join([*pieces, "</svg>"])


def histogram(title: str, values: Sequence[float], *, unit: str, whole: bool = True) -> str:
    """A histogram with at most 24 bins; the last one holds all beyond the 99 % quantile."""
    if not len(values):
        return ""
    data = np.asarray(values, dtype=float)
    low, high = float(data.min()), float(np.quantile(data, 0.99))
    if whole:
        step = max(1, math.ceil((high - low + 1) / 24))
        edges = np.arange(low, high + step + 1e-9, step)
    else:
        edges = np.linspace(0.0, 1.0, 21)
    edges = edges if len(edges) > 1 else np.array([low, low + 1])
    counts, _ = np.histogram(np.clip(data, edges[0], edges[-1] - 1e-9), edges)
    left, right, top, bottom = 34.0, _WIDTH - 8.0, 10.0, 132.0
    width = (right - left) / len(counts)
    tallest = max(int(counts.max()), 1)
    pieces = [_open(title, 170)]
    pieces.append(_text(left - 6, top + 8, f"{tallest:,}", "end", "soft"))
    for index, count in enumerate(counts):
        tall = (bottom - top) * count / tallest
        pieces.append(
            f'<rect class="c0" x="{left + width * index + 1:.1f}" y="{bottom - tall:.1f}" '
            f'width="{max(width - 2, 1):.1f}" height="{tall:.1f}"><title>'
            f"{edges[index]:g} to {edges[index + 1]:g} {_escape(unit)}: {count:,}</title></rect>"
        )
    pieces.append(f'<line class="axis" x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
    for share in (0.0, 0.5, 1.0):
        value = edges[0] + share * (edges[-1] - edges[0])
        anchor = {0.0: "start", 1.0: "end"}.get(share, "middle")
        shown = f"{value:,.0f}" if whole else f"{value:.1f}"
        pieces.append(_text(left + share * (right - left), bottom + 16, shown, anchor, "soft"))
    pieces.append(_text((left + right) / 2, bottom + 33, unit, "middle", "soft"))
    return "".join([*pieces, "</svg>"])


def _legend(parts: Sequence[str]) -> str:
    pieces, x = [], 168.0
    for index, part in enumerate(parts):
        pieces.append(
            f'<rect class="c{index % 5}" x="{x:.0f}" y="4" width="10" height="10" rx="2"/>'
        )
        pieces.append(_text(x + 15, 13, part, "start", "soft"))
        x += 30 + 6.6 * len(part)
    return "".join(pieces)


def _open(title: str, height: float) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{_escape(title)}" '
        'xmlns="http://www.w3.org/2000/svg">'
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_escape(text)}</text>'


def _short(text: str, most: int = 22) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
