"""Table values on a device, and the tiles a data-dependent mask really touches."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..compiler.evaluate import ArrayLibrary, truth
from ..compiler.expand import TileLists, expand, expand_regions, pack, query_tiles, row_values
from ..compiler.intervals import Interval, read_key, verdict
from ..compiler.ir import And, Binary, Compare, Formula, Read, Var
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
    heads = np.arange(plan.shape.heads if plan.per_head else 1, dtype=np.int64)
    count = query_tiles(plan, m)
    on_device = {name: torch.as_tensor(array, device=device) for name, array in tables.items()}
    step = max(1, TILES_AT_ONCE // (len(heads) * -(-n // plan.tiling.block_n)))
    found: list[tuple[Ints, Ints, np.ndarray]] = []
    for first in range(0, count, step):
        last = min(count, first + step)
        values = row_values(plan, n, m, tables, heads, first, last)
        row, tile, full = expand_regions(plan.regions, values)
        live, full = _decide(plan, row, tile, full, values, on_device, n, m)
        row, tile, full = row[live], tile[live], full[live]
        # Rows of this chunk are head-major within the chunk; put them back among all rows.
        head, local = row // (last - first), row % (last - first)
        found.append((head * count + first + local, tile, full))
    row, tile, full = (np.concatenate([f[part] for f in found]) for part in range(3))
    order = np.lexsort((tile, ~full, row))
    return pack(row[order], tile[order], full[order], count * len(heads))


def _decide(
    plan: Plan,
    row: Ints,
    tile: Ints,
    full: np.ndarray,
    values: Mapping[str, Ints],
    tables: Mapping[str, torch.Tensor],
    n: int,
    m: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Which candidates are live, and which of those are full: bounds first, then pair by pair where in doubt."""
    live, full = np.ones(len(row), dtype=bool), full.copy()
    doubt = np.nonzero(~full)[0]
    if not len(doubt):
        return live, full
    formula = And((plan.mask.formula, Compare("<", Var("k"), Var("n"))))
    device = next(iter(tables.values())).device if tables else torch.device("cpu")
    scalars = {"n": n, "m": m}

    def column(name: str, where: Ints) -> torch.Tensor:
        return torch.as_tensor(values[name][row[where]], device=device)

    i, j = column("i", doubt), torch.as_tensor(tile[doubt], device=device)
    h, g = column("h", doubt), column("g", doubt)
    boxes = _boxes(plan, i, j, h, g, n, m)
    bounds = verdict(formula, boxes, _read_boxes(formula, boxes, tables, plan, i, j, n, m), TORCH)
    must = _flag(bounds.must, doubt.shape, device)
    may = _flag(bounds.may, doubt.shape, device)
    any_pair, all_pairs = may.clone(), must.clone()
    unsure = torch.nonzero(may & ~must)[:, 0]
    block = plan.tiling.block_m * plan.tiling.block_n
    for part in torch.split(unsure, max(1, PAIRS_AT_ONCE // block)):
        q = (i[part] * plan.tiling.block_m + (n - m))[:, None, None]
        q = q + torch.arange(plan.tiling.block_m, device=device)[None, :, None]
        k = (j[part] * plan.tiling.block_n)[:, None, None]
        k = k + torch.arange(plan.tiling.block_n, device=device)[None, None, :]
        heads = {"h": h[part][:, None, None], "g": g[part][:, None, None]}
        kept = truth(formula, {"q": q, "k": k, **heads, **scalars}, tables, TORCH)
        kept = _flag(kept, (len(part), plan.tiling.block_m, plan.tiling.block_n), device)
        exists = q < n
        any_pair[part] = (kept & exists).flatten(1).any(1)
        all_pairs[part] = (kept | ~exists).flatten(1).all(1)
    live[doubt] = any_pair.cpu().numpy()
    full[doubt] = (any_pair & all_pairs).cpu().numpy()
    return live, full


def _flag(value: object, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.as_tensor(value, device=device).expand(shape)


def _boxes(
    plan: Plan, i: torch.Tensor, j: torch.Tensor, h: torch.Tensor, g: torch.Tensor, n: int, m: int
) -> dict[str, Interval]:
    """The corner values of each candidate tile; rows past the end do not exist, keys past the end do."""
    q0 = i * plan.tiling.block_m + (n - m)
    k0 = j * plan.tiling.block_n
    return {
        "q": Interval(q0, torch.clamp(q0 + plan.tiling.block_m - 1, max=n - 1)),
        "k": Interval(k0, k0 + plan.tiling.block_n - 1),
        "h": Interval(h, h),
        "g": Interval(g, g),
        "n": Interval(n, n),
        "m": Interval(m, m),
    }


def _read_boxes(
    formula: Formula,
    boxes: Mapping[str, Interval],
    tables: Mapping[str, torch.Tensor],
    plan: Plan,
    i: torch.Tensor,
    j: torch.Tensor,
    n: int,
    m: int,
) -> dict[str, Interval]:
    """Bounds of each table read: a tile's own where it reads at q or k, the whole table's elsewhere."""
    out: dict[str, Interval] = {}
    for read in reads(formula):
        table = tables[read.table]
        match read.index:
            case Var("k"):
                low, high = _tile_bounds(table, 0, -(-n // plan.tiling.block_n), plan.tiling.block_n)
                out[read_key(read)] = Interval(low[j], high[j])
            case Var("q") | Binary("-", Var("q"), Binary("-", Var("n"), Var("m"))):
                shift = n - m if isinstance(read.index, Var) else 0
                low, high = _tile_bounds(table, shift, -(-m // plan.tiling.block_m), plan.tiling.block_m)
                out[read_key(read)] = Interval(low[i], high[i])
            case _:
                low = int(table.min()) if len(table) else -1
                high = int(table.max()) if len(table) else -1
                out[read_key(read)] = Interval(min(low, -1), max(high, -1))
    return out


def _tile_bounds(table: torch.Tensor, shift: int, count: int, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest element of each tile of positions `shift + t * block ..`; -1 outside the table."""
    padded = torch.full((count * block,), -1, dtype=torch.int64, device=table.device)
    first, last = max(0, shift), min(len(table), shift + count * block)
    if last > first:
        padded[first - shift : last - shift] = table[first:last]
    tiles = padded.view(count, block)
    return tiles.amin(1), tiles.amax(1)


__all__ = ["Read", "Tables", "gather", "tile_lists"]
