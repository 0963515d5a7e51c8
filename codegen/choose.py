"""Which configuration runs a mask fastest: a small model of the tiles each would visit."""

import math
from dataclasses import dataclass, replace

import numpy as np

from ..compiler.expand import Ints, expand_regions, row_values
from ..compiler.ir import Mask
from ..compiler.pipeline import make_plan
from ..compiler.plan import Plan, Shape, Tiling
from .configure import Config, Dtype, configurations
from .forward import Kernel

# Heads whose query tiles run side by side when rows differ in length: long rows start first, K and V stay in L2.
UNEVEN_HEADS = 4
# Lengths beyond which the shape of a mask no longer changes the choice, and the model would only cost time.
LONGEST_MODEL = 32768
# Key tiles of 128 a row below which a mask found on the device runs faster in the plain kernel: loading the numbers
# that its mask needs then weighs more than the products.
FEW_TILES = 6.0


@dataclass(frozen=True, slots=True)
class Case:
    """What a kernel is for, besides its mask: dtype and head dim, a target, and what differs by batch."""

    dtype: Dtype
    head_dim: int
    # Compute capability (90 for sm_90; 0 for the interpreter and AMD), and whether tensors fit the copy engine.
    arch: int
    tma: bool
    hopper: bool = True
    tf32: bool = False
    batched: tuple[str, ...] = ()


def kernels_for(mask: Mask, shape: Shape, case: Case, queries: int) -> tuple[Kernel, ...]:
    """Every kernel that may run a case, best guess first."""
    configs = configurations(case.arch, case.dtype, case.head_dim, queries, case.tma, case.hopper)
    return tuple(kernel_with(mask, shape, case, config) for config in configs)


def kernel_with(mask: Mask, shape: Shape, case: Case, config: Config) -> Kernel:
    """The kernel of one configuration."""
    plan = make_plan(mask, shape, Tiling(config.block_m, config.block_n))
    side = 1 if even(plan) else UNEVEN_HEADS
    config = replace(config, side_by_side=side)
    return Kernel(plan, config, case.dtype, case.head_dim, case.batched, case.tf32)


def kernel_for(mask: Mask, shape: Shape, case: Case, lengths: tuple[int, int], specialised: bool = False) -> Kernel:
    """The cheapest kernel for about `lengths` (keys, queries); only specialised ones count if that is asked for."""
    kernels = kernels_for(mask, shape, case, lengths[1])
    if specialised:
        kernels = tuple(kernel for kernel in kernels if kernel.config.hopper)
    if len(kernels) == 1:
        return kernels[0]
    # Rounded up, so that lengths which share a kernel also agree on which.
    n = min(LONGEST_MODEL, 1 << (max(lengths) - 1).bit_length())
    return min(kernels, key=lambda kernel: cost(kernel, n))


def visits(plan: Plan, n: int) -> Ints:
    """Key tiles that each query tile of head 0 visits, for n queries and keys."""
    rows = -(-n // plan.tiling.block_m)
    tables = {t.name: np.asarray(t.values, np.int64) for t in plan.mask.tables if t.kind == "head"}
    values = row_values(plan, n, n, tables, np.zeros(1, np.int64), 0, rows)
    return np.bincount(expand_regions(plan.regions, values)[0], minlength=rows)


def cost(kernel: Kernel, n: int) -> float:
    """Predicted time, in units of one 128 x 128 tile on the specialised kernel; infinite where tiles are not known."""
    plan, config = kernel.plan, kernel.config
    if plan.strategy == "table":
        return math.inf
    area = config.block_m * config.block_n / (128 * 128)
    tiles = visits(plan, n)
    return float(len(tiles) * config.overhead + tiles.sum() * area / config.rate)


def even(plan: Plan) -> bool:
    """Whether late query tiles visit about as many key tiles as the mean one, so that order does not matter."""
    if plan.strategy == "table":
        return False
    tiles = visits(plan, 64 * plan.tiling.block_m)
    return bool(tiles.max() <= 1.5 * max(1.0, tiles.mean()))
