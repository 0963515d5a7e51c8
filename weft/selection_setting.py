"""Which kernel attends to chosen cells: from what a pattern says, so that nobody waits for what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .compiler.plan import Tiling
from .tensors import TensorError

if TYPE_CHECKING:
    import torch

    from .codegen.configure import Config, Dtype
    from .codegen.select_tiles import Packed
    from .selection import Job

# Tokens of a query tile and of a key tile on the CPU, at most: cells may be smaller.
CPU_TILE = 128
# Cells of distances smaller than this fit no tile.
SMALLEST_TILE = 16
# Cells of queries smaller than this leave the rows of larger tiles with little in common.
FINE = 64
# Fewest rows of a tile: what matrix units take. What a tile costs however few its rows are, in rows.
ROWS = 16
FEWEST_ROWS = 48
# The share of its cells that a choice is taken to keep where scores decide how many.
EXPECTED = 1 / 8


@dataclass(frozen=True, slots=True)
class Setting:
    """A configuration, and whether small cells of keys are gathered one by one."""

    config: Config
    gather: bool

    @property
    def tiling(self) -> Tiling:
        """Tokens of a query tile and of a key tile."""
        return Tiling(self.config.block_m // self.config.pack, self.config.block_n)


@dataclass(frozen=True, slots=True)
class Target:
    """What a kernel is for: tensors q, k, v, their dtype, the architecture and the back end that was asked for; and
    whether keys are visited by place."""

    qkv: tuple[torch.Tensor, ...]
    dtype: Dtype
    arch: int
    backend: str
    ordered: bool


def setting_of(job: Job, cells: Sequence[Packed], most: Sequence[int | None], target: Target) -> Setting:
    """The setting that may take the least time; raises TensorError."""
    from .codegen.columns import may_gather
    from .codegen.configure import Config

    fine = any(map(may_gather, cells))
    found: list[Setting]
    if target.backend == "cpu":
        tiling = _inside(cells, job.n, CPU_TILE)
        found = [
            Setting(Config(tiling.block_m, tiling.block_n, 0, 0, False), gather) for gather in sorted({False, fine})
        ]
    elif target.ordered:
        if target.backend == "hopper":
            raise TensorError(f"pattern `{job.pattern.name}`: backend 'hopper' cannot gather keys by place")
        plain = _gathering(job, cells, target)
        found = [Setting(plain, gather) for gather in sorted({False, fine})]
    elif target.backend == "hopper":
        found = [Setting(_tiling(job, cells, target), False)]
    else:
        found = [Setting(_tiling(job, cells, target), False)]
        found += [Setting(_gathering(job, cells, target), True)] if fine else []
        small = _small(job, cells, target)
        found += [Setting(small, gather) for gather in sorted({False, fine}) if small]
    return min(found, key=lambda one: cost(one, job, cells, most))


def cost(one: Setting, job: Job, cells: Sequence[Packed], most: Sequence[int | None]) -> float:
    """How long a row of queries may take: keys that it meets, by the rows that a tile is worth."""
    from .codegen.columns import GATHER_COST, may_gather, rows_within

    keys, tiling = 0.0, one.tiling
    for cell, known in zip(cells, most, strict=True):
        each = job.n * EXPECTED if known is None else known
        each *= rows_within(cell, tiling.block_m)
        if one.gather and may_gather(cell):
            keys += min(job.n, each) * GATHER_COST
        else:
            keys += min(job.n, each * max(1, tiling.block_n / cell.key_size))
    rows = one.config.block_m
    return keys * max(rows, FEWEST_ROWS) / rows / one.config.rate


def agree(job: Job, cells: Sequence[Packed]) -> bool:
    """Whether the heads of each group keep the same pairs, and are as many as a tile can hold."""
    from .compiler.walk import variables

    group = job.shape.heads // job.shape.kv_heads
    clauses = (*job.program.limits.clauses, *job.program.keeps)
    if group & (group - 1) or not 1 < group <= FINE or any("h" in variables(clause.formula) for clause in clauses):
        return False
    return all(one.bits.shape[1] in (1, job.shape.kv_heads) for one in cells)


def _inside(cells: Sequence[Packed], n: int, most: int) -> Tiling:
    """The largest tiles, powers of two up to `most`, that lie inside the cells; 16 at least."""
    fitting = [c for c in cells if c.kind != "d" or c.key_size >= SMALLEST_TILE]

    def side(sizes: list[int]) -> int:
        out = most
        # Smaller cells than any tile are looked up pair by pair, of many queries at once.
        while out > SMALLEST_TILE and any(size % out for size in sizes if SMALLEST_TILE <= size < n):
            out //= 2
        return out

    distances = [c.key_size for c in fitting if c.kind == "d"]
    keys = [c.key_size for c in fitting if c.key_size >= SMALLEST_TILE or c.kind == "p"]
    return Tiling(side([c.query_size for c in cells] + distances), side(keys))


def _gathering(job: Job, cells: Sequence[Packed], target: Target) -> Config:
    """The kernel that gathers rows of keys, which the copy engine cannot."""
    from .codegen.configure import portable

    config = portable(target.arch, target.dtype, target.qkv[0].shape[3], job.n, False)
    if config.block_m == 128 and _inside(cells, job.n, 128).block_m == 64:
        config = replace(config, block_m=64, warps=4)
    return config


def _tiling(job: Job, cells: Sequence[Packed], target: Target) -> Config:
    """The fastest kernel whose tiles lie in the cells, if one's do."""
    from .codegen.configure import configurations
    from .codegen.launch import describable
    from .codegen.select_tiles import aligned

    q = target.qkv[0]
    tma = target.arch >= 90 and q.shape[3] * q.element_size() % 16 == 0 and describable(*target.qkv)
    configs = configurations(target.arch, target.dtype, q.shape[3], job.n, tma, target.backend != "triton")
    if target.backend == "hopper" and not any(config.hopper for config in configs):
        raise TensorError(f"pattern `{job.pattern.name}`: backend 'hopper' cannot run q {list(q.shape)}")
    configs = [config for config in configs if config.hopper or target.backend != "hopper"]
    fitting = [config for config in configs if aligned(cells, Tiling(config.block_m, config.block_n), job.n)]
    return (fitting or configs)[0]


def _small(job: Job, cells: Sequence[Packed], target: Target) -> Config | None:
    """The kernel with few tokens in a tile, and with them all heads of a group that agree."""
    from .codegen.configure import portable

    if min((one.query_size for one in cells), default=job.n) >= FINE:
        return None
    pack = job.shape.heads // job.shape.kv_heads if agree(job, cells) else 1
    config = portable(target.arch, target.dtype, target.qkv[0].shape[3], job.n, False)
    return replace(config, block_m=max(ROWS, pack), warps=4, pack=pack)
