"""What the terms of a dynamic pattern's scores mean, dense and plain.

Values are `[heads or 1, one place for each name in scope .., D or 1]`: a number is a row of one. A name's integers are
a tensor over the same places, so that a binder adds a place and a read looks its cells up.
"""

from collections.abc import Iterable, Mapping
from typing import Any, assert_never

import torch

from ..compiler.evaluate import number, truth
from ..compiler.ir import Expr, Formula, Var
from ..compiler.ir import Read as TableRead
from ..compiler.selection import (
    Apply,
    Arithmetic,
    Axis,
    ByHead,
    Count,
    Dot,
    Heads,
    Integer,
    Number,
    Read,
    Reduce,
    Row,
    Scale,
    Slice,
    Softmax,
    Term,
)
from ..compiler.walk import parts, reads
from .reference_call import Call, Scope, Tensors, along, bound, grown, spread
from .search import TORCH

NEUTRAL = {"sum": 0.0, "mean": 0.0, "max": float("-inf"), "min": float("inf"), "descend": float("-inf")}


def value(term: Term, scope: Scope, call: Call) -> torch.Tensor:
    """`[H or 1, places .., D or 1]`, of length 1 where it depends on no name of a place."""
    plain = call.rows["K"]
    match term:
        case Number(found):
            return spread(plain.new_tensor(found), scope.places + 2)
        case Scale():
            return spread(plain.new_tensor(call.scale), scope.places + 2)
        case ByHead(values):
            return plain.new_tensor(values).view(call.heads, *[1] * (scope.places + 1))
        case Integer(found):
            return integer(found, scope, call)[..., None].to(plain.dtype)
        case Read(name, indices):
            return _read(name, indices, scope, call)
        case Row(source, index):
            return _row(call.rows[source], index, scope, call)
        case Arithmetic(op, left, right):
            return _arithmetic(op, value(left, scope, call), value(right, scope, call))
        case Apply(function, operand):
            return _apply(function, value(operand, scope, call))
        case Slice(operand, first, last):
            x = value(operand, scope, call)
            if last > x.shape[-1]:
                raise ValueError(f"a row of {x.shape[-1]} numbers has no elements {first} .. {last}")
            return x[..., first:last]
        case Dot(left, right):
            a, b = value(left, scope, call), value(right, scope, call)
            if a.shape[-1] != b.shape[-1]:
                raise ValueError(f"rows of {a.shape[-1]} and {b.shape[-1]} numbers are multiplied")
            return torch.einsum("...d,...d->...", a, b)[..., None]
        case Reduce("descend"):
            return _descend(term, scope, call)
        case Reduce():
            return _reduce(term, scope, call)
        case Softmax():
            return _softmax(term, scope, call)
        case Count(chosen):
            found = call.count(chosen, call).to(plain.dtype)[..., None]
            cell = scope.names[chosen.query] if chosen.query else torch.zeros_like(call.arange(0, 1))
            return found[_heads(call, scope.places), spread(cell, scope.places)]
        case _:
            assert_never(term)


def score(name: str, call: Call) -> torch.Tensor:
    """The values of an input or a score at all cells of its axes, `[H or 1, cells .., D or 1]`."""
    if name not in call.known:
        found = next(s for s in call.program.scores if s.name == name)
        scope = Scope()
        for axis in found.axes:
            scope, _ = along(axis, scope, call)
        x = value(found.value, scope, call)
        sizes = (len(call.cells(call.axes[axis])) for axis in found.axes)
        call.known[name] = x.expand(call.heads, *sizes, x.shape[-1])
    return call.known[name]


def tokens(name: str, call: Call) -> torch.Tensor:
    """The token at each place of an order, `[H, n]`."""
    if name not in call.tokens:
        order = next(o for o in call.program.orders if o.name == name)
        scope, _ = grown(Scope(), Axis("k", "k", 1), call.arange(0, call.n), call)
        by = value(order.by, scope, call)[..., 0].expand(call.heads, call.n)
        whole = call.n // order.within * order.within
        by = by[:, :whole].unflatten(1, (-1, order.within))
        falling = torch.sort(by.masked_fill(by.isnan(), float("-inf")), dim=-1, descending=True, stable=True).indices
        # What is no number comes after all numbers, minus infinity too.
        last = torch.sort(by.isnan().gather(-1, falling).long(), dim=-1, stable=True).indices
        first = call.arange(0, whole).view(1, -1, order.within)[..., :1]
        segments = (first + falling.gather(-1, last)).flatten(1)
        call.tokens[name] = torch.cat([segments, call.arange(whole, call.n).expand(call.heads, -1)], 1)
    return call.tokens[name]


def places(name: str, call: Call) -> torch.Tensor:
    """The place of each token in an order, `[H, n]`."""
    return tokens(name, call).argsort(-1)


def holds(formula: Formula, names: Tensors, places: int, call: Call) -> torch.Tensor:
    """A condition over names with their integers, `[H or 1, places ..]`."""
    found = truth(formula, _integers(names, places, call), _tables((r.table for r in reads(formula)), call), TORCH)
    return spread(torch.as_tensor(found, device=call.rows["K"].device), places + 1)


def integer(expr: Expr, scope: Scope, call: Call) -> torch.Tensor:
    """An integer of names, `[H or 1, places ..]`."""
    tables = _tables((part.table for part in parts(expr) if isinstance(part, TableRead)), call)
    found = number(expr, _integers(scope.names, scope.places, call), tables, TORCH)
    return spread(torch.as_tensor(found, device=call.rows["K"].device), scope.places + 1)


def _integers(names: Tensors, places: int, call: Call) -> Mapping[str, Any]:
    """Names, heads and lengths."""
    head = _heads(call, places)
    return {"h": head, "g": head // call.group, "n": call.n, "m": call.m, **names}


def _tables(read: Iterable[str], call: Call) -> Tensors:
    """All tables, and those of orders where they are read: each head's places of all keys, and then -1."""
    named = set(read)
    orders = (order.name for order in call.program.orders if order.name in named)
    return {**call.tables, **{x: torch.nn.functional.pad(places(x, call), (0, 1), value=-1).flatten() for x in orders}}


def _heads(call: Call, count: int) -> torch.Tensor:
    """The numbers of the heads, `[H, 1 ..]`."""
    return call.arange(0, call.heads).view(-1, *[1] * count)


def _read(name: str, indices: tuple[Expr, ...], scope: Scope, call: Call) -> torch.Tensor:
    """A score or an input at integers; 0 where one of them is no cell of its axis."""
    x = score(name, call)
    axes = next(s.axes for s in (*call.program.scores, *call.program.givens) if s.name == name)
    there = torch.ones([1] * (scope.places + 1), dtype=torch.bool, device=x.device)
    cells: list[torch.Tensor] = []
    for axis, index in zip((call.axes[a] for a in axes), indices, strict=True):
        found, all_cells = integer(index, scope, call), call.cells(axis)
        there = there & call.exists(axis, found)
        cells.append((found - all_cells[0]).clamp(0, len(all_cells) - 1))
    found = x[(_heads(call, scope.places) if len(x) > 1 else torch.zeros_like(there, dtype=torch.long), *cells)]
    return torch.where(there[..., None], found, 0.0)


def _row(x: torch.Tensor, index: Expr, scope: Scope, call: Call) -> torch.Tensor:
    """A token's row, or that of the key at a place."""
    token = integer(index, scope, call)
    there = (token >= 0) & (token < call.n)
    token = token.clamp(0, call.n - 1)
    heads = _heads(call, scope.places)
    match index:
        case Var(name) if name in scope.axes and scope.axes[name].order:
            token = tokens(scope.axes[name].order, call)[heads, token]
        case _:
            pass
    return torch.where(there[..., None], x[heads, token], 0.0)


def _arithmetic(op: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.shape[-1] != b.shape[-1] and 1 not in (a.shape[-1], b.shape[-1]):
        raise ValueError(f"rows of {a.shape[-1]} and {b.shape[-1]} numbers meet element by element")
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/":
            return a / b
        case "min":
            return torch.minimum(a, b)
        case "max":
            return torch.maximum(a, b)
        case _:
            raise AssertionError(op)


def _apply(function: str, x: torch.Tensor) -> torch.Tensor:
    match function:
        case "abs":
            return x.abs()
        case "exp":
            return x.exp()
        case "log":
            return x.log()
        case "sqrt":
            return x.sqrt()
        case "negate":
            return -x
        case "probit":
            return torch.special.ndtri(x)
        case _:
            raise AssertionError(function)


def _reduce(term: Reduce, scope: Scope, call: Call) -> torch.Tensor:
    """Over the places of the binders, and over heads, those of their items that exist and meet the condition."""
    shared, count = 1, 0
    there = torch.ones([1] * (scope.places + 1), dtype=torch.bool, device=call.rows["K"].device)
    for binder in term.binders:
        match binder:
            case Heads(group):
                shared = call.group if group else call.heads
            case _:
                scope, new = bound(binder, scope, call)
                there, count = there[..., None] & new, count + 1
    if term.where is not None:
        there = there & holds(term.where, scope.names, scope.places, call)
    x = torch.where(there[..., None], value(term.body, scope, call), NEUTRAL[term.op])
    if shared > 1:
        x, there = (each.expand(call.heads, *each.shape[1:]) for each in (x, there))
    # The heads that share a value are a place of their own, the second.
    x, there = (each.unflatten(0, (-1, shared)) for each in (x, there[..., None]))
    over = (1, *range(-1 - count, -1))
    match term.op:
        case "sum":
            found = x.sum(over)
        case "mean":
            found = x.sum(over) / there.sum(over).clamp(min=1)
        case "max":
            found = x.amax(over)
        case "min":
            found = x.amin(over)
        case _:
            raise AssertionError(term.op)
    return found.repeat_interleave(shared, 0)


def _descend(term: Reduce, scope: Scope, call: Call) -> torch.Tensor:
    """Halves of a cell, of which the one whose first token is larger goes on, until it is one token."""
    (binder,) = term.binders
    scope, there = bound(binder, scope, call)
    x = torch.where(there[..., None], value(term.body, scope, call), NEUTRAL[term.op])
    low = torch.zeros_like(x[..., :1, :], dtype=torch.long)
    high = torch.full_like(low, x.shape[-2])
    seen = x[..., :1, :]
    while (high - low > 1).any():
        middle = torch.where(high - low > 1, (low + high) // 2, low)
        left, right = x.gather(-2, low), x.gather(-2, middle)
        seen = torch.maximum(seen, torch.maximum(left, right))
        goes_right = right > left
        # Where one token is left, both halves are that token.
        low, high = torch.where(goes_right, middle, low), torch.where(goes_right, high, torch.maximum(middle, low + 1))
    return seen[..., 0, :]


def _softmax(term: Softmax, scope: Scope, call: Call) -> torch.Tensor:
    """The softmax of a whole axis, read at the cell where the name is now."""
    inner, there = along(term.along, scope, call)
    if term.where is not None:
        there = there & holds(term.where, inner.names, inner.places, call)
    x = torch.where(there, value(term.body, inner, call)[..., 0], float("-inf"))
    weights = torch.where((x == float("-inf")).all(-1, keepdim=True), 0.0, torch.softmax(x, -1))
    steps = inner.names[term.along]
    here = (scope.names[term.along] - steps[..., 0]).clamp(0, steps.shape[-1] - 1)
    return torch.take_along_dim(weights, here[None, ..., None], -1)
