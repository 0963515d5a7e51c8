"""Attention whose queries choose one by one: few tokens in a tile, and with them all heads of a group that agree."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .compiler.plan import Tiling
from .selection_tiles import Work, needs_places, work_of

if TYPE_CHECKING:
    from .codegen.configure import Config, Dtype
    from .codegen.select_tiles import Cells
    from .selection import Job

# Cells of queries smaller than this leave the rows of larger tiles with little in common.
FINE = 64
# Fewest rows of a tile: what matrix units take. What a tile costs however few its rows are, in rows.
ROWS = 16
FEWEST_ROWS = 48
# Tiles looked at: what bounds the memory of planning.
MOST_TILES = 1 << 30


def grouped(job: Job, cells: list[Cells], capability: int, dtype: Dtype, head_dim: int) -> tuple[Config, Work] | None:
    """A configuration with small tiles and what it runs, where choices are of few queries."""
    from .codegen.configure import portable

    if min(one.query_size for one in cells) >= FINE or needs_places(job, cells):
        return None
    pack = job.shape.heads // job.shape.kv_heads if agree(job, cells) else 1
    config = portable(capability, dtype, head_dim, job.n, False)
    config = replace(config, block_m=max(ROWS, pack), warps=4, pack=pack)
    tiling = Tiling(config.block_m // pack, config.block_n)
    heads = job.shape.heads // pack
    if cells[0].kept.shape[0] * heads * -(-job.n // tiling.block_m) * -(-job.n // tiling.block_n) > MOST_TILES:
        return None
    ours = replace(job, shape=replace(job.shape, heads=heads))
    return config, work_of(ours, [replace(one, kept=one.kept[:, ::pack]) for one in cells], tiling)


def agree(job: Job, cells: list[Cells]) -> bool:
    """Whether the heads of each group keep the same pairs, and are as many as a tile can hold."""
    from .compiler.walk import variables

    group = job.shape.heads // job.shape.kv_heads
    clauses = (*job.program.limits.clauses, *job.program.keeps)
    if group & (group - 1) or not 1 < group <= FINE or any("h" in variables(clause.formula) for clause in clauses):
        return False
    grouped = (one.kept.unflatten(1, (-1, group)) for one in cells)
    return all(bool((kept == kept[:, :, :1]).all()) for kept in grouped)


def cost(config: Config, work: Work) -> float:
    """How long a kernel may take: keys that are visited, by the rows that each meets."""
    from .codegen.columns import GATHER_COST
    from .codegen.list_tiles import combine

    keys = combine(work.tiles).touched.sum() * config.block_n
    if work.columns is not None:
        keys = keys + GATHER_COST * (work.columns.end - work.columns.first).sum()
    return float(keys) * max(config.block_m, FEWEST_ROWS) / config.rate
