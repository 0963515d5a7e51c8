"""Softmaxes of products of rows, summed over cells of queries and of keys, on a GPU: no map of scores is stored.

A tile of scores becomes one number for each of its rows and each group of keys, relative to that row's largest score
in the tile; where a row's tiles are all known, a second kernel puts them together. Scores are computed once.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from .launch import architecture
from .weigh import LOG2E

# Bytes of partial sums at once.
ROOM = 1 << 28
COMPUTED = (torch.float16, torch.bfloat16, torch.float32)
# Pieces of a row that one program of the second kernel adds up.
GATHERED = 1024


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows as long as `steps` tokens: of cell c, r = 0, 1, .., the rows of tokens `cell * c + step * r + first`.

    `x` [B, G, heads of the group or 1, tokens, D], any strides; a batch of 1 serves all. The cells are `start` ..
    `start + count - 1`, and tokens that do not exist are zeros. Rows that are made already have `cell` 1.
    """

    x: torch.Tensor
    start: int
    count: int
    cell: int = 1
    step: int = 0
    first: int = 0

    def exists(self, steps: int) -> bool:
        """Whether no token is missing."""
        cells = (self.cell * self.start, self.cell * (self.start + self.count - 1))
        folds = (0, self.step * (steps - 1))
        low, high = min(cells) + min(folds) + self.first, max(cells) + max(folds) + self.first
        return low >= 0 and high < self.x.shape[3]


@dataclass(frozen=True, slots=True)
class Affine:
    """`key * j <= query * i + offset`, of cell numbers; `key` is not 0."""

    key: int
    query: int
    offset: int


@dataclass(frozen=True, slots=True)
class Ratios:
    """Rows i for each I, columns j for each J, and whether the heads of a group are added up too."""

    rows: int = 1
    columns: int = 1
    heads: bool = False


@dataclass(frozen=True, slots=True)
class Weighing:
    """`out[I, J]` = the sum over i in I, j in J of softmax_j(factor * sum over r < steps of L_i,r . R_j,r).

    A softmax is among the columns that exist and where the condition holds; rows in which nothing holds are 0. I holds
    the rows I * ratios.rows .. that exist, from the one of `left.start` on; J the columns from `right.start` on.
    """

    left: Fold
    right: Fold
    factor: float = 1.0
    steps: int = 1
    where: Affine | None = None
    ratios: Ratios = Ratios()


@dataclass(frozen=True, slots=True)
class Config:
    """Tile sizes of the first kernel, its warps and stages, and how many row tiles walk along the columns together."""

    block_m: int
    block_n: int
    block_d: int
    warps: int
    stages: int
    side: int = 8


def configuration(arch: int, bits: int, rows: int, columns: int, width: int) -> Config:
    """What runs a case on a compute capability; 0 is the interpreter or AMD."""
    short = max(16, min(128, 1 << (rows - 1).bit_length()))
    narrow = max(16, 1 << (columns - 1).bit_length())
    depth = next((d for d in (64, 32, 16) if width % d == 0), min(32, max(16, 1 << (width - 1).bit_length())))
    if bits > 16:
        return Config(min(short, 64), min(narrow, 64), min(depth, 32), 4, 2)
    warps = 8 if short == 128 else 4
    if arch // 10 in (9, 10):
        return Config(short, min(narrow, 256 if short == 128 else 128), depth, warps, 4)
    return Config(short, min(narrow, 128), min(depth, 32), warps, 3 if arch else 1)


def suits(*rows: torch.Tensor) -> bool:
    """Whether the kernels may read these: 32 bits at most, on a GPU."""
    return all(x.is_cuda and x.dtype in COMPUTED for x in rows)


def fused_sums(one: Weighing, config: Config | None = None, room: int = ROOM) -> torch.Tensor:
    """fp32 `[B, G, heads, cells I, cells J]`, heads 1 where they are added up; holds about `room` bytes meanwhile."""
    batch, groups, heads = (max(pair) for pair in zip(one.left.x.shape[:3], one.right.x.shape[:3], strict=True))
    if one.right.x.shape[2] > 1:
        # Where keys differ by head too, each head is a group.
        left, right = (_alone(fold, batch, groups, heads) for fold in (one.left, one.right))
        alone = replace(one, left=left, right=right, ratios=replace(one.ratios, heads=False))
        found = fused_sums(alone, config, room).unflatten(1, (groups, heads)).squeeze(3)
        return found.sum(2, keepdim=True) if one.ratios.heads else found
    columns = max(1, min(one.ratios.columns, one.right.count))
    left, right = (replace(fold, x=fold.x.expand(batch, groups, *fold.x.shape[2:])) for fold in (one.left, one.right))
    one = replace(one, left=left, right=right, ratios=replace(one.ratios, columns=columns))
    rows = one.ratios.rows
    cells = -(-(left.start + left.count) // rows) - left.start // rows if left.count else 0
    ends = -(-right.count // columns)
    config = config or _configuration(one)
    # A group of more columns than a tile has is cut into parts.
    parts = -(-columns // config.block_n)
    size = (batch * groups, 1 if one.ratios.heads else heads, cells, ends * parts)
    out = torch.zeros(size, dtype=torch.float32, device=left.x.device)
    if out.numel():
        seen = -(-_seen(one, left.start, left.count) // columns)
        cell_bytes = 4 * heads * min(rows, left.count) * max(1, seen) * parts
        for lead, leads, first, last in _chunks(batch * groups, cells, cell_bytes, room):
            _run(one, config, parts, out[lead : lead + leads, :, first:last], lead, left.start // rows + first)
    found = out.view(batch, groups, *size[1:3], ends, parts)
    return found[..., 0] if parts == 1 else found.sum(-1)


def _alone(fold: Fold, batch: int, groups: int, heads: int) -> Fold:
    return replace(fold, x=fold.x.expand(batch, groups, heads, *fold.x.shape[3:]).flatten(1, 2)[:, :, None])


def _configuration(one: Weighing) -> Config:
    x, bits = one.left.x, 8 * max(one.left.x.itemsize, one.right.x.itemsize)
    return configuration(architecture(x.device), bits, x.shape[2] * one.left.count, one.right.count, x.shape[4])


def _chunks(leads: int, cells: int, cell_bytes: int, room: int) -> Iterator[tuple[int, int, int, int]]:
    """First batch-and-group and how many, first and last cell I: what has partial sums of about `room` bytes."""
    fit = max(1, room // cell_bytes)
    at_once = max(1, fit // cells)
    for lead in range(0, leads, at_once):
        for first in range(0, cells, fit):
            yield lead, min(at_once, leads - lead), first, min(cells, first + fit)


def _seen(one: Weighing, begin: int, rows: int) -> int:
    """Columns past which the condition fails for all of some rows."""
    where = one.where
    if where is None or where.key < 0:
        return one.right.count
    most = max(where.query * i + where.offset for i in (begin, begin + rows - 1))
    return max(0, min(one.right.count, most // where.key + 1 - one.right.start))


def _run(one: Weighing, config: Config, parts: int, out: torch.Tensor, lead: int, first: int) -> None:
    """Some groups' cells I from `first` on: `out` [batch and group, heads or 1, cells I, parts of cells J]."""
    left, ratios, heads = one.left, one.ratios, one.left.x.shape[2]
    begin = max(left.start, first * ratios.rows)
    rows = min(left.start + left.count, (first + out.shape[2]) * ratios.rows) - begin
    columns = _seen(one, begin, rows)
    if not columns:
        return
    span = -(-ratios.columns // parts)
    piece = 1 << (span - 1).bit_length()
    per_tile, pieces = config.block_n // piece, -(-columns // ratios.columns) * parts
    tiles_n = -(-pieces // per_tile)
    sums = out.new_empty(out.shape[0], heads * rows, tiles_n * per_tile)
    tops, totals = (out.new_empty(out.shape[0], heads * rows, tiles_n) for _ in range(2))
    from . import weigh_fused_kernel as kernels  # triton is not everywhere

    with torch.cuda.device(out.device) if out.is_cuda else nullcontext():
        arguments, options = scoring(one, config, (begin, rows, columns), (ratios.columns, parts, span), lead)
        tiles_m = -(-heads * rows // config.block_m)
        first_kernel: Any = kernels.piece_sums
        grid = (out.shape[0] * tiles_m * tiles_n,)
        first_kernel[grid](left.x, one.right.x, sums, tops, totals, tiles_m, tiles_n, *arguments, **options)
        # Each tile's sums are relative to its own largest score.
        most = tops.amax(-1, keepdim=True)
        shares = torch.exp2(tops - torch.where(most == float("-inf"), 0.0, most))
        total = (shares * totals).sum(-1, keepdim=True)
        shares /= torch.where(total == 0, 1.0, total)
        second_kernel: Any = kernels.cell_sums
        block = min(GATHERED, 1 << (pieces - 1).bit_length())
        grid = (out.shape[0] * out.shape[1] * out.shape[2], -(-pieces // block))
        counts = (heads, rows, out.shape[2], ratios.rows, begin - first * ratios.rows, tiles_n, pieces)
        second_kernel[grid](sums, shares, out, *out.stride()[:3], *counts, per_tile, ratios.heads, block)


def scoring(
    one: Weighing, config: Config, extent: tuple[int, int, int], pieces: tuple[int, int, int], lead: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the first kernel is told beside its tensors and tiles: rows from `begin` on, columns, and their pieces."""
    import triton.language as tl
    from triton import knobs

    left, right, where = one.left, one.right, one.where
    begin, rows, columns = extent
    condition = (1, 0, 0, 1)
    if where:
        offset = where.offset + where.query * begin - where.key * right.start
        condition = (abs(where.key), where.query, offset, 1 if where.key > 0 else -1)
    sides = ((left, begin), (right, right.start))
    leads = tuple(fold.x.stride()[:3] for fold, _ in sides)
    folds = tuple((*fold.x.stride()[3:], fold.step) for fold, _ in sides)
    cells = (x for fold, start in sides for x in (fold.cell, fold.first + fold.cell * start, fold.x.shape[3]))
    width = left.x.shape[4]
    # The interpreter takes the bits of bf16 for integers.
    native = left.x.dtype == right.x.dtype and not (knobs.runtime.interpret and left.x.dtype == torch.bfloat16)
    kinds = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}
    arguments = (lead, left.x.shape[1], left.x.shape[2], rows, columns, *leads, *folds, *cells, *pieces, *condition)
    return (*arguments, one.factor * LOG2E), {
        "STEPS": one.steps,
        "WIDTH": width,
        "LIMITED": where is not None,
        "MASKED": width % config.block_d > 0 or not (left.exists(one.steps) and right.exists(one.steps)),
        "COMPUTE": kinds[left.x.dtype if native else torch.float32],
        "PRECISION": "ieee",
        "PIECE": 1 << (pieces[2] - 1).bit_length(),
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "BLOCK_D": config.block_d,
        "SIDE": config.side,
        "num_warps": config.warps,
        "num_stages": config.stages,
    }
