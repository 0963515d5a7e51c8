"""Which cells a dynamic pattern chooses: its scores, chunk by chunk of queries, and its rules."""

from collections.abc import Mapping
from typing import assert_never

import torch

from ..compiler import ir
from ..compiler.selection import Chosen, Reduce, Softmax, Threshold
from .named import Value
from .rules import choose
from .scores import Call, condition, evaluate
from .views import Domain

# Bytes of one map of scores; queries come in chunks of as many cells as fit.
MAP_BYTES = 1 << 28
SORT_BYTES = 24


def chosen_cells(choice: Chosen | Threshold, call: Call, possible: torch.Tensor) -> torch.Tensor:
    """What a choice keeps, [B, H, query cells, key cells]; `possible` [H or 1, query cells, key cells] is what may be.

    One row of query cells where the choice is the same for all queries, one column likewise.
    """
    key = call.domain(choice.key) if choice.key else Domain(0, 1, call.n)
    query = call.domain(choice.query) if choice.query else Domain(0, 1, call.n)
    parts: list[torch.Tensor] = []
    for first, last in chunks(choice, call, possible):
        rows = Domain(first, last - first, query.size)
        names = ({choice.query: rows} if choice.query else {}) | ({choice.key: key} if choice.key else {})
        parts.append(_choice(choice, call, names, possible[:, first : first + rows.count]))
    return torch.cat(parts, 2)


def chunks(choice: Chosen | Threshold, call: Call, possible: torch.Tensor) -> list[tuple[int, int]]:
    """Query cells to do at once, so that no map of scores is much larger than MAP_BYTES."""
    count = possible.shape[1]
    # A score has 4 bytes; ranking takes SORT_BYTES for each cell, most of them for places.
    cell_bytes = max(4 * finest(call, choice), SORT_BYTES * possible.shape[2])
    row_bytes = max(1, call.q.shape[0] * call.q.shape[1] * call.q.shape[2] * cell_bytes)
    ends = [possible.shape[2]] * count
    if narrows(call):
        places = torch.arange(1, possible.shape[2] + 1, device=possible.device)
        ends = (possible.any(0) * places).amax(-1).tolist()
    out: list[tuple[int, int]] = []
    first = widest = 0
    for row in range(count):
        widest = max(widest, ends[row])
        if row > first and (row + 1 - first) * row_bytes * widest > MAP_BYTES * possible.shape[2]:
            out.append((first, row))
            first, widest = row, ends[row]
    return [*out, (first, count)] if count else out


def narrows(call: Call) -> bool:
    """Whether maps end where the queries' keys do: sums of softmaxes over keys that a condition limits."""
    sums = [score.value for score in call.program.scores if isinstance(score.value, Reduce)]
    weights = [value.body for value in sums if isinstance(value.body, Softmax)]
    return bool(weights) and all(body.where is not None for body in weights)


def finest(call: Call, choice: Chosen | Threshold) -> int:
    """Numbers of the largest map behind one query cell: its finest query cells times the finest key cells."""
    sizes = {side: [a.size for a in call.program.axes if a.side == side and used(call, a.name)] for side in ("q", "k")}
    query = call.domain(choice.query).size if choice.query else call.n
    return max(1, query // max(1, min(sizes["q"], default=query))) * -(
        -call.n // max(1, min(sizes["k"], default=call.n))
    )


def used(call: Call, axis: str) -> bool:
    """Whether a score has this axis."""
    return any(axis in score.axes for score in call.program.scores)


def _choice(
    choice: Chosen | Threshold, call: Call, names: Mapping[str, Domain], possible: torch.Tensor
) -> torch.Tensor:
    axes = tuple(axis for axis in (choice.query, choice.key) if axis)
    call.recent.clear()
    heads = call.q.shape[1] * call.q.shape[2]

    def shaped(value: Value) -> torch.Tensor:
        """[B, H, query cells, key cells]."""
        x = value.over(axes).expand(-1, call.q.shape[1], call.q.shape[2], *(names[axis].count for axis in axes))
        x = x.reshape(x.shape[0], heads, *x.shape[3:])
        x = x if choice.query else x.unsqueeze(2)
        return (x if choice.key else x.unsqueeze(3)).expand(call.q.shape[0], -1, -1, -1)

    match choice:
        case Threshold(op, left, right):
            a, b = shaped(evaluate(left, call, names)), shaped(evaluate(right, call, names))
            return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[op] & possible
        case Chosen():
            scores = shaped(evaluate(choice.by, call, names))
            rows = scores.shape[-2:]

            def cells(formula: ir.Formula | None, otherwise: bool) -> torch.Tensor:
                """[H or 1, query cells, key cells]."""
                if formula is None:
                    return possible.new_full((1, *rows), otherwise)
                found = condition(formula, call, names, axes)
                if found.ndim > len(axes):
                    found = found.expand(call.q.shape[1], call.q.shape[2], *found.shape[2:]).reshape(
                        heads, *found.shape[2:]
                    )
                else:
                    found = found[None]
                found = found if choice.query else found.unsqueeze(1)
                return found.expand(-1, *rows)

            candidates = possible & cells(choice.among, True)
            return choose(choice, scores, candidates, cells(choice.counting, False) & candidates)
        case _:
            assert_never(choice)
