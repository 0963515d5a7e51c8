"""One attention call of a dynamic pattern: score, choose cells, attend to the tiles they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .compiler.ir import Clause
from .compiler.judge_program import only_densely
from .compiler.plan import Plan, Shape, Tiling
from .compiler.selection import Program
from .tensors import TensorError, host_inputs

if TYPE_CHECKING:
    import torch

    from .codegen.select_tiles import Cells, Tiles
    from .compiler.tables import Ints
    from .pattern import Pattern

# Tokens of a query tile and of a key tile on the CPU, at most: cells may be smaller.
CPU_TILE = 128
# Tokens up to which all pairs may be held where only the definition can score.
MOST_DENSE = 8192


@dataclass(frozen=True, slots=True)
class Job:
    """One call: what is to be chosen, for which sizes, and the numbers that the static part reads."""

    pattern: Pattern
    program: Program
    shape: Shape
    n: int
    device: torch.device
    statics: Mapping[str, Ints]

    def tiles(self, clauses: tuple[Clause, ...], tiling: Tiling) -> Tiles:
        """The tiles of static clauses, remembered: listing them takes longer than attending to them."""
        from .codegen.select_tiles import static_tiles

        mask = replace(self.program.limits, clauses=clauses)
        if self.statics:
            return static_tiles(mask, self.shape, tiling, self.n, self.statics, self.device)
        key = ("tiles", mask, self.shape, tiling, self.n, self.device)
        return self.pattern.remember(key, lambda: static_tiles(mask, self.shape, tiling, self.n, {}, self.device))


def job_of(pattern: Pattern, program: Program, q: torch.Tensor, k: torch.Tensor, inputs: Mapping[str, Any]) -> Job:
    """The job of a call; raises TensorError."""
    n = q.shape[2]
    if k.shape[2] != n:
        message = f"selections need as many queries as keys, not {n} and {k.shape[2]}"
        raise TensorError(f"pattern `{pattern.name}` ({pattern.where}): {message}")
    read = {table.source for table in program.limits.tables if table.source}
    known = (*(given.name for given in program.givens), *sorted(read))
    for name in inputs:
        if name not in known:
            wanted = ", ".join(known) or "none"
            raise TensorError(f"pattern `{pattern.name}` has no input `{name}` (its inputs: {wanted})")
    given = {name: inputs[name] for name in read if name in inputs}
    statics = host_inputs(pattern, program.limits, given, n, n, q.shape[1])
    shape = Shape(True, q.shape[1], k.shape[1], bits=max(20, (n - 1).bit_length()))
    return Job(pattern, program, shape, n, q.device, statics)


def select(
    job: Job, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, inputs: Mapping[str, Any]
) -> list[Cells]:
    """What each choice of a pattern keeps for these tensors."""
    from .codegen.scores import call_of
    from .codegen.select import chosen_cells
    from .codegen.select_tiles import Cells

    program = job.program
    # A drop takes pairs away from what is kept, not cells from what is ranked.
    required = tuple(clause for clause in program.limits.clauses if clause.kind == "require")
    call = call_of(program, q, k, v, scale, givens(job.pattern, program, q, inputs))
    sizes = {axis.name: axis.size for axis in program.axes}
    out: list[Cells] = []
    for choice in program.choices:
        query, key = (sizes[axis] if axis else job.n for axis in (choice.query, choice.key))
        possible = job.tiles(required, Tiling(query, key)).touched
        out.append(Cells(chosen_cells(choice, call, possible), query, key))
    return out


def givens(pattern: Pattern, program: Program, q: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The numbers given for cells, checked; raises TensorError."""
    import torch

    known = {given.name: given for given in program.givens}
    batch, heads, n, _ = q.shape
    counts = {axis.name: -(-n // axis.size) for axis in program.axes}
    out: dict[str, torch.Tensor] = {}
    for name, given in known.items():
        wanted = [counts[axis] for axis in given.axes]
        if name not in inputs:
            raise TensorError(f"pattern `{pattern.name}` needs the input `{name}`: [batch, heads, {wanted}]")
        x = inputs[name]
        tail = 1 if given.vector else 0
        right = (
            isinstance(x, torch.Tensor)
            and not x.is_complex()
            and x.ndim == 2 + len(wanted) + tail
            and list(x.shape[2 : 2 + len(wanted)]) == wanted
        )
        if not right or x.shape[0] not in (1, batch) or x.shape[1] not in (1, heads):
            got = list(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            more = ", D" if tail else ""
            text = f"[{batch} or 1, {heads} or 1, {', '.join(map(str, wanted))}{more}]"
            raise TensorError(f"pattern `{pattern.name}`: input `{name}` is {got}, wanted {text}")
        out[name] = x.to(q.device)
    return out


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


def attention_by_selection(
    pattern: Pattern,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    backend: str,
    layers: tuple[int, int],
    tf32: bool,
    inputs: Mapping[str, Any],
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output and the log-sum-exp of one call; `backend` is "gpu", "triton", "hopper", "cpu" or "reference"."""
    import torch

    program = pattern.program(q.shape[1], k.shape[1], *layers)
    job = job_of(pattern, program, q, k, inputs)
    reason = only_densely(program)
    if reason and (backend in ("triton", "hopper") or (backend != "reference" and job.n > MOST_DENSE)):
        message = f"{reason}: only the definition can score that, which holds all pairs; ask for 'reference'"
        raise TensorError(f"pattern `{pattern.name}` ({pattern.where}): {message}")
    # Which cells are kept must not depend on what else runs in low precision.
    with torch.autocast(q.device.type, enabled=False):
        try:
            if backend == "reference" or reason:
                return _dense(job, q, k, v, scale, inputs)
            cells = select(job, q, k, v, scale, inputs)
        except ValueError as error:
            raise TensorError(f"pattern `{pattern.name}` ({pattern.where}): {error}") from error
    if backend == "cpu":
        from .codegen.cpu import attend_cpu
        from .codegen.select_tiles import host_lists

        work = work_of(job, cells, tile(cells, job.n, CPU_TILE))
        rows: list[Mapping[str, torch.Tensor]] = [
            work.shared | {name: table[b] for name, table in work.batched.items()} for b in range(q.shape[0])
        ]
        return attend_cpu(work.plan, host_lists(work.tiles), rows, q, k, v, scale)
    return _on_device(job, cells, q, k, v, scale, backend, tf32)


def _dense(
    job: Job, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, inputs: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    from .codegen.reference import attend_dense
    from .codegen.select_reference import selected

    statics = {name: torch.from_numpy(array).to(q.device) for name, array in job.statics.items()}
    given = statics | givens(job.pattern, job.program, q, inputs)
    exact = torch.float64 if q.dtype == torch.float64 else torch.float32
    return attend_dense(q, k, v, selected(job.program, q, k, v, scale, given, dtype=exact), scale)


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
