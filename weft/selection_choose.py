"""What each choice of a pattern keeps for one call's tensors, some queries at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .compiler.cells_of_pairs import axes_of
from .compiler.plan import Tiling
from .compiler.program_bounds import without_orders
from .compiler.selection import Axis, Choice, Chosen
from .selection import Job, givens, tables, with_all_queries

if TYPE_CHECKING:
    import torch

    from .codegen.score_call import Call
    from .codegen.select_tiles import Band, Packed, Places


@dataclass(frozen=True, slots=True)
class Choosing:
    """One call's scores, as far as they are made, and where its order puts keys."""

    job: Job
    call: Call
    places: Places | None
    # What is the same for all queries, or ranked over all of them, by the number of its choice.
    whole: dict[int, Packed]

    def cells(self, band: Band) -> list[Packed]:
        """What each choice keeps for some queries, of which the last come last."""
        found = [self._cells(c, choice, band) for c, choice in enumerate(self.job.program.choices)]
        if band.end == self.job.n:
            # Nobody asks for scores of keys again, which may be a twentieth of the keys and values.
            self.call.kept.clear()
        return found

    def bits(self) -> float:
        """How many cells the choices have for one query, of all batch elements and heads that differ."""
        from .codegen.lanes import lanes

        axes = axes_of(self.job.program)
        return sum(
            lanes(choice, self.call)
            * -(-self.job.n // (axes[choice.key].size if choice.key else self.job.n))
            / axes[choice.query].size
            for choice in self.job.program.choices
            if choice.query
        )

    def _cells(self, c: int, choice: Choice, band: Band) -> Packed:
        from .codegen.select_tiles import Band

        if choice.query and not (isinstance(choice, Chosen) and choice.joint):
            return self._packed(choice, band)
        if c not in self.whole:
            self.whole[c] = self._packed(choice, Band(0, self.job.n))
        return self.whole[c].part(band)

    def _packed(self, choice: Choice, band: Band) -> Packed:
        from .codegen.select import chosen_cells
        from .codegen.select_tiles import Cells, packed

        axes = axes_of(self.job.program)
        axis = axes[choice.key] if choice.key else Axis("", "k", self.job.n)
        query = axes[choice.query].size if choice.query else self.job.n
        kind = "p" if axis.order else "d" if axis.side == "d" else "k"
        return packed(Cells(chosen_cells(choice, self.call, band), query, axis.size, kind, band.first))


def choosing(
    job: Job, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, inputs: Mapping[str, Any]
) -> Choosing:
    """Ready to choose for these tensors; raises TensorError."""
    from .codegen.orders import placed
    from .codegen.scores import call_of
    from .codegen.select import keep, map_bytes
    from .codegen.select_tiles import Places

    program, every = job.program, with_all_queries(job)
    # A drop takes pairs away from what is kept, not cells from what is ranked, and what is required reads no order.
    required = tuple(clause for clause in every.program.limits.clauses if clause.kind == "require")
    every = replace(every, program=replace(every.program, limits=without_orders(every.program)))
    room = map_bytes()
    key = ("selection", program, q.shape, k.shape, q.dtype, room, q.device)
    call = call_of(
        program,
        q,
        k,
        v,
        scale,
        givens(job.pattern, program, q, inputs, job.n),
        tables=tables(job),
        map_bytes=room,
        tiles=lambda query, cell: every.tiles(required, Tiling(query, cell)).touched,
        chooser=keep,
        memory={} if job.statics else job.pattern.remember(key, dict),
    )
    call = placed(call)
    found = next((Places(x.key_of.flatten(1, 2), x.place_of.flatten(1, 2)) for x in call.orders.values()), None)
    return Choosing(job, call, found, {})


def needs_places(job: Job) -> bool:
    """Whether what is kept depends on where an order puts keys."""
    from .codegen.select_plan import by_places

    axes = {axis.name: axis for axis in job.program.axes}
    clauses = (*job.program.limits.clauses, *job.program.keeps)
    chosen = (axes.get(choice.key or "") for choice in job.program.choices)
    return any(axis and axis.order for axis in chosen) or bool(by_places(clauses, job.program)[1])
