"""Attention over chosen cells: the tiles they lie in, the plan that visits those, the kernel or the CPU back end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .compiler.plan import Plan, Tiling
from .tensors import TensorError

if TYPE_CHECKING:
    import torch

    from .codegen.select_tiles import Cells, Places, Tiles
    from .selection import Job

# Tokens of a query tile and of a key tile on the CPU, at most: cells may be smaller.
CPU_TILE = 128


@dataclass(frozen=True, slots=True)
class Work:
    """What the attention part runs: a plan, tiles, and the tables its partial tiles read, some by batch element."""

    plan: Plan
    tiles: Tiles
    shared: dict[str, torch.Tensor]
    batched: dict[str, torch.Tensor]


def work_of(job: Job, cells: list[Cells], tiling: Tiling) -> Work:
    """The tiles of a whole pattern. Only where tiles are not cells must pairs be looked up."""
    import torch

    from .calls import narrow
    from .codegen.select_tiles import aligned, chosen_tables, combine, plan_of, tiles_of
    from .codegen.tables import gather

    program = job.program
    limits = job.tiles(program.limits.clauses, tiling)
    keeps = job.tiles(program.keeps, tiling) if program.keeps else None
    whole = keeps is None or not bool((keeps.touched & ~keeps.full).any())
    exact = not (whole and aligned(cells, tiling, job.n))
    tiles = combine(limits, keeps, [tiles_of(one, tiling, job.n) for one in cells])
    plan = plan_of(program, cells, job.shape, tiling, exact)
    arrays = gather(replace(plan, mask=program.limits), job.statics, job.n, job.n).arrays
    shared = {name: torch.from_numpy(narrow(array)).to(job.device) for name, array in arrays.items()}
    return Work(plan, tiles, shared, chosen_tables(cells) if exact else {})


def tile(cells: list[Cells], n: int, most: int) -> Tiling:
    """The largest tiles, powers of two up to `most`, that lie inside the cells; 16 at least."""

    def side(sizes: list[int]) -> int:
        out = most
        while out > 16 and any(size % out for size in sizes if size < n):
            out //= 2
        return out

    return Tiling(side([c.query_size for c in cells]), side([c.key_size for c in cells]))


def attend(
    job: Job,
    cells: list[Cells],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    backend: str,
    tf32: bool,
    places: Places | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output and the log-sum-exp of attention over cells; `backend` is "gpu", "triton", "hopper" or "cpu".

    `places` is the order of a program that has one.
    """
    if backend == "cpu":
        from .codegen.cpu import attend_cpu
        from .codegen.select_tiles import host_lists

        work = work_of(job, cells, tile(cells, job.n, CPU_TILE))
        rows: list[Mapping[str, torch.Tensor]] = [
            work.shared | {name: table[b] for name, table in work.batched.items()} for b in range(q.shape[0])
        ]
        return attend_cpu(work.plan, host_lists(work.tiles), rows, q, k, v, scale)
    return _on_device(job, cells, q, k, v, scale, backend, tf32)


def _on_device(
    job: Job,
    cells: list[Cells],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    backend: str,
    tf32: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    from .codegen.choose import UNEVEN_HEADS
    from .codegen.configure import configurations
    from .codegen.forward import Kernel
    from .codegen.launch import DTYPES, architecture, describable, launcher
    from .codegen.select_tiles import aligned, device_lists

    if scale <= 0:
        # The kernels take the largest score before scaling, which needs a positive scale.
        q, scale = q * (-1.0 if scale < 0 else 0.0), -scale or 1.0
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    head_dim = q.shape[3]
    arch, dtype = architecture(q.device), DTYPES[q.dtype]
    tma = arch >= 90 and head_dim * q.element_size() % 16 == 0 and describable(q, k, v)
    configs = configurations(arch, dtype, head_dim, job.n, tma, backend != "triton")
    if backend == "hopper" and not any(config.hopper for config in configs):
        raise TensorError(f"pattern `{job.pattern.name}`: backend 'hopper' cannot run q {list(q.shape)}")
    configs = [config for config in configs if config.hopper or backend != "hopper"]
    fitting = [config for config in configs if aligned(cells, Tiling(config.block_m, config.block_n), job.n)]
    config = replace((fitting or configs)[0], side_by_side=UNEVEN_HEADS)
    work = work_of(job, cells, Tiling(config.block_m, config.block_n))
    batched = tuple(work.batched) if q.shape[0] > 1 else ()
    tables = work.shared | (work.batched if batched else {name: table[0] for name, table in work.batched.items()})
    kernel = Kernel(work.plan, config, dtype, head_dim, batched, tf32)
    return launcher(kernel).run(q, k, v, scale, device_lists(work.tiles), tables)
