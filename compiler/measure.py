"""How much a plan visits and a mask keeps: exact where loops or dense tiles say so, else named an estimate or a bound."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .evaluate import number, truth
from .expand import NUMPY, Ints, expand_regions, expand_run, query_tiles, row_values
from .ir import Compare, Mask, Var, conjunction
from .pipeline import make_plan
from .plan import Plan, Region, Run, Shape, Tiling
from .tables import table_values
from .walk import expressions, variables

Claim = Literal["exact", "estimated", "at least", "at most"]

# Pairs looked at one by one before an exact count is given up, and how many of them at once.
MOST_PAIRS = 1 << 28
PAIRS_AT_ONCE = 1 << 18
# Rows of loop bounds, and tiles of a loop with a test inside, held at once.
ROWS_AT_ONCE = 1 << 18
TILES_AT_ONCE = 1 << 21
# Rows of an estimate, over all heads.
SAMPLED_ROWS = 64


@dataclass(frozen=True, slots=True)
class Amount:
    """A count and what is claimed of it."""

    value: int
    claim: Claim = "exact"


@dataclass(frozen=True, slots=True)
class Census:
    """Tiles and pairs of one batch element, summed over the `heads` that differ."""

    heads: int
    tiles: int
    full: Amount
    partial: Amount
    pairs: Amount


def census(plan: Plan, n: int, m: int, inputs: Mapping[str, Ints]) -> Census:
    """What a plan visits and keeps; a mask whose inputs are not given is only bounded."""
    heads = plan.shape.heads if plan.per_head else 1
    tables = known_tables(plan.mask, n, m, plan.shape, inputs)
    whole = all(t.name in tables for t in plan.mask.tables)
    tiles = heads * query_tiles(plan, m) * -(-n // plan.tiling.block_n)
    full, partial, area, doubt = _visited(plan, n, m, tables)
    if plan.strategy != "table":
        pairs = _exact_pairs(plan, n, m, tables) or _sampled_pairs(plan, n, m, tables)
        return Census(heads, tiles, Amount(full), Amount(partial), pairs)
    if whole and doubt <= MOST_PAIRS:
        live, filled, kept = _inspect(plan, n, m, tables)
        return Census(heads, tiles, Amount(full + filled), Amount(live - filled), Amount(area + kept))
    pairs = _sampled_pairs(plan, n, m, tables) if whole else Amount(area + doubt, "at most")
    return Census(heads, tiles, Amount(full, "at least"), Amount(partial, "at most"), pairs)


def known_tables(mask: Mask, n: int, m: int, shape: Shape, inputs: Mapping[str, Ints]) -> dict[str, Ints]:
    """The tables of a mask, without those whose input was not given."""
    return {t.name: table_values(t, inputs, n, m, shape) for t in mask.tables if not t.source or t.source in inputs}


def _chunks(plan: Plan, n: int, m: int, tables: Mapping[str, Ints], size: int) -> Iterator[dict[str, Ints]]:
    """The loop variables of all query tiles of all heads, `size` rows at a time."""
    count = query_tiles(plan, m)
    for h in range(plan.shape.heads if plan.per_head else 1):
        for first in range(0, count, size):
            yield row_values(plan, n, m, tables, np.array([h]), first, min(count, first + size))


def _visited(plan: Plan, n: int, m: int, tables: Mapping[str, Ints]) -> tuple[int, int, int, int]:
    """Full tiles, partial tiles, the pairs of the former, and at most how many pairs the latter have."""
    totals = [0, 0, 0, 0]
    for values in _chunks(plan, n, m, tables, ROWS_AT_ONCE):
        height = np.minimum(plan.tiling.block_m, m - values["i"] * plan.tiling.block_m)
        for region in plan.regions:
            count = sum((run_lengths(run, values) for run in region.runs), np.zeros_like(height))
            kind = 0 if region.full else 1
            totals[kind] += int(count.sum())
            totals[kind + 2] += int((count * height).sum()) * plan.tiling.block_n
    return totals[0], totals[1], totals[2], totals[3]


def run_lengths(run: Run, values: Mapping[str, Ints]) -> Ints:
    """How many key tiles a run visits in each row."""
    rows = values["i"].shape
    low = np.broadcast_to(number(run.low, values, {}, NUMPY), rows)
    high = np.broadcast_to(number(run.high, values, {}, NUMPY), rows)
    counts = np.maximum(0, -((low - high) // run.step))
    if "j" not in variables(run.guard):
        return np.where(truth(run.guard, values, {}, NUMPY), counts, 0)
    out = np.zeros_like(counts)
    for part in _parts(counts, TILES_AT_ONCE):
        row, _ = expand_run(run, {name: v[part] if np.ndim(v) else v for name, v in values.items()})
        out[part] = np.bincount(row, minlength=part.stop - part.start)
    return out


def _parts(counts: Ints, most: int) -> Iterator[slice]:
    """Consecutive rows with about `most` elements in all; one row at least."""
    ends = np.cumsum(counts)
    first = 0
    while first < len(counts):
        before = ends[first] - counts[first]
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(first, last)
        first = last


def _exact_pairs(plan: Plan, n: int, m: int, tables: Mapping[str, Ints]) -> Amount | None:
    """Kept pairs by the loops of smaller tiles: single pairs if the loops are plain, else few are left to look at."""
    effort = max(1, sum(1 for _ in expressions(plan.formula)) // 2)
    for side in (1, 16):
        fine = make_plan(plan.mask, plan.shape, Tiling(side, side))
        loops = [run for region in fine.regions for run in region.runs]
        if fine.strategy == "table" or any("j" in variables(run.guard) for run in loops):
            continue
        _, _, area, doubt = _visited(fine, n, m, tables)
        if doubt * effort <= MOST_PAIRS:
            return Amount(area + (_inspect(fine, n, m, tables)[2] if doubt else 0))
    return None


def _inspect(plan: Plan, n: int, m: int, tables: Mapping[str, Ints]) -> tuple[int, int, int]:
    """Of the tiles not surely full, by looking at every pair: those with a pair, the filled ones, and the pairs kept."""
    partial = tuple(region for region in plan.regions if not region.full)
    totals = np.zeros(3, dtype=np.int64)
    rows = max(1, TILES_AT_ONCE * plan.tiling.block_n // max(1, n))
    for values in _chunks(plan, n, m, tables, rows):
        for kept, size in _kept_in_tiles(plan, partial, values, tables, n, m):
            totals += (np.count_nonzero(kept), np.count_nonzero(kept == size), kept.sum())
    return int(totals[0]), int(totals[1]), int(totals[2])


def _kept_in_tiles(
    plan: Plan, regions: tuple[Region, ...], values: Mapping[str, Ints], tables: Mapping[str, Ints], n: int, m: int
) -> Iterator[tuple[Ints, Ints]]:
    """Kept pairs of each tile of some regions, and the pairs that a full tile of that row has."""
    row, tile, _ = expand_regions(regions, values)
    block_m, block_n = plan.tiling.block_m, plan.tiling.block_n
    formula = conjunction((plan.formula, Compare("<", Var("q"), Var("n")), Compare("<", Var("k"), Var("n"))))
    step = max(1, PAIRS_AT_ONCE // (block_m * block_n))
    for first in range(0, len(row), step):
        part = row[first : first + step]
        at = {name: v[part][:, None, None] if np.ndim(v) else v for name, v in values.items()}
        at["q"] = at["i"] * block_m + (n - m) + np.arange(block_m)[:, None]
        at["k"] = tile[first : first + step, None, None] * block_n + np.arange(block_n)
        kept = np.broadcast_to(truth(formula, at, tables, NUMPY), (len(part), block_m, block_n))
        yield np.count_nonzero(kept, axis=(1, 2)), np.minimum(block_m, m - values["i"][part] * block_m) * block_n


def _sampled_pairs(plan: Plan, n: int, m: int, tables: Mapping[str, Ints]) -> Amount:
    """An estimate from whole rows, one drawn in each of equally long stretches of the queries."""
    heads = plan.shape.heads if plan.per_head else 1
    count = min(m, max(1, SAMPLED_ROWS // heads))
    edges = np.arange(count + 1) * m // count
    rows = np.random.default_rng(0).integers(edges[:-1], edges[1:]) + (n - m)
    kept = sum(int(np.count_nonzero(kept_row(plan, h, int(q), n, m, tables))) for h in range(heads) for q in rows)
    return Amount(round(kept * m / count), "exact" if count == m else "estimated")


def kept_row(plan: Plan, h: int, q: int, n: int, m: int, tables: Mapping[str, Ints]) -> NDArray[np.bool_]:
    """The keys one query of one head keeps, by definition."""
    group = max(1, plan.shape.heads // max(1, plan.shape.kv_heads))
    values = {"q": np.int64(q), "k": np.arange(n), "h": h, "g": h // group, "n": n, "m": m}
    return np.broadcast_to(truth(plan.mask.formula, values, tables, NUMPY), (n,))
