"""Tiles of a mask that no loops describe: bounds on coarse boxes first, then on finer ones where they leave doubt."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .evaluate import Array
from .expand import NUMPY, Ints
from .intervals import Interval, read_key, verdict
from .ir import Binary, Compare, Formula, Var, conjunction
from .plan import Plan
from .walk import reads

# Boxes in doubt at once beyond which finer ones are not tried.
MOST_BOXES = 1 << 19


@dataclass(frozen=True, slots=True)
class Sieved:
    """One head's tiles: `full` surely are, with `area` pairs, and those of the boxes at `i`, `j` may be anything."""

    full: int
    area: int
    i: Ints
    j: Ints
    # Tiles along a box's side: 1, or more where there were too many boxes.
    side: int
    # How many tiles and pairs the boxes in doubt hold.
    doubtful: int
    doubtful_area: int


def sieve(plan: Plan, n: int, m: int, tables: Mapping[str, Ints], h: int, most: int = MOST_BOXES) -> Sieved:
    """The tiles of one head, told apart by bounds alone; tables that are missing are taken to hold anything."""
    rows, columns = -(-m // plan.tiling.block_m), -(-n // plan.tiling.block_n)
    formula = conjunction((plan.mask.formula, Compare("<", Var("k"), Var("n"))))
    group = max(1, plan.shape.heads // max(1, plan.shape.kv_heads))
    known = {"h": h, "g": h // group, "n": n, "m": m}
    side = 1 << max(0, (max(rows, columns) - 1).bit_length() - 5)
    i, j = (x.ravel() for x in np.meshgrid(np.arange(0, rows, side), np.arange(0, columns, side), indexing="ij"))
    full, area = 0, 0

    def sizes(i: Ints, j: Ints) -> tuple[Ints, Ints]:
        """Tiles and pairs of some boxes, without what lies past the end."""
        tall = np.minimum((i + side) * plan.tiling.block_m, m) - i * plan.tiling.block_m
        wide = np.minimum(side, columns - j)
        return np.minimum(side, rows - i) * wide, tall * wide * plan.tiling.block_n

    while True:
        block_m, block_n = side * plan.tiling.block_m, side * plan.tiling.block_n
        q, k = i * plan.tiling.block_m + (n - m), j * plan.tiling.block_n
        boxes = {name: Interval(value, value) for name, value in known.items()}
        boxes |= {"q": Interval(q, np.minimum(q + block_m - 1, n - 1)), "k": Interval(k, k + block_n - 1)}
        found = verdict(formula, boxes, _bounds(formula, tables, i // side, j // side, block_m, block_n, n, m), NUMPY)
        must, may = (_flags(flags, i) for flags in (found.must, found.may))
        tiles, pairs = sizes(i[must], j[must])
        full, area = full + int(tiles.sum()), area + int(pairs.sum())
        i, j = i[may & ~must], j[may & ~must]
        if side == 1 or 4 * len(i) > most:
            tiles, pairs = sizes(i, j)
            return Sieved(full, area, i, j, side, int(tiles.sum()), int(pairs.sum()))
        side //= 2
        i, j = np.concatenate([i, i, i + side, i + side]), np.concatenate([j, j + side, j, j + side])
        there = (i < rows) & (j < columns)
        i, j = i[there], j[there]


def _flags(value: Array, like: Ints) -> Array:
    return np.broadcast_to(np.asarray(value, dtype=bool), like.shape)


def _bounds(
    formula: Formula, tables: Mapping[str, Ints], i: Ints, j: Ints, block_m: int, block_n: int, n: int, m: int
) -> dict[str, Interval]:
    """Bounds of each table read: a box's own where it reads at q or k, the whole table's elsewhere."""
    out: dict[str, Interval] = {}
    for read in reads(formula):
        table = tables.get(read.table)
        if table is None:
            continue
        match read.index:
            case Var("k"):
                low, high = _block_bounds(table, 0, -(-n // block_n), block_n)
                out[read_key(read)] = Interval(low[j], high[j])
            case Var("q") | Binary("-", Var("q"), Binary("-", Var("n"), Var("m"))):
                low, high = _block_bounds(table, n - m if read.index == Var("q") else 0, -(-m // block_m), block_m)
                out[read_key(read)] = Interval(low[i], high[i])
            case _:
                low, high = (int(table.min()), int(table.max())) if len(table) else (-1, -1)
                out[read_key(read)] = Interval(min(low, -1), max(high, -1))
    return out


def _block_bounds(table: Ints, shift: int, count: int, block: int) -> tuple[Ints, Ints]:
    """Smallest and largest element of each block of positions from `shift` on; -1 outside the table."""
    padded = np.full(count * block, -1, dtype=np.int64)
    first, last = max(0, shift), min(len(table), shift + count * block)
    padded[first - shift : max(first, last) - shift] = table[first : max(first, last)]
    blocks = padded.reshape(count, block)
    return blocks.min(axis=1), blocks.max(axis=1)
