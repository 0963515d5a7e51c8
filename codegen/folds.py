"""Values folded over bound names: cells inside cells, plain names, heads; pieces put together again."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch

from .named import Value, apply, arithmetic
from .views import Domain

NEUTRAL = {"sum": 0.0, "max": float("-inf"), "min": float("inf"), "descend": float("-inf")}
JOINED = {"sum": "+", "max": "max", "min": "min"}


def plain(op: str, body: Value, name: str, count: int) -> Value:
    """Folded over a name that lies in no cell."""
    if name not in body.axes:
        return replace(body, tensor=body.tensor * count if op == "sum" and count != 1 else body.tensor)
    left = tuple(axis for axis in body.axes if axis != name)
    return replace(body, tensor=apply(op, body.tensor, 3 + body.axes.index(name)), axes=left)


def heads(op: str, body: Value, group: bool, shape: Sequence[int]) -> Value:
    """Folded over the heads of a group, or all of them; `shape` is how many groups there are, and heads in each."""
    x = body.tensor.expand(-1, *shape, *body.tensor.shape[3:]) if op in ("sum", "mean") else body.tensor
    places = [2] if group else [1, 2]
    folded = apply(op, x, places)
    for place in places:
        folded = folded.unsqueeze(place)
    return replace(body, tensor=folded)


def cells(op: str, body: Value, names: tuple[str, str], inner: Domain, outer: Domain) -> Value:
    """Folded over the cells `names[0]` inside each cell of `names[1]`, which takes its place."""
    name, around = names
    place = 3 + body.axes.index(name)
    if outer.count == 1:
        tensor = apply(op, body.tensor, place).unsqueeze(place)
    else:
        tensor = apply(op, celled(body.tensor, place, inner, outer, NEUTRAL[op]), place + 1)
    return replace(body, tensor=tensor, axes=tuple(around if axis == name else axis for axis in body.axes))


def celled(x: torch.Tensor, place: int, inner: Domain, outer: Domain, neutral: float) -> torch.Tensor:
    """The cells at `place` as two places, of which those that do not exist hold `neutral`."""
    front = inner.start - outer.start * inner.within
    back = outer.count * inner.within - inner.count - front
    parts = [x if count is None else _filled(x, place, count, neutral) for count in (front, None, back) if count != 0]
    return (torch.cat(parts, place) if len(parts) > 1 else x).unflatten(place, (outer.count, inner.within))


def _filled(x: torch.Tensor, place: int, count: int, value: float) -> torch.Tensor:
    return x.new_full([count if p == place else size for p, size in enumerate(x.shape)], value)


def existing(inner: Domain, outer: Domain, like: torch.Tensor) -> torch.Tensor:
    """How many of the cells inside each outer cell there are."""
    first = torch.arange(outer.start, outer.start + outer.count, device=like.device) * inner.within
    last = (first + inner.within).clamp(max=inner.start + inner.count)
    return (last - first.clamp(min=inner.start)).to(like.dtype)


def descended(body: Value, names: tuple[str, str], inner: Domain, outer: Domain) -> Value:
    """HiP's search: of each cell's halves the one whose first cell is larger goes on; the largest value seen."""
    name, around = names
    place = 3 + body.axes.index(name)
    x = celled(body.tensor, place, inner, outer, NEUTRAL["descend"]).movedim(place + 1, -1)
    low = torch.zeros_like(x[..., :1], dtype=torch.long)
    high = torch.full_like(low, inner.within)
    seen = x[..., :1]
    for _ in range((inner.within - 1).bit_length()):
        middle = torch.where(high - low > 1, (low + high) // 2, low)
        left, right = x.gather(-1, low), x.gather(-1, middle)
        seen = torch.maximum(seen, torch.maximum(left, right))
        # Where one cell is left, both halves are that cell.
        after = right > left
        low, high = torch.where(after, middle, low), torch.where(after, high, torch.maximum(middle, low + 1))
    return Value(seen[..., 0], tuple(around if axis == name else axis for axis in body.axes))


def turned(value: Value, names: Collection[str]) -> Value:
    """A value with some axes the other way around."""
    places = [3 + place for place, axis in enumerate(value.axes) if axis in names]
    return replace(value, tensor=value.tensor.flip(places)) if places else value


def joined(op: str, parts: Sequence[Value]) -> Value:
    """Folds of some items each, as one of all."""
    out = parts[0]
    for part in parts[1:]:
        out = arithmetic(JOINED[op], out, part)
    return out


def beside(parts: Sequence[Value], name: str) -> Value:
    """Values for some cells of an axis each, as one for all."""
    first = parts[0]
    if name not in first.axes or len(parts) == 1:
        return first
    # What is one number for all heads in some parts may be one for each group in others.
    lead = [max(part.tensor.shape[axis] for part in parts) for axis in range(3)]
    tensors = [x.expand(*lead, *x.shape[3:]) for x in (part.over(first.axes) for part in parts)]
    return replace(first, tensor=torch.cat(tensors, 3 + first.axes.index(name)))
