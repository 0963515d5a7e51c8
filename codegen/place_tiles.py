"""Which tiles of places are touched and full: what is known of keys holds for the segments that the places lie in."""

from collections.abc import Sequence

import torch

from ..compiler.intervals import Interval, interval, read_key, verdict
from ..compiler.ir import Clause, Mask
from ..compiler.plan import Shape, Tiling
from ..compiler.selection import Order
from ..compiler.walk import reads
from .search import TORCH
from .select_plan import place_of
from .select_tiles import Cells, Places, Tiles, tiles_of


def reads_order(clause: Clause, orders: Sequence[str]) -> bool:
    """Whether a clause reads places."""
    return any(read.table in orders for read in reads(clause.formula))


def tiles_of_segments(found: Tiles, within: int, tiling: Tiling, n: int) -> Tiles:
    """Tiles of places from what is known of whole segments, [.., query tiles, segments]."""

    def cells(kept: torch.Tensor) -> Cells:
        return Cells(kept if kept.ndim == 4 else kept[None], tiling.block_m, within)

    return Tiles(tiles_of(cells(found.touched), tiling, n).touched, tiles_of(cells(found.full), tiling, n).full)


def tiles_by_place(
    clauses: tuple[Clause, ...], order: Order, places: Places, shape: Shape, tiling: Tiling, n: int
) -> Tiles:
    """Tiles of places by bounds, of clauses that read places; what stays unsure is touched, and not full."""
    device, within = places.place_of.device, order.within
    # The place of the pair's own key is the tile's.
    formula, own = Mask("", clauses).formula, place_of(order.name)
    q, spot = (torch.arange(0, n, tile, device=device) for tile in (tiling.block_m, tiling.block_n))
    last_spot = (spot + tiling.block_n).clamp(max=n) - 1
    head = torch.arange(shape.heads, device=device).view(-1, 1, 1)
    group = head // max(1, shape.heads // max(1, shape.kv_heads))
    boxes = {
        "q": Interval(q[:, None], ((q + tiling.block_m).clamp(max=n) - 1)[:, None]),
        "k": Interval(spot // within * within, (last_spot // within * within + within).clamp(max=n) - 1),
        "h": Interval(head, head),
        "g": Interval(group, group),
        "n": Interval(n, n),
        "m": Interval(n, n),
    }
    known = {read_key(own): Interval(spot, last_spot)}
    for read in reads(formula):
        if read.table == order.name and read != own:
            flat = interval(read.index, boxes, known, TORCH)
            index = Interval(flat.low - head * (n + 1), flat.high - head * (n + 1))
            known[read_key(read)] = _places_between(index, head, within, places.place_of)
    found = verdict(formula, boxes, known, TORCH)
    size = (*places.place_of.shape[:2], len(q), len(spot))
    may, must = (torch.as_tensor(x, device=device).expand(size) for x in (found.may, found.must))
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
