"""One attention call of a dynamic pattern: score, choose cells, attend to the tiles they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .compiler.ir import Mask
from .compiler.plan import Shape, Tiling
from .compiler.selection import Program
from .tensors import TensorError

if TYPE_CHECKING:
    import torch

    from .codegen.select_tiles import Cells, Tiles
    from .pattern import Pattern

# Tokens of a query tile and of a key tile on the CPU, at most: cells may be smaller.
CPU_TILE = 128


def select(
    pattern: Pattern,
    program: Program,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    inputs: Mapping[str, Any],
) -> list[Cells]:
    """What each choice of a pattern keeps for these tensors."""
    from .codegen.scores import call_of
    from .codegen.select import chosen_cells
    from .codegen.select_tiles import Cells

    n = q.shape[2]
    if k.shape[2] != n:
        message = f"selections need as many queries as keys, not {n} and {k.shape[2]}"
        raise TensorError(f"pattern `{pattern.name}` ({pattern.where}): {message}")
    shape = shape_of(q, k)
    # A drop takes pairs away from what is kept, not cells from what is ranked.
    required = replace(program.limits, clauses=tuple(c for c in program.limits.clauses if c.kind == "require"))
    call = call_of(program, q, k, v, scale, givens(pattern, program, q, k, inputs))
    sizes = {axis.name: axis.size for axis in program.axes}
    out: list[Cells] = []
    for choice in program.choices:
        query, key = (sizes[axis] if axis else n for axis in (choice.query, choice.key))
        possible = _static(pattern, required, shape, Tiling(query, key), n, q.device).touched
        out.append(Cells(chosen_cells(choice, call, possible), query, key))
    return out


def _static(pattern: Pattern, mask: Mask, shape: Shape, tiling: Tiling, n: int, device: torch.device) -> Tiles:
    """The tiles of a static part, remembered: listing them takes longer than attending to them."""
    from .codegen.select_tiles import static_tiles

    key = ("tiles", mask, shape, tiling, n, device)
    return pattern.remember(key, lambda: static_tiles(mask, shape, tiling, n, {}, device))


def givens(
    pattern: Pattern, program: Program, q: torch.Tensor, k: torch.Tensor, inputs: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The numbers given for cells, checked; raises TensorError."""
    import torch

    known = {given.name: given for given in program.givens}
    for name in inputs:
        if name not in known:
            raise TensorError(
                f"pattern `{pattern.name}` has no input `{name}` (its inputs: {', '.join(known) or 'none'})"
            )
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


def shape_of(q: torch.Tensor, k: torch.Tensor) -> Shape:
    """The shape that plans depend on."""
    return Shape(True, q.shape[1], k.shape[1], bits=max(20, (q.shape[2] - 1).bit_length()))


@dataclass(frozen=True, slots=True)
class Work:
    """What the attention part runs: a plan, the tiles, and the tables its partial tiles look cells up in."""

    plan: Any
    tiles: Any
    tables: dict[str, Any]


def work_of(
    pattern: Pattern, program: Program, cells: list[Cells], shape: Shape, tiling: Tiling, n: int, device: torch.device
) -> Work:
    """The tiles of a whole pattern. Only where tiles are not cells must pairs be looked up."""
    from .codegen.select_tiles import aligned, chosen_tables, combine, plan_of, tiles_of

    limits = _static(pattern, program.limits, shape, tiling, n, device)
    keeps = None
    if program.keeps:
        keeps = _static(pattern, Mask(program.name, program.keeps), shape, tiling, n, device)
    whole = keeps is None or not bool((keeps.touched & ~keeps.full).any())
    exact = not (whole and aligned(cells, tiling, n))
    tiles = combine(limits, keeps, [tiles_of(one, tiling, n) for one in cells])
    return Work(plan_of(program, cells, shape, tiling, exact), tiles, chosen_tables(cells) if exact else {})


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
    program = pattern.program(q.shape[1], k.shape[1], *layers)
    if backend == "reference":
        from .codegen.reference import attend_dense
        from .codegen.select_reference import selected

        exact = "float64" if q.dtype.itemsize == 8 else "float32"
        kept = selected(program, q, k, v, scale, givens(pattern, program, q, k, inputs), dtype=getattr(_torch(), exact))
        return attend_dense(q, k, v, kept, scale)
    cells = select(pattern, program, q, k, v, scale, inputs)
    n, shape = q.shape[2], shape_of(q, k)
    if backend == "cpu":
        from .codegen.cpu import attend_cpu
        from .codegen.select_tiles import host_lists

        work = work_of(pattern, program, cells, shape, tile(cells, n, CPU_TILE), n, q.device)
        rows: list[Mapping[str, torch.Tensor]] = [
            {name: table[b] for name, table in work.tables.items()} for b in range(q.shape[0])
        ]
        return attend_cpu(work.plan, host_lists(work.tiles), rows, q, k, v, scale)
    return _on_device(pattern, program, cells, shape, q, k, v, scale, backend, tf32)


def _torch() -> Any:
    import torch

    return torch


def _on_device(
    pattern: Pattern,
    program: Program,
    cells: list[Cells],
    shape: Shape,
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

    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    n, head_dim = q.shape[2], q.shape[3]
    arch, dtype = architecture(q.device), DTYPES[q.dtype]
    tma = arch >= 90 and head_dim * q.element_size() % 16 == 0 and describable(q, k, v)
    configs = configurations(arch, dtype, head_dim, n, tma, backend != "triton")
    fitting = [config for config in configs if aligned(cells, Tiling(config.block_m, config.block_n), n)]
    config = replace((fitting or list(configs))[0], side_by_side=UNEVEN_HEADS)
    work = work_of(pattern, program, cells, shape, Tiling(config.block_m, config.block_n), n, q.device)
    batched = tuple(work.tables) if q.shape[0] > 1 else ()
    tables = work.tables if batched else {name: table[0] for name, table in work.tables.items()}
    kernel = Kernel(work.plan, config, dtype, head_dim, batched, tf32)
    return launcher(kernel).run(q, k, v, scale, device_lists(work.tiles), tables)
