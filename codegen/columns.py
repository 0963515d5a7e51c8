"""Which single keys a query tile gathers: the cells of some choices, as lists of keys."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..compiler.plan import Tiling
from .launch import Columns
from .select_tiles import Cells, tiles_of

# Cells of keys smaller than this may be gathered key by key: no tile is as small.
SMALLEST_TILE = 16
# What a gathered key costs, in keys of a tile.
GATHER_COST = 2.0
# Numbers looked through at once for those that are set.
AT_ONCE = 1 << 30


def may_gather(cells: Cells) -> bool:
    """Whether a choice's cells are so small that tiles could be mostly other keys."""
    return cells.kind == "k" and cells.key_size < SMALLEST_TILE


@dataclass(frozen=True, slots=True)
class Singles:
    """Choices that are listed key by key; where not `exact`, a list has more than what each of its queries chose."""

    choices: frozenset[int]
    columns: Columns
    exact: bool


def singles_of(cells: Sequence[Cells], choices: Sequence[int], tiling: Tiling, limits: torch.Tensor, n: int) -> Singles:
    """The keys of some choices; `limits` [H or 1, query tiles, key tiles] is where a pair may be."""
    some = [cells[c] for c in choices]
    size, exact = list_size(some, tiling.block_m, n)
    return Singles(frozenset(choices), columns_of(some, size, tiling, limits, n), exact)


def list_size(cells: Sequence[Cells], block_m: int, n: int) -> tuple[int, bool]:
    """How many queries share a list of keys, and whether each of them keeps all that is listed."""
    sizes = [min(one.query_size, n) for one in cells]
    finest = min(sizes)
    if all(size in (n, finest) or size % finest == 0 for size in sizes) and (finest == n or finest % block_m == 0):
        return finest, True
    return block_m, all(size == n or size % block_m == 0 for size in sizes)


def columns_of(cells: Sequence[Cells], size: int, tiling: Tiling, limits: torch.Tensor, n: int) -> Columns:
    """The keys that choices keep, listed for each `size` queries; those of a query tile end where its limits do."""
    kept = torch.zeros((), dtype=torch.bool, device=limits.device)
    for one in cells:
        kept = kept | tiles_of(one, Tiling(size, 1), n).touched
    batch, heads, rows, _ = kept.shape
    count, tiles = limits.shape[-2:]
    padded = torch.nn.functional.pad(kept, (0, tiles * tiling.block_n - n))
    sums = padded.unflatten(-1, (tiles, tiling.block_n)).sum(-1, dtype=torch.int32).cumsum(-1, dtype=torch.int32)
    sums = torch.nn.functional.pad(sums, (1, 0))
    totals = sums[..., -1].flatten()
    starts = (totals.cumsum(0, dtype=torch.int32) - totals).view(batch, heads, rows)
    device = limits.device
    row = torch.arange(count, device=device) * tiling.block_m // size
    b, h = torch.arange(batch, device=device).view(-1, 1, 1), torch.arange(heads, device=device).view(-1, 1)
    low = limits.to(torch.int8).argmax(-1)
    high = (limits * torch.arange(1, tiles + 1, device=device)).amax(-1)
    first, end = (starts[b, h, row] + sums[b, h, row, bound.expand(heads, -1)] for bound in (low, high))
    step = max(1, AT_ONCE // n)
    keys = torch.cat([part.nonzero()[:, 1].to(torch.int32) for part in kept.flatten(0, 2).split(step)])
    # One spare key, so that an empty list has an address.
    return Columns(first.contiguous(), end.contiguous(), torch.nn.functional.pad(keys, (0, 1)))
