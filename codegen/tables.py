"""Table values on a device, and the tiles a data-dependent mask really touches."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..compiler.evaluate import ArrayLibrary, truth
from ..compiler.expand import TileLists, expand, pack, query_tiles
from ..compiler.intervals import Interval, read_key, verdict
from ..compiler.ir import And, Binary, Compare, Formula, Var
from ..compiler.plan import Plan
from ..compiler.tables import Ints, table_values
from ..compiler.walk import reads

TORCH = ArrayLibrary(
    lambda a, b: torch.minimum(*_tensors(a, b)),
    lambda a, b: torch.maximum(*_tensors(a, b)),
    lambda c, a, b: torch.where(c, a, b),
)

# Query-key pairs evaluated at once when a tile is looked at pair by pair.
PAIRS_AT_ONCE = 1 << 23
# Rows and keys of a tile looked at before all of them: enough to see that most doubtful tiles are partial.
PROBES = 8
# Candidate tiles looked at at once: what bounds the memory of planning.
TILES_AT_ONCE = 1 << 21


def _tensors(a: object, b: object) -> tuple[torch.Tensor, torch.Tensor]:
    device = next(x.device for x in (a, b) if isinstance(x, torch.Tensor))
    return torch.as_tensor(a, device=device), torch.as_tensor(b, device=device)


@dataclass(frozen=True, slots=True)
class Tables:
    """All tables of one call: `[length]` each, or `[batch, length]` where the input came with a batch."""

    arrays: Mapping[str, Ints]

    @property
    def batched(self) -> tuple[str, ...]:
        """Names of the tables that differ from batch to batch."""
        return tuple(name for name, array in self.arrays.items() if array.ndim == 2)

    def of(self, batch: int) -> dict[str, Ints]:
        """The flat arrays of one batch element."""
        return {name: array[batch] if array.ndim == 2 else array for name, array in self.arrays.items()}


def gather(plan: Plan, inputs: Mapping[str, Ints], n: int, m: int) -> Tables:
    """Every table a mask mentions; an input `[batch, n]` makes its tables batched."""
    out: dict[str, Ints] = {}
    for table in plan.mask.tables:
        source = inputs.get(table.source) if table.source else None
        if source is not None and source.ndim == 2:
            rows = [table_values(table, {table.source: row}, n, m, plan.shape) for row in source]
            out[table.name] = np.stack(rows)
        else:
            out[table.name] = table_values(table, inputs, n, m, plan.shape)
    return Tables(out)


def tile_lists(plan: Plan, tables: Mapping[str, Ints], n: int, m: int, device: torch.device) -> TileLists:
    """The live tiles of one batch element, for any strategy."""
    if plan.strategy != "table":
        return expand(plan, n, m, tables)
    on_device = {name: torch.as_tensor(array, device=device) for name, array in tables.items()}
    heads = plan.shape.heads if plan.per_head else 1
    count, columns = query_tiles(plan, m), -(-n // plan.tiling.block_n)
    # A power of two of rows at once, so that coarse boxes of neighbouring chunks line up.
    step = 1 << max(0, (TILES_AT_ONCE // columns).bit_length() - 1)
    found: list[Found] = []
    known: dict[tuple[str, int, int], tuple[torch.Tensor, torch.Tensor]] = {}
    for h in range(heads):
        group = max(1, plan.shape.heads // max(1, plan.shape.kv_heads))
        search = Search(plan, on_device, device, n, m, {"h": h, "g": h // group, "n": n, "m": m}, known)
        for first in range(0, count, step):
            row, tile, full = search.rows(first, min(count, first + step))
            found.append((row + h * count, tile, full))
    row, tile, full = (torch.cat([f[part] for f in found]).cpu().numpy() for part in range(3))
    order = np.lexsort((tile, ~full, row))
    return pack(row[order], tile[order], full[order], count * heads)


Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Search:
    """Looks for live tiles from coarse boxes to fine ones by bounds, then pair by pair where they leave doubt."""

    plan: Plan
    tables: Mapping[str, torch.Tensor]
    device: torch.device
    n: int
    m: int
    scalars: Mapping[str, int]
    # Tables' bounds box by box, found once for each size of box.
    known: dict[tuple[str, int, int], tuple[torch.Tensor, torch.Tensor]]

    @property
    def formula(self) -> Formula:
        """What a pair must satisfy; keys past the end never do."""
        return And((self.plan.mask.formula, Compare("<", Var("k"), Var("n"))))

    def rows(self, first: int, last: int) -> Found:
        """Query tile, key tile and fullness of every live tile of some query tiles."""
        columns = -(-self.n // self.plan.tiling.block_n)
        side = 1 << max(0, (max(last - first, columns) - 1).bit_length() - 5)
        i = torch.arange(first, last, side, device=self.device)
        j = torch.arange(0, columns, side, device=self.device)
        i, j = (x.reshape(-1) for x in torch.meshgrid(i, j, indexing="ij"))
        found: list[Found] = []
        while True:
            must, may = self.bounds(i, j, side, last)
            surely = torch.nonzero(must)[:, 0]
            found.append(_filled(*_inside(i[surely], j[surely], side, last, columns)))
            unsure = torch.nonzero(may & ~must)[:, 0]
            i, j = i[unsure], j[unsure]
            if side == 1:
                break
            side //= 2
            i, j = _quarter(i, j, side)
            there = (i < last) & (j < columns)
            i, j = i[there], j[there]
        live, full = self.evaluate(i, j)
        found.append((i[live], j[live], full[live]))
        row, tile, flags = (torch.cat([part[k] for part in found]) for k in range(3))
        return row, tile, flags

    def bounds(self, i: torch.Tensor, j: torch.Tensor, side: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What must and may hold in boxes of `side` times `side` tiles; rows past the end do not exist."""
        block_m, block_n = side * self.plan.tiling.block_m, side * self.plan.tiling.block_n
        q0, k0 = i * self.plan.tiling.block_m + (self.n - self.m), j * self.plan.tiling.block_n
        boxes = {
            "q": Interval(q0, torch.clamp(q0 + block_m - 1, max=self.n - 1)),
            "k": Interval(k0, k0 + block_n - 1),
            **{name: Interval(value, value) for name, value in self.scalars.items()},
        }
        reads = self.read_boxes(boxes, i // side, j // side, block_m, block_n)
        found = verdict(self.formula, boxes, reads, TORCH)
        return _flag(found.must, i.shape, self.device), _flag(found.may, i.shape, self.device)

    def read_boxes(
        self, boxes: Mapping[str, Interval], i: torch.Tensor, j: torch.Tensor, block_m: int, block_n: int
    ) -> dict[str, Interval]:
        """Bounds of each table read: a box's own where it reads at q or k, the whole table's elsewhere."""
        out: dict[str, Interval] = {}
        for read in reads(self.formula):
            match read.index:
                case Var("k"):
                    low, high = self.bounds_of(read.table, 0, self.n, block_n)
                    out[read_key(read)] = Interval(low[j], high[j])
                case Var("q") | Binary("-", Var("q"), Binary("-", Var("n"), Var("m"))):
                    shift = self.n - self.m if isinstance(read.index, Var) else 0
                    low, high = self.bounds_of(read.table, shift, self.m, block_m)
                    out[read_key(read)] = Interval(low[i], high[i])
                case _:
                    table = self.tables[read.table]
                    low, high = (int(table.min()), int(table.max())) if len(table) else (-1, -1)
                    out[read_key(read)] = Interval(min(low, -1), max(high, -1))
        return out

    def bounds_of(self, table: str, shift: int, length: int, block: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A table's smallest and largest element in each box of positions."""
        key = (table, shift, block)
        if key not in self.known:
            self.known[key] = _tile_bounds(self.tables[table], shift, -(-length // block), block)
        return self.known[key]

    def evaluate(self, i: torch.Tensor, j: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Which tiles have a pair that is in, and which have no pair that is out: a few probes, then every pair."""
        some_in, some_out = self.pairs(i, j, PROBES)
        open_ = torch.nonzero(~(some_in & some_out))[:, 0]
        every = max(self.plan.tiling.block_m, self.plan.tiling.block_n)
        some_in[open_], some_out[open_] = self.pairs(i[open_], j[open_], every)
        return some_in, ~some_out

    def pairs(self, i: torch.Tensor, j: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Whether some pair of each tile is in, and some is out, on a grid of at most `most` rows and keys."""
        block_m, block_n = self.plan.tiling.block_m, self.plan.tiling.block_n
        some_in = torch.zeros_like(i, dtype=torch.bool)
        some_out = torch.zeros_like(some_in)
        rows = torch.linspace(0, block_m - 1, min(most, block_m), device=self.device).long()
        keys = torch.linspace(0, block_n - 1, min(most, block_n), device=self.device).long()
        step = max(1, PAIRS_AT_ONCE // (len(rows) * len(keys)))
        for part in torch.arange(len(i), device=self.device).split(step):
            q = (i[part] * block_m + (self.n - self.m))[:, None, None] + rows[None, :, None]
            k = (j[part] * block_n)[:, None, None] + keys[None, None, :]
            kept = truth(self.formula, {"q": q, "k": k, **self.scalars}, self.tables, TORCH)
            kept = _flag(kept, (len(part), len(rows), len(keys)), self.device)
            exists = q < self.n
            some_in[part] = (kept & exists).flatten(1).any(1)
            some_out[part] = (~kept & exists).flatten(1).any(1)
        return some_in, some_out


def _inside(
    i: torch.Tensor, j: torch.Tensor, side: int, last: int, columns: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tiles of coarse boxes, those past the end left out."""
    offset = torch.arange(side, device=i.device)
    rows = (i[:, None, None] + offset[None, :, None]).expand(-1, side, side).reshape(-1)
    tiles = (j[:, None, None] + offset[None, None, :]).expand(-1, side, side).reshape(-1)
    there = (rows < last) & (tiles < columns)
    return rows[there], tiles[there]


def _filled(i: torch.Tensor, j: torch.Tensor) -> Found:
    return i, j, torch.ones_like(i, dtype=torch.bool)


def _quarter(i: torch.Tensor, j: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each box in four, `side` tiles wide."""
    return torch.cat([i, i, i + side, i + side]), torch.cat([j, j + side, j, j + side])


def _flag(value: object, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.as_tensor(value, device=device).expand(shape)


def _tile_bounds(table: torch.Tensor, shift: int, count: int, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest element of each tile of positions `shift + t * block ..`; -1 outside the table."""
    padded = torch.full((count * block,), -1, dtype=torch.int64, device=table.device)
    first, last = max(0, shift), min(len(table), shift + count * block)
    if last > first:
        padded[first - shift : last - shift] = table[first:last]
    tiles = padded.view(count, block)
    return tiles.amin(1), tiles.amax(1)
