"""Which tiles are touched and full, by bounds: of clauses over keys, and of what is known of places."""

from dataclasses import dataclass

import torch

from ..compiler.intervals import Interval, interval, read_key, verdict
from ..compiler.ir import Clause, Mask
from ..compiler.plan import Shape, Tiling
from ..compiler.selection import Order
from ..compiler.walk import reads, variables
from .search import TORCH, tensor_on
from .select_plan import place_of
from .select_tiles import Band, Cells, Places, Tiles, tiles_plainly


@dataclass(frozen=True, slots=True)
class Sizes:
    """Keys and queries of a call, and where it runs."""

    n: int
    m: int
    device: torch.device


def tiles_of_segments(found: Tiles, within: int, tiling: Tiling, band: Band, n: int) -> Tiles:
    """Tiles of places from what is known of whole segments, [.., query tiles, segments]."""

    def tiles(kept: torch.Tensor) -> Tiles:
        return tiles_plainly(Cells(kept if kept.ndim == 4 else kept[None], tiling.block_m, within), tiling, band, n)

    # A tile that goes on past the last place lacks some of its pairs, as any tile of keys does.
    ends = torch.arange(0, n, tiling.block_n, device=found.full.device) + tiling.block_n
    return Tiles(tiles(found.touched).touched, tiles(found.full).full & (ends <= n))


def tiles_by_bounds(clauses: tuple[Clause, ...], shape: Shape, tiling: Tiling, band: Band, call: Sizes) -> Tiles:
    """Tiles of keys by bounds, [H or 1, query tiles, key tiles], of clauses that read no table."""
    k = torch.arange(0, call.n, tiling.block_n, device=call.device)
    boxes = _boxes(shape, tiling, band, call) | {"k": Interval(k, (k + tiling.block_n).clamp(max=call.n) - 1)}
    formula = Mask("", clauses).formula
    found = verdict(formula, boxes, {}, TORCH)
    size = (shape.heads if {"h", "g"} & variables(formula) else 1, -(-band.count // tiling.block_m), len(k))
    may, must = (tensor_on(x, call.device).expand(size) for x in (found.may, found.must))
    return Tiles(may, must & (k + tiling.block_n <= call.n))


def _boxes(shape: Shape, tiling: Tiling, band: Band, call: Sizes) -> dict[str, Interval]:
    """The bounds of what clauses are over, but for keys, of every query tile of a band."""
    q = torch.arange(band.first, band.end, tiling.block_m, device=call.device)
    head = torch.arange(shape.heads, device=call.device).view(-1, 1, 1)
    group = head // max(1, shape.heads // max(1, shape.kv_heads))
    return {
        "q": Interval(q[:, None], ((q + tiling.block_m).clamp(max=band.end) - 1)[:, None]),
        "h": Interval(head, head),
        "g": Interval(group, group),
        "n": Interval(call.n, call.n),
        "m": Interval(call.m, call.m),
    }


def tiles_by_place(
    clauses: tuple[Clause, ...], order: Order, places: Places, shape: Shape, tiling: Tiling, band: Band, call: Sizes
) -> Tiles:
    """Tiles of places by bounds, of clauses that read places; what stays unsure is touched, and not full."""
    n, within = call.n, order.within
    # The place of the pair's own key is the tile's.
    formula, own = Mask("", clauses).formula, place_of(order.name)
    spot = torch.arange(0, n, tiling.block_n, device=call.device)
    last_spot = (spot + tiling.block_n).clamp(max=n) - 1
    boxes = _boxes(shape, tiling, band, call)
    boxes["k"] = Interval(spot // within * within, (last_spot // within * within + within).clamp(max=n) - 1)
    known = {read_key(own): Interval(spot, last_spot)}
    head = torch.arange(shape.heads, device=call.device).view(-1, 1, 1)
    for read in reads(formula):
        if read.table == order.name and read != own:
            flat = interval(read.index, boxes, known, TORCH)
            index = Interval(flat.low - head * (n + 1), flat.high - head * (n + 1))
            known[read_key(read)] = _places_between(index, head, within, places.place_of)
    found = verdict(formula, boxes, known, TORCH)
    size = (*places.place_of.shape[:2], -(-band.count // tiling.block_m), len(spot))
    may, must = (tensor_on(x, call.device).expand(size) for x in (found.may, found.must))
    return Tiles(may, must & (spot + tiling.block_n <= n))


def _places_between(index: Interval, head: torch.Tensor, within: int, place_of: torch.Tensor) -> Interval:
    """The places that keys between two have: exact where they are one key, their segments' elsewhere."""
    n = place_of.shape[-1]
    low, high = index.low, index.high
    one = (low == high) & (low >= 0) & (low < n)
    exact = place_of[:, head, low.clamp(0, n - 1)].to(torch.int64)
    first = torch.where((low < 0) | (high >= n), -1, low // within * within)
    last = torch.where((high < 0) | (low >= n), -1, (high // within * within + within).clamp(max=n) - 1)
    return Interval(torch.where(one, exact, first), torch.where(one, exact, last))
