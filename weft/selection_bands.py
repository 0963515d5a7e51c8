"""Attention over chosen cells, one band of queries after another: nothing that is held grows with queries by keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .selection import with_all_queries
from .selection_setting import Setting, Target, setting_of
from .selection_tiles import Query, Work, row_tiles, seen_before, work_of

if TYPE_CHECKING:
    import torch

    from .codegen.select_tiles import Band, Cells, Packed, Places
    from .compiler.plan import Tiling
    from .selection import Job

# Bytes of what is chosen at once: so many, or a share of K and V.
CHOSEN_BYTES, CHOSEN_SHARE = 1 << 26, 32
# Bytes of what is chosen and of lists of tiles together: so many, or a share of K and V; and what lists have at least.
LIST_BYTES, LIST_SHARE = 20 << 20, 32
FEWEST_BYTES = 4 << 20
# How many queries are tried at once, of the ones that were too many.
TRIED = 0.9
# Bytes of lists of single keys.
COLUMN_BYTES = 1 << 28
# Query tiles of a band begin at multiples of this many tokens, which all kernels' do.
BLOCK = 128

# What each choice keeps for some queries.
Source = Callable[["Band"], Sequence["Packed"]]


@dataclass(frozen=True, slots=True)
class Attention:
    """One call: all tokens ask in `job`, and what those before the last `m` get is left out; q, k and v as the kernels
    take them."""

    job: Job
    source: Source
    most: tuple[int | None, ...]
    places: Places | None
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scale: float
    backend: str
    tf32: bool
    memory: dict[object, Any]

    @property
    def m(self) -> int:
        """Queries, which are the last tokens."""
        return self.q.shape[2]

    @property
    def held(self) -> int:
        """Bytes of K and V."""
        return 2 * self.k.numel() * self.k.element_size()


def given(cells: Sequence[Cells]) -> Source:
    """Cells that are known for all queries."""
    from .codegen.select_tiles import packed

    held = [packed(one) for one in cells]
    return lambda band: [one.part(band) for one in held]


def attend(
    job: Job,
    source: Source,
    most: Sequence[int | None],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    backend: str,
    tf32: bool = False,
    places: Places | None = None,
    bits: float = 0.0,
    sums: bool = True,
    memory: dict[object, Any] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output and the log-sum-exp `[B, H, m]` of attention over cells; `backend` is "gpu", "triton", "hopper" or
    "cpu".

    `places` is the order that tiles of keys follow, if any; `most`, how many keys each choice keeps at most for a cell
    of queries; `bits`, how many cells the choices have for one query; `memory`, what calls of this shape share.
    Without `sums` the log-sum-exp is empty.
    """
    import torch

    if backend != "cpu":
        if scale <= 0:
            # The kernels take the largest score before scaling, which needs a positive scale.
            q, scale = q * (-1.0 if scale < 0 else 0.0), -scale or 1.0
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    memory = {} if memory is None else memory
    whole = with_all_queries(job, asking=False)
    call = Attention(whole, source, tuple(most), places, q, k, v, scale, backend, tf32, memory)
    exact = torch.float64 if q.dtype == torch.float64 else torch.float32
    out: torch.Tensor | None = None
    lse = torch.empty(q.shape[:3] if sums else (0,), dtype=exact, device=q.device)
    for span in _spans(call, bits):
        for query, setting in _queries(call, span):
            # What is chosen is larger than what is kept of it: the output comes after.
            out = torch.empty(q.shape, dtype=q.dtype, device=q.device) if out is None else out
            _attend(call, query, setting, out, lse if sums else None)
    assert out is not None
    return out, lse


def _spans(call: Attention, bits: float) -> Iterator[Band]:
    """Queries to choose for at once: where all cells of queries begin, and as many as there is room for."""
    from .codegen.select_tiles import Band

    job, step = call.job, _stride(call.job)
    room = 8 * max(CHOSEN_BYTES, call.held // CHOSEN_SHARE)
    fit = max(step, int(room / max(1.0, bits)) // step * step)
    for first in range((job.n - call.m) // step * step, job.n, fit):
        yield Band(first, min(job.n, first + fit))


def _stride(job: Job) -> int:
    """Queries after which all cells of queries begin together, and a tile; all where they never do."""
    sizes = {axis.size for axis in job.program.axes if axis.side == "q" and not axis.last}
    return min(math.lcm(BLOCK, *sizes), -(-job.n // BLOCK) * BLOCK)


def _queries(call: Attention, span: Band) -> Iterator[tuple[Query, Setting]]:
    """What was chosen for some queries, as many at once as there is room for lists of."""
    cells = tuple(call.source(span))
    setting = setting_of(call.job, cells, call.most, _target(call))
    job = call.job
    if setting.config.pack > 1:
        job = replace(job, shape=replace(job.shape, heads=job.shape.heads // setting.config.pack))
    query = Query(job, span, cells, call.most, call.places, call.memory)
    for band in query.once(("bands", span, setting), lambda: _bands(query, setting, call.held)):
        some = tuple(one.part(band) for one in cells)
        yield replace(query, band=band, cells=some), setting


def _bands(query: Query, setting: Setting, held: int) -> list[Band]:
    """The queries of a span in parts, as many in each as there is room for."""
    from .codegen.select_tiles import Band

    out, first, step = list[Band](), query.band.first, _stride(query.job)
    while first < query.band.end:
        rest = replace(query, band=Band(first, query.band.end))
        out.append(Band(first, min(query.band.end, first + max(step, room_for(rest, setting, held) // step * step))))
        first = out[-1].end
    return out


def _target(call: Attention) -> Target:
    from .codegen.launch import DTYPES, architecture

    qkv, ordered = (call.q, call.k, call.v), call.places is not None
    if call.backend == "cpu":
        return Target(qkv, "fp32", 0, "cpu", ordered)
    return Target(qkv, DTYPES[call.q.dtype], architecture(call.q.device), call.backend, ordered)


def room_for(query: Query, setting: Setting, held: int) -> int:
    """How many of the queries the lists may be for."""
    from .codegen.columns import list_size, longest, may_gather
    from .codegen.select_tiles import aligned

    job, tiling, n = query.job, setting.tiling, query.job.n
    columns = -(-n // tiling.block_n)
    rest = [c for c, one in enumerate(query.cells) if not (setting.gather and may_gather(one))]
    fits = aligned(query.cells, tiling, n)
    # Elsewhere which tiles are touched and which are full comes on the way to lists.
    maps = 0 if fits and len(rest) == 1 else 2 * columns * len(rest)
    bits = sum(one.bits.numel() for one in query.cells)
    room = max(FEWEST_BYTES, max(LIST_BYTES, held // LIST_SHARE) - bits)
    fit = _rows(query, tiling, rest, room // job.batch, maps) * tiling.block_m
    singles = [c for c in range(len(query.cells)) if c not in rest]
    some = [query.cells[c] for c in singles]
    if all(one.shared for one in some):
        return fit
    lanes = job.batch * max(one.bits.shape[1] for one in some)
    size, _ = list_size(some, tiling.block_m, query.band.count)
    keys = longest(some, [query.most[c] for c in singles], size, n)
    return min(fit, COLUMN_BYTES // (lanes * (4 * keys + 4 * n)) * size)


def _rows(query: Query, tiling: Tiling, choices: list[int], room: int, maps: int) -> int:
    """Rows of tiles whose lists take `room` bytes; late queries may see more tiles than early ones."""
    lanes, heads = query.lanes, query.job.shape.heads
    band, rows = query.band, -(-query.band.count // tiling.block_m)
    # From all rows to one, each a little fewer than the one before.
    counts = sorted({max(1, int(rows * TRIED**step)) for step in range(rows.bit_length() * 8)}, reverse=True)
    seen = seen_before(query, tiling, [min(band.end, band.first + count * tiling.block_m) for count in counts])
    most = row_tiles(query, tiling, choices)
    for count, tiles in zip(counts, seen, strict=True):
        # The kernel writes a log-sum-exp for each query.
        if count * (lanes * (4 * min(most, int(tiles)) + maps) + 4 * heads * tiling.block_m) <= room:
            return count
    return 1


def _attend(call: Attention, query: Query, setting: Setting, out: torch.Tensor, sums: torch.Tensor | None) -> None:
    """The results of a band's queries."""
    import torch

    band, before = query.band, call.job.n - call.m
    rows = slice(max(0, band.first - before), band.end - before)
    missing = max(0, before - band.first)
    q = torch.nn.functional.pad(call.q[:, :, rows], (0, 0, missing, 0)) if missing else call.q[:, :, rows]
    work = work_of(query, setting.tiling, setting.gather)
    place = None if missing else out[:, :, rows]
    if call.backend == "cpu":
        found, lse = _on_cpu(call, work, band, q, place)
    else:
        found, lse = _on_device(call, work, setting, band, q, place)
    if missing:
        out[:, :, rows] = found[:, :, missing:]
    if sums is not None:
        sums[:, :, rows] = lse[:, :, missing:]


def _on_cpu(
    call: Attention, work: Work, band: Band, q: torch.Tensor, out: torch.Tensor | None
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
            band.first,
        )
        for b, tiles in enumerate(host_lists(work.tiles))
    ]
    return attend_listed(work.plan, lists, rows, q, call.k, call.v, call.scale, out)


def _on_device(
    call: Attention, work: Work, setting: Setting, band: Band, q: torch.Tensor, out: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    from .codegen.choose import UNEVEN_HEADS
    from .codegen.forward import Kernel
    from .codegen.launch import DTYPES, launcher
    from .codegen.list_tiles import device_lists

    config = replace(setting.config, side_by_side=UNEVEN_HEADS)
    batched = tuple(work.batched) if q.shape[0] > 1 else ()
    tables = work.shared | (work.batched if batched else {name: table[0] for name, table in work.batched.items()})
    lists = device_lists(work.tiles, work.most)
    lists = replace(lists, columns=work.columns, key_of=work.key_of, off=band.first)
    kernel = Kernel(work.plan, config, DTYPES[q.dtype], q.shape[3], batched, call.tf32)
    return launcher(kernel).run(q, call.k, call.v, call.scale, lists, tables, out)
