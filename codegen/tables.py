"""Table values on a device, and the tiles a data-dependent mask really touches."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..compiler.expand import TileLists, expand, pack, query_tiles
from ..compiler.ir import And, Compare, Var
from ..compiler.plan import Plan
from ..compiler.tables import Ints, table_values
from .search import Found, Search

# Candidate tiles of one chunk of rows: what bounds the memory of planning.
TILES_AT_ONCE = 1 << 21


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
    group = max(1, plan.shape.heads // max(1, plan.shape.kv_heads))
    count, columns = query_tiles(plan, m), -(-n // plan.tiling.block_n)
    formula = And((plan.mask.formula, Compare("<", Var("k"), Var("n"))))
    # A power of two of rows at once, so that coarse boxes of neighbouring chunks line up.
    step = 1 << max(0, (TILES_AT_ONCE // columns).bit_length() - 1)
    found: list[Found] = []
    search = Search(formula, plan.tiling, on_device, device, n, m, {})
    for h in range(heads):
        one = replace(search, scalars={"h": h, "g": h // group, "n": n, "m": m})
        for first in range(0, count, step):
            row, tile, full = one.rows(first, min(count, first + step))
            found.append((row + h * count, tile, full))
    row, tile, full = (torch.cat([f[part] for f in found]).cpu().numpy() for part in range(3))
    order = np.lexsort((tile, ~full, row))
    return pack(row[order], tile[order], full[order], count * heads)
