"""How much a plan visits and a mask keeps: exact where it can be, else called an estimate or a bound."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np

from .evaluate import number, truth
from .expand import NUMPY, Ints, expand_run, query_tiles, row_values
from .ir import And, Binary, Compare, Const, Expr, Formula, InPowers, Mask, Not, Or, Read, Truth, Var
from .pipeline import make_plan
from .plan import Plan, Region, Run, Shape, Tiling
from .relation import count_pairs, space_of
from .sieve import MOST_BOXES, sieve
from .tables import table_values
from .walk import expressions, parts, variables

Claim = Literal["exact", "estimated", "at least", "at most"]

# Pairs looked at one by one, for a mask that only dense tiles can tell, and how many of them at once.
MOST_PAIRS = 1 << 28
PAIRS_AT_ONCE = 1 << 16
# What an exact count may cost, in operations on single pairs, and what a tile like many others costs.
MOST_WORK = 1 << 29
ALIKE_WORK = 256
# What `causal` requires.
CAUSAL = Compare("<=", Var("k"), Var("q"))
# Tiles that turn most patterns into plain loops.
SIDES = (1, 16, 32, 64, 128)
# Rows of loop bounds, and tiles of a loop with a test inside, held at once.
ROWS_AT_ONCE = 1 << 18
TILES_AT_ONCE = 1 << 21
# Rows of an estimate, over all heads: as many as this many operations allow.
ESTIMATE_WORK = 1 << 29
FEWEST_ROWS, MOST_ROWS = 8, 64


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


@dataclass(frozen=True, slots=True)
class Call:
    """The lengths and the tables of one call, and what its plan's variables are worth in each row."""

    n: int
    m: int
    tables: Mapping[str, Ints]

    def rows(self, plan: Plan, size: int) -> Iterator[dict[str, Ints]]:
        """The loop variables of all query tiles of all heads, `size` rows at a time."""
        count = query_tiles(plan, self.m)
        for h in range(plan.shape.heads if plan.per_head else 1):
            for first in range(0, count, size):
                last = min(count, first + size)
                yield row_values(plan, self.n, self.m, self.tables, np.array([h]), first, last)


@dataclass(frozen=True, slots=True)
class Visit:
    """The tiles a region visits and the pairs these hold, rows past the end left out."""

    region: Region
    tiles: int
    area: int


def census(plan: Plan, n: int, m: int, inputs: Mapping[str, Ints]) -> Census:
    """What a plan visits and keeps; a mask whose inputs are not given is only bounded."""
    call = Call(n, m, known_tables(plan.mask, n, m, plan.shape, inputs))
    heads = plan.shape.heads if plan.per_head else 1
    tiles = heads * query_tiles(plan, m) * -(-n // plan.tiling.block_n)
    if plan.strategy == "table":
        return Census(heads, tiles, *_sieved(plan, call))
    visits = _visits(plan, call)
    full, partial = (sum(v.tiles for v in visits if v.region.full is full) for full in (True, False))
    pairs = _exact_pairs(plan, call, visits) or _sampled_pairs(plan, call)
    return Census(heads, tiles, Amount(full), Amount(partial), pairs)


def _sieved(plan: Plan, call: Call) -> tuple[Amount, Amount, Amount]:
    """Full tiles, partial tiles and kept pairs of a mask without loops: by bounds, then pair by pair."""
    heads = range(plan.shape.heads if plan.per_head else 1)
    found = [sieve(plan, call.n, call.m, call.tables, h, MOST_BOXES // len(heads)) for h in heads]
    full, area = sum(s.full for s in found), sum(s.area for s in found)
    doubtful, doubt = sum(s.doubtful for s in found), sum(s.doubtful_area for s in found)
    whole = all(t.name in call.tables for t in plan.mask.tables)
    if not whole or doubt > MOST_PAIRS or any(s.side > 1 for s in found):
        pairs = _sampled_pairs(plan, call) if whole else _bounded_pairs(plan, call, area + doubt)
        return Amount(full, "at least"), Amount(doubtful, "at most"), pairs
    totals = np.zeros(3, dtype=np.int64)
    for values, one in zip(call.rows(plan, query_tiles(plan, call.m)), found, strict=True):
        for kept, size, _ in _kept_in_tiles(plan, plan.regions[-1].mask, values, one.i, one.j, call):
            totals += (np.count_nonzero(kept), np.count_nonzero(kept == size), kept.sum())
    live, filled, kept = (int(total) for total in totals)
    return Amount(full + filled), Amount(live - filled), Amount(area + kept)


def _bounded_pairs(plan: Plan, call: Call, area: int) -> Amount:
    """The pairs of the tiles that may be visited, which reach past what `causal` allows."""
    past = [(c.kind, CAUSAL in conjuncts(c.formula)) for c in plan.mask.clauses if c.kind != "drop"]
    keeps = [held for kind, held in past if kind == "keep"]
    causal = ("require", True) in past or (bool(keeps) and all(keeps))
    most = causal_pairs(call.n, call.m) if causal else call.n * call.m
    return Amount(min(area, most * (plan.shape.heads if plan.per_head else 1)), "at most")


def conjuncts(formula: Formula) -> tuple[Formula, ...]:
    """What a formula joins by `and`, or itself alone."""
    return formula.items if isinstance(formula, And) else (formula,)


def causal_pairs(n: int, m: int) -> int:
    """Pairs that causal attention keeps."""
    first = max(0, m - n)  # rows before the first key keep none
    return (n - m + first + 1 + n) * (m - first) // 2


def known_tables(mask: Mask, n: int, m: int, shape: Shape, inputs: Mapping[str, Ints]) -> dict[str, Ints]:
    """The tables of a mask, without those whose input was not given."""
    return {t.name: table_values(t, inputs, n, m, shape) for t in mask.tables if not t.source or t.source in inputs}


def _visits(plan: Plan, call: Call) -> list[Visit]:
    tiles: list[int] = [0] * len(plan.regions)
    area: list[int] = [0] * len(plan.regions)
    for values in call.rows(plan, ROWS_AT_ONCE):
        height = np.minimum(plan.tiling.block_m, call.m - values["i"] * plan.tiling.block_m)
        for position, region in enumerate(plan.regions):
            count = np.zeros_like(height)
            for run in region.runs:
                count += run_lengths(run, values)
            tiles[position] += int(count.sum())
            area[position] += int((count * height).sum()) * plan.tiling.block_n
    return [Visit(region, tiles[p], area[p]) for p, region in enumerate(plan.regions)]


def run_lengths(run: Run, values: Mapping[str, Ints]) -> Ints:
    """How many key tiles a run visits in each row."""
    rows = values["i"].shape
    low = np.broadcast_to(number(run.low, values, {}, NUMPY), rows)
    high = np.broadcast_to(number(run.high, values, {}, NUMPY), rows)
    counts = np.maximum(0, -((low - high) // run.step))
    if "j" not in variables(run.guard):
        return np.where(truth(run.guard, values, {}, NUMPY), counts, 0)
    out = np.zeros_like(counts)
    for part in _stretches(counts, TILES_AT_ONCE):
        row, _ = expand_run(run, {name: v[part] if np.ndim(v) else v for name, v in values.items()})
        out[part] = np.bincount(row, minlength=part.stop - part.start)
    return out


def _stretches(counts: Ints, most: int) -> Iterator[slice]:
    """Consecutive rows with about `most` elements in all; one row at least."""
    ends: Ints = np.cumsum(counts)
    first = 0
    while first < len(counts):
        before = int(ends[first] - counts[first])
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(first, last)
        first = last


def _exact_pairs(plan: Plan, call: Call, visits: list[Visit]) -> Amount | None:
    """Kept pairs by the plan's tiles, by other tiles, or as isl counts them; None where all take long."""
    if (found := _pairs_by_tiles(plan, call, visits)) is not None:
        return Amount(found)
    for side in SIDES:
        fine = make_plan(plan.mask, plan.shape, Tiling(side, side))
        loops = [run for region in fine.regions for run in region.runs]
        plain = fine.strategy != "table" and all("j" not in variables(run.guard) for run in loops)
        if plain and (found := _pairs_by_tiles(fine, call, _visits(fine, call))) is not None:
            return Amount(found)
        if side == 1 and (found := pairs_by_isl(plan, call)) is not None:
            return Amount(found)
    return None


def _pairs_by_tiles(plan: Plan, call: Call, visits: list[Visit]) -> int | None:
    """Full tiles by their size, the others pair by pair where that does not take long."""
    masks = [(visit.region.mask, visit) for visit in visits if not visit.region.full]
    work = sum(v.tiles * ALIKE_WORK if only_distance(mask) else v.area * effort(mask) for mask, v in masks)
    if work > MOST_WORK:
        return None
    return sum(v.area for v in visits if v.region.full) + _kept_in_partial(plan, call)


def pairs_by_isl(plan: Plan, call: Call) -> int | None:
    """Kept pairs as isl counts them; None where that takes long."""
    space = space_of(plan.shape, plan.formula, tuple(name for name, _ in plan.uniforms))
    total = 0
    for values in call.rows(plan, call.m):
        known = {name: int(np.ravel(values[name])[0]) for name in space.parameters}
        counted = count_pairs(plan.formula, space, known)
        if counted is None:
            return None
        total += counted
    return total


def _kept_in_partial(plan: Plan, call: Call) -> int:
    """Pairs kept in tiles that are not full, by looking at each."""
    total = 0
    partial = [(region.mask, run) for region in plan.regions if not region.full for run in region.runs]
    for values in call.rows(plan, ROWS_AT_ONCE) if partial else ():
        for mask, run in partial:
            for part in _stretches(run_lengths(run, values), TILES_AT_ONCE):
                some = {name: v[part] if np.ndim(v) else v for name, v in values.items()}
                for kept, _, times in _kept_in_tiles(plan, mask, some, *expand_run(run, some), call):
                    total += int((kept * times).sum())
    return total


def _kept_in_tiles(
    plan: Plan, mask: Formula, values: Mapping[str, Ints], row: Ints, tile: Ints, call: Call
) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Kept pairs of some tiles, the pairs of a full one, and how many tiles are alike."""
    block_m, block_n = plan.tiling.block_m, plan.tiling.block_n
    start = values["i"][row] * block_m
    height = np.minimum(block_m, call.m - start)
    times = np.ones_like(row)
    if only_distance(mask):
        distance = start + (call.n - call.m) - tile * block_n
        _, first, times = np.unique(np.stack([distance, height]), axis=1, return_index=True, return_counts=True)
        row, tile, start, height = row[first], tile[first], start[first], height[first]
    step = max(1, PAIRS_AT_ONCE // (block_m * block_n))
    for some in (slice(first, first + step) for first in range(0, len(row), step)):
        at = {name: v[row[some], None, None] if np.ndim(v) else v for name, v in values.items()}
        down, across = np.arange(block_m)[:, None], np.arange(block_n)
        at["q"] = start[some, None, None] + (call.n - call.m) + down
        at["k"] = tile[some, None, None] * block_n + across
        kept = truth(mask, at, call.tables, NUMPY) & (down < height[some, None, None])
        kept = np.broadcast_to(kept, (len(at["k"]), block_m, block_n))
        yield np.count_nonzero(kept, axis=(1, 2)), height[some] * block_n, times[some]


def only_distance(formula: Formula) -> bool:
    """Whether only `q - k` decides, so that one head's tiles at one distance are alike."""
    match formula:
        case Truth():
            return True
        case Compare(_, left, right):
            return slope(Binary("-", left, right)) == 0
        case InPowers(value, _):
            return slope(value) == 0
        case And(items) | Or(items):
            return all(map(only_distance, items))
        case Not(item):
            return only_distance(item)
        case _:
            assert_never(formula)


def slope(expr: Expr) -> int | None:
    """How much an expression grows when q and k both grow by one; None where that depends."""
    match expr:
        case Const():
            return 0
        case Var(name):
            return int(name in ("q", "k"))
        case Read():
            return None
        case Binary(op, left, right):
            a, b = slope(left), slope(right)
            if a is None or b is None:
                return None
            if op in ("+", "-"):
                return a + b if op == "+" else a - b
            return a if a == b and (op in ("min", "max") or a == 0) else None
        case _:
            assert_never(expr)


def effort(formula: Formula) -> int:
    """About how many operations one pair costs."""
    return sum(1 for expr in expressions(formula) for _ in parts(expr))


def _sampled_pairs(plan: Plan, call: Call) -> Amount:
    """An estimate from whole rows, one drawn in each of equally long stretches of the heads' queries."""
    every = call.m * (plan.shape.heads if plan.per_head else 1)
    count = min(every, max(FEWEST_ROWS, min(MOST_ROWS, ESTIMATE_WORK // (call.n * effort(plan.mask.formula)))))
    edges = np.arange(count + 1) * every // count
    drawn = np.random.default_rng(0).integers(edges[:-1], edges[1:])
    kept = sum(_kept_in_row(plan, int(row) // call.m, int(row) % call.m, call) for row in drawn)
    return Amount(kept) if count == every else Amount(round(kept * every / count), "estimated")


def _kept_in_row(plan: Plan, h: int, row: int, call: Call) -> int:
    """How many keys one query of one head keeps, by definition."""
    group = max(1, plan.shape.heads // max(1, plan.shape.kv_heads))
    kept = 0
    for first in range(0, call.n, PAIRS_AT_ONCE):
        k = np.arange(first, min(call.n, first + PAIRS_AT_ONCE))
        q = np.int64(row + call.n - call.m)
        values = {"q": q, "k": k, "h": h, "g": h // group, "n": call.n, "m": call.m}
        kept += int(np.count_nonzero(np.broadcast_to(truth(plan.mask.formula, values, call.tables, NUMPY), k.shape)))
    return kept
