"""What the attention part of a call runs for some queries: the plan of a kernel, its lists, and the tables it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .compiler.expand import NUMPY
from .compiler.intervals import Interval, verdict
from .compiler.plan import Plan, Tiling
from .compiler.program_bounds import without_orders
from .compiler.walk import reads, variables

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from .codegen.bound_tiles import Sizes
    from .codegen.columns import Singles
    from .codegen.launch import Columns
    from .codegen.list_tiles import Visited
    from .codegen.select_tiles import Band, Packed, Places, Tiles
    from .compiler.ir import Clause
    from .selection import Job

T = TypeVar("T")

# Tiles of all queries and keys up to which those of static clauses are remembered from call to call.
REMEMBERED = 1 << 20


@dataclass(frozen=True, slots=True)
class Work:
    """A plan, the tiles it visits and how many at most, single keys, tables, some of them by batch element."""

    plan: Plan
    tiles: Visited
    most: int
    columns: Columns | None
    key_of: torch.Tensor | None
    shared: dict[str, torch.Tensor]
    batched: dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Query:
    """Some queries of a call and what was chosen for them; `most` keys at most for a cell of queries, if known."""

    job: Job
    band: Band
    cells: tuple[Packed, ...]
    most: tuple[int | None, ...]
    places: Places | None
    # What calls of this shape share.
    memory: dict[object, Any] = field(default_factory=dict[object, "Any"], compare=False)

    def once(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        """What `make` gives, which only depends on the key and on what is the same for calls of this shape."""
        key = (*key, self.job.shape, self.kinds)
        if key not in self.memory:
            self.memory[key] = make()
        return self.memory[key]

    @property
    def kinds(self) -> tuple[object, ...]:
        """All of the cells but what is chosen."""
        return tuple((one.bits.shape, one.count, one.query_size, one.key_size, one.kind) for one in self.cells)

    @property
    def ordered(self) -> bool:
        """Whether tiles are of places."""
        return self.places is not None

    @property
    def lanes(self) -> int:
        """How many lists of tiles a batch element has: for each head, or for all where nothing tells them apart."""
        program = self.job.program
        names = (variables(clause.formula) for clause in (*program.limits.clauses, *program.keeps))
        alike = not self.ordered and all(one.bits.shape[1] == 1 for one in self.cells)
        return 1 if alike and not any({"h", "g"} & used for used in names) else self.job.shape.heads


def work_of(query: Query, tiling: Tiling, gather: bool) -> Work:
    """The tiles of a whole pattern, and single keys where they are gathered. Only where tiles are not cells must pairs
    be looked up."""
    import torch

    from .codegen.columns import may_gather
    from .codegen.select_plan import listed_keeps, lookup_tables, loops_of, plan_of

    job, cells, places = query.job, query.cells, query.places
    program = replace(job.program, limits=without_orders(job.program))
    plain = replace(query, job=replace(job, program=program))
    rest = [c for c, one in enumerate(cells) if not (gather and may_gather(one))]
    loops = query.once(("loops", tiling), lambda: loops_of(job.program, job.shape, tiling))
    singles = _singles(plain, tiling) if len(rest) < len(cells) else None
    fits = _fits(query, tiling, rest)
    keeps = listed_keeps(job.program, loops)
    tiles = _visited(plain, tiling, rest, keeps, fits)
    exact = not fits or bool(keeps)
    listed = (singles.choices, singles.exact) if singles else None
    plan = query.once(
        ("plan", tiling, exact, listed, query.ordered),
        lambda: plan_of(job.program, cells, job.shape, tiling, exact, singles, query.ordered, loops, query.lanes > 1),
    )
    shared = _tables(plain.job, plan)
    key_of = places.key_of.to(torch.int32).contiguous() if places else None
    columns = singles.columns if singles else None
    most = query.once(("most", query.band, tiling, *rest), lambda: most_tiles(query, tiling, rest))
    return Work(plan, tiles, most, columns, key_of, shared, lookup_tables(job.program, plan, cells, places))


def _tables(job: Job, plan: Plan) -> dict[str, torch.Tensor]:
    """The tables of static clauses, on the device; those that no input takes part in are there already."""
    import torch

    from .calls import narrow
    from .codegen.tables import gather

    limits = job.program.limits

    def made() -> dict[str, torch.Tensor]:
        arrays = gather(replace(plan, mask=limits), job.statics, job.n, job.n).arrays
        return {name: torch.from_numpy(narrow(array)).to(job.device) for name, array in arrays.items()}

    key = ("narrow tables", limits.tables, plan.shape, job.n, job.device)
    return made() if job.statics else job.pattern.remember(key, made)


def _fits(query: Query, tiling: Tiling, choices: list[int]) -> bool:
    """Whether every tile lies in one cell of each choice."""
    from .codegen.select_tiles import aligned

    cells = [query.cells[c] for c in choices]
    return aligned(cells, tiling, query.job.n) and all(one.kind == "p" or not query.ordered for one in cells)


def _visited(query: Query, tiling: Tiling, choices: list[int], listed: tuple[Clause, ...], fits: bool) -> Visited:
    """The tiles that are listed, of some choices and of static keeps; loops visit what the other keeps admit."""
    from .codegen.list_tiles import Visited, whole
    from .codegen.select_plan import by_places
    from .codegen.select_tiles import Tiles

    job, lanes = query.job, query.lanes
    limits, *others = _static(query, job.program.limits.clauses, tiling)
    for other in others:
        limits = Tiles(limits.touched & other.touched, limits.full & other.full)
    keeps = _static(query, listed, tiling) if listed else ()
    looped = tuple(clause for clause in job.program.keeps if clause not in listed)
    if looped:
        plain, _ = by_places(job.program.limits.clauses, job.program)
        (own,) = _static(query, (*plain, *looped), tiling)
        limits = Tiles(limits.touched & ~own.full, limits.full & ~own.touched)
    if job.device.type == "cuda" and fits and not keeps and not query.ordered and len(choices) == 1:
        one = query.cells[choices[0]]
        if one.kind == "k":
            return Visited(limits, (), job.batch, lanes, whole(one.by_head(lanes), tiling))
    chosen = (_chosen(query, query.cells[c], tiling).by_head(lanes) for c in choices)
    return Visited(limits, (*keeps, *chosen), job.batch, lanes)


def _chosen(query: Query, cells: Packed, tiling: Tiling) -> Tiles:
    """The tiles of a choice, of places where those are visited."""
    from .codegen.bound_tiles import tiles_of_segments
    from .codegen.select_tiles import tiles_of

    band, n = query.band, query.job.n
    if query.places is None or cells.kind == "p":
        return tiles_of(cells, tiling, band, n)
    within = query.job.program.orders[0].within
    return tiles_of_segments(tiles_of(cells, Tiling(tiling.block_m, within), band, n), within, tiling, band, n)


def most_tiles(query: Query, tiling: Tiling, choices: list[int]) -> int:
    """How many tiles there may be in all lists of a band."""
    job, rows = query.job, -(-query.band.count // tiling.block_m)
    seen = int(seen_before(query, tiling, [query.band.end])[0])
    return job.batch * query.lanes * rows * min(seen, row_tiles(query, tiling, choices))


def seen_before(query: Query, tiling: Tiling, ends: list[int]) -> NDArray[np.int64]:
    """How many key tiles some query of a band may see, of those before each of some ends, by bounds of the limits."""
    n = query.job.n
    columns = -(-n // tiling.block_n)
    if query.ordered:
        return np.full(len(ends), columns)
    k = np.arange(0, n, tiling.block_n)
    shape = query.job.shape
    boxes = shape.boxes() | {
        "q": Interval(query.band.first, np.array(ends)[:, None] - 1),
        "k": Interval(k, np.minimum(k + tiling.block_n, n) - 1),
        "n": Interval(n, n),
        "m": Interval(query.job.m, query.job.m),
    }
    may = verdict(query.job.program.limits.formula, boxes, {}, NUMPY).may
    return np.broadcast_to(np.asarray(may, dtype=bool), (len(ends), columns)).sum(1)


def row_tiles(query: Query, tiling: Tiling, choices: list[int]) -> int:
    """How many key tiles may be listed for a query tile; all of them where static keeps are listed besides."""
    from .codegen.columns import rows_within
    from .codegen.select_plan import listed_keeps, loops_of

    columns = -(-query.job.n // tiling.block_n)
    job = query.job
    if query.ordered or listed_keeps(job.program, loops_of(job.program, job.shape, tiling)):
        return columns
    out = 0
    for c in choices:
        one = query.cells[c]
        if one.kind == "d":
            return columns
        most = query.most[c]
        cells = -(-(query.job.n if most is None else most) // one.key_size) * rows_within(one, tiling.block_m)
        small, large = sorted((one.key_size, tiling.block_n))
        # A cell that begins inside a tile may end in one more.
        out += cells * (-(-one.key_size // tiling.block_n) + (large % small > 0))
    return min(columns, out)


def _static(query: Query, clauses: tuple[Clause, ...], tiling: Tiling) -> tuple[Tiles, ...]:
    """The tiles of static clauses; one more set for those that read places."""
    from .codegen.bound_tiles import tiles_by_place, tiles_of_segments
    from .codegen.select_plan import by_places

    if query.places is None:
        return (tiles_of_keys(query, clauses, tiling),)
    order, band = query.job.program.orders[0], query.band
    others, reading = by_places(clauses, query.job.program)
    out: list[Tiles] = []
    if others or not reading:
        segments = tiles_of_keys(query, others, Tiling(tiling.block_m, order.within))
        out.append(tiles_of_segments(segments, order.within, tiling, band, query.job.n))
    if reading:
        out.append(tiles_by_place(reading, order, query.places, query.job.shape, tiling, band, _sizes(query.job)))
    return tuple(out)


def tiles_of_keys(query: Query, clauses: tuple[Clause, ...], tiling: Tiling) -> Tiles:
    """The tiles of clauses that read no places: remembered of the whole call, or by bounds where they are many."""
    from .codegen.bound_tiles import tiles_by_bounds
    from .codegen.select_tiles import Tiles

    job, band = query.job, query.band
    rows, columns = (-(-job.n // block) for block in (tiling.block_m, tiling.block_n))
    if rows * columns > REMEMBERED and not any(reads(clause.formula) for clause in clauses):
        return tiles_by_bounds(clauses, job.shape, tiling, band, _sizes(job))
    found, part = job.tiles(clauses, tiling), slice(band.first // tiling.block_m, -(-band.end // tiling.block_m))
    return Tiles(found.touched[:, part], found.full[:, part])


def _sizes(job: Job) -> Sizes:
    from .codegen.bound_tiles import Sizes

    return Sizes(job.n, job.m, job.device)


def _singles(query: Query, tiling: Tiling) -> Singles:
    """The keys of choices that are gathered one by one."""
    from .codegen.columns import may_gather, singles_of
    from .codegen.select_plan import by_places

    job, cells = query.job, query.cells
    choices = [c for c, one in enumerate(cells) if may_gather(one)]
    clauses, _ = by_places(job.program.limits.clauses, job.program)
    limits = tiles_of_keys(query, clauses, tiling).touched
    return singles_of(cells, choices, tiling, limits, query.band, job.n, query.most, job.shape.heads)
