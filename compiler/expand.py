"""Loops made into lists of tiles, once the lengths are known: numpy over all query tiles at once."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .evaluate import Array, ArrayLibrary, number, truth
from .plan import Plan, Region, Run
from .walk import variables

Ints = NDArray[np.int64]

NUMPY = ArrayLibrary(np.minimum, np.maximum, np.where)


@dataclass(frozen=True, slots=True)
class TileLists:
    """Key tiles of every query tile: row r's full tiles, then its partial ones.

    `start[r]` to `split[r]` are full, `split[r]` to `start[r + 1]` partial; row r is head * tiles + tile.
    """

    start: NDArray[np.int32]
    split: NDArray[np.int32]
    tiles: NDArray[np.int32]


def query_tiles(plan: Plan, m: int) -> int:
    """Number of query tiles."""
    return -(-m // plan.tiling.block_m)


def row_values(
    plan: Plan, n: int, m: int, tables: Mapping[str, Ints], heads: Ints, first: int, last: int
) -> dict[str, Ints]:
    """The loop variables of query tiles `first .. last` for each head, as one row axis."""
    group = max(1, plan.shape.heads // max(1, plan.shape.kv_heads))
    i = np.tile(np.arange(first, last, dtype=np.int64), len(heads))
    h = np.repeat(heads, last - first)
    values: dict[str, Array] = {
        "i": i,
        "h": h,
        "g": h // group,
        "n": np.int64(n),
        "m": np.int64(m),
        "off": np.int64(n - m),
    }
    for name, expr in plan.uniforms:
        values[name] = number(expr, values, tables, NUMPY) + np.zeros_like(i)
    return values


def expand_run(run: Run, values: Mapping[str, Ints]) -> tuple[Ints, Ints]:
    """The rows and key tiles one run visits."""
    rows = len(values["i"])
    zero = np.zeros(rows, dtype=np.int64)
    low = number(run.low, values, {}, NUMPY) + zero
    high = number(run.high, values, {}, NUMPY) + zero
    late = "j" in variables(run.guard)
    live = np.ones(rows, dtype=bool) if late else np.broadcast_to(truth(run.guard, values, {}, NUMPY), (rows,))
    counts = np.where(live, np.maximum(0, -((low - high) // run.step)), 0)
    row = np.repeat(np.arange(rows, dtype=np.int64), counts)
    within = np.arange(len(row), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)
    tile = low[row] + within * run.step
    if late:
        inner = {name: v[row] if np.ndim(v) else v for name, v in values.items()} | {"j": tile}
        keep = np.broadcast_to(truth(run.guard, inner, {}, NUMPY), tile.shape)
        row, tile = row[keep], tile[keep]
    return row, tile


def expand_regions(regions: tuple[Region, ...], values: Mapping[str, Ints]) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Rows, key tiles and whether each is full, for some rows; sorted by row, full first, then by tile."""
    found = [(*expand_run(run, values), region.full) for region in regions for run in region.runs]
    if not found:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, np.zeros(0, dtype=bool)
    row = np.concatenate([f[0] for f in found])
    tile = np.concatenate([f[1] for f in found])
    full = np.concatenate([np.full(len(f[0]), f[2], dtype=bool) for f in found])
    order = np.lexsort((tile, ~full, row))
    return row[order], tile[order], full[order]


def expand(plan: Plan, n: int, m: int, tables: Mapping[str, Ints]) -> TileLists:
    """The lists of a "run" or "list" plan for one pair of lengths."""
    heads = np.arange(plan.shape.heads if plan.per_head else 1, dtype=np.int64)
    count = query_tiles(plan, m)
    row, tile, full = expand_regions(plan.regions, row_values(plan, n, m, tables, heads, 0, count))
    return pack(row, tile, full, count * len(heads))


def pack(row: Ints, tile: Ints, full: NDArray[np.bool_], rows: int) -> TileLists:
    """Sorted tiles as row pointers and one flat list."""
    total = np.bincount(row, minlength=rows)
    fulls = np.bincount(row[full], minlength=rows)
    start = np.zeros(rows + 1, dtype=np.int64)
    np.cumsum(total, out=start[1:])
    return TileLists(start.astype(np.int32), (start[:-1] + fulls).astype(np.int32), tile.astype(np.int32))
