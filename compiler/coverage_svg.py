"""Coverage drawn as SVG that follows the reader's light or dark mode: reach, receptive fields, routes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

import numpy as np

from .coverage import Coverage, Picture, Route
from .coverage_tables import plain
from .picture import LEVELS, levels
from .picture import _rectangles as rectangles  # pyright: ignore[reportPrivateUsage]
from .report import plural

WIDTH, HEIGHT = 560, 320
# Of a picture.
SIDE = 440
# From the greatest to the least value, where equal steps would hide the small ones.
LOG_RANGE = 100
# Room for what is written at the left and below, and beside.
LEFT, RIGHT, TOP, BOTTOM = 78, 20, 74, 44
MOST_POINTS = 40
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#565d69;font-variant-numeric:tabular-nums}"
    ".weft-page{fill:#fff}.weft-ink{fill:#1d4ed8}.weft-frame{fill:none;stroke:#8a94a6}"
    ".weft-grid{stroke:#8a94a6;stroke-opacity:.3}.weft-line{fill:none;stroke:#1d4ed8;stroke-width:2}"
    ".weft-low{fill:none;stroke:#565d69;stroke-width:2}"
    "@media (prefers-color-scheme:dark){text{fill:#a9b2c0}.weft-page{fill:#12151b}.weft-ink{fill:#7dd3fc}"
    ".weft-line{stroke:#7dd3fc}.weft-low{stroke:#a9b2c0}}"
)


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart."""

    name: str
    style: str
    values: tuple[int, ...]


def picture_svg(picture: Picture, title: str) -> str:
    """The picture, darker where more pairs are reached, with token positions along both sides."""
    drawn = levels(np.array(picture.shares, dtype=np.float64))
    rows, columns = drawn.shape
    unit = SIDE / max(rows, columns)
    high, wide = rows * unit, columns * unit
    paths = "".join(
        f'<path class="weft-ink" opacity="{level / LEVELS:g}" d="{path}"/>'
        for level in range(1, LEVELS + 1)
        if (path := rectangles(drawn == level))
    )
    ticks = [f'<text x="{at * unit:g}" y="-6">{at * picture.cell:,}</text>' for at in _quarters(columns)]
    ticks += [
        f'<text x="-6" y="{at * unit + 4:g}" text-anchor="end">{at * picture.cell:,}</text>' for at in _quarters(rows)
    ]
    body = (
        f'<g transform="translate({LEFT},46)"><text y="-26">key →</text>'
        f'<text transform="translate({12 - LEFT},0) rotate(90)">query →</text>{"".join(ticks)}'
        f'<g transform="scale({unit:g})" shape-rendering="crispEdges">{paths}</g>'
        f'<rect class="weft-frame" width="{wide:g}" height="{high:g}"/></g>'
    )
    return _document(body, LEFT + wide + RIGHT, 46 + high + RIGHT, title)


def _quarters(cells: int) -> list[int]:
    """The cells at which a side is labelled."""
    return sorted({cells * part // 4 for part in range(4)})


def receptive_field_svg(report: Coverage) -> str:
    """How many keys the last query reaches, how many without a gap, and how many the worst query, by depth."""
    depths = tuple(d.depth for d in report.depths)
    claim = "" if all(d.pairs == d.possible for d in report.depths) else ", guaranteed"
    series = (
        Series(f"last query reaches{claim}", 'class="weft-line"', tuple(d.last.reached for d in report.depths)),
        Series(
            "of these, without a gap",
            'class="weft-line" stroke-dasharray="6 4"',
            tuple(d.last.contiguous for d in report.depths),
        ),
        Series(
            f"worst query reaches{claim}",
            'class="weft-low" stroke-dasharray="2 3"',
            tuple(d.worst.reached for d in report.depths),
        ),
    )
    name = f"{report.name}: keys that a query reaches, by depth"
    return _document(_chart(depths, series), WIDTH, HEIGHT, name)


def _chart(depths: Sequence[int], series: Sequence[Series]) -> str:
    """Axes, lines, legend."""
    numbers = [max(1, value) for line in series for value in line.values]
    least, most = min(numbers), max(numbers)
    logarithmic = most > LOG_RANGE * least
    low, high = (log10(least), log10(most)) if logarithmic else (0, most)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def across(depth: float) -> float:
        return LEFT + (right - LEFT) * (depth - depths[0]) / max(1, depths[-1] - depths[0])

    def down(value: float) -> float:
        place = log10(max(1, value)) if logarithmic else value
        return bottom - (bottom - TOP) * (place - low) / max(high - low, 1e-9)

    rungs = [10**p for p in range(ceil(low), floor(high) + 1)] if logarithmic else _steps(0, most)
    parts = [
        f'<line class="weft-grid" x1="{LEFT}" x2="{right}" y1="{down(value):.1f}" y2="{down(value):.1f}"/>'
        f'<text x="{LEFT - 8}" y="{down(value) + 4:.1f}" text-anchor="end">{value:,}</text>'
        for value in rungs
    ]
    parts += [
        f'<text x="{across(depth):.1f}" y="{bottom + 18}" text-anchor="middle">{depth:,}</text>'
        for depth in _steps(depths[0], depths[-1])
    ]
    parts.append(f'<path class="weft-frame" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    for place, line in reversed([*enumerate(series)]):
        points = [(across(depth), down(value)) for depth, value in zip(depths, line.values, strict=True)]
        parts.append(f'<polyline {line.style} points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        if len(points) <= MOST_POINTS:
            marks = "".join(f"M{x - 2.5:.1f} {y:.1f}a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0 -5 0" for x, y in points)
            parts.append(f'<path {line.style} style="stroke-dasharray:none" d="{marks}"/>')
        x, y = LEFT, 16 + 18 * place
        parts.append(f'<path {line.style} d="M{x} {y - 4}h28"/><text x="{x + 36}" y="{y}">{escape(line.name)}</text>')
    scale = "keys, log scale" if logarithmic else "keys"
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">depth in layers</text>')
    parts.append(
        f'<text transform="translate(14,{(TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">{scale}</text>'
    )
    return "".join(parts)


def _steps(low: int, high: int) -> Iterable[int]:
    """Some six round numbers from one to another."""
    step = 1
    while (high - low) // step > 6:
        step = step * 5 // 2 if str(step)[0] == "2" else 2 * step
    return range(-(-low // step) * step, high + 1, step)


def route_svg(route: Route, name: str) -> str:
    """Each layer of a route as a step from the query's position to the key's, the output above."""
    steps = len(route.hops)
    row = min(46, max(14, 900 // max(1, steps)))
    places = [route.query, *(hop.key for hop in route.hops)]
    least, most = min(places), max(places)
    right, bottom = WIDTH - 60, 30 + steps * row

    def across(place: int) -> float:
        return 130 + (right - 130) * (place - least) / max(1, most - least)

    parts: list[str] = []
    for line, hop in enumerate(route.hops):
        top = 30 + line * row
        x, to, half = across(hop.query), across(hop.key), top + row / 2
        parts.append(
            f'<path class="weft-line" d="M{x:.1f} {top}C{x:.1f} {half} {to:.1f} {half} {to:.1f} {top + row}"/>'
        )
        parts.append(f'<text x="0" y="{half + 4:g}">layer {hop.layer:,}</text>')
        parts.append(f'<line class="weft-grid" x1="130" x2="{right}" y1="{top}" y2="{top}"/>')
    parts.append(f'<line class="weft-grid" x1="130" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    for line, place in enumerate(places):
        x, y = across(place), 30 + line * row
        role = "query " if line == 0 else "key " if line == steps else ""
        early = x < (130 + right) / 2
        # Beside the curve: one that leads to the left comes from the right above and leaves to the left below.
        low = early == (route.key < route.query)
        parts.append(f'<circle class="weft-ink" cx="{x:.1f}" cy="{y}" r="4"/>')
        parts.append(
            f'<text x="{x + (9 if early else -9):.1f}" y="{y + (15 if low else -6)}" '
            f'text-anchor="{"start" if early else "end"}">{role}{place:,}</text>'
        )
    title = f"{name}: how query {route.query:,} sees key {route.key:,}, {plural(steps, 'step')}"
    return _document("".join(parts), WIDTH, bottom + 24, title)


def _document(body: str, width: float, height: float, title: str) -> str:
    """A whole SVG with its name."""
    name = escape(plain(title), quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f'aria-label="{name}"><title>{name}</title><style>{STYLE}</style>'
        f'<rect class="weft-page" width="100%" height="100%"/>{body}</svg>'
    )
