"""Scores of a dynamic pattern as tensors: products of rows become matrix products over views, on any device.

Values are laid out [batch, group, heads of the group, cells .., (row)]; an axis that a value does not depend on has no
place in it. Queries may be asked for in chunks, so that nothing of all queries by all keys need be stored.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

import torch

from ..compiler import ir
from ..compiler.evaluate import truth
from ..compiler.intervals import Interval, verdict
from ..compiler.lower_term import free
from ..compiler.selection import (
    Apply,
    Arithmetic,
    Below,
    Binder,
    ByHead,
    Count,
    Dot,
    Heads,
    Inside,
    Integer,
    Last,
    Number,
    Program,
    Read,
    Reduce,
    Row,
    Scale,
    Slice,
    Softmax,
    Term,
    Whole,
)
from ..compiler.walk import variables as names_of
from .named import Value, apply, arithmetic, dot
from .search import TORCH
from .views import Domain, coordinates, rows
from .weigh import group_sums


@dataclass(frozen=True, slots=True)
class Call:
    """The tensors of one call, in the evaluator's layout, and what was computed for keys alone."""

    program: Program
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scale: float
    givens: Mapping[str, torch.Tensor]
    kept: dict[tuple[str, tuple[str, ...]], Value] = field(default_factory=dict[tuple[str, tuple[str, ...]], Value])
    # Scores of the queries at hand: a score read twice is made once.
    recent: dict[object, Value] = field(default_factory=dict[object, Value])

    @property
    def n(self) -> int:
        """Tokens; queries and keys are the same ones."""
        return self.q.shape[3]

    def domain(self, axis: str) -> Domain:
        """All cells of an axis."""
        size = next(one.size for one in self.program.axes if one.name == axis)
        return Domain(0, -(-self.n // size), size)


def call_of(
    program: Program,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    givens: Mapping[str, torch.Tensor],
) -> Call:
    """q `[B, H, n, D]`, k and v `[B, G, n, D]`, inputs `[B or 1, H or 1, cells ..]`; computed in fp32, or fp64."""
    batch, heads, n, width = q.shape
    groups = k.shape[1]
    exact = torch.float64 if q.dtype == torch.float64 else torch.float32
    spread = {
        name: x.to(exact)
        .expand(x.shape[0], heads, *x.shape[2:])
        .reshape(x.shape[0], groups, heads // groups, *x.shape[2:])
        for name, x in givens.items()
    }
    return Call(program, q.view(batch, groups, heads // groups, n, width), k[:, :, None], v[:, :, None], scale, spread)


def evaluate(term: Term, call: Call, names: Mapping[str, Domain]) -> Value:
    """The value of a term where each free name runs through its domain."""
    match term:
        case Number(value):
            return _constant(call, value)
        case Scale():
            return _constant(call, call.scale)
        case Row(source, index):
            return rows({"Q": call.q, "K": call.k, "V": call.v}[source], index, names)
        case Read(name, indices):
            return _read(name, indices, call, names)
        case Arithmetic(op, left, right):
            return arithmetic(op, evaluate(left, call, names), evaluate(right, call, names))
        case Apply(function, operand):
            inner = evaluate(operand, call, names)
            return replace(inner, tensor=getattr(torch, "neg" if function == "negate" else function)(inner.tensor))
        case Dot(left, right):
            return dot(evaluate(left, call, names), evaluate(right, call, names), ())
        case Reduce():
            return _reduce(term, call, names)
        case Softmax():
            return _softmax(term, call, names)
        case ByHead() | Integer() | Slice() | Count():
            raise NotImplementedError(term)
        case _:
            assert_never(term)


def _exact(call: Call) -> torch.dtype:
    return torch.float64 if call.q.dtype == torch.float64 else torch.float32


def _constant(call: Call, value: float) -> Value:
    return Value(torch.full((1, 1, 1), value, dtype=_exact(call), device=call.q.device))


def _read(name: str, places: tuple[ir.Expr, ...], call: Call, names: Mapping[str, Domain]) -> Value:
    indices = tuple(place.name for place in places if isinstance(place, ir.Var))
    score = next((s for s in call.program.scores if s.name == name), None)
    if score is None:
        given = next(g for g in call.program.givens if g.name == name)
        x = call.givens[name]
        for place, index in enumerate(indices):
            domain = names[index]
            x = x.narrow(3 + place, domain.start, domain.count)
        return Value(x, indices, given.vector)
    own = {axis: names[index] for axis, index in zip(score.axes, indices, strict=True)}
    whole = all(domain == call.domain(axis) for axis, domain in own.items() if not _asks(call, axis))
    lasting = whole and not any(_asks(call, axis) for axis in own)
    key = (name, score.axes)
    if lasting and key in call.kept:
        found = call.kept[key]
    else:
        at = (name, *own.values())
        if at not in call.recent:
            call.recent[at] = evaluate(score.value, call, own)
        found = call.recent[at]
        if lasting:
            call.kept[key] = found
    renamed = dict(zip(score.axes, indices, strict=True))
    return replace(found, axes=tuple(renamed[axis] for axis in found.axes))


def _asks(call: Call, axis: str) -> bool:
    """Whether an axis is of queries."""
    return any(one.name == axis and one.side == "q" for one in call.program.axes)


def inner_domain(binder: Binder, call: Call, names: Mapping[str, Domain]) -> Domain:
    """What a binder runs through, for all cells of the axis it lies inside."""
    match binder:
        case Below(_, count):
            return Domain(0, count, 0)
        case Inside(_, outer, size):
            domain = names[outer]
            first = domain.start * domain.size // size
            last = min((domain.start + domain.count) * domain.size, call.n)
            return Domain(first, -(-last // size) - first, size)
        case Last(_, _, count):
            return Domain(max(0, call.n - count), min(count, call.n), 1)
        case Whole() | Heads():
            raise NotImplementedError(binder)
        case _:
            assert_never(binder)


def _reduce(term: Reduce, call: Call, names: Mapping[str, Domain]) -> Value:
    inside = {b.name: inner_domain(b, call, names) for b in term.binders}
    within = {**names, **inside}
    plain = tuple(b.name for b in term.binders if not isinstance(b, Inside))
    if term.op == "sum" and len(plain) == len(term.binders) and isinstance(term.body, Dot):
        left, right = evaluate(term.body.left, call, within), evaluate(term.body.right, call, within)
        # A name that neither row depends on counts the product as often as it runs.
        times = math.prod(inside[name].count for name in plain if name not in (*left.axes, *right.axes))
        found = dot(left, right, tuple(name for name in plain if name in (*left.axes, *right.axes)))
        return found if times == 1 else replace(found, tensor=found.tensor * times)
    if term.op == "sum" and isinstance(term.body, Softmax) and (binder := _along(term.binders, term.body, names)):
        rest = replace(term, binders=tuple(b for b in term.binders if b != binder))
        return _folded(rest, _weights(term.body, binder, call, within), call, names, inside)
    if term.op == "sum" and isinstance(term.body, Arithmetic) and term.body.op in ("*", "/"):
        # What does not run with the binders leaves the sum, so that products of rows become one matrix product.
        left, right = term.body.left, term.body.right
        if not free(right) & inside.keys():
            return arithmetic(
                term.body.op, _reduce(replace(term, body=left), call, names), evaluate(right, call, names)
            )
        if term.body.op == "*" and not free(left) & inside.keys():
            return arithmetic("*", evaluate(left, call, names), _reduce(replace(term, body=right), call, names))
    return _folded(term, evaluate(term.body, call, within), call, names, inside)


def _folded(term: Reduce, body: Value, call: Call, names: Mapping[str, Domain], inside: Mapping[str, Domain]) -> Value:
    """A body reduced over each binder in turn."""
    for binder in term.binders:
        body = _fold(term.op, body, binder, call, names, inside[binder.name])
    return body


def _along(binders: Sequence[Binder], body: Softmax, names: Mapping[str, Domain]) -> Inside | None:
    """The binder that a softmax runs along, where it covers the whole axis, so that sums can be taken at once."""
    found = next((b for b in binders if isinstance(b, Inside) and b.name == body.along), None)
    return found if found and body.where is not None and names[found.outer].start == 0 else None


def _weights(term: Softmax, binder: Inside, call: Call, names: Mapping[str, Domain]) -> Value:
    """A softmax summed over the cells inside each cell of an axis."""
    assert term.where is not None
    outer, domain = names[binder.outer], names[term.along]
    ratio = outer.size // binder.size if outer.count > 1 else domain.count
    # Keys that the condition excludes for all of these queries are not even scored.
    seen = min(domain.count, -(-reach(term.where, term.along, call, names) // ratio) * ratio)
    names = {**names, term.along: replace(domain, count=max(1, seen))}
    factor, body = _peeled(term.body, call, names)
    others = tuple(axis for axis in body.axes if axis != term.along)
    others += tuple(axis for axis in names if axis in names_of(term.where) and axis not in body.axes)
    axes = (*(axis for axis in others if axis != term.along), term.along)
    sums = group_sums(body.over(axes), condition(term.where, call, names, axes), factor, ratio)
    sums = torch.nn.functional.pad(sums, (0, outer.count - sums.shape[-1]))
    return Value(sums, (*axes[:-1], binder.outer))


def reach(where: ir.Formula, along: str, call: Call, names: Mapping[str, Domain]) -> int:
    """Cells of an axis past which a condition fails for all other names' cells, by bounds."""
    heads = call.q.shape[1] * call.q.shape[2]
    boxes = {name: Interval(domain.start, domain.start + domain.count - 1) for name, domain in names.items()}
    boxes |= {"n": Interval(call.n, call.n), "m": Interval(call.n, call.n)}
    boxes |= {"h": Interval(0, heads - 1), "g": Interval(0, call.q.shape[1] - 1)}
    low, high = 0, names[along].count
    while low < high:
        middle = (low + high) // 2
        if verdict(where, {**boxes, along: Interval(middle, names[along].count - 1)}, {}).may:
            low = middle + 1
        else:
            high = middle
    return low


def _peeled(term: Term, call: Call, names: Mapping[str, Domain]) -> tuple[float, Value]:
    """A term as a positive number times a value: a softmax can multiply as it goes."""
    match term:
        case Arithmetic("*" | "/" as op, left, Number() | Scale() as right):
            number = call.scale if isinstance(right, Scale) else right.value
            if number > 0:
                factor, body = _peeled(left, call, names)
                return factor * number if op == "*" else factor / number, body
        case Read(name, places):
            indices = tuple(place.name for place in places if isinstance(place, ir.Var))
            score = next((s for s in call.program.scores if s.name == name), None)
            if score and any(_asks(call, axis) for axis in score.axes):
                own = {axis: names[index] for axis, index in zip(score.axes, indices, strict=True)}
                factor, body = _peeled(score.value, call, own)
                renamed = dict(zip(score.axes, indices, strict=True))
                return factor, replace(body, axes=tuple(renamed[axis] for axis in body.axes))
        case _:
            pass
    return 1.0, evaluate(term, call, names)


NEUTRAL = {"sum": 0.0, "mean": 0.0, "max": float("-inf"), "min": float("inf")}


def _fold(op: str, body: Value, binder: Binder, call: Call, names: Mapping[str, Domain], domain: Domain) -> Value:
    """Reduce over one name; a name inside an axis leaves that axis behind."""
    if not isinstance(binder, Inside):
        axis = 3 + body.axes.index(binder.name) if binder.name in body.axes else None
        left = tuple(name for name in body.axes if name != binder.name)
        if axis is None:
            return replace(body, tensor=body.tensor * domain.count if op == "sum" else body.tensor)
        return replace(body, tensor=apply(op, body.tensor, axis), axes=left)
    outer = names[binder.outer]
    # A cell may be larger than the sequence.
    ratio = outer.size // binder.size if outer.count > 1 else domain.count
    if binder.name not in body.axes:
        body = Value(body.over((*body.axes, binder.name)), (*body.axes, binder.name), body.vector)
        body = replace(
            body,
            tensor=body.tensor.expand(
                *(domain.count if i == 3 + len(body.axes) - 1 else s for i, s in enumerate(body.tensor.shape))
            ),
        )
    place = 3 + body.axes.index(binder.name)
    x, missing = body.tensor, outer.count * ratio - domain.count
    if missing:
        pad = list(x.shape)
        pad[place] = missing
        x = torch.cat([x, x.new_full(pad, NEUTRAL[op])], place)
    x = x.unflatten(place, (outer.count, ratio))
    x = apply("sum" if op == "mean" else op, x, place + 1)
    if op == "mean":
        there = torch.full((outer.count,), ratio, dtype=x.dtype, device=x.device)
        there[-1] = ratio - missing
        x = x / there.view(*(-1 if i == place else 1 for i in range(x.ndim)))
    return replace(body, tensor=x, axes=tuple(binder.outer if a == binder.name else a for a in body.axes))


def _softmax(term: Softmax, call: Call, names: Mapping[str, Domain]) -> Value:
    body = evaluate(term.body, call, names)
    if term.where is None:
        return replace(body, tensor=torch.softmax(body.tensor, 3 + body.axes.index(term.along)))
    free = tuple(axis for axis in names if axis in names_of(term.where))
    axes = tuple(dict.fromkeys((*body.axes, *free)))
    place = 3 + axes.index(term.along)
    x = body.over(axes)
    where = condition(term.where, call, names, axes)
    x = torch.where(where, x, float("-inf"))
    most = x.amax(place, keepdim=True)
    x = torch.exp(x - torch.where(most == float("-inf"), 0.0, most))
    total = x.sum(place, keepdim=True)
    return Value(x / torch.where(total == 0, 1.0, total), axes)


def condition(formula: ir.Formula, call: Call, names: Mapping[str, Domain], axes: Sequence[str]) -> torch.Tensor:
    """Where a condition over cells holds, as far as it depends on `axes`, broadcasting over them."""
    device = call.q.device
    groups, each = call.q.shape[1], call.q.shape[2]
    values = coordinates(names, axes, device) | {"n": call.n, "m": call.n}
    tail = [1] * len(axes)
    values["h"] = torch.arange(groups * each, device=device).view(groups, each, *tail)
    values["g"] = torch.arange(groups, device=device).view(groups, 1, *tail)
    found = torch.as_tensor(truth(formula, values, {}, TORCH), device=device)
    return found.view([1] * len(axes)) if found.ndim == 0 else found
