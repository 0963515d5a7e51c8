"""Scores of a dynamic pattern as tensors: products of rows become matrix products over views, on any device.

Values are laid out [batch, group, heads of the group, cells .., (row)]; an axis that a value does not depend on has no
place in it. Queries may be asked for in chunks, so that nothing of all queries by all keys need be stored.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, assert_never

import torch

from ..compiler import ir
from ..compiler.intervals import interval
from ..compiler.selection import (
    Apply,
    Arithmetic,
    ByHead,
    Choice,
    Count,
    Dot,
    Inside,
    Integer,
    Number,
    Program,
    Read,
    Reduce,
    Row,
    Scale,
    Score,
    Slice,
    Softmax,
    Term,
)
from ..compiler.walk import variables as names_of
from .diagonals import diagonal
from .map_call import mapped
from .map_sizes import reach, simpler, tied
from .named import Value, arithmetic, dot, sliced
from .reductions import reduced
from .score_call import Call, Chooser, Tiles, by_heads, condition, integer
from .views import Domain, full, rows, variables
from .weigh import group_sums
from .weigh_call import fused

Names = Mapping[str, Domain]


def _no_tiles(query: int, key: int) -> torch.Tensor:
    raise ValueError("candidates are not known here")


def _no_choice(choice: Choice, call: Call, rows: Domain) -> torch.Tensor:
    raise ValueError("choices are not known here")


def call_of(
    program: Program,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    givens: Mapping[str, torch.Tensor],
    tables: Mapping[str, torch.Tensor] | None = None,
    map_bytes: int = 1 << 28,
    tiles: Tiles = _no_tiles,
    chooser: Chooser = _no_choice,
    memory: dict[object, Any] | None = None,
) -> Call:
    """q `[B, H, m, D]`, k and v `[B, G, n, D]`, inputs `[B or 1, H or 1, cells ..]`; computed in fp32, or fp64."""
    batch, heads, m, width = q.shape
    groups, each = k.shape[1], heads // k.shape[1]
    exact = torch.float64 if q.dtype == torch.float64 else torch.float32
    vectors = {given.name for given in program.givens if given.vector}
    # Rows of 16 bits stay what they are: matrix units take them, and lose nothing.
    kept = {name for name in vectors if givens[name].dtype in (torch.float16, torch.bfloat16) and exact.itemsize == 4}
    spread = {
        # What all heads share is not made for each of them.
        name: (x if name in kept else x.to(exact)).unflatten(1, (groups, each) if x.shape[1] > 1 else (1, 1))
        for name, x in givens.items()
    }
    positions = torch.arange(k.shape[2], device=q.device)
    call = Call(
        program,
        q.reshape(batch, groups, each, m, width),
        k[:, :, None],
        v[:, :, None],
        scale,
        spread,
        tables or {},
        map_bytes,
        tiles,
        chooser,
        positions,
    )
    return call if memory is None else replace(call, memory=memory)


def evaluate(term: Term, call: Call, names: Names) -> Value:
    """The value of a term where each free name runs through its domain."""
    match term:
        case Number(value):
            return _constant(call, value)
        case Scale():
            return _constant(call, call.scale)
        case ByHead(values):
            if term not in call.memory:
                call.memory[term] = torch.tensor(values, dtype=call.exact, device=call.q.device)
            by_head: torch.Tensor = call.memory[term]
            return Value(by_head.view(1, *call.q.shape[1:3]))
        case Integer(value):
            axes = tuple(name for name in variables(value) if name in names)
            return Value(by_heads(integer(value, call, names, axes), len(axes)).to(call.exact), axes)
        case Row(source, index):
            return _row(source, index, call, names)
        case Read(name, indices):
            return _read(name, indices, call, names)
        case Arithmetic(op, left, right):
            if (found := mapped(term, call, names, evaluate)) is not None:
                return found
            return arithmetic(op, evaluate(left, call, names), evaluate(right, call, names))
        case Apply(function, operand):
            found = mapped(term, call, names, evaluate)
            return _applied(function, evaluate(operand, call, names)) if found is None else found
        case Slice(operand, first, last):
            return sliced(evaluate(operand, call, names), first, last)
        case Dot(left, right):
            if (found := mapped(term, call, names, evaluate)) is not None:
                return found
            return dot(evaluate(left, call, names), evaluate(right, call, names), ())
        case Reduce():
            found = fused(term, call, names, evaluate) or mapped(term, call, names, evaluate)
            return reduced(term, call, names, evaluate, _weights) if found is None else found
        case Softmax():
            found = fused(term, call, names, evaluate) or mapped(term, call, names, evaluate)
            return _softmax(term, call, names) if found is None else found
        case Count():
            return _count(term, call, names)
        case _:
            assert_never(term)


def _constant(call: Call, value: float) -> Value:
    """A number; each is put on the device once a call."""
    key = ("number", value)
    if key not in call.kept:
        call.kept[key] = Value(torch.full((1, 1, 1), value, dtype=call.exact, device=call.q.device))
    return call.kept[key]


def _applied(function: str, inner: Value) -> Value:
    x = inner.tensor.float() if inner.tensor.dtype.itemsize == 2 else inner.tensor
    functions = {"negate": torch.neg, "probit": torch.special.ndtri}
    return replace(inner, tensor=functions.get(function, getattr(torch, function, torch.neg))(x))


def _row(source: str, index: ir.Expr, call: Call, names: Names) -> Value:
    known = {"n": call.n, "m": call.m}
    match index:
        case ir.Var(name) if source != "Q" and name in names and names[name].order:
            # Rows of keys by place: each head has an order of its own.
            domain = names[name]
            key = call.orders[domain.order].key_of[..., domain.start : domain.start + domain.count].long()
            x = {"K": call.k, "V": call.v}[source].expand(*key.shape[:3], -1, -1)
            return Value(x.gather(3, key[..., None].expand(*key.shape, x.shape[4])), (name,), True)
        case _:
            pass
    if source == "Q" and call.m < call.n:
        index = ir.Binary("-", index, ir.Const(call.n - call.m))
    return rows({"Q": call.q, "K": call.k, "V": call.v}[source], index, names, known, call.positions)


def _count(term: Count, call: Call, names: Names) -> Value:
    """How many cells a choice keeps."""
    query = term.chosen.query
    cells = names[query] if query else Domain(0, 1, call.n)
    key = (term, cells)
    if key not in call.recent:
        found = call.chooser(term.chosen, replace(call, recent={}), cells).sum(-1).to(call.exact)
        call.recent[key] = Value(found, (query,)) if query else Value(found[..., 0])
    return call.recent[key]


def _read(name: str, places: tuple[ir.Expr, ...], call: Call, names: Names) -> Value:
    """A score at names that count its cells, which renames its axes; elsewhere its cells are gathered."""
    owner = next(one for one in (*call.program.scores, *call.program.givens) if one.name == name)
    own: dict[str, Domain] = {}
    renamed: dict[str, str] = {}
    along = _along(owner, call) if isinstance(owner, Score) else frozenset[str]()
    for axis, place in zip(owner.axes, places, strict=True):
        whole = call.domain(axis)
        if isinstance(place, ir.Var) and place.name in names:
            found = names[place.name]
            if whole.start <= found.start and found.start + found.count <= whole.start + whole.count:
                own[axis] = whole.part(found.start, found.count)
                renamed[axis] = place.name
                continue
        box = interval(place, call.boxes(names), {})
        first = min(max(box.low, whole.start), whole.start + whole.count - 1)
        last = min(max(box.high, first), whole.start + whole.count - 1)
        # A softmax takes the work of all of its axis.
        own[axis] = whole if axis in along else whole.part(first, last - first + 1)
    value = _cells(name, own, call)
    taken = {axis: place for axis, place in zip(owner.axes, places, strict=True) if axis not in renamed}
    # A name that also takes part in another index is one of the gathered places.
    mentioned = {x for place in taken.values() for x in variables(place)}
    twice = {x for x in renamed.values() if list(renamed.values()).count(x) > 1}
    taken |= {axis: ir.Var(x) for axis, x in renamed.items() if x in mentioned | twice}
    # An axis whose cells are taken may be called like a name of another's.
    called = {axis: f"{axis} of {name}" if axis in taken else renamed[axis] for axis in owner.axes}
    value = replace(value, axes=tuple(called[axis] for axis in value.axes))
    if not taken:
        return value
    indices = {called[axis]: place for axis, place in taken.items()}
    cells = {called[axis]: domain for axis, domain in own.items()}
    found = diagonal(value, indices, cells, names, {"n": call.n, "m": call.m})
    return _gathered(value, indices, cells, call, names) if found is None else found


def _along(score: Score, call: Call) -> frozenset[str]:
    """The axes of a score that a softmax in it runs along."""
    key = ("tied", score.name)
    if key not in call.memory:
        call.memory[key] = tied(score.value, call)
    return call.memory[key]


def _cells(name: str, own: Names, call: Call) -> Value:
    """A score, or an input, for some cells of its axes; what keys alone give is kept for the call."""
    given = next((given for given in call.program.givens if given.name == name), None)
    if given is not None:
        x = call.givens[name]
        for place, (axis, domain) in enumerate(own.items()):
            found = call.axis(axis)
            first = call.domain(axis).start if found is not None and found.last else 0
            x = x.narrow(3 + place, domain.start - first, domain.count)
        return Value(x, given.axes, given.vector)
    score = next(score for score in call.program.scores if score.name == name)
    lasting = all(domain.side != "q" and domain == call.domain(axis) for axis, domain in own.items())
    store = call.kept if lasting else call.recent
    key = (name, *own.values())
    if key not in store:
        store[key] = evaluate(score.value, call, own)
    return store[key]


def _gathered(value: Value, taken: Mapping[str, ir.Expr], own: Names, call: Call, names: Names) -> Value:
    """The cells at integers of names, 0 where there is none; the names take the place of the axes."""
    new = tuple(dict.fromkeys(x for place in taken.values() for x in variables(place) if x in names))
    kept = tuple(axis for axis in value.axes if axis not in taken)
    along = tuple(axis for axis in taken if axis in value.axes)
    outside: torch.Tensor | None = None
    cells: dict[str, torch.Tensor] = {}
    for axis, place in taken.items():
        domain = own[axis]
        found = integer(place, call, names, new) - domain.start
        box = interval(place, call.boxes(names), {})
        if box.low < domain.start or box.high >= domain.start + domain.count:
            wrong = (found < 0) | (found >= domain.count)
            outside = wrong if outside is None else outside | wrong
            found = found.clamp(0, domain.count - 1)
        cells[axis] = found
    x = value.over((*along, *kept))
    if along:
        x = x[(slice(None), slice(None), slice(None), *torch.broadcast_tensors(*(cells[axis] for axis in along)))]
    else:
        x = x.view(*x.shape[:3], *[1] * len(new), *x.shape[3:])
    if outside is not None:
        x = torch.where(outside.view((*outside.shape, *[1] * (len(kept) + value.vector))), 0.0, x)
    return Value(x, (*new, *kept), value.vector)


def _weights(term: Softmax, binder: Inside, call: Call, names: Names) -> Value:
    """A softmax summed over the cells inside each cell of an axis."""
    assert term.where is not None
    outer, domain = names[binder.outer], names[term.along]
    ratio = outer.size // binder.size if outer.count > 1 else domain.count
    # Keys that the condition excludes for all of these queries are not even scored.
    seen = min(domain.count, -(-reach(term.where, term.along, call, names) // ratio) * ratio)
    names = {**names, term.along: domain.part(domain.start, max(1, seen))}
    factor, body = _peeled(term.body, call, names)
    others = tuple(axis for axis in body.axes if axis != term.along)
    others += tuple(axis for axis in names if axis in names_of(term.where) and axis not in body.axes)
    axes = (*(axis for axis in others if axis != term.along), term.along)
    where = by_heads(condition(term.where, call, names, axes), len(axes))
    where = where.view(where.shape[3:]) if where.shape[:3].numel() == 1 else where
    sums = group_sums(full(body, axes, names), where, factor, ratio)
    sums = torch.nn.functional.pad(sums, (0, outer.count - sums.shape[-1]))
    return Value(sums, (*axes[:-1], binder.outer))


def _peeled(term: Term, call: Call, names: Names) -> tuple[float, Value]:
    """A term as a positive number times a value: a softmax can multiply as it goes."""
    match term:
        case Arithmetic("*" | "/" as op, left, Number() | Scale() as right):
            number = call.scale if isinstance(right, Scale) else right.value
            if number > 0:
                factor, body = _peeled(left, call, names)
                return factor * number if op == "*" else factor / number, body
        case Read(name, places):
            score = next((s for s in call.program.scores if s.name == name), None)
            indices = [place.name for place in places if isinstance(place, ir.Var)]
            plain = score is not None and len(set(indices)) == len(places) and all(x in names for x in indices)
            if score and plain and any(call.domain(axis).side == "q" for axis in score.axes):
                pairs = tuple(zip(score.axes, indices, strict=True))
                own = {a: call.domain(a).part(names[x].start, names[x].count) for a, x in pairs}
                factor, body = _peeled(score.value, call, own)
                renamed = dict(pairs)
                return factor, replace(body, axes=tuple(renamed[axis] for axis in body.axes))
        case _:
            pass
    return 1.0, evaluate(term, call, names)


def _softmax(term: Softmax, call: Call, names: Names) -> Value:
    """A softmax of the whole axis, or of each cell where a bound name is no axis; what was asked of it."""
    asked = names[term.along]
    whole = call.domain(term.along) if call.axis(term.along) else asked
    seen = whole
    if term.where is not None and not asked.within:
        seen = whole.part(whole.start, max(1, reach(term.where, term.along, call, {**names, term.along: whole})))
    inner = {**names, term.along: seen}
    body = evaluate(term.body, call, inner)
    where = None if term.where is None else simpler(term.where, call, inner)
    mentioned = frozenset[str]() if term.where is None else names_of(term.where)
    axes = (*dict.fromkeys(x for x in (*body.axes, *names) if x in (*body.axes, *mentioned) and x != term.along),)
    axes = (*axes, term.along)
    x = full(body, axes, inner)
    if where is not None and where != ir.Truth(True):
        x = torch.where(by_heads(condition(where, call, inner, axes), len(axes)), x, float("-inf"))
    if call.axis(term.along) or not asked.within:
        out = _normal(x)
        missing = whole.count - seen.count
        out = torch.nn.functional.pad(out, (0, missing)) if missing else out
        if asked != whole:
            out = out.narrow(-1, asked.start - whole.start, asked.count)
    else:
        front = asked.start % asked.within
        padded = torch.nn.functional.pad(x, (front, -(front + asked.count) % asked.within), value=float("-inf"))
        out = _normal(padded.unflatten(-1, (-1, asked.within))).flatten(-2).narrow(-1, front, asked.count)
    return Value(out, axes)


def _normal(x: torch.Tensor) -> torch.Tensor:
    """The softmax along the last axis; zeros where all is minus infinity."""
    most = x.amax(-1, keepdim=True)
    x = torch.exp(x - torch.where(most == float("-inf"), 0.0, most))
    total = x.sum(-1, keepdim=True)
    return x.div_(torch.where(total == 0, 1.0, total))
