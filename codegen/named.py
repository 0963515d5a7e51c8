"""Tensors whose axes have names: arithmetic, and products of rows as matrix products in full precision."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor [B, G, heads of a group or 1, one for each of `axes`, (D)]."""

    tensor: torch.Tensor
    axes: tuple[str, ...] = ()
    vector: bool = False

    def over(self, axes: Sequence[str]) -> torch.Tensor:
        """The tensor with these axes in this order, of length 1 where it does not depend on one."""
        tail = (-1,) if self.vector else ()
        places = [3 + self.axes.index(axis) for axis in axes if axis in self.axes]
        moved = self.tensor.permute(0, 1, 2, *places, *(self.tensor.ndim - 1 for _ in tail))
        shape = iter(moved.shape[3:])
        sizes = [next(shape) if axis in self.axes else 1 for axis in axes]
        return moved.reshape(*moved.shape[:3], *sizes, *tail)


def together(a: Value, b: Value) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*a.axes, *b.axes)))


def arithmetic(op: str, a: Value, b: Value) -> Value:
    axes, vector = together(a, b), a.vector or b.vector
    x, y = (side.float() if side.dtype.itemsize == 2 else side for side in (a.over(axes), b.over(axes)))
    if a.vector and b.vector and x.shape[-1] != y.shape[-1]:
        raise ValueError(f"rows of {x.shape[-1]} and {y.shape[-1]} numbers are combined")
    if a.vector != b.vector:
        x, y = (x, y[..., None]) if a.vector else (x[..., None], y)
    match op:
        case "+":
            out = x + y
        case "-":
            out = x - y
        case "*":
            out = x * y
        case "/":
            out = x / y
        case "min":
            out = torch.minimum(x, y)
        case "max":
            out = torch.maximum(x, y)
        case _:
            raise AssertionError(op)
    return Value(out, axes, vector)


def sliced(x: Value, first: int, last: int) -> Value:
    """Some elements of rows."""
    width = x.tensor.shape[-1]
    if last > width:
        raise ValueError(f"a row of {width} numbers has no elements {first} .. {last}")
    return replace(x, tensor=x.tensor[..., first:last])


def dot(a: Value, b: Value, contracted: tuple[str, ...]) -> Value:
    """A product of rows, summed over `contracted` names too, as one matrix product in full precision."""
    if a.tensor.shape[-1] != b.tensor.shape[-1]:
        raise ValueError(f"rows of {a.tensor.shape[-1]} and {b.tensor.shape[-1]} numbers are multiplied")
    shared = tuple(axis for axis in a.axes if axis in b.axes and axis not in contracted)
    inner = tuple(axis for axis in contracted if axis in a.axes and axis in b.axes)
    own = tuple(axis for axis in a.axes if axis not in (*shared, *contracted))
    other = tuple(axis for axis in b.axes if axis not in (*shared, *contracted))
    # What only one side runs through sums by itself.
    a, b = (_summed(x, tuple(c for c in contracted if c in x.axes and c not in inner)) for x in (a, b))
    if a.tensor.shape[2] < b.tensor.shape[2]:
        a, b, own, other = b, a, other, own
    # All heads of a group meet its keys in one product; where both differ by head, heads are one more batch.
    by_head = b.tensor.shape[2] > 1
    left, right = a.over((*shared, *own, *inner)), b.over((*shared, *other, *inner))
    count = len(shared)
    heads = left.shape[2]
    sizes = left.shape[3 : 3 + count]
    rows, columns = left.shape[3 + count : 3 + count + len(own)], right.shape[3 + count : 3 + count + len(other)]
    batch = torch.broadcast_shapes(left.shape[:2], right.shape[:2])
    left = left.expand(*batch, *left.shape[2:])
    right = right.expand(*batch, *right.shape[2:])
    if not by_head:
        left, right = left.movedim(2, 2 + count), right.squeeze(2)
    lead = (*batch, heads, *sizes) if by_head else (*batch, *sizes)
    folded = (1 if by_head else heads) * math.prod(rows)
    x = left.reshape(math.prod(lead), folded, -1)
    y = right.reshape(math.prod(lead), math.prod(columns), -1)
    out = _product(x, y.transpose(1, 2))
    if by_head:
        out = out.view(*batch, heads, *sizes, *rows, *columns)
    else:
        out = out.view(*batch, *sizes, heads, *rows, *columns).movedim(2 + count, 2)
    return Value(out, (*shared, *own, *other))


def _summed(x: Value, axes: tuple[str, ...]) -> Value:
    places = [3 + x.axes.index(axis) for axis in axes]
    left = tuple(axis for axis in x.axes if axis not in axes)
    return replace(x, tensor=apply("sum", x.tensor, places), axes=left) if places else x


def _product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A batch of matrix products whose sums, and results, have 32 bits or more."""
    if x.dtype == y.dtype and x.dtype.itemsize == 2 and x.is_cuda:
        return torch.bmm(x, y, out_dtype=torch.float32)
    kind = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    return torch.bmm(x.to(kind), y.to(kind))


def apply(op: str, x: torch.Tensor, axis: int | list[int]) -> torch.Tensor:
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    match op:
        case "sum":
            return x.sum(axis, dtype=exact)
        case "mean":
            return x.mean(axis, dtype=exact)
        case "max":
            return x.amax(axis)
        case "min":
            return x.amin(axis)
        case _:
            raise AssertionError(op)
