"""Cells as bits: packed and unpacked, and the tiles they lie in, by kernels as by definition."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from weft.codegen import cell_bits
from weft.codegen.list_tiles import Visited, lists_by_kernel, lists_plainly, whole
from weft.codegen.select_tiles import Band, Cells, Packed, Tiles, tiles_plainly
from weft.compiler.plan import Tiling

SIZES = st.sampled_from([1, 3, 8, 16, 24, 32, 64])


def some(shape: tuple[int, ...], seed: int, share: float = 0.5) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


@given(st.integers(1, 3), st.integers(1, 70), st.integers(0, 99))
def test_bits(rows: int, columns: int, seed: int) -> None:
    """The first of eight cells is the lowest bit; what is past the end is 0."""
    kept = some((2, rows, columns), seed)
    bits = cell_bits.pack_plainly(kept)
    assert torch.equal(cell_bits.unpack(bits, columns), kept)
    assert torch.equal(cell_bits.pack_by_kernel(kept), bits)
    for cell in range(-(-columns // 8) * 8):
        there = kept[..., cell] if cell < columns else torch.zeros(2, rows, dtype=torch.bool)
        assert torch.equal(bits[..., cell // 8] >> (cell % 8) & 1 == 1, there)


@given(
    st.integers(1, 150), st.integers(1, 150), SIZES, SIZES, st.sampled_from([16, 32]), st.booleans(), st.integers(0, 99)
)
def test_tiles(m: int, n: int, query: int, key: int, block: int, shared: bool, seed: int) -> None:
    """Cells larger and smaller than tiles, across them, ragged at the ends; one row of cells for all queries."""
    rows = 1 if shared else -(-m // query)
    kept = some((2, 3, rows, -(-n // key)), seed, 0.8)
    kept[0] = True
    tiling, band = Tiling(16, block), Band(0, m)
    right = tiles_plainly(Cells(kept, query, key), tiling, band, n)
    found = cell_bits.tiles_by_kernel(cell_bits.pack(kept), (query, key), tiling, m, n)
    assert torch.equal(found[0], right.touched.expand(found[0].shape))
    assert torch.equal(found[1], right.full.expand(found[1].shape))


def test_tiles_of_some_rows() -> None:
    """A band's rows are a view of the whole call's."""
    kept = some((2, 2, 8, 9), 0)
    part = Packed(cell_bits.pack(kept), 9, 16, 16).part(Band(32, 100))
    right = tiles_plainly(Cells(kept[:, :, 2:7], 16, 16), Tiling(16, 32), Band(0, 68), 140)
    found = cell_bits.tiles_by_kernel(part.bits, (16, 16), Tiling(16, 32), 68, 140)
    assert torch.equal(found[0], right.touched) and torch.equal(found[1], right.full)


def test_lists_of_some_rows() -> None:
    """As from the cells of a band alone."""
    kept, limits = some((2, 2, 8, 5), 0), some((2, 5, 10), 1, 0.8)
    part = Packed(cell_bits.pack(kept), 5, 16, 32).part(Band(32, 112))
    tiling = Tiling(16, 16)
    right = tiles_plainly(Cells(kept[:, :, 2:7], 16, 32), tiling, Band(0, 80), 160)
    wanted = lists_plainly(Visited(Tiles(limits, limits), (right,), 2, 2))
    found = lists_by_kernel(Visited(Tiles(limits, limits), (), 2, 2, whole(part, tiling)), 200)
    assert torch.equal(found.start, wanted.start) and torch.equal(found.split, wanted.split)
    assert torch.equal(found.tiles[: len(wanted.tiles) - 1], wanted.tiles[:-1])
