"""Cells of a map at integers that rise or fall evenly with names, as `w[t, t - d]`, without tensors of indices.

Around the map come zeros for cells that do not exist; then a step of a name is always the same step in memory.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import torch

from ..compiler import ir
from .named import Value
from .views import Domain, affine, variables

# A map with its zeros is at most so many times as large as the map and what is read of it.
MOST = 2


@dataclass(frozen=True, slots=True)
class Line:
    """Places along one axis of a map: that of all names' first cells, the steps of names, and the zeros needed."""

    first: int
    steps: Mapping[str, int]
    size: int
    front: int
    back: int

    @property
    def padded(self) -> int:
        """Places with the zeros."""
        return self.front + self.size + self.back

    def turned(self) -> "Line":
        """The same where the axis runs backwards."""
        steps = {name: -step for name, step in self.steps.items()}
        return Line(self.size - 1 - self.first, steps, self.size, self.back, self.front)


def diagonal(
    value: Value,
    taken: Mapping[str, ir.Expr],
    own: Mapping[str, Domain],
    names: Mapping[str, Domain],
    known: Mapping[str, int],
) -> Value | None:
    """A value, whose axes have the cells `own`, with the names of integers in place of the axes `taken`.

    0 where there is no cell. None where the integers do not rise evenly, or the zeros would be many.
    """
    lines: dict[str, Line] = {}
    for axis, place in taken.items():
        line = _line(place, own[axis], names, known)
        if line is None or (axis not in value.axes and line.padded > line.size):
            return None
        lines[axis] = line
    along = tuple(axis for axis in value.axes if axis in taken)
    new = tuple(dict.fromkeys(name for axis in along for name in variables(taken[axis]) if name in names))
    sizes = [math.prod(line.size for line in lines.values()), math.prod(names[name].count for name in new)]
    if math.prod(lines[axis].padded for axis in along) > MOST * sum(sizes):
        return None
    kept = tuple(axis for axis in value.axes if axis not in taken)
    order, turned = _layout({axis: lines[axis] for axis in along}, new)
    inner = tuple(lines[axis].turned() if axis in turned else lines[axis] for axis in order)
    x = value.over((*kept, *order))
    first = 3 + len(kept)
    back = [first + order.index(axis) for axis in turned]
    x = _read(x.flip(back) if back else x, first, inner, {name: names[name].count for name in new})
    return Value(x, (*kept, *new), value.vector)


def _line(place: ir.Expr, cells: Domain, names: Mapping[str, Domain], known: Mapping[str, int]) -> Line | None:
    steps = affine(place, known)
    if steps is None or not steps.keys() - {""} <= names.keys():
        return None
    rises = {name: step for name, step in steps.items() if name}
    first = steps.get("", 0) - cells.start + sum(step * names[name].start for name, step in rises.items())
    ends = [step * (names[name].count - 1) for name, step in rises.items()]
    low, high = first + sum(min(0, end) for end in ends), first + sum(max(0, end) for end in ends)
    return Line(first, rises, cells.count, max(0, -low), max(0, high + 1 - cells.count))


def _layout(lines: Mapping[str, Line], new: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """An order of axes in memory, and which run backwards, so that all names go forwards; if there is none, as is."""
    flips = sorted(product((False, True), repeat=len(lines)), key=sum)
    for flipped, order in product(flips, permutations(lines)):
        turned = tuple(axis for axis, back in zip(lines, flipped, strict=True) if back)
        inner = [lines[axis].turned() if axis in turned else lines[axis] for axis in order]
        strides = [math.prod(line.padded for line in inner[place + 1 :]) for place in range(len(inner))]
        if all(step >= 0 for step in _steps(inner, strides, new)):
            return order, turned
    return tuple(lines), ()


def _steps(lines: Sequence[Line], strides: Sequence[int], new: Iterable[str]) -> list[int]:
    """How far in memory a step of each name goes."""
    pairs = tuple(zip(lines, strides, strict=True))
    return [sum(line.steps.get(name, 0) * stride for line, stride in pairs) for name in new]


def _read(x: torch.Tensor, first: int, lines: Sequence[Line], counts: Mapping[str, int]) -> torch.Tensor:
    """A tensor with names in place of the axes from `first` on, one for each line; a last axis of rows may follow."""
    end = first + len(lines)
    if any(line.padded > line.size for line in lines):
        around = [zeros for line in reversed(lines) for zeros in (line.front, line.back)]
        x = torch.nn.functional.pad(x, (0, 0) * (x.ndim - end) + tuple(around))
    strides = x.stride()[first:end]
    steps = _steps(lines, strides, counts)
    start = sum((line.front + line.first) * stride for line, stride in zip(lines, strides, strict=True))
    start += sum(step * (count - 1) for step, count in zip(steps, counts.values(), strict=True) if step < 0)
    x = x.as_strided(
        (*x.shape[:first], *counts.values(), *x.shape[end:]),
        (*x.stride()[:first], *map(abs, steps), *x.stride()[end:]),
        x.storage_offset() + start,
    )
    # What still runs backwards is turned around, which copies.
    back = [first + place for place, step in enumerate(steps) if step < 0]
    return x.flip(back) if back else x
