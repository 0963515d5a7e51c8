"""Chosen cells to the tile lists of an attention kernel, on the device that chose them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from ..compiler.ir import Mask
from ..compiler.pipeline import make_plan
from ..compiler.plan import Shape, Tiling
from ..compiler.tables import Ints
from .cell_bits import pack, tiles_by_kernel, unpack
from .tables import gather, tile_lists


@dataclass(frozen=True, slots=True)
class Band:
    """The queries at hand, tokens `first` to before `end`; `first` begins a cell of each choice and a tile."""

    first: int
    end: int

    @property
    def count(self) -> int:
        """How many queries there are."""
        return self.end - self.first


@dataclass(frozen=True, slots=True)
class Cells:
    """What one choice kept, [B, H, query cells, key cells], and how many tokens its cells have; by key/value head
    where the heads of a group keep the same.

    One row where all queries share the choice: then `query_size` is n or more. Kind "k": cells of keys. "p": cells of
    places, `key_size` places each. "d": cell c is the pairs with q // key_size - k // key_size == c. The first row is
    that of query `first`.
    """

    kept: torch.Tensor
    query_size: int
    key_size: int
    kind: Literal["k", "d", "p"] = "k"
    first: int = 0

    def by_head(self, heads: int) -> "Cells":
        """The same with a row of cells for each head."""
        each = heads // self.kept.shape[1]
        return self if each == 1 else replace(self, kept=self.kept.repeat_interleave(each, 1))


@dataclass(frozen=True, slots=True)
class Packed:
    """Cells as bits, of `count` cells of keys; all else as in Cells."""

    bits: torch.Tensor
    count: int
    query_size: int
    key_size: int
    kind: Literal["k", "d", "p"] = "k"
    first: int = 0

    @property
    def shared(self) -> bool:
        """Whether one row serves all queries."""
        return self.bits.shape[2] == 1

    def part(self, band: Band) -> "Packed":
        """The rows of some queries; a row that all share serves any."""
        if self.shared:
            return self
        start, end = (band.first - self.first) // self.query_size, -(-(band.end - self.first) // self.query_size)
        return replace(self, bits=self.bits[:, :, start:end], first=band.first)

    def by_head(self, heads: int) -> "Packed":
        """The same with a row of cells for each head."""
        each = heads // self.bits.shape[1]
        return self if each == 1 else replace(self, bits=self.bits.repeat_interleave(each, 1))

    def cells(self) -> Cells:
        """The cells themselves."""
        return Cells(unpack(self.bits, self.count), self.query_size, self.key_size, self.kind, self.first)


def packed(cells: Cells) -> Packed:
    """Cells in an eighth of their bytes."""
    kept = cells.kept
    return Packed(pack(kept), kept.shape[3], cells.query_size, cells.key_size, cells.kind, cells.first)


@dataclass(frozen=True, slots=True)
class Places:
    """The order of a call, for each query head: the key at each place and the place of each key, [B, H, n] int32."""

    key_of: torch.Tensor
    place_of: torch.Tensor


@dataclass(frozen=True, slots=True)
class Tiles:
    """Which tiles have a pair and which are full: [H or 1, query tiles, key tiles], or with a batch before."""

    touched: torch.Tensor
    full: torch.Tensor

    def by_head(self, heads: int) -> "Tiles":
        """The same with tiles for each head, or for all at once."""
        each = heads // self.touched.shape[-3]
        if each in (1, heads):
            return self
        return Tiles(self.touched.repeat_interleave(each, -3), self.full.repeat_interleave(each, -3))


def static_tiles(
    mask: Mask, shape: Shape, tiling: Tiling, n: int, inputs: Mapping[str, Ints], device: torch.device
) -> Tiles:
    """The tiles of a mask that does not depend on content."""
    plan = make_plan(mask, shape, tiling)
    lists = tile_lists(plan, gather(plan, inputs, n, n).arrays, n, n, device)
    heads = shape.heads if plan.per_head else 1
    rows, columns = -(-n // tiling.block_m), -(-n // tiling.block_n)
    row = np.repeat(np.arange(heads * rows), np.diff(lists.start))
    full = np.arange(len(row)) < lists.split[row]
    out = np.zeros((2, heads * rows, columns), dtype=bool)
    out[0, row, lists.tiles[: len(row)]] = True
    out[1, row[full], lists.tiles[: len(row)][full]] = True
    touched, filled = torch.from_numpy(out).to(device).view(2, heads, rows, columns)
    return Tiles(touched, filled)


def tiles_of(cells: Packed, tiling: Tiling, band: Band, n: int) -> Tiles:
    """Tiles in which a choice kept some cell, and those of which it kept all; of places, tiles of places."""
    if cells.bits.is_cuda and cells.kind != "d":
        return Tiles(*tiles_by_kernel(cells.bits, (cells.query_size, cells.key_size), tiling, band.count, n))
    return tiles_plainly(cells.cells(), tiling, band, n)


def tiles_plainly(cells: Cells, tiling: Tiling, band: Band, n: int) -> Tiles:
    """The same, by the definition."""
    rows = _along(Tiles(cells.kept, cells.kept), 2, cells.query_size, tiling.block_m, band.count)
    if cells.kind == "d":
        return _tiles_of_distances(rows, cells.key_size, tiling, band, n)
    return _along(rows, 3, cells.key_size, tiling.block_n, n)


def _along(found: Tiles, axis: int, cell: int, tile: int, n: int) -> Tiles:
    """Cells of `n` tokens of one axis made tiles."""
    touched, full = found.touched, found.full
    count = -(-n // tile)
    if touched.shape[axis] == 1:
        sizes = [count if a == axis else -1 for a in range(4)]
        return Tiles(touched.expand(sizes), full.expand(sizes))
    if cell == tile:
        return found
    first = torch.arange(count, device=touched.device) * tile // cell
    if cell % tile == 0:
        return Tiles(touched.index_select(axis, first), full.index_select(axis, first))
    last = (torch.arange(1, count + 1, device=touched.device) * tile).clamp(max=n).sub(1) // cell
    size = (last + 1 - first).view([-1 if a == axis else 1 for a in range(4)])
    return Tiles(_counted(touched, axis, first, last) > 0, _counted(full, axis, first, last) == size)


def _tiles_of_distances(rows: Tiles, size: int, tiling: Tiling, band: Band, n: int) -> Tiles:
    """Tiles with a chosen distance, and those of which all are: a tile has every distance between its corners'."""
    device = rows.touched.device
    q = torch.arange(band.first, band.end, tiling.block_m, device=device)
    k = torch.arange(0, n, tiling.block_n, device=device)
    low = (q // size)[:, None] - (k + tiling.block_n).clamp(max=n).sub(1) // size
    high = (q + tiling.block_m).clamp(max=band.end).sub(1)[:, None] // size - k // size

    def counted(kept: torch.Tensor) -> torch.Tensor:
        sums = torch.nn.functional.pad(kept[:, :, : rows_of(kept)].cumsum(-1, dtype=torch.int32), (1, 0))
        sums = sums.expand(-1, -1, len(q), -1)
        before, until = (x.clamp(0, kept.shape[3]).expand(*sums.shape[:3], -1) for x in (low, high + 1))
        return sums.gather(-1, until) - sums.gather(-1, before)

    def rows_of(kept: torch.Tensor) -> int:
        # Rows that are one row repeated are counted once.
        return 1 if kept.stride(2) == 0 else kept.shape[2]

    return Tiles(counted(rows.touched) > 0, (low >= 0) & (counted(rows.full) == high + 1 - low))


def _counted(kept: torch.Tensor, axis: int, first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """How many cells are kept among `first .. last` of an axis."""
    sums = kept.cumsum(axis, dtype=torch.int32)
    before = sums.index_select(axis, (first - 1).clamp(min=0)) * (first > 0).view(
        [-1 if a == axis else 1 for a in range(4)]
    )
    return sums.index_select(axis, last) - before


def aligned(cells: Sequence[Packed], tiling: Tiling, n: int) -> bool:
    """Whether every tile lies inside one cell of each choice."""
    sides = [(c.query_size, tiling.block_m) for c in cells] + [(c.key_size, tiling.block_n) for c in cells]
    sides += [(c.key_size, tiling.block_m) for c in cells if c.kind == "d"]
    return all(cell % tile == 0 or cell >= n for cell, tile in sides)
