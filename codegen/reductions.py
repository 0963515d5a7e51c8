"""Reductions: what need not run with the binders is left out, the rest comes in pieces that fit."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, assert_never

import torch

from ..compiler import ir
from ..compiler.lower_term import free
from ..compiler.selection import (
    Arithmetic,
    Dot,
    Heads,
    Inside,
    Number,
    Read,
    Reduce,
    Scale,
    Softmax,
    Term,
    Whole,
)
from ..compiler.terms import replaced, within
from ..compiler.walk import variables as names_of
from . import folds
from .map_sizes import footprint, inner_names, masked_size, simpler, spans, tied
from .named import Value, arithmetic, dot, together
from .score_call import Call, by_heads, condition
from .some_groups import separate, some_groups
from .some_groups import together as side_by_side
from .views import Domain, affine, full

Names = Mapping[str, Domain]
Evaluate = Callable[[Term, Call, Names], Value]
# A softmax summed over the cells inside each cell of an axis.
Weigh = Callable[[Softmax, Inside, Call, Names], Value]


def reduced(term: Reduce, call: Call, names: Names, evaluate: Evaluate, weigh: Weigh) -> Value:
    """The value of a reduction."""
    term = _own(term, {**names, **inner_names(term.binders, call, names)})
    heads = [binder for binder in term.binders if isinstance(binder, Heads)]
    if heads:
        rest = replace(term, binders=tuple(b for b in term.binders if not isinstance(b, Heads)))
        plain = not rest.binders and rest.where is None
        value = evaluate(rest.body, call, names) if plain else reduced(rest, call, names, evaluate, weigh)
        return folds.heads(term.op, value, heads[0].group, call.q.shape[1:3])
    if term.op == "mean":
        total = evaluate(replace(term, op="sum"), call, names)
        held = {binder.outer for binder in term.binders if isinstance(binder, Inside)}
        if term.where is not None or any(isinstance(b, Whole) and b.name in held for b in term.binders):
            count = replace(term, op="sum", body=Number(1.0))
            return arithmetic("/", total, _at_least_one(reduced(count, call, names, evaluate, weigh)))
        even = _even_count(term, call, names)
        # The division by a power of two is exact.
        if even and even & (even - 1) == 0:
            return replace(total, tensor=total.tensor / even)
        return arithmetic("/", total, _counts(term, call, names))
    if (found := _without_factor(term, call)) is not None:
        left, right, op = found
        return arithmetic(op, evaluate(left, call, names), evaluate(right, call, names))

    def leaf(term: Reduce, call: Call, names: Names, inner: Names) -> Value:
        return _leaf(term, call, names, inner, evaluate, weigh)

    _shared(term, call, names, evaluate)
    return _pieces(term, call, names, {}, leaf)


def _shared(term: Reduce, call: Call, names: Names, evaluate: Evaluate) -> None:
    """Scores that the pieces of a fold would each make again are made first: those that lack one of its names."""
    known = {**names, **inner_names(term.binders, call, names)}
    most = {name for name in free(term.body) if name in known}
    for part in within(term.body):
        if (
            isinstance(part, Read)
            and free(part) < most
            and _bytes(footprint(part, call, known), call) <= call.map_bytes
        ):
            evaluate(part, call, known)


def _own(term: Reduce, known: Names) -> Reduce:
    """Where a body mentions the very cell whose inside is run through, that is the cell the inner name lies in."""
    for binder in term.binders:
        if isinstance(binder, Inside) and binder.outer in free(term.body) | names_of(term.where or ir.Truth(True)):
            ratio = known[binder.outer].size // binder.size
            value = ir.Binary("//", ir.Var(binder.name), ir.Const(ratio)) if ratio > 1 else ir.Var(binder.name)
            whole = replaced(replace(term, binders=()), binder.outer, value)
            assert isinstance(whole, Reduce)
            term = replace(whole, binders=term.binders)
    return term


def _at_least_one(value: Value) -> Value:
    return replace(value, tensor=value.tensor.clamp(min=1))


def _even_count(term: Reduce, call: Call, names: Names) -> int | None:
    """How many items there are, if they are as many for all cells."""
    inner, count = inner_names(term.binders, call, names), 1
    known = {**names, **inner}
    for binder in term.binders:
        domain = known[binder.name]
        if isinstance(binder, Inside):
            outer = known[binder.outer]
            if (domain.start, domain.count) != (outer.start * domain.within, outer.count * domain.within):
                return None
        count *= domain.within if isinstance(binder, Inside) else max(1, domain.count)
    return count


def _counts(term: Reduce, call: Call, names: Names) -> Value:
    """How many items there are, for each cell of the axes that binders lie inside."""
    inner = inner_names(term.binders, call, names)
    known = {**names, **inner}
    one = torch.ones((), dtype=call.exact, device=call.q.device)
    out = Value(one.view(1, 1, 1))
    chained = {binder.outer for binder in term.binders if isinstance(binder, Inside)}
    for binder in term.binders:
        if isinstance(binder, Inside) and binder.name not in chained:
            domain, outer = inner[binder.name], binder.outer
            while (above := next((b for b in term.binders if b.name == outer), None)) is not None:
                assert isinstance(above, Inside)
                outer, domain = above.outer, replace(domain, within=domain.within * inner[above.name].within)
            held = folds.existing(domain, known[outer], one)
            out = arithmetic("*", out, Value(held.view(1, 1, 1, -1), (outer,)))
        elif not isinstance(binder, Inside):
            out = replace(out, tensor=out.tensor * max(1, inner[binder.name].count))
    return out


def _without_factor(term: Reduce, call: Call) -> tuple[Reduce, Term, str] | None:
    """A reduction, and what it is multiplied with or divided by afterwards, as it does not run with the binders."""
    match term.body:
        case Arithmetic("*" | "/" as op, left, right):
            bound = {binder.name for binder in term.binders}
            if _leaves(term.op, right, bound, call):
                return replace(term, body=left), right, op
            if op == "*" and _leaves(term.op, left, bound, call):
                return replace(term, body=right), left, op
        case _:
            pass
    return None


def _leaves(op: str, factor: Term, bound: set[str], call: Call) -> bool:
    """Whether a fold of products with a factor is the fold of the rest times it."""
    match factor:
        case Number(value):
            return op == "sum" or value > 0
        case Scale():
            return op == "sum" or call.scale > 0
        case _:
            return op == "sum" and not free(factor) & bound


def _pieces(
    term: Reduce, call: Call, names: Names, cut: Names, leaf: Callable[[Reduce, Call, Names, Names], Value]
) -> Value:
    """The fold, cut along a free name or a plain binder where its map would be too large; `cut` narrows binders."""
    inner = {**inner_names(term.binders, call, names), **cut}
    key = (term, call.q.shape[1], tuple(names.items()), tuple(cut.items()))
    if key not in call.memory:
        call.memory[key] = _plan(term, call, names, inner)
    plan: Plan = call.memory[key]
    match plan.kind:
        case "leaf":
            return leaf(term, call, names, inner)
        case "runs":
            found = (leaf(term, call, names, {**inner, plan.name: part}) for part in plan.parts)
            return folds.joined(term.op, list(found))
        case "groups":
            calls = (some_groups(call, part.start, part.count, _small(call)) for part in plan.parts)
            found = [_pieces(term, one, names, cut, leaf) for one in calls]
            return side_by_side(found, [part.count for part in plan.parts])
        case "rows":
            once = _small(call)
            calls = ((replace(call, recent=dict(once)), {**names, plan.name: part}) for part in plan.parts)
            return folds.beside([_pieces(term, one, narrowed, cut, leaf) for one, narrowed in calls], plan.name)
        case "items":
            once = _small(call)
            calls = ((replace(call, recent=dict(once)), {**cut, plan.name: part}) for part in plan.parts)
            return folds.joined(term.op, [_pieces(term, one, names, narrowed, leaf) for one, narrowed in calls])
        case _:
            assert_never(plan.kind)


def _small(call: Call) -> dict[object, Value]:
    """What was made for all pieces, where it is small."""
    fits = call.map_bytes // 8
    return {key: x for key, x in call.recent.items() if x.tensor.numel() * x.tensor.element_size() <= fits}


@dataclass(frozen=True, slots=True)
class Plan:
    """A fold at once; in runs of a binder where its condition may hold; for parts of a free name, of the key/value
    groups, or of a binder.
    """

    kind: Literal["leaf", "runs", "rows", "groups", "items"]
    name: str = ""
    parts: tuple[Domain, ...] = ()


def _plan(term: Reduce, call: Call, names: Names, inner: Names) -> Plan:
    needed = _needed(term, call, names, inner)
    if needed > min(call.map_bytes, call.piece_bytes):
        fixed = tied(term.body, call)
        fixed |= {b.outer for b in term.binders if isinstance(b, Inside) and b.name in fixed}
        used = free(term) | free(term.body) | names_of(term.where or ir.Truth(True))
        rows = [name for name in names if name in used and name not in fixed and names[name].count > 1]
        groups = call.q.shape[1]
        if rows and needed > call.map_bytes:
            name = max(rows, key=lambda x: names[x].count)
            return Plan("rows", name, _cuts(term, call, names, inner, name))
        # Where no queries can be left out at a time, the map is all there is to hold.
        if not rows and groups > 1 and separate(term, call):
            step = max(1, groups * call.piece_bytes // needed)
            parts = tuple(Domain(first, min(step, groups - first), 0) for first in range(0, groups, step))
            return Plan("groups", "", parts)
        items = [b.name for b in term.binders if not isinstance(b, Inside | Heads) and b.name not in fixed]
        items = [name for name in items if inner[name].count > 1]
        if items and needed > call.map_bytes:
            name = max(items, key=lambda x: inner[x].count)
            return Plan("items", name, _cuts(term, call, names, inner, name))
    runs = _runs(term, call, {**names, **inner}) if term.where is not None else None
    return Plan("leaf") if runs is None else Plan("runs", *runs)


def _cuts(term: Reduce, call: Call, names: Names, inner: Names, name: str) -> tuple[Domain, ...]:
    """Parts of a name's cells that fit, each a half of a half."""
    out: list[Domain] = []
    left = [names[name] if name in names else inner[name]]
    while left:
        part = left.pop()
        narrowed = {**names, name: part} if name in names else names
        within = {**inner_names(term.binders, call, narrowed), **{x: d for x, d in inner.items() if not d.within}}
        within = within if name in names else {**within, name: part}
        if part.count == 1 or _needed(term, call, narrowed, within) <= call.map_bytes:
            out.append(part)
        else:
            half = 1 << ((part.count - 1).bit_length() - 1)
            left += [part.part(part.start + half, part.count - half), part.part(part.start, half)]
    return tuple(out)


def _needed(term: Reduce, call: Call, names: Names, inner: Names) -> int:
    """Bytes of the map behind a fold."""
    if _contracts(term):
        inner = {name: domain.part(domain.start, 1) for name, domain in inner.items()}
    known = {**names, **inner}
    if term.where is not None and (runs := _runs(term, call, known)) is not None:
        name, parts = runs
        known[name] = known[name].part(parts[0].start, max(part.count for part in parts))
    size = max(footprint(term.body, call, known), masked_size(term.body, term.where, known))
    return _bytes(size, call)


def _bytes(size: int, call: Call) -> int:
    return size * call.q.shape[0] * call.heads * call.exact.itemsize


def _contracts(term: Reduce) -> bool:
    """Whether a fold is one product of matrices."""
    inside = any(isinstance(binder, Inside) for binder in term.binders)
    return term.op == "sum" and term.where is None and not inside and isinstance(term.body, Dot)


def _runs(term: Reduce, call: Call, names: Names) -> tuple[str, tuple[Domain, ...]] | None:
    """The longest binder that the condition limits, and the parts where it may hold."""
    assert term.where is not None
    fixed, mentioned = tied(term.body, call), names_of(term.where)
    plain = [b.name for b in term.binders if not isinstance(b, Inside) and b.name in mentioned - fixed]
    if not plain:
        return None
    name = max(plain, key=lambda x: names[x].count)
    found = spans(term.where, name, call, names)
    # Where it holds nowhere, one cell says what the rest looks like.
    return name, found or (names[name].part(names[name].start, 1),)


def _leaf(term: Reduce, call: Call, names: Names, inner: Names, evaluate: Evaluate, weigh: Weigh) -> Value:
    """A fold that fits."""
    known = {**names, **inner}
    if _contracts(term):
        assert isinstance(term.body, Dot)
        left, right = evaluate(term.body.left, call, known), evaluate(term.body.right, call, known)
        # A name that neither row depends on counts the product as often as it runs.
        times = math.prod(inner[b.name].count for b in term.binders if b.name not in together(left, right))
        run = tuple(b.name for b in term.binders if b.name in together(left, right))
        found = dot(left, right, run)
        return found if times == 1 else replace(found, tensor=found.tensor * times)
    binders = term.binders
    if term.op == "sum" and term.where is None and isinstance(term.body, Softmax):
        along = next((b for b in binders if isinstance(b, Inside) and b.name == term.body.along), None)
        if along and term.body.where is not None and _whole(along, call, names):
            binders = tuple(binder for binder in binders if binder != along)
            return _folded(replace(term, binders=binders), weigh(term.body, along, call, known), known)
    term, turned = _forwards(term, call, names, inner)
    body = evaluate(term.body, call, known)
    if term.where is not None:
        body = _where(term.where, body, term, call, known)
    return folds.turned(_folded(term, body, known), turned)


def _forwards(term: Reduce, call: Call, names: Names, inner: Names) -> tuple[Reduce, frozenset[str]]:
    """A fold of what is read backwards along names, as `row[t, t - d]`, as one of what is read forwards.

    The free names among them, along which the result runs backwards: it is smaller than the map it is made of.
    """
    if not isinstance(term.body, Read) or term.where is not None:
        return term, frozenset()
    steps = [affine(index, {"n": call.n, "m": call.m}) or {} for index in term.body.indices]
    around = {binder.outer for binder in term.binders if isinstance(binder, Inside)}
    plain = {name for name in (*names, *inner) if name not in around and not (name in inner and inner[name].within)}
    back = {x for x in plain if min((each.get(x, 0) for each in steps), default=0) < 0}
    back -= {x for x in plain if any(each.get(x, 0) > 0 for each in steps)}
    body: Term = term.body
    for name in back:
        domain = {**names, **inner}[name]
        body = replaced(body, name, ir.Binary("-", ir.Const(2 * domain.start + domain.count - 1), ir.Var(name)))
    return replace(term, body=body), frozenset(back - inner.keys())


def _whole(along: Inside, call: Call, names: Names) -> bool:
    """Whether a softmax along a bound name is one along an axis, all of which the name runs through."""
    axes = call.axis(along.name) and call.axis(along.outer)
    return axes is not None and names[along.outer] == call.domain(along.outer)


def _where(where: ir.Formula, body: Value, term: Reduce, call: Call, names: Names) -> Value:
    """A body with what the fold leaves out where a condition fails."""
    axes = tuple(dict.fromkeys((*body.axes, *(name for name in names if name in names_of(where)))))
    x = full(body, axes, names)
    where = simpler(where, call, names)
    if where != ir.Truth(True):
        met = by_heads(condition(where, call, names, axes), len(axes))
        x = torch.where(met[..., None] if body.vector else met, x, folds.NEUTRAL[term.op])
    return Value(x, axes, body.vector)


def _folded(term: Reduce, body: Value, names: Names) -> Value:
    """A body reduced over each binder in turn, inner ones first."""
    for binder in reversed(term.binders):
        domain = names[binder.name]
        if not isinstance(binder, Inside):
            body = folds.plain(term.op, body, binder.name, domain.count)
            continue
        if binder.name not in body.axes:
            axes = (*body.axes, binder.name)
            shape = [-1] * (2 + len(axes)) + [domain.count] + [-1] * body.vector
            body = Value(body.over(axes).expand(shape), axes, body.vector)
        around = (binder.name, binder.outer)
        fold = folds.descended if term.op == "descend" else None
        outer = names[binder.outer]
        body = fold(body, around, domain, outer) if fold else folds.cells(term.op, body, around, domain, outer)
    return body
