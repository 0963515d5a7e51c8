"""Which single keys a query tile gathers: the cells of some choices, as lists of keys."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..compiler.plan import Tiling
from .launch import Columns
from .list_tiles import Visited, device_lists
from .select_tiles import Band, Packed, Tiles, tiles_of

# Cells of keys smaller than this may be gathered key by key: no tile is as small.
SMALLEST_TILE = 16
# What a gathered key costs, in keys of a tile.
GATHER_COST = 2.0


def may_gather(cells: Packed) -> bool:
    """Whether a choice's cells are so small that tiles could be mostly other keys."""
    return cells.kind == "k" and cells.key_size < SMALLEST_TILE


@dataclass(frozen=True, slots=True)
class Singles:
    """Choices that are listed key by key; where not `exact`, a list has more than what each of its queries chose."""

    choices: frozenset[int]
    columns: Columns
    exact: bool


def singles_of(
    cells: Sequence[Packed],
    choices: Sequence[int],
    tiling: Tiling,
    limits: torch.Tensor,
    band: Band,
    n: int,
    most: Sequence[int | None],
    heads: int,
) -> Singles:
    """The keys of some choices, for each head; `limits` [H or 1, query tiles, key tiles] is where a pair may be.

    A choice keeps `most` keys at most for each of its cells of queries.
    """
    some = [cells[c] for c in choices]
    size, exact = list_size(some, tiling.block_m, band.count)
    keys = longest(some, [most[c] for c in choices], size, n)
    return Singles(frozenset(choices), columns_of(some, size, tiling, limits, band, n, keys, heads), exact)


def longest(cells: Sequence[Packed], most: Sequence[int | None], size: int, n: int) -> int:
    """How many keys a list that `size` queries share may have."""
    pairs = zip(cells, most, strict=True)
    return min(n, sum((n if keys is None else keys) * rows_within(one, size) for one, keys in pairs))


def rows_within(cells: Packed, size: int) -> int:
    """How many cells of queries lie in `size` queries, which begin at a multiple of that, at most."""
    if cells.shared:
        return 1
    # The first of them may lack tokens, but no fewer than tiles and cells begin apart.
    return 1 - (math.gcd(size, cells.query_size) - size) // cells.query_size


def list_size(cells: Sequence[Packed], block_m: int, m: int) -> tuple[int, bool]:
    """How many of m queries share a list of keys, and whether each of them keeps all that is listed."""
    sizes = [m if one.shared else one.query_size for one in cells]
    finest = min(sizes)
    if all(size in (m, finest) or size % finest == 0 for size in sizes) and (finest == m or finest % block_m == 0):
        return finest, True
    return block_m, all(size == m or size % block_m == 0 for size in sizes)


def columns_of(
    cells: Sequence[Packed], size: int, tiling: Tiling, limits: torch.Tensor, band: Band, n: int, keys: int, heads: int
) -> Columns:
    """The keys that choices keep, listed for each `size` queries; those of a query tile end where its limits do."""
    kept = torch.zeros((), dtype=torch.bool, device=limits.device)
    # Heads that choose together share their lists.
    lanes = max(one.bits.shape[1] for one in cells)
    for one in cells:
        kept = kept | tiles_of(one, Tiling(size, 1), band, n).by_head(lanes).touched
    batch, _, rows, _ = kept.shape
    count, tiles = limits.shape[-2:]
    padded = torch.nn.functional.pad(kept, (0, tiles * tiling.block_n - n))
    sums = padded.unflatten(-1, (tiles, tiling.block_n)).sum(-1, dtype=torch.int32).cumsum(-1, dtype=torch.int32)
    sums = torch.nn.functional.pad(sums, (1, 0))
    everything = Tiles(*2 * (torch.ones(1, 1, n, dtype=torch.bool, device=limits.device),))
    kept = kept.flatten(1, 2)[:, :, None]
    lists = device_lists(Visited(everything, (Tiles(kept, kept),), batch, lanes * rows), batch * lanes * rows * keys)
    # Each batch element has one more start than it has lists.
    starts = lists.start.view(batch, -1)[:, : lanes * rows].reshape(batch, lanes, rows)
    device = limits.device
    row = torch.arange(count, device=device) * tiling.block_m // size
    b, h = torch.arange(batch, device=device).view(-1, 1, 1), torch.arange(heads, device=device).view(-1, 1)
    lane = h // (heads // lanes)
    low = limits.to(torch.int8).argmax(-1)
    high = (limits * torch.arange(1, tiles + 1, device=device)).amax(-1)
    first, end = (starts[b, lane, row] + sums[b, lane, row, bound.expand(heads, -1)] for bound in (low, high))
    return Columns(first.contiguous(), end.contiguous(), lists.tiles)
