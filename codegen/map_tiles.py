"""How a map's rows and columns fall into tiles, how large those are, and which of them a condition leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..compiler import ir
from ..compiler.expand import NUMPY
from ..compiler.intervals import Interval, verdict
from ..compiler.tables import Ints
from .views import Domain

# Boxes that a condition is looked at in at most: tiles go together where there are more.
BOXES = 1 << 20
# Bytes of one side's rows in a tile.
LARGE, SMALL = 1 << 16, 1 << 15


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes of a tile, warps, and stages of what is loaded ahead."""

    block_m: int
    block_n: int
    warps: int
    stages: int


def configuration(arch: int, counts: tuple[int, int], sizes: tuple[int, ...], products: int) -> Config:
    """What runs so many rows and columns on a compute capability, 0 being the interpreter or AMD.

    `sizes`: the bytes that a row and a column of a tile take, for all products.
    """
    most, room = (128, LARGE) if arch // 10 in (9, 10) else (64, SMALL)
    # What several products need is loaded at once.
    rooms = (room, room if products < 2 else room // 2)
    fits = (max(16, min(most, room // max(1, size))) for room, size in zip(rooms, sizes, strict=True))
    m, n = (
        min(1 << (fit.bit_length() - 1), max(16, 1 << (count - 1).bit_length()))
        for fit, count in zip(fits, counts, strict=True)
    )
    return Config(m, n, 8 if m * n >= most * most // 2 else 4, 2)


@dataclass(frozen=True, slots=True)
class Lanes:
    """The cells `begin` .. `end` - 1 of a name, in tiles of `block` lanes.

    A lane is a cell, or a place for one: a tile has `block // piece` pieces, and an outer cell, of `ratio` cells from
    `first` on, is `parts` pieces of `width` cells each, with room for `piece`.
    """

    first: int
    begin: int
    end: int
    ratio: int
    parts: int
    width: int
    piece: int
    block: int
    pieces: int

    @property
    def tiles(self) -> int:
        """How many tiles there are."""
        return -(-self.pieces // (self.block // self.piece))

    def reach(self, tiles: int, step: int) -> tuple[Ints, Ints]:
        """The first and the last cell of each `step` of some tiles."""
        per = self.block // self.piece * step
        first = np.arange(-(-tiles // step), dtype=np.int64) * per
        last = np.minimum(first + per, self.pieces) - 1
        low = self.first + first // self.parts * self.ratio + first % self.parts * self.width
        high = last // self.parts * self.ratio + np.minimum((last % self.parts + 1) * self.width, self.ratio) - 1
        return np.maximum(low, self.begin), np.minimum(self.first + high, self.end - 1)


def lanes(domain: Domain, outer: Domain | None, block: int) -> Lanes:
    """The cells of a domain, where `outer` is folded into the cells that they lie in."""
    end = domain.start + domain.count
    if outer is None:
        return Lanes(domain.start, domain.start, end, 1, 1, 1, 1, block, domain.count)
    ratio = domain.within
    parts = -(-ratio // block)
    width = -(-ratio // parts)
    piece = 1 << (width - 1).bit_length()
    return Lanes(outer.start * ratio, domain.start, end, ratio, parts, width, piece, block, outer.count * parts)


def may_hold(
    where: ir.Formula, sides: Mapping[str, tuple[Ints, Ints]], boxes: Mapping[str, Interval]
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """For each range of rows and each range of columns, the two of `sides`, whether the condition may hold there."""
    (row, (low, high)), (column, (left, right)) = sides.items()
    known = {**boxes, row: Interval(low[:, None], high[:, None]), column: Interval(left[None], right[None])}
    found = verdict(where, known, {}, NUMPY).may
    return np.broadcast_to(np.asarray(found, dtype=bool), (len(low), len(left))).copy()


def steps(tiles_m: int, tiles_n: int) -> tuple[int, int]:
    """How many tiles of rows, and of columns, go together so that there are no more than `BOXES`."""
    rows = columns = 1
    while -(-tiles_m // rows) * -(-tiles_n // columns) > BOXES:
        rows, columns = (2 * rows, columns) if tiles_m // rows >= tiles_n // columns else (rows, 2 * columns)
    return rows, columns


def runs(found: np.ndarray[tuple[int, int], np.dtype[np.bool_]], step: int, tiles: int) -> tuple[Ints, Ints]:
    """Where each row's runs of columns begin in a list, and the list: first tile and the one past the last, of each."""
    edges = np.diff(np.pad(found.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    row, first = np.nonzero(edges == 1)
    last = np.nonzero(edges == -1)[1]
    begin = np.searchsorted(row, np.arange(len(found) + 1))
    return begin, np.stack([first * step, np.minimum(last * step, tiles)], axis=1)


def upload(parts: Sequence[Ints], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Small tables on a device, in one transfer."""
    flat = np.concatenate([part.reshape(-1) for part in parts] + [np.zeros(1, dtype=np.int64)]).astype(np.int32)
    held = torch.from_numpy(flat).to(device)
    ends = np.cumsum([part.size for part in parts])
    return tuple(held[end - part.size : max(end, end - part.size + 1)] for end, part in zip(ends, parts, strict=True))
