"""Tile sizes, warps and stages for each target, dtype and head dimension: one table, no tuning at run time."""

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["fp16", "bf16", "fp32"]


@dataclass(frozen=True, slots=True)
class Config:
    """How one kernel is built. `ahead`: the next tile's scores are issued before this tile's softmax."""

    block_m: int
    block_n: int
    warps: int
    stages: int
    tma: bool
    ahead: bool
    # Heads whose query tiles run side by side, so that long rows start first and K and V stay in L2.
    side_by_side: int = 1


def padded(head_dim: int) -> int:
    """The power of two that holds a head dimension; 16 at least, for the matrix units."""
    return max(16, 1 << (head_dim - 1).bit_length())


def configure(arch: int, dtype: Dtype, head_dim: int, queries: int, tma: bool) -> Config:
    """The configuration for a compute capability (90 for sm_90; 0 for the interpreter and AMD)."""
    wide = padded(head_dim)
    short = max(16, min(128, 1 << (max(1, queries) - 1).bit_length()))
    if dtype == "fp32":
        block = 32 if wide > 64 else 64
        return Config(min(short, block), 32, 4, 1 if wide > 128 else 2, False, False)
    if arch == 0:
        return Config(min(short, 128 if wide <= 128 else 64), 64, 4, 1, False, False)
    hopper = arch >= 90 and tma
    if wide <= 64:
        return Config(short, 128 if hopper else 64, 8 if hopper and short == 128 else 4, 3, hopper, hopper)
    if wide == 128:
        return Config(short, 128 if hopper else 64, 8 if short == 128 else 4, 2, hopper, hopper)
    return Config(min(short, 128), 64 if hopper else 32, 8, 2, hopper, False)
