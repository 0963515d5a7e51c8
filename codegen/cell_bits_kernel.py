"""The kernels of `cell_bits`: cells as bits, and the tiles in which some of them are set, or all."""

# Triton reads the annotations of a kernel itself and knows no types of ours.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# pyright: reportGeneralTypeIssues=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

import triton
import triton.language as tl


@triton.jit
def pack(kept_ptr, bits_ptr, columns, width, STEP: tl.constexpr):
    """One row of cells, eight to a byte, the first in the lowest bit; `width` bytes."""
    row = tl.program_id(0).to(tl.int64)
    for first in range(0, width, STEP):
        byte, place = first + tl.arange(0, STEP), tl.arange(0, 8)
        cell = byte[:, None] * 8 + place[None, :]
        kept = tl.load(kept_ptr + row * columns + cell, mask=cell < columns, other=0) != 0
        packed = tl.sum(kept.to(tl.int32) << place[None, :], 1)
        tl.store(bits_ptr + row * width + byte, packed.to(tl.uint8), mask=byte < width)


@triton.jit
def to_tiles(
    bits_ptr,
    touched_ptr,
    full_ptr,
    lane_stride,
    row_stride,
    rows_of_lane,
    tile_columns,
    query_size,
    block_m,
    m,
    key_size,
    block_n,
    n,
    cells,
    SHARED: tl.constexpr,
    STEP: tl.constexpr,
):
    """Some tiles of one row of tiles: a tile of m queries and n keys has `cells` columns of cells at most."""
    at = tl.program_id(0).to(tl.int64)
    lane, i = at // rows_of_lane, (at % rows_of_lane).to(tl.int32)
    j = tl.program_id(1) * STEP + tl.arange(0, STEP)
    begin = 0 if SHARED else i * block_m // query_size
    end = 1 if SHARED else (tl.minimum((i + 1) * block_m, m) - 1) // query_size + 1
    first = j * block_n // key_size
    last = (tl.minimum((j + 1) * block_n, n) - 1) // key_size
    some, every = tl.zeros([STEP], tl.int32), tl.full([STEP], 1, tl.int32)
    for row in range(begin, end):
        line = bits_ptr + lane * lane_stride + row * row_stride
        for c in range(0, cells):
            cell = first + c
            there = (cell <= last) & (j < tile_columns)
            byte = tl.load(line + (cell >> 3), mask=there, other=0).to(tl.int32)
            bit = byte >> (cell & 7) & 1
            some = some | tl.where(there, bit, 0)
            every = every & tl.where(there, bit, 1)
    place = at * tile_columns + j
    tl.store(touched_ptr + place, some.to(tl.int8), mask=j < tile_columns)
    tl.store(full_ptr + place, every.to(tl.int8), mask=j < tile_columns)
