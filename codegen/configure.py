"""Tile sizes, warps and stages for each target, dtype and head dimension: one table, no tuning at run time."""

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["fp16", "bf16", "fp32"]


@dataclass(frozen=True, slots=True)
class Config:
    """How one kernel is built."""

    block_m: int
    block_n: int
    warps: int
    stages: int
    tma: bool
    # Warp-specialised kernel in Gluon, for Hopper only.
    hopper: bool = False
    # Heads whose query tiles run side by side, so that long rows start first and K and V stay in L2.
    side_by_side: int = 1
    # Query heads of a group whose rows lie in one tile, token by token: for the kernel they are one head.
    pack: int = 1
    # For the model in `choose`: throughput against the specialised kernel with 128 x 128 tiles, and what a query
    # tile costs before and after its loop, in such tiles. From benchmarks/forward.py on an H100.
    rate: float = 1.0
    overhead: float = 1.5


def padded(head_dim: int) -> int:
    """The power of two that holds a head dimension; 16 at least, for the matrix units."""
    return max(16, 1 << (head_dim - 1).bit_length())


def configurations(
    arch: int, dtype: Dtype, head_dim: int, queries: int, tma: bool, hopper: bool = False
) -> tuple[Config, ...]:
    """What may run a case on a compute capability (90 for sm_90; 0 for the interpreter and AMD), best guess first."""
    plain = portable(arch, dtype, head_dim, queries, tma)
    if not (hopper and suits_hopper(arch, dtype, head_dim, queries, tma)):
        return (plain,)
    return (Config(128, 128, 4, 2, True, True), Config(128, 64, 4, 3, True, True, rate=0.87), plain)


def portable(arch: int, dtype: Dtype, head_dim: int, queries: int, tma: bool) -> Config:
    """The configuration of the kernel in plain Triton."""
    wide = padded(head_dim)
    short = max(16, min(128, 1 << (max(1, queries) - 1).bit_length()))
    if dtype == "fp32":
        block = 32 if wide > 64 else 64
        return Config(min(short, block), 32, 4, 1 if wide > 128 else 2, False)
    if arch == 0:
        return Config(min(short, 128 if wide <= 128 else 64), 64, 4, 1, False)
    tma = tma and arch >= 90
    if wide <= 128:
        small = tma or short < 128
        return Config(min(short, 64) if tma else short, 64, 4 if small else 8, 3, tma, rate=0.75, overhead=0.25)
    return Config(short, 64 if tma else 32, 8 if short == 128 else 4, 2, tma)


def suits_hopper(arch: int, dtype: Dtype, head_dim: int, queries: int, tma: bool) -> bool:
    """Whether the warp-specialised kernel exists for a case: 16-bit types, head dims 33 to 128, enough rows."""
    return arch == 90 and tma and dtype != "fp32" and padded(head_dim) in (64, 128) and queries > 64
