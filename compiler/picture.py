"""A mask as a picture: how much of each cell is kept, drawn with characters or as SVG."""

from collections.abc import Mapping
from dataclasses import replace
from html import escape

import numpy as np
from numpy.typing import NDArray

from .evaluate import truth
from .expand import NUMPY, Ints, expand_regions, row_values
from .ir import Mask
from .pipeline import make_plan
from .plan import Plan, Shape, Tiling
from .tables import table_values

Shades = NDArray[np.float64]

# Lengths up to which every pair is looked at, and how many pairs at once.
EXACT_LENGTH = 4096
PAIRS_AT_ONCE = 1 << 18
# Rows and columns of a cell that are looked at when only a sample is.
SAMPLES = 8
# Steps no stride divides, so that a sample does not fall in step with the pattern.
GOLDEN, SILVER = 0.6180339887498949, 0.4142135623730951

CHARACTERS = " ░▒▓█"
LEVELS = len(CHARACTERS) - 1
COLUMNS = 72
SVG_BYTES = 48_000


def shades(mask: Mask, n: int, shape: Shape, inputs: Mapping[str, Ints], head: int, cells: int = 64) -> Shades:
    """Share of each cell that is kept: counted up to n = 4096, beyond it by tiles (partial: 0.5) or sampled."""
    side = -(-n // min(cells, n))
    if n > EXACT_LENGTH:
        bits = max(shape.bits, (n - 1).bit_length())
        plan = make_plan(mask, replace(shape, bits=bits), Tiling(side, side))
        if plan.strategy != "table":
            return _by_tiles(plan, n, head)
    tables = {table.name: table_values(table, inputs, n, n, shape) for table in mask.tables}
    group = max(1, shape.heads // max(1, shape.kv_heads))
    scalars = {"h": head, "g": head // group, "n": n, "m": n}

    def kept(q: Ints, k: Ints) -> NDArray[np.bool_]:
        found = truth(mask.formula, {"q": q[:, None], "k": k[None, :], **scalars}, tables, NUMPY)
        return np.broadcast_to(found, (len(q), len(k)))

    if n > EXACT_LENGTH:
        rows, columns = _places(n, side, GOLDEN), _places(n, side, SILVER)
        sample = kept(rows.ravel(), columns.ravel()).reshape(*rows.shape, *columns.shape)
        return sample.mean(axis=(1, 3))
    step = max(1, PAIRS_AT_ONCE // n)
    starts = np.arange(0, n, side)
    sizes = np.diff(np.append(starts, n))
    # Rows first, a few at a time; then columns; then rows into cells.
    counts = [
        np.add.reduceat(kept(np.arange(first, min(n, first + step)), np.arange(n)), starts, axis=1, dtype=np.int64)
        for first in range(0, n, step)
    ]
    return np.add.reduceat(np.concatenate(counts), starts, axis=0) / np.outer(sizes, sizes)


def _places(n: int, side: int, step: float) -> Ints:
    """`[cells, SAMPLES]`: positions spread over each cell, one in each eighth of it."""
    starts = np.arange(0, n, side)
    sizes = np.minimum(side, n - starts)
    within = (np.arange(SAMPLES) + np.arange(1, SAMPLES + 1) * step % 1) / SAMPLES
    return starts[:, None] + (sizes[:, None] * within).astype(np.int64)


def _by_tiles(plan: Plan, n: int, head: int) -> Shades:
    tables = {t.name: table_values(t, {}, n, n, plan.shape) for t in plan.mask.tables if t.kind == "head"}
    count = -(-n // plan.tiling.block_m)
    values = row_values(plan, n, n, tables, np.array([head if plan.per_head else 0]), 0, count)
    row, tile, full = expand_regions(plan.regions, values)
    out = np.zeros((count, count))
    out[row, tile] = np.where(full, 1.0, 0.5)
    return out


def pooled(picture: Shades, down: int, across: int) -> Shades:
    """Mean shade of `down` x `across` cells each."""
    rows = np.arange(0, picture.shape[0], down, dtype=np.int64)
    columns = np.arange(0, picture.shape[1], across, dtype=np.int64)

    def total(values: Shades) -> Shades:
        return np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)

    return total(picture) / total(np.ones_like(picture))


def levels(picture: Shades) -> Ints:
    """0 for nothing, LEVELS for everything, and what is between in equal parts: no kept pair vanishes."""
    middle = 1 + np.minimum(LEVELS - 2, (picture * (LEVELS - 1)).astype(np.int64))
    return np.where(picture <= 0, 0, np.where(picture >= 1, LEVELS, middle))


def draw_text(picture: Shades) -> str:
    """The picture in characters, each a cell wide and two high, or two to a cell when there is room."""
    columns = picture.shape[1]
    if 2 * columns <= COLUMNS:
        lines = ["".join(CHARACTERS[level] * 2 for level in row) for row in levels(picture)]
    else:
        by = -(-columns // COLUMNS)
        lines = ["".join(CHARACTERS[level] for level in row) for row in levels(pooled(picture, 2 * by, by))]
    width = len(lines[0])
    top = ["       key ->", f"      ┌{'─' * width}┐"]
    body = [f"{'query' if position == 0 else '':>5} │{line}│" for position, line in enumerate(lines)]
    return "\n".join([*top, *body, f"      └{'─' * width}┘"])


STYLE = (
    ".weft-p{fill:#fff}.weft-f{fill:none;stroke:#8a94a6}.weft-c{fill:#1d4ed8}"
    ".weft-t{fill:#475569;font-family:sans-serif}"
    "@media (prefers-color-scheme:dark){.weft-p{fill:#0f172a}.weft-f{stroke:#64748b}.weft-c{fill:#7dd3fc}"
    ".weft-t{fill:#cbd5e1}}"
)


def draw_svg(picture: Shades, title: str) -> str:
    """The picture as one SVG that follows the reader's light or dark mode, coarser if it would be too long."""
    drawn = levels(picture)
    rows, columns = drawn.shape
    edge = max(rows, columns) / 16
    paths = "".join(
        f'<path class="weft-c" opacity="{level / LEVELS:g}" d="{path}"/>'
        for level in range(1, LEVELS + 1)
        if (path := _rectangles(drawn == level))
    )
    name = escape(title, quote=True)
    box = f"{-edge:g} {-edge:g} {columns + 1.5 * edge:g} {rows + 1.5 * edge:g}"
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="480" role="img" '
        f'aria-label="{name}: the pairs of queries and keys it keeps"><title>{name}</title><style>{STYLE}</style>'
        f'<rect class="weft-p" x="{-edge:g}" y="{-edge:g}" width="100%" height="100%"/>'
        f'<g class="weft-t" font-size="{edge * 0.7:g}"><text y="{-edge * 0.3:g}">key →</text>'
        f'<text transform="rotate(90)" y="{edge * 0.85:g}">query →</text></g>'
        f'<g shape-rendering="crispEdges">{paths}</g>'
        f'<rect class="weft-f" width="{columns}" height="{rows}" stroke-width="{edge / 16:g}"/></svg>'
    )
    return text if len(text.encode()) <= SVG_BYTES else draw_svg(pooled(picture, 2, 2), title)


def _rectangles(here: NDArray[np.bool_]) -> str:
    """Runs of cells in a row, and equal runs below each other, as rectangles of one path."""
    open_runs: dict[tuple[int, int], int] = {}
    parts: list[str] = []
    for y, row in enumerate([*here, np.zeros(here.shape[1], dtype=bool)]):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
        runs = {(int(a), int(b)) for a, b in edges.reshape(-1, 2)}
        for run in [run for run in open_runs if run not in runs]:
            (left, right), top = run, open_runs.pop(run)
            parts.append(f"M{left} {top}h{right - left}v{y - top}h{left - right}z")
        for run in runs:
            open_runs.setdefault(run, y)
    return "".join(sorted(parts))
