"""One attention call of a dynamic pattern: score, choose cells, attend to the tiles they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .capture import capturing, require_no_inputs
from .compiler.dense_only import only_densely
from .compiler.ir import Binary, Clause, Compare, Const, Expr, Truth, Var
from .compiler.plan import Shape, Tiling
from .compiler.program_bounds import most_keys
from .compiler.selection import Program
from .compiler.walk import rewrite, substitute
from .tensors import TensorError, host_inputs, require_known

if TYPE_CHECKING:
    import torch

    from .codegen.select_tiles import Cells, Places, Tiles
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
    # Queries, which are the last tokens.
    m: int
    batch: int = 1

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
    m, n = q.shape[2], k.shape[2]
    if m > n:
        message = f"{m} queries are more than {n} keys, and they are the last tokens"
        raise TensorError(f"pattern `{pattern.name}` ({pattern.where}): {message}")
    # An order's places come with its scores.
    given_tables = tuple(table for table in program.limits.tables if table.kind != "order")
    read = {table.source for table in given_tables if table.source}
    known = (*(given.name for given in program.givens), *sorted(read))
    require_known(pattern, inputs, known)
    given = {name: inputs[name] for name in read if name in inputs}
    statics = host_inputs(pattern, replace(program.limits, tables=given_tables), given, n, m, q.shape[1])
    if not program.keeps and not program.choices:
        program = replace(program, keeps=(Clause("keep", Truth(True), "all pairs"),))
    shape = Shape(True, q.shape[1], k.shape[1], bits=max(20, (n - 1).bit_length()))
    return Job(pattern, program, shape, n, q.device, statics, m, q.shape[0])


def with_all_queries(job: Job, asking: bool = True) -> Job:
    """The job where all tokens ask, of which those before the last m keep nothing, or, if not `asking`, anything."""

    def known(expr: Expr) -> Expr:
        return substitute(expr, "m", Var("n") if job.m == job.n else Const(job.m))

    def all_of(clauses: tuple[Clause, ...]) -> tuple[Clause, ...]:
        return tuple(replace(clause, formula=rewrite(clause.formula, known)) for clause in clauses)

    last = Compare(">=", Var("q"), Binary("-", Var("n"), Const(job.m)))
    asks = (Clause("require", last, "queries are the last tokens"),) if asking and job.m < job.n else ()
    limits = replace(job.program.limits, clauses=(*all_of(job.program.limits.clauses), *asks))
    return replace(job, program=replace(job.program, limits=limits, keeps=all_of(job.program.keeps)), m=job.n)


def select(
    job: Job, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, inputs: Mapping[str, Any]
) -> list[Cells]:
    """What each choice of a pattern keeps for these tensors, for each head."""
    return select_places(job, q, k, v, scale, inputs)[0]


def select_places(
    job: Job, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, inputs: Mapping[str, Any]
) -> tuple[list[Cells], Places | None]:
    """What each choice of a pattern keeps for these tensors, for each head, and where its order puts keys."""
    from .codegen.select_tiles import Band
    from .selection_choose import choosing

    found = choosing(job, q, k, v, scale, inputs)
    return [one.cells().by_head(job.shape.heads) for one in found.cells(Band(0, job.n))], found.places


def tables(job: Job) -> dict[str, torch.Tensor]:
    """The tables that conditions over cells may read, but for places of an order."""
    import torch

    from .compiler.tables import table_values

    def made() -> dict[str, torch.Tensor]:
        values = {
            table.name: table_values(table, job.statics, job.n, job.m, job.shape)
            for table in job.program.limits.tables
            if table.kind != "order"
        }
        return {name: torch.as_tensor(array).to(job.device) for name, array in values.items()}

    # What no input takes part in is on the device already: a copy would have to be waited for.
    key = ("tables", job.program.limits.tables, job.shape, job.n, job.m, job.device)
    return made() if job.statics else job.pattern.remember(key, made)


def givens(
    pattern: Pattern, program: Program, q: torch.Tensor, inputs: Mapping[str, Any], n: int
) -> dict[str, torch.Tensor]:
    """The numbers given for cells, checked; raises TensorError."""
    import torch

    known = {given.name: given for given in program.givens}
    batch, heads, m, _ = q.shape
    counts = {axis.name: axis.count or -(-n // axis.size) for axis in program.axes}
    counts |= {axis.name: min(axis.last, m if axis.side == "q" else n) for axis in program.axes if axis.last}
    out: dict[str, torch.Tensor] = {}
    for name, given in known.items():
        wanted = [counts[axis] for axis in given.axes]
        tail = 1 if given.vector else 0
        lead = ("1" if count == 1 else f"{count} or 1" for count in (batch, heads))
        text = f"[{', '.join((*lead, *map(str, wanted), *(['D'] if tail else [])))}] (batch, query heads, cells)"
        if name not in inputs:
            raise TensorError(f"pattern `{pattern.name}` needs the input `{name}`: {text}")
        x = inputs[name]
        right = (
            isinstance(x, torch.Tensor)
            and not x.is_complex()
            and x.ndim == 2 + len(wanted) + tail
            and list(x.shape[2 : 2 + len(wanted)]) == wanted
        )
        if not right or x.shape[0] not in (1, batch) or x.shape[1] not in (1, heads):
            got = list(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
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
    sums: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output and, if asked for, the log-sum-exp of one call; `backend` is "gpu", "triton", "hopper", "cpu" or
    "reference"."""
    import torch

    from .selection_bands import attend
    from .selection_choose import choosing, needs_places

    program = pattern.program(q.shape[1], k.shape[1], *layers)
    if captured := capturing(q.device):
        require_no_inputs(pattern, dict.fromkeys(table.source for table in program.limits.tables if table.source))
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
            found = choosing(job, q, k, v, scale, inputs)
            most, memory = most_kept(job), found.call.memory
            places = found.places if needs_places(job) else None
            if captured:
                pattern.hold()
            return attend(job, found.cells, most, q, k, v, scale, backend, tf32, places, found.bits(), sums, memory)
        except TensorError:
            raise
        except ValueError as error:
            raise TensorError(f"pattern `{pattern.name}` ({pattern.where}): {error}") from error


def most_kept(job: Job) -> tuple[int | None, ...]:
    """How many keys each choice keeps at most for a cell of queries, where that is known beforehand."""
    program, key = job.program, ("most kept", job.program, job.n, job.m)
    return job.pattern.remember(
        key, lambda: tuple(most_keys(choice, program, job.n, job.m) for choice in program.choices)
    )


def _dense(
    job: Job, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, inputs: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    from .codegen.reference import attend_dense
    from .codegen.select_reference import selected

    statics = {name: torch.from_numpy(array).to(q.device) for name, array in job.statics.items()}
    given = statics | givens(job.pattern, job.program, q, inputs, job.n)
    exact = torch.float64 if q.dtype == torch.float64 else torch.float32
    return attend_dense(q, k, v, selected(job.program, q, k, v, scale, given, dtype=exact), scale)
