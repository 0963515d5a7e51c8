"""The kernels of `list_tiles`: how many tiles a row of tiles visits, and which."""

# Triton reads the annotations of a kernel itself and knows no types of ours.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# pyright: reportGeneralTypeIssues=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

import triton
import triton.language as tl


@triton.jit
def tiles_at(touched, full, allowed, whole, first, count, tiles_of_cell, PACKED: tl.constexpr, STEP: tl.constexpr):
    """Which of some tiles of a row are full, and which have some pairs."""
    j = first + tl.arange(0, STEP)
    if PACKED:
        # A tile lies in one cell: it has all pairs or none.
        cell = j // tiles_of_cell
        bits = tl.load(touched + (cell >> 3), mask=j < count, other=0).to(tl.int32)
        may = (bits >> (cell & 7) & 1) != 0
        all_of = may
    else:
        may = tl.load(touched + j, mask=j < count, other=0) != 0
        all_of = tl.load(full + j, mask=j < count, other=0) != 0
    may = may & (tl.load(allowed + j, mask=j < count, other=0) != 0)
    all_of = all_of & (tl.load(whole + j, mask=j < count, other=0) != 0)
    return all_of, may & (all_of == 0)


@triton.jit
def start_of(row, count, rows_of_lane, cells, PACKED: tl.constexpr):
    """Where a row of tiles starts; of cells, which have a lane's and a row's stride, and rows of tiles in each."""
    start = row * count
    if PACKED:
        lane_stride, row_stride, rows_of_cell = cells
        start = row // rows_of_lane * lane_stride + row % rows_of_lane // rows_of_cell * row_stride
    return start


@triton.jit
def count_tiles(
    touched,
    full,
    allowed,
    whole,
    counts_ptr,
    rows,
    limits,
    count,
    rows_of_lane,
    cells,
    tiles_of_cell,
    PACKED: tl.constexpr,
    STEP: tl.constexpr,
):
    """How many full and how many partial tiles one row has; `limits` rows of limits serve all heads in turn."""
    row = tl.program_id(0).to(tl.int64)
    mine, its = start_of(row, count, rows_of_lane, cells, PACKED), (row % limits) * count
    fulls, partials = tl.zeros([STEP], dtype=tl.int32), tl.zeros([STEP], dtype=tl.int32)
    for first in range(0, count, STEP):
        all_of, some = tiles_at(
            touched + mine, full + mine, allowed + its, whole + its, first, count, tiles_of_cell, PACKED, STEP
        )
        fulls += all_of.to(tl.int32)
        partials += some.to(tl.int32)
    tl.store(counts_ptr + row, tl.sum(fulls, 0))
    tl.store(counts_ptr + rows + row, tl.sum(partials, 0))


@triton.jit
def write_tiles(
    touched,
    full,
    allowed,
    whole,
    start_ptr,
    split_ptr,
    tiles_ptr,
    limits,
    count,
    rows_of_lane,
    cells,
    tiles_of_cell,
    PACKED: tl.constexpr,
    STEP: tl.constexpr,
):
    """One row's full tiles from its start on, its partial ones from its split on."""
    row = tl.program_id(0).to(tl.int64)
    mine, its = start_of(row, count, rows_of_lane, cells, PACKED), (row % limits) * count
    at_full, at_partial = tl.load(start_ptr + row), tl.load(split_ptr + row)
    for first in range(0, count, STEP):
        all_of, some = tiles_at(
            touched + mine, full + mine, allowed + its, whole + its, first, count, tiles_of_cell, PACKED, STEP
        )
        j = first + tl.arange(0, STEP)
        tl.store(tiles_ptr + at_full + tl.cumsum(all_of.to(tl.int32), 0) - 1, j, mask=all_of)
        tl.store(tiles_ptr + at_partial + tl.cumsum(some.to(tl.int32), 0) - 1, j, mask=some)
        at_full += tl.sum(all_of.to(tl.int32), 0)
        at_partial += tl.sum(some.to(tl.int32), 0)
