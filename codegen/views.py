"""Rows of Q, K and V as views: cells, strides and folds of tokens, copied only where there is no other way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..compiler import ir
from ..compiler.evaluate import number
from ..compiler.selection import Side
from ..compiler.walk import parts
from .named import Value
from .search import TORCH


@dataclass(frozen=True, slots=True)
class Domain:
    """The cells `start .. start + count` that a name runs through, of `size` tokens each; 0 for plain numbers.

    `side` says what they are of, `order` of whose places; `within` of them make the cell that they are bound inside.
    """

    start: int
    count: int
    size: int
    side: Side = ""
    order: str = ""
    within: int = 0

    def part(self, start: int, count: int) -> "Domain":
        """Some of the cells."""
        return replace(self, start=start, count=count)


def rows(
    x: torch.Tensor, index: ir.Expr, names: Mapping[str, Domain], known: Mapping[str, int], positions: torch.Tensor
) -> Value:
    """The rows `index` of x [B, G, heads or 1, tokens, D], where n and m are known; zeros where there is none."""
    tokens = x.shape[3]
    axes = tuple(name for name in variables(index) if name in names)
    steps = affine(index, known)
    if steps is not None and (view := _strided(x, steps, [(axis, names[axis]) for axis in axes])) is not None:
        return Value(view, axes, True)
    where = torch.as_tensor(number(index, {**coordinates(names, axes, positions), **known}, {}, TORCH), device=x.device)
    where = where.expand([names[axis].count for axis in axes])
    there = (where >= 0) & (where < tokens)
    found = x.index_select(3, where.clamp(0, tokens - 1).reshape(-1)).view(*x.shape[:3], *where.shape, x.shape[4])
    return Value(found * there[..., None], axes, True)


def full(value: Value, axes: Sequence[str], names: Mapping[str, Domain]) -> torch.Tensor:
    """The tensor over axes of which each is there in full, also where it does not depend on one."""
    sizes = [-1 if axis in value.axes else names[axis].count for axis in axes]
    return value.over(axes).expand(-1, -1, -1, *sizes, *([-1] * value.vector))


def coordinates(names: Mapping[str, Domain], axes: Sequence[str], positions: torch.Tensor) -> dict[str, torch.Tensor]:
    """The cell numbers of each axis, shaped so that they broadcast over `axes`; `positions` is 0, 1, .."""
    out: dict[str, torch.Tensor] = {}
    for place, axis in enumerate(axes):
        shape = [1] * len(axes)
        shape[place] = -1
        start, end = names[axis].start, names[axis].start + names[axis].count
        short = end > len(positions)
        counted = torch.arange(start, end, device=positions.device) if short else positions[start:end]
        out[axis] = counted.view(shape)
    return out


def variables(expr: ir.Expr) -> list[str]:
    """Names in an integer expression, in order of appearance."""
    return list(dict.fromkeys(part.name for part in parts(expr) if isinstance(part, ir.Var)))


def affine(expr: ir.Expr, known: Mapping[str, int]) -> dict[str, int] | None:
    """A sum's factors by name, its constant under ""; None for anything else."""
    match expr:
        case ir.Const(value):
            return {"": value}
        case ir.Var(name):
            return {"": known[name]} if name in known else {name: 1}
        case ir.Binary("+" | "-" | "*" as op, left, right):
            a, b = affine(left, known), affine(right, known)
            if a is None or b is None or (op == "*" and a.keys() - {""} and b.keys() - {""}):
                return None
            if op == "*":
                terms, factor = (a, b.get("", 0)) if not b.keys() - {""} else (b, a.get("", 0))
                return {name: value * factor for name, value in terms.items()}
            sign = 1 if op == "+" else -1
            return {name: a.get(name, 0) + sign * b.get(name, 0) for name in (*a, *b)}
        case _:
            return None


def _strided(x: torch.Tensor, steps: Mapping[str, int], axes: Sequence[tuple[str, Domain]]) -> torch.Tensor | None:
    """The rows as a view, where all exist; an axis that runs backwards is turned around, which copies."""
    if not axes or any(steps.get(name, 0) == 0 for name, _ in axes):
        return None
    ends = [(steps[name] * d.start, steps[name] * (d.start + d.count - 1)) for name, d in axes]
    low = steps.get("", 0) + sum(min(end) for end in ends)
    high = steps.get("", 0) + sum(max(end) for end in ends)
    if low < 0 or high >= x.shape[3]:
        return None
    token = x.stride(3)
    sizes = (*x.shape[:3], *(d.count for _, d in axes), x.shape[4])
    strides = (*x.stride()[:3], *(abs(steps[name]) * token for name, _ in axes), x.stride(4))
    rows = x.as_strided(sizes, strides, x.storage_offset() + low * token)
    back = [3 + place for place, (name, _) in enumerate(axes) if steps[name] < 0]
    return rows.flip(back) if back else rows
