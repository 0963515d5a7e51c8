"""Sums of softmaxes without a map of scores, in Triton's interpreter, against the same in plain torch."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.codegen.weigh_fused import Affine, Config, Fold, Ratios, Weighing, configuration, fused_sums, suits

TINY = Config(16, 16, 16, 4, 1, 2)
WHERE = (None, (1, 1, 0), (2, 1, 5), (64, 128, -7), (3, 2, -7), (-1, -1, 3), (-2, 1, -9), (1, -1, 20), (1, 0, 12))
KINDS = (torch.float32, torch.float16, torch.bfloat16)


def folded(fold: Fold, steps: int) -> torch.Tensor:
    """[.., cells, steps * D] in fp64."""
    cells = torch.arange(fold.start, fold.start + fold.count)[:, None]
    token = fold.cell * cells + fold.step * torch.arange(steps) + fold.first
    there = (token >= 0) & (token < fold.x.shape[3])
    return (fold.x[:, :, :, token.clamp(0, fold.x.shape[3] - 1)].double() * there[..., None]).flatten(4)


def summed(x: torch.Tensor, axis: int, ratio: int) -> torch.Tensor:
    return torch.stack([part.sum(axis) for part in x.split(ratio, axis)], axis)


def plainly(one: Weighing) -> torch.Tensor:
    scores = folded(one.left, one.steps) @ folded(one.right, one.steps).transpose(-1, -2) * one.factor
    if one.where:
        i = torch.arange(one.left.start, one.left.start + one.left.count)[:, None]
        j = torch.arange(one.right.start, one.right.start + one.right.count)
        holds = one.where.key * j <= one.where.query * i + one.where.offset
        scores = scores.masked_fill(~holds, float("-inf"))
    weights = torch.softmax(scores, -1).nan_to_num(0.0)
    # The rows of the first cell that are not there.
    weights = torch.nn.functional.pad(weights, (0, 0, one.left.start % one.ratios.rows, 0))
    out = summed(summed(weights, 3, one.ratios.rows), 4, one.ratios.columns)
    return out.sum(2, keepdim=True) if one.ratios.heads else out


def rows(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_same(one: Weighing, config: Config | None = TINY, room: int = 1 << 28) -> None:
    got, right = fused_sums(one, config, room), plainly(one)
    assert got.dtype == torch.float32 and got.shape == right.shape
    torch.testing.assert_close(got.double(), right, rtol=2e-5, atol=2e-6)


def diagonals(n: int, stride: int, dtype: torch.dtype, d: int = 16) -> Weighing:
    """XAttention's: cells of `stride` tokens, queries backwards."""
    q, k = rows((2, n, 1, 3, d), dtype, 1).permute(0, 2, 3, 1, 4), rows((2, 1, 1, n, d), dtype, 2)
    cells = -(-n // stride)
    left, right = Fold(q, 0, cells, stride, -1, stride - 1), Fold(k, 0, cells, stride, 1, 0)
    return Weighing(left, right, 0.1, stride, Affine(1, 1, 0), Ratios(4, 4))


@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("n", [1, 64, 99])
def test_antidiagonals(n: int, dtype: torch.dtype) -> None:
    """Ragged last cells, grouped heads, a batch, rows with strides; all at once and in many chunks."""
    one = diagonals(n, 4, dtype)
    assert_same(one)
    assert_same(one, room=6000)


@pytest.mark.parametrize("d", [20, 40, 96])
def test_any_head_dim(d: int) -> None:
    assert_same(diagonals(37, 4, torch.float16, d))


def test_the_default_configuration() -> None:
    assert_same(diagonals(100, 4, torch.float16, 48), None)


def test_a_chunk_of_queries_is_that_part_of_all() -> None:
    one = diagonals(99, 4, torch.float32)
    part = replace(one, left=replace(one.left, start=12, count=9))
    assert_same(part)
    torch.testing.assert_close(fused_sums(part, TINY)[:, :, :, :2], fused_sums(one, TINY)[:, :, :, 3:5])


def test_pooled_rows() -> None:
    """SpargeAttention's: rows that are means, one weight for each pair of cells."""
    left, right = rows((1, 2, 2, 9, 32), torch.float32, 3), rows((1, 2, 1, 18, 32), torch.float32, 4)
    assert_same(Weighing(Fold(left, 0, 9), Fold(right, 0, 18), 0.3, 1, Affine(64, 128, 127)))


def test_rows_made_for_some_cells() -> None:
    """The rows of cells 5 .. 8, as an evaluator hands them over."""
    left, right = rows((1, 1, 2, 4, 16), torch.float16, 5), rows((1, 1, 1, 18, 16), torch.float32, 6)
    assert_same(Weighing(Fold(left, 5, 4, first=-5), Fold(right, 0, 18), 1.0, 1, Affine(1, 2, 0), Ratios(1, 3)))


def test_rows_in_which_nothing_holds_are_zeros() -> None:
    one = replace(diagonals(64, 4, torch.float32), where=Affine(1, 1, -6))
    assert_same(one)
    assert not fused_sums(one, TINY)[:, :, :, 0].any()


def test_keys_that_differ_by_head() -> None:
    left, right = rows((2, 2, 3, 20, 16), torch.float16, 7), rows((1, 2, 3, 20, 16), torch.float16, 8)
    one = Weighing(Fold(left, 0, 20), Fold(right, 0, 20), 0.5, 1, Affine(1, 1, 0), Ratios(2, 2))
    assert_same(one)
    assert_same(replace(one, ratios=Ratios(2, 2, heads=True)))


def test_scores_of_any_size() -> None:
    """A largest score far from the others, below and above what an exponential holds."""
    one = diagonals(64, 4, torch.float32)
    for factor in (300.0, -300.0, 1e-30, 0.0):
        assert_same(replace(one, factor=factor))


def test_more_columns_in_a_cell_than_in_a_tile() -> None:
    one = diagonals(200, 4, torch.float32)
    for columns in (16, 23, 99):
        assert_same(replace(one, ratios=Ratios(7, columns)))


@st.composite
def weighings(draw: st.DrawFn) -> Weighing:
    n, d, steps = draw(st.integers(1, 60)), draw(st.sampled_from((16, 20, 32))), draw(st.integers(1, 6))
    batch, groups, heads = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    kinds = draw(st.sampled_from(KINDS)), draw(st.sampled_from(KINDS))
    cells, ratio = -(-n // steps), draw(st.integers(1, 9))
    start = draw(st.integers(0, cells - 1))
    q, k = rows((batch, groups, heads, n, d), kinds[0], n), rows((1, groups, 1, n, d), kinds[1], n + 1)
    left = Fold(q, start, draw(st.integers(1, cells - start)), steps, draw(st.sampled_from((1, -1))), steps // 2)
    right = Fold(k, 0, cells, draw(st.integers(1, 4)), 1, draw(st.integers(-3, 3)))
    where = draw(st.sampled_from(WHERE))
    ratios = Ratios(ratio, draw(st.integers(1, 40)), draw(st.booleans()))
    return Weighing(left, right, draw(st.sampled_from((0.2, -1.0))), steps, where and Affine(*where), ratios)


@given(weighings(), st.sampled_from((4000, 1 << 28)), st.sampled_from((TINY, Config(32, 64, 32, 4, 1))))
@settings(max_examples=12)
def test_any(one: Weighing, room: int, config: Config) -> None:
    assert_same(one, config, room)


def test_no_queries() -> None:
    one = diagonals(64, 4, torch.float32)
    assert fused_sums(replace(one, left=replace(one.left, count=0)), TINY).shape == (2, 1, 3, 0, 4)


def test_what_suits() -> None:
    """On this machine nothing does: there is no GPU here, or the tensor is not there."""
    assert not suits(torch.zeros(1))


@pytest.mark.parametrize("arch", [0, 80, 89, 90, 100, 120])
def test_configurations_fit(arch: int) -> None:
    """Tiles as large as needed, and no more shared memory than the smallest device of the kind has."""
    for bits in (16, 32):
        for count in (1, 100, 8192):
            for width in (16, 20, 64, 80, 128, 256):
                one = configuration(arch, bits, count, count, width)
                held = one.stages * one.block_d * (one.block_m + one.block_n) * bits // 8
                assert held <= {0: 64, 80: 160, 89: 99, 90: 227, 100: 227, 120: 99}[arch] * 1024
                assert one.block_m >= min(count, 64) and one.block_d <= 64
