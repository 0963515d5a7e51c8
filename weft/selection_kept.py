"""Which pairs one call of a dynamic pattern keeps, some rows at a time: no map of all pairs need exist."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

import torch

from .codegen.reference import attend_dense
from .codegen.search import TORCH
from .codegen.select_reference import selected
from .compiler.dense_only import only_densely
from .compiler.evaluate import truth
from .compiler.ir import Clause, Mask
from .compiler.selection import Arithmetic, Axis, Choice, Chosen, Number, Program, Term, Threshold
from .selection import MOST_DENSE, Job, givens, job_of, most_kept, select_places, tables
from .selection_bands import attend, given
from .selection_choose import needs_places
from .tensors import TensorError

if TYPE_CHECKING:
    from .codegen.select_tiles import Cells, Places
    from .pattern import Pattern
    from .selection_tensors import Tensors

# Pairs looked at once, and seconds after which nothing is timed again.
PAIRS_AT_ONCE = 1 << 23
TIMES, ENOUGH_SECONDS = 3, 20.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What one call keeps: cells, and the order that they or clauses refer to; where only the definition can tell, all
    pairs `[B, H, m, n]`, those kept and those admissible."""

    job: Job
    tensors: Tensors
    cells: tuple[Cells, ...]
    places: Places | None
    pairs: tuple[torch.Tensor, torch.Tensor] | None
    tables: dict[str, torch.Tensor]

    def rows(self, b: int, h: int, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of some queries `[R]`, which pairs are kept and which are admissible, `[R, n]`."""
        if self.pairs is not None:
            kept, admissible = self.pairs
            return kept[b, h, rows], admissible[b, h, rows]
        limits, keeps = self.job.program.limits.clauses, self.job.program.keeps
        required = self._static(required_of(self.job.program), b, h, rows)
        found = self._static(keeps, b, h, rows) if keeps else torch.zeros_like(required)
        q, k = self._positions(rows)
        for one in self.cells:
            place = self.places.place_of[b, h].long() if self.places and one.kind == "p" else k
            found = found | _looked_up(one, one.kept[b, h], q, place)
        return found & self._static(limits, b, h, rows), required

    def _positions(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n, m = self.tensors.n, self.tensors.q.shape[2]
        return rows[:, None] + (n - m), torch.arange(n, device=rows.device)

    def _static(self, clauses: tuple[Clause, ...], b: int, h: int, rows: torch.Tensor) -> torch.Tensor:
        n, m, (q, k) = self.tensors.n, self.tensors.q.shape[2], self._positions(rows)
        values = {"q": q, "k": k, "h": h, "g": h * self.tensors.kv_heads // self.tensors.heads, "n": n, "m": m}
        known = self.tables
        if self.places is not None:
            # As clauses read it: one place more for each head, for what is no token.
            by_head = torch.nn.functional.pad(self.places.place_of[b].long(), (0, 1), value=-1)
            known = known | {order.name: by_head.flatten() for order in self.job.program.orders}
        found = truth(Mask("", clauses).formula, values, known, TORCH)
        return torch.as_tensor(found, device=rows.device).expand(len(rows), n)

    def chunks(self, rows: torch.Tensor) -> Iterator[torch.Tensor]:
        """Rows, as many at once as memory allows."""
        yield from rows.split(max(1, PAIRS_AT_ONCE // self.tensors.n))


def required_of(program: Program) -> tuple[Clause, ...]:
    """What says which pairs are admissible: a drop takes pairs away from what is kept."""
    return tuple(clause for clause in program.limits.clauses if clause.kind == "require")


def _looked_up(cells: Cells, kept: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Which pairs lie in kept cells `[query cells, key cells]`; k are keys, or their places."""
    row, column = q // cells.query_size, k // cells.key_size
    if cells.kind == "d":
        distance = q // cells.key_size - column
        return kept[row, distance.clamp(min=0)] & (distance >= 0)
    return kept[row[:, 0]][:, column]


def keep(pattern: Pattern, tensors: Tensors, layers: tuple[int, int] = (0, 1)) -> Kept:
    """What a pattern keeps of tensors; raises TensorError."""
    q, k = tensors.q, tensors.k
    program = pattern.program(tensors.heads, tensors.kv_heads, *layers)
    job = job_of(pattern, program, q, k, tensors.inputs)
    try:
        if not (reason := only_densely(program)):
            cells, places = _chosen(job, tensors)
            return Kept(job, tensors, tuple(cells), places, None, tables(job))
        if tensors.n > MOST_DENSE:
            raise TensorError(f"pattern `{pattern.name}`: {reason}: {MOST_DENSE} tokens at most, not {tensors.n}")
        limits = replace(program.limits, clauses=required_of(program))
        every = replace(job, program=replace(program, limits=limits, keeps=(), choices=()))
        return Kept(job, tensors, (), None, (densely(job, tensors), densely(every, tensors)), tables(job))
    except ValueError as error:
        raise error if isinstance(error, TensorError) else TensorError(f"pattern `{pattern.name}`: {error}") from error


def _chosen(job: Job, tensors: Tensors) -> tuple[list[Cells], Places | None]:
    return select_places(job, tensors.q, tensors.k, tensors.v, tensors.scale, tensors.inputs)


def cost(kept: Kept) -> tuple[float, float]:
    """The seconds of choosing and of attending, medians of a few."""
    job, tensors, cells, pairs = kept.job, kept.tensors, list(kept.cells), kept.pairs
    q, k, v, scale = tensors.q, tensors.k, tensors.v, tensors.scale
    backend, places = "gpu" if q.is_cuda else "cpu", kept.places if needs_places(job) else None

    def choose() -> object:
        return _chosen(job, tensors) if pairs is None else densely(job, tensors)

    source = given(cells)

    def attending() -> object:
        if pairs is None:
            return attend(job, source, most_kept(job), q, k, v, scale, backend, places=places)
        return attend_dense(q, k, v, pairs[0], scale)

    return timed(choose, q.is_cuda), timed(attending, q.is_cuda)


def densely(job: Job, tensors: Tensors) -> torch.Tensor:
    """The kept pairs `[B, H, m, n]`, by definition."""
    q, k, v = tensors.q, tensors.k, tensors.v
    statics = {name: torch.from_numpy(array).to(q.device) for name, array in job.statics.items()}
    given = statics | givens(job.pattern, job.program, q, tensors.inputs, job.n)
    exact = torch.float64 if q.dtype == torch.float64 else torch.float32
    return selected(job.program, q, k, v, tensors.scale, given, dtype=exact)


def timed(work: Callable[[], object], on_gpu: bool) -> float:
    """The median of the seconds that work takes, a few times."""
    seconds: list[float] = []
    while len(seconds) < TIMES and sum(seconds) < ENOUGH_SECONDS:
        start = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def nan_scores(kept: Kept) -> tuple[int, ...] | None:
    """How many scores that cells with an admissible pair are chosen by are NaN, by head; None where that takes a map
    of all pairs that is too large."""
    program, tensors = kept.job.program, kept.tensors
    out = torch.zeros(tensors.heads, dtype=torch.int64)
    for term, choice in (pair for one in program.choices for pair in _ranked(one)):
        # What is not NaN is as large as itself, and 0 always is.
        known, every = (Threshold(">=", x, x, choice.key, choice.query, "") for x in (term, Number(0.0)))
        watched = replace(program, choices=(known, every), keeps=())
        job = replace(kept.job, program=watched)
        if not only_densely(watched):
            (one, both), _ = _chosen(job, tensors)
            out += (both.kept & ~one.kept).sum((0, 2, 3)).cpu()
        elif tensors.n <= MOST_DENSE and (cell := _cell_of_pairs(kept, choice)) is not None:
            one, both = (densely(replace(job, program=replace(watched, choices=(c,))), tensors) for c in (known, every))
            bad = both & ~one
            out += torch.tensor([sum(len(cell[x].unique()) for x in bad[:, h]) for h in range(tensors.heads)])
        else:
            return None
    return tuple(out.tolist())


def _ranked(choice: Choice) -> Iterator[tuple[Term, Choice]]:
    """What the cells of a choice are chosen by, and those of the choice inside it."""
    match choice:
        case Threshold(_, left, right):
            yield Arithmetic("min", left, right), choice
        case Chosen(by=by, inside=inside):
            yield by, choice
            yield from _ranked(inside) if inside else ()


def _cell_of_pairs(kept: Kept, choice: Choice) -> torch.Tensor | None:
    """A number for the cell of each pair, `[m, n]`; None for cells of places."""
    n, m = kept.tensors.n, kept.tensors.q.shape[2]
    axes = {axis.name: axis for axis in (Axis("q", "q", 1), Axis("k", "k", 1), *kept.job.program.axes)}
    query, key = (axes[name] if name else Axis("", "", n) for name in (choice.query, choice.key))
    if key.order:
        return None
    q, k = torch.arange(n - m, n, device=kept.tensors.q.device)[:, None], torch.arange(n, device=kept.tensors.q.device)
    column = q // key.size - k // key.size if key.side == "d" else k // key.size
    return (q // query.size * n + column).expand(m, n)
