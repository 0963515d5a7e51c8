"""Looking for live tiles by bounds: coarse boxes first, halved where they leave doubt, single pairs last."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..compiler.evaluate import ArrayLibrary, truth
from ..compiler.intervals import Interval, Verdict, interval, read_key, verdict
from ..compiler.ir import Formula
from ..compiler.plan import Tiling
from ..compiler.walk import reads

TORCH = ArrayLibrary(
    lambda a, b: torch.minimum(*_tensors(a, b)),
    lambda a, b: torch.maximum(*_tensors(a, b)),
    lambda c, a, b: torch.where(c, a, b),
)

# Rows and keys of a tile looked at first, and the boxes at which pairs are looked at one by one.
PROBES = 8
SMALLEST = 8
# Pairs evaluated at once, and tiles halved at once: what bounds the memory of planning.
PAIRS_AT_ONCE = 1 << 22
TILES_AT_ONCE = 1 << 14

Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Pyramid = tuple[list[torch.Tensor], list[torch.Tensor]]


def _tensors(a: object, b: object) -> tuple[torch.Tensor, torch.Tensor]:
    device = next(x.device for x in (a, b) if isinstance(x, torch.Tensor))
    return tensor_on(a, device), tensor_on(b, device)


def tensor_on(x: Any, device: torch.device) -> torch.Tensor:
    """A tensor as it is; a number on a device, where nobody waits for a copy."""
    return x if isinstance(x, torch.Tensor) else torch.full((), x, device=device)


@dataclass(frozen=True, slots=True)
class Search:
    """One mask at known lengths, for one head: which tiles are live, and which of those are full."""

    formula: Formula
    tiling: Tiling
    tables: Mapping[str, torch.Tensor]
    device: torch.device
    n: int
    m: int
    scalars: Mapping[str, int]
    # Smallest and largest elements of aligned runs of 1, 2, 4, .. elements of each table.
    pyramids: dict[str, Pyramid] = field(default_factory=dict[str, Pyramid])

    def rows(self, first: int, last: int) -> Found:
        """Query tile, key tile and fullness of every live tile of some query tiles."""
        columns = -(-self.n // self.tiling.block_n)
        side = 1 << max(0, (max(last - first, columns) - 1).bit_length() - 5)
        i = torch.arange(first, last, side, device=self.device)
        j = torch.arange(0, columns, side, device=self.device)
        i, j = (x.reshape(-1) for x in torch.meshgrid(i, j, indexing="ij"))
        found: list[Found] = []
        while True:
            q0, k0 = self.corner(i, j)
            box = self.box(q0, q0 + side * self.tiling.block_m - 1, k0, k0 + side * self.tiling.block_n - 1)
            surely = torch.nonzero(box.must)[:, 0]
            found.append(_filled(i[surely], j[surely], side, last, columns))
            unsure = torch.nonzero(box.may & ~box.must)[:, 0]
            i, j = i[unsure], j[unsure]
            if side == 1:
                break
            side //= 2
            i, j = torch.cat([i, i, i + side, i + side]), torch.cat([j, j + side, j, j + side])
            there = (i < last) & (j < columns)
            i, j = i[there], j[there]
        for part in torch.arange(len(i), device=self.device).split(TILES_AT_ONCE):
            some_in, some_out = self.decide(i[part], j[part])
            live = torch.nonzero(some_in)[:, 0]
            found.append((i[part][live], j[part][live], ~some_out[live]))
        row, tile, full = (torch.cat([part[k] for part in found]) for k in range(3))
        return row, tile, full

    def corner(self, i: torch.Tensor, j: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first query and the first key of tiles."""
        return i * self.tiling.block_m + (self.n - self.m), j * self.tiling.block_n

    def box(self, q0: torch.Tensor, q1: torch.Tensor, k0: torch.Tensor, k1: torch.Tensor) -> Verdict:
        """What must and may hold in boxes; both ends are inside, rows past the end do not exist."""
        boxes = {
            "q": Interval(q0, torch.clamp(q1, max=self.n - 1)),
            "k": Interval(k0, k1),
            **{name: Interval(value, value) for name, value in self.scalars.items()},
        }
        found: dict[str, Interval] = {}
        for read in reads(self.formula):
            found[read_key(read)] = self.read_bounds(read.table, interval(read.index, boxes, found, TORCH))
        both = verdict(self.formula, boxes, found, TORCH)
        return Verdict(self.flags(both.must, q0.shape), self.flags(both.may, q0.shape))

    def read_bounds(self, table: str, index: Interval) -> Interval:
        """Bounds of a table over ranges of indices, from the two aligned runs that cover each range; -1 outside."""
        length = len(self.tables[table])
        low, high = torch.as_tensor(index.low, device=self.device), torch.as_tensor(index.high, device=self.device)
        if not length or not low.numel():
            return Interval(low * 0 - 1, low * 0 - 1)
        if table not in self.pyramids:
            self.pyramids[table] = _pyramid(self.tables[table])
        smallest, largest = self.pyramids[table]
        first, last = low.clamp(0, length - 1), high.clamp(0, length - 1)
        level = min(int((last - first).max()).bit_length(), len(smallest) - 1)
        a, b = first >> level, last >> level
        outside = (low < 0) | (high >= length)
        bottom = torch.minimum(smallest[level][a], smallest[level][b])
        top = torch.maximum(largest[level][a], largest[level][b])
        return Interval(
            torch.where(outside, bottom.clamp(max=-1), bottom), torch.where(outside, top.clamp(min=-1), top)
        )

    def decide(self, i: torch.Tensor, j: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Whether some pair of each tile is in, and whether some is out, exactly."""
        q0, k0 = self.corner(i, j)
        height, width = self.tiling.block_m, self.tiling.block_n
        rows = torch.linspace(0, height - 1, min(PROBES, height), device=self.device).long()
        keys = torch.linspace(0, width - 1, min(PROBES, width), device=self.device).long()
        some_in, some_out = self.pairs(q0, k0, q0 + height, k0 + width, rows, keys)
        tile = torch.nonzero(~(some_in & some_out))[:, 0]
        q0, k0 = q0[tile], k0[tile]
        q_end, k_end = q0 + height, k0 + width
        while len(tile) and max(height, width) > SMALLEST:
            height, width = -(-height // 2), -(-width // 2)
            q0, k0 = torch.cat([q0, q0, q0 + height, q0 + height]), torch.cat([k0, k0 + width, k0, k0 + width])
            tile, q_end, k_end = tile.repeat(4), q_end.repeat(4), k_end.repeat(4)
            keep = (q0 < q_end) & (q0 < self.n) & (k0 < k_end)
            tile, q0, k0, q_end, k_end = (x[keep] for x in (tile, q0, k0, q_end, k_end))
            box = self.box(q0, torch.minimum(q0 + height, q_end) - 1, k0, torch.minimum(k0 + width, k_end) - 1)
            some_in[tile[box.must]] = True
            some_out[tile[~box.may]] = True
            keep = box.may & ~box.must & ~(some_in & some_out)[tile]
            tile, q0, k0, q_end, k_end = (x[keep] for x in (tile, q0, k0, q_end, k_end))
        rows, keys = torch.arange(height, device=self.device), torch.arange(width, device=self.device)
        box_in, box_out = self.pairs(q0, k0, q_end, k_end, rows, keys)
        some_in[tile[box_in]] = True
        some_out[tile[box_out]] = True
        return some_in, some_out

    def pairs(
        self,
        q0: torch.Tensor,
        k0: torch.Tensor,
        q_end: torch.Tensor,
        k_end: torch.Tensor,
        rows: torch.Tensor,
        keys: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Whether some looked-at pair of each box is in, and whether some is out."""
        some_in = torch.zeros_like(q0, dtype=torch.bool)
        some_out = torch.zeros_like(some_in)
        for part in torch.arange(len(q0), device=self.device).split(max(1, PAIRS_AT_ONCE // (len(rows) * len(keys)))):
            q = q0[part][:, None, None] + rows[None, :, None]
            k = k0[part][:, None, None] + keys[None, None, :]
            exists = (q < self.n) & (q < q_end[part][:, None, None]) & (k < k_end[part][:, None, None])
            kept = self.flags(truth(self.formula, {"q": q, "k": k, **self.scalars}, self.tables, TORCH), exists.shape)
            some_in[part] = (kept & exists).flatten(1).any(1)
            some_out[part] = (~kept & exists).flatten(1).any(1)
        return some_in, some_out

    def flags(self, value: object, shape: tuple[int, ...]) -> torch.Tensor:
        """A condition as a tensor, also where no tensor took part."""
        return torch.as_tensor(value, device=self.device).expand(shape)


def _filled(i: torch.Tensor, j: torch.Tensor, side: int, last: int, columns: int) -> Found:
    """The tiles of coarse boxes that are full, those past the end left out."""
    offset = torch.arange(side, device=i.device)
    rows = (i[:, None, None] + offset[None, :, None]).expand(-1, side, side).reshape(-1)
    tiles = (j[:, None, None] + offset[None, None, :]).expand(-1, side, side).reshape(-1)
    there = (rows < last) & (tiles < columns)
    rows, tiles = rows[there], tiles[there]
    return rows, tiles, torch.ones_like(rows, dtype=torch.bool)


def _pyramid(table: torch.Tensor) -> Pyramid:
    smallest, largest = [table], [table]
    while len(smallest[-1]) > 1:
        for levels, pick in ((smallest, torch.minimum), (largest, torch.maximum)):
            level = levels[-1]
            if len(level) % 2:
                level = torch.cat([level, level[-1:]])
            levels.append(pick(level[0::2], level[1::2]))
    return smallest, largest
