"""One attention call of a dynamic pattern: score, choose cells, attend to the tiles they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .compiler.ir import Clause
from .compiler.judge_program import only_densely
from .compiler.plan import Shape, Tiling
from .compiler.selection import Program
from .tensors import TensorError, host_inputs

if TYPE_CHECKING:
    import torch

    from .codegen.select_tiles import Cells, Tiles
    from .compiler.tables import Ints
    from .pattern import Pattern

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
    from .selection_tiles import attend

    return attend(job, cells, q, k, v, scale, backend, tf32)


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
