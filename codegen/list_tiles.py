"""Which tiles each query tile visits: limits and chosen tiles to the lists that kernels read."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from ..compiler.expand import TileLists
from ..compiler.plan import Tiling
from .cell_bits import in_line
from .launch import DeviceLists
from .select_tiles import Packed, Tiles

# Tiles of a row looked at together.
STEP = 1024


@dataclass(frozen=True, slots=True)
class Whole:
    """Cells, each of which has so many rows of tiles, and tiles in a row."""

    cells: Packed
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Visited:
    """The tiles of a pattern, of a batch and its heads: in the limits, and in some of what is kept.

    Where all that is kept is `cells` with whole tiles in them, that stands for their tiles.
    """

    limits: Tiles
    kept: tuple[Tiles, ...]
    batch: int
    heads: int
    cells: Whole | None = None


def whole(cells: Packed, tiling: Tiling) -> Whole:
    """Cells that tiles lie in."""
    every = 1 << 30
    rows = every if cells.shared else cells.query_size // tiling.block_m
    return Whole(cells, rows, every if cells.count == 1 else cells.key_size // tiling.block_n)


def combine(found: Visited) -> Tiles:
    """Tiles of the whole pattern, [B, H, query tiles, key tiles]."""
    assert found.cells is None
    limits = found.limits
    touched = full = limits.touched.new_zeros((found.batch, found.heads, *limits.touched.shape[-2:]))
    for one in found.kept:
        touched, full = touched | one.touched, full | one.full
    return Tiles(touched & limits.touched, full & limits.full)


def device_lists(found: Visited, most: int) -> DeviceLists:
    """The lists that kernels read: each row's full tiles, then its partial ones; one spare tile at the end.

    There are `most` tiles at most in all lists together, so that nobody need wait for how many there are.
    """
    return lists_by_kernel(found, most) if found.limits.touched.is_cuda else lists_plainly(found)


def host_lists(found: Visited) -> list[TileLists]:
    """The same lists for the CPU back end, one for each batch element."""
    tiles, out = combine(found), list[TileLists]()
    for b in range(found.batch):
        limits = Tiles(tiles.touched[b], tiles.full[b])
        one = lists_plainly(Visited(limits, (limits,), 1, found.heads))
        out.append(TileLists(one.start.numpy(), one.split[:-1].numpy(), one.tiles[:-1].numpy()))
    return out


def lists_plainly(found: Visited) -> DeviceLists:
    """The lists, by the definition of what they are."""
    tiles = combine(found)
    kinds = torch.stack([tiles.full, tiles.touched & ~tiles.full], dim=-2).flatten(0, 2)
    starts, splits = _bounds(kinds.sum(-1, dtype=torch.int32).T, tiles.touched.shape[0])
    flat = torch.nonzero(kinds.flatten())[:, 0] % kinds.shape[-1]
    return _lists(starts, splits, torch.nn.functional.pad(flat.to(torch.int32), (0, 1)), tiles.touched.shape[0])


def lists_by_kernel(found: Visited, most: int) -> DeviceLists:
    """The same, by kernels that read the tiles as they are where one choice is all that is kept."""
    limits, kept, batch, cells = found.limits, found.kept, found.batch, found.cells
    if cells is None and (len(kept) != 1 or limits.touched.ndim > 3):
        one = combine(found)
        kept, limits = (one,), Tiles(one.touched.flatten(0, 1), one.full.flatten(0, 1))
    shape = (batch, found.heads, *limits.touched.shape[-2:])
    if cells is None:
        touched, full = (x.expand(shape).contiguous() for x in (kept[0].touched, kept[0].full))
        strides, columns = (0, 0, 1), 1
    else:
        touched = full = in_line(cells.cells.bits)
        strides, columns = (touched.stride(1), touched.stride(2), cells.rows), cells.columns
    maps = (touched, full, limits.touched.contiguous(), limits.full.contiguous())
    rows, count = batch * found.heads * shape[2], shape[-1]
    counts = torch.empty(2, rows, dtype=torch.int32, device=touched.device)
    sizes: dict[str, Any] = {"limits": limits.touched.numel() // count, "count": count, "rows_of_lane": shape[2]}
    sizes |= {"cells": strides, "tiles_of_cell": columns, "PACKED": cells is not None}
    sizes["STEP"] = min(STEP, max(32, 1 << (count - 1).bit_length()))
    from . import list_tiles_kernel as kernels  # triton is not everywhere

    counting: Any = kernels.count_tiles
    writing: Any = kernels.write_tiles
    with torch.cuda.device(touched.device) if touched.is_cuda else nullcontext():
        counting[(rows,)](*maps, counts, rows, **sizes)
        starts, splits = _bounds(counts, batch)
        tiles = torch.zeros(most + 1, dtype=torch.int32, device=touched.device)
        per = rows // batch
        # Of one row each, flattening makes a view with steps, which the kernel would not know of.
        firsts, seconds = (x.view(batch, -1)[:, :per].flatten().contiguous() for x in (starts, splits))
        writing[(rows,)](*maps, firsts, seconds, tiles, **sizes)
    return _lists(starts, splits, tiles, batch)


def _bounds(counts: torch.Tensor, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each row's full and partial tiles start, from how many there are [2, rows]."""
    ends = counts.sum(0, dtype=torch.int32).cumsum(0, dtype=torch.int32)
    start = torch.nn.functional.pad(ends, (1, 0))
    rows = counts.shape[1] // batch
    # Every batch element has one more start than it has rows: its end, which is the next one's first.
    starts = torch.stack([start[b * rows : (b + 1) * rows + 1] for b in range(batch)]).flatten()
    splits = torch.nn.functional.pad((start[:-1] + counts[0]).view(batch, rows), (0, 1)).flatten()
    return starts, splits


def _lists(starts: torch.Tensor, splits: torch.Tensor, tiles: torch.Tensor, batch: int) -> DeviceLists:
    return DeviceLists(starts, splits, tiles, len(starts) // batch if batch > 1 else 0)
