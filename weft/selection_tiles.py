"""Attention over chosen cells: the tiles they lie in, the plan that visits those, the kernel or the CPU back end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from .compiler.plan import Plan, Tiling
from .tensors import TensorError

if TYPE_CHECKING:
    import torch

    from .codegen.columns import Singles
    from .codegen.configure import Config, Dtype
    from .codegen.launch import Columns
    from .codegen.list_tiles import Visited
    from .codegen.select_tiles import Cells, Places, Tiles
    from .compiler.ir import Clause
    from .selection import Job

    Attention = Callable[[], tuple[torch.Tensor, torch.Tensor]]

# Tokens of a query tile and of a key tile on the CPU, at most: cells may be smaller.
CPU_TILE = 128
# Cells of distances smaller than this fit no tile.
SMALLEST_TILE = 16


@dataclass(frozen=True, slots=True)
class Work:
    """What the attention part runs: a plan, its lists, and the tables its pairs read, some by batch element."""

    plan: Plan
    tiles: Visited
    columns: Columns | None
    key_of: torch.Tensor | None
    shared: dict[str, torch.Tensor]
    batched: dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Found:
    """The tiles of each part of a pattern: of keys, or of places where it reads those."""

    limits: Tiles
    keeps: tuple[Tiles, ...]
    chosen: tuple[Tiles, ...]


def work_of(job: Job, cells: list[Cells], tiling: Tiling, places: Places | None = None, gather: bool = True) -> Work:
    """The tiles of a whole pattern, and single keys. Only where tiles are not cells must pairs be looked up."""
    import torch

    from .calls import narrow
    from .codegen.list_tiles import Visited
    from .codegen.select_plan import lookup_tables, plan_of, without_orders
    from .codegen.select_tiles import aligned
    from .codegen.tables import gather as gather_tables

    ordered = needs_places(job, cells)
    assert places is not None or not ordered
    places = places if ordered else None
    plain = replace(job, program=without_orders(job.program))
    found = _found(plain, cells, tiling, places)
    singles = _singles(plain, cells, found, tiling) if gather else None
    rest = [c for c in range(len(cells)) if singles is None or c not in singles.choices]
    heads = (cells[0].kept.shape[0] if cells else job.batch, job.shape.heads)
    tiles = Visited(found.limits, (*found.keeps, *(found.chosen[c] for c in rest)), *heads)
    whole = not any(bool((keeps.touched & ~keeps.full).any()) for keeps in found.keeps)
    fits = aligned([cells[c] for c in rest], tiling, job.n)
    fits = fits and all(cells[c].kind == "p" or not ordered for c in rest)
    plan = plan_of(job.program, cells, job.shape, tiling, not (whole and fits), singles, ordered)
    arrays = gather_tables(replace(plan, mask=plain.program.limits), job.statics, job.n, job.n).arrays
    shared = {name: torch.from_numpy(narrow(array)).to(job.device) for name, array in arrays.items()}
    columns, key_of = (
        singles.columns if singles else None,
        places.key_of.to(torch.int32).contiguous() if places else None,
    )
    return Work(plan, tiles, columns, key_of, shared, lookup_tables(job.program, plan, cells, places))


def needs_places(job: Job, cells: list[Cells]) -> bool:
    """Whether what is kept depends on where an order puts keys."""
    from .codegen.place_tiles import reads_order

    orders = [order.name for order in job.program.orders]
    clauses = (*job.program.limits.clauses, *job.program.keeps)
    return any(one.kind == "p" for one in cells) or any(reads_order(clause, orders) for clause in clauses)


def _found(job: Job, cells: list[Cells], tiling: Tiling, places: Places | None) -> Found:
    """The tiles of limits, static keeps and choices."""
    from .codegen.place_tiles import tiles_of_segments
    from .codegen.select_tiles import Tiles, tiles_of

    limits, *others = _static(job, job.program.limits.clauses, tiling, places)
    for other in others:
        limits = Tiles(limits.touched & other.touched, limits.full & other.full)
    keeps = _static(job, job.program.keeps, tiling, places) if job.program.keeps else ()
    if places is None:
        return Found(limits, keeps, tuple(tiles_of(one, tiling, job.n) for one in cells))
    within = job.program.orders[0].within
    chosen: list[Tiles] = []
    for one in cells:
        if one.kind == "p":
            chosen.append(tiles_of(one, tiling, job.n))
        else:
            segments = tiles_of(one, Tiling(tiling.block_m, within), job.n)
            chosen.append(tiles_of_segments(segments, within, tiling, job.n))
    return Found(limits, keeps, tuple(chosen))


def _static(job: Job, clauses: tuple[Clause, ...], tiling: Tiling, places: Places | None) -> tuple[Tiles, ...]:
    """The tiles of static clauses; one more set for those that read places."""
    from .codegen.place_tiles import reads_order, tiles_by_place, tiles_of_segments

    if places is None:
        return (job.tiles(clauses, tiling),)
    order = job.program.orders[0]
    reading = tuple(clause for clause in clauses if reads_order(clause, [order.name]))
    others = tuple(clause for clause in clauses if clause not in reading)
    out: list[Tiles] = []
    if others or not reading:
        segments = job.tiles(others, Tiling(tiling.block_m, order.within))
        out.append(tiles_of_segments(segments, order.within, tiling, job.n))
    if reading:
        out.append(tiles_by_place(reading, order, places, job.shape, tiling, job.n))
    return tuple(out)


def _singles(job: Job, cells: list[Cells], found: Found, tiling: Tiling) -> Singles | None:
    """Choices whose keys are worth gathering one by one, where there are any."""
    from .codegen.columns import GATHER_COST, may_gather, singles_of
    from .codegen.list_tiles import Visited, combine
    from .codegen.place_tiles import reads_order

    choices = [c for c, one in enumerate(cells) if may_gather(one)]
    if not choices:
        return None
    orders = [order.name for order in job.program.orders]
    clauses = tuple(clause for clause in job.program.limits.clauses if not reads_order(clause, orders))
    singles = singles_of(cells, choices, tiling, job.tiles(clauses, tiling).touched, job.n)
    heads = (cells[0].kept.shape[0], job.shape.heads)
    rest = [one for c, one in enumerate(found.chosen) if c not in choices]
    without = combine(Visited(found.limits, (*found.keeps, *rest), *heads)).touched
    both = combine(Visited(found.limits, (*found.keeps, *found.chosen), *heads)).touched
    listed = (singles.columns.end - singles.columns.first).sum()
    saved = (both & ~without).sum() * tiling.block_n
    return singles if bool(listed * GATHER_COST < saved) else None


def tile(cells: list[Cells], n: int, most: int) -> Tiling:
    """The largest tiles, powers of two up to `most`, that lie inside the cells; 16 at least."""
    fitting = [c for c in cells if c.kind != "d" or c.key_size >= SMALLEST_TILE]

    def side(sizes: list[int]) -> int:
        out = most
        while out > SMALLEST_TILE and any(size % out for size in sizes if size < n):
            out //= 2
        return out

    distances = [c.key_size for c in fitting if c.kind == "d"]
    keys = [c.key_size for c in fitting if c.key_size >= SMALLEST_TILE or c.kind == "p"]
    return Tiling(side([c.query_size for c in cells] + distances), side(keys))


def attend(
    job: Job,
    cells: list[Cells],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    backend: str,
    tf32: bool,
    places: Places | None = None,
) -> Attention:
    """What computes the output and the log-sum-exp of attention over cells; `backend` is "gpu", "triton", "hopper" or
    "cpu".

    `places` is the order of a program that has one. Before the call cells may be forgotten: on a GPU only their lists
    are read, and, where no tile fits them, the tables that pairs look up.
    """
    if backend == "cpu":
        return partial(_on_cpu, work_of(job, cells, tile(cells, job.n, CPU_TILE), places), q, k, v, scale)
    return _on_device(job, cells, q, k, v, scale, backend, tf32, places)


def _on_cpu(
    work: Work, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    from .codegen.cpu import Listed, attend_listed
    from .codegen.list_tiles import host_lists

    rows: list[Mapping[str, torch.Tensor]] = [
        work.shared | {name: table[b] for name, table in work.batched.items()} for b in range(q.shape[0])
    ]
    columns = work.columns
    lists = [
        Listed(
            tiles,
            replace(columns, first=columns.first[b], end=columns.end[b]) if columns else None,
            work.key_of[b] if work.key_of is not None else None,
        )
        for b, tiles in enumerate(host_lists(work.tiles))
    ]
    return attend_listed(work.plan, lists, rows, q, k, v, scale)


def _on_device(
    job: Job,
    cells: list[Cells],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    backend: str,
    tf32: bool,
    places: Places | None,
) -> Attention:
    from .codegen.choose import UNEVEN_HEADS
    from .codegen.forward import Kernel
    from .codegen.launch import DTYPES, architecture, launcher
    from .codegen.list_tiles import device_lists
    from .selection_grouped import cost, grouped

    if scale <= 0:
        # The kernels take the largest score before scaling, which needs a positive scale.
        q, scale = q * (-1.0 if scale < 0 else 0.0), -scale or 1.0
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    dtype = DTYPES[q.dtype]
    config, work = _gathering(job, cells, q, dtype, backend, places) or _tiling(job, cells, (q, k, v), dtype, backend)
    small = grouped(job, cells, architecture(q.device), dtype, q.shape[3]) if backend != "hopper" else None
    if small and cost(*small) < cost(config, work):
        config, work = small
    config = replace(config, side_by_side=UNEVEN_HEADS)
    batched = tuple(work.batched) if q.shape[0] > 1 else ()
    tables = work.shared | (work.batched if batched else {name: table[0] for name, table in work.batched.items()})
    lists = replace(device_lists(work.tiles), columns=work.columns, key_of=work.key_of)
    kernel = Kernel(work.plan, config, dtype, q.shape[3], batched, tf32)
    return partial(launcher(kernel).run, q, k, v, scale, lists, tables)


def _gathering(
    job: Job, cells: list[Cells], q: torch.Tensor, dtype: Dtype, backend: str, places: Places | None
) -> tuple[Config, Work] | None:
    """What runs where rows of keys are gathered, which the copy engine cannot; nothing where none need be."""
    from .codegen.columns import may_gather
    from .codegen.configure import portable
    from .codegen.launch import architecture

    ordered = needs_places(job, cells)
    if backend == "hopper" and ordered:
        raise TensorError(f"pattern `{job.pattern.name}`: backend 'hopper' cannot gather keys by place")
    if backend == "hopper" or not (ordered or any(map(may_gather, cells))):
        return None
    config = portable(architecture(q.device), dtype, q.shape[3], job.n, False)
    if config.block_m == 128 and tile(cells, job.n, 128).block_m == 64:
        config = replace(config, block_m=64, warps=4)
    work = work_of(job, cells, Tiling(config.block_m, config.block_n), places)
    return (config, work) if ordered or work.columns is not None else None


def _tiling(
    job: Job, cells: list[Cells], qkv: tuple[torch.Tensor, ...], dtype: Dtype, backend: str
) -> tuple[Config, Work]:
    """What runs where only tiles are visited: the fastest configuration whose tiles lie in the cells, if one does."""
    from .codegen.configure import configurations
    from .codegen.launch import architecture, describable
    from .codegen.select_tiles import aligned

    q = qkv[0]
    arch, head_dim = architecture(q.device), q.shape[3]
    tma = arch >= 90 and head_dim * q.element_size() % 16 == 0 and describable(*qkv)
    configs = configurations(arch, dtype, head_dim, job.n, tma, backend != "triton")
    if backend == "hopper" and not any(config.hopper for config in configs):
        raise TensorError(f"pattern `{job.pattern.name}`: backend 'hopper' cannot run q {list(q.shape)}")
    configs = [config for config in configs if config.hopper or backend != "hopper"]
    fitting = [config for config in configs if aligned(cells, Tiling(config.block_m, config.block_n), job.n)]
    config = (fitting or configs)[0]
    return config, work_of(job, cells, Tiling(config.block_m, config.block_n), gather=False)
