"""The fused kernels on a real GPU, with the configuration that they would choose, against plain torch in fp64."""

from dataclasses import replace

import pytest
import torch

from tests.test_weigh_fused import diagonals, plainly, rows
from weft.codegen.weigh_fused import Affine, Fold, Ratios, Weighing, fused_sums, suits

pytestmark = pytest.mark.gpu


def on_gpu(one: Weighing) -> Weighing:
    left, right = (replace(fold, x=fold.x.cuda()) for fold in (one.left, one.right))
    assert suits(left.x, right.x)
    return replace(one, left=left, right=right)


def assert_same(one: Weighing, room: int = 1 << 28) -> None:
    torch.testing.assert_close(fused_sums(on_gpu(one), room=room).cpu().double(), plainly(one), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("d", [64, 80, 128, 20])
@pytest.mark.parametrize("n", [100, 2048, 3001])
def test_antidiagonals(n: int, d: int, dtype: torch.dtype) -> None:
    assert_same(diagonals(n, 4, dtype, d))
    assert_same(diagonals(n, 4, dtype, d), room=1 << 16)


@pytest.mark.parametrize("kinds", [(torch.bfloat16, torch.float32), (torch.float32, torch.float32)])
def test_pooled_rows(kinds: tuple[torch.dtype, torch.dtype]) -> None:
    left, right = rows((1, 2, 4, 900, 128), kinds[0], 3), rows((1, 2, 1, 1800, 128), kinds[1], 4)
    assert_same(Weighing(Fold(left, 0, 900), Fold(right, 0, 1800), 0.3, 1, Affine(64, 128, 127)))


def test_the_last_queries() -> None:
    left, right = rows((1, 2, 4, 9000, 64), torch.bfloat16, 3), rows((1, 2, 1, 9000, 64), torch.bfloat16, 4)
    one = Weighing(Fold(left, 8936, 64), Fold(right, 0, 9000), 0.2, 1, Affine(1, 1, 0), Ratios(9000, 1))
    assert_same(one)
    assert_same(replace(one, ratios=Ratios(9000, 700, heads=True)))


def test_chunks_compile_once() -> None:
    """What differs from chunk to chunk, or from length to length, makes no other kernel."""
    from weft.codegen.weigh_fused_kernel import piece_sums

    fused_sums(on_gpu(diagonals(2048, 4, torch.bfloat16, 64)))
    caches = piece_sums.device_caches[torch.cuda.current_device()][0]
    before = len(caches)
    for n, room in ((2048, 1 << 16), (2000, 1 << 28), (4004, 1 << 18)):
        fused_sums(on_gpu(diagonals(n, 4, torch.bfloat16, 64)), room=room)
    assert len(caches) == before
