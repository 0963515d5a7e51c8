"""Bands of queries, and loops beside listed tiles, on a real GPU: in every kernel, written where the caller says."""

from functools import partial

import pytest
import torch

from tests.band_case import Case, band_from
from tests.oracle import NAN
from tests.test_band import BY_HEAD, CAUSAL, CHECKS, SPOTS
from weft.codegen.configure import Config
from weft.codegen.forward import Kernel
from weft.codegen.launch import launcher
from weft.compiler.plan import Tiling

pytestmark = pytest.mark.gpu

CAPABILITY = torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)
KERNELS = {
    "hopper": Config(128, 128, 4, 2, True, True),
    "narrow hopper": Config(128, 64, 4, 3, True, True),
    "copied": Config(64, 64, 4, 3, True),
    "pointers": Config(128, 64, 8, 3, False),
}
CUTS = (64, 65, 700, 1280, 2111)
WINDOW = " { causal\n keep q - k < 400 }"
SINKS = " { causal\n keep q - k < 700\n keep k < 5 }"
BY_TABLE = "(w: table[head] = [3, 900]) { causal\n keep q - k < w[h] }"
COLUMNS = " { causal\n keep k // 200 % 3 == 1 }"
HEADS = " { keep (k // 256 + h) % 4 == 0 }"
HALF = partial(Case, dtype=torch.bfloat16, n=2500)


def config_of(kernel: str) -> Config:
    config = KERNELS[kernel]
    if (config.tma and CAPABILITY < (9, 0)) or (config.hopper and CAPABILITY != (9, 0)):
        pytest.skip("another GPU's kernel")
    return config


def run(case: Case, kernel: str, shift: int = 0) -> None:
    config = config_of(kernel)
    case.check_kernel(case.plan(), CUTS, config, "cuda", shift)


def tiling(kernel: str) -> Tiling:
    return Tiling(KERNELS[kernel].block_m, KERNELS[kernel].block_n)


@pytest.mark.parametrize(
    ("kernel", "listed"), [*((kernel, COLUMNS) for kernel in KERNELS), ("hopper", ""), ("copied", "")]
)
def test_bands(kernel: str, listed: str) -> None:
    run(HALF(SINKS, listed, n=4096, head_dim=128, tiling=tiling(kernel)), kernel)


@pytest.mark.parametrize("kernel", ["narrow hopper", "pointers"])
def test_heads_in_groups(kernel: str) -> None:
    """Loops and lists that differ by head, pairs here and there, a batch, a head dimension that tiles pad."""
    run(HALF(BY_TABLE, HEADS, head_dim=80, batch=2, tiling=tiling(kernel)), kernel)
    run(HALF(BY_HEAD, SPOTS, n=1001, heads=4, groups=2, tiling=tiling(kernel)), kernel)


def test_heads_in_one_tile() -> None:
    run(HALF(WINDOW, COLUMNS, n=1001, heads=8, groups=2, tiling=Tiling(16, 64), pack=4), "pointers")


@pytest.mark.parametrize("kernel", ["narrow hopper", "copied"])
def test_a_band_elsewhere_is_noticed(kernel: str) -> None:
    with pytest.raises(AssertionError, match=CHECKS):
        run(HALF(CAUSAL, n=1001, tiling=tiling(kernel)), kernel, shift=-1)


@pytest.mark.parametrize("kernel", ["narrow hopper", "copied", "pointers"])
def test_results_go_where_the_caller_says(kernel: str) -> None:
    """Machine code that is kept from an earlier call serves other strides; addresses that it cannot take get theirs."""
    config = config_of(kernel)
    case = HALF(CAUSAL, n=1001, heads=1, head_dim=64, tiling=tiling(kernel))
    q, k, v = case.tensors("cuda")
    launch = launcher(Kernel(case.plan(), config, "bf16", 64))
    for off, stop in ((0, 300), (501, 1001), (303, 501), (0, 300)):
        some = q[:, :, off:stop]
        wanted, sums = launch.run(some, k, v, 0.125, band_from(off), {})
        for wide in (64, 72, 65, 128):
            room = torch.full((1, 1, 1001, wide), NAN, dtype=q.dtype, device="cuda")
            line = torch.full((1, 1, 1001), NAN, device="cuda")
            out, lse = room[:, :, off:stop, :64], line[:, :, off:stop]
            launch.run(some, k, v, 0.125, band_from(off), {}, out, lse)
            assert torch.equal(out, wanted) and torch.equal(lse, sums)
            assert room.isnan().sum() == room.numel() - out.numel() and line.isnan().sum() == 1001 - lse.numel()
