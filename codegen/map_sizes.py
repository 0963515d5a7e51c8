"""How large the maps of scores are that a term needs, and which cells a condition leaves: before any tensor is made."""

import math
from collections.abc import Mapping

import numpy as np

from ..compiler import ir
from ..compiler.expand import NUMPY
from ..compiler.intervals import Interval, verdict
from ..compiler.lower_term import free, is_vector
from ..compiler.selection import Binder, Inside, Read, Reduce, Row, Softmax, Term
from ..compiler.terms import children
from ..compiler.walk import variables as names_of
from .score_call import Call
from .views import Domain, affine, variables
from .weigh_fused import suits
from .weigh_match import described

Names = Mapping[str, Domain]

# Runs of cells that a condition is looked at in.
RUNS = 256


def spans(where: ir.Formula, name: str, call: Call, names: Names) -> tuple[Domain, ...]:
    """The cells of a name for which a condition may hold, by bounds of all other names; in order."""
    domain = names[name]
    step = -(-domain.count // RUNS)
    low = domain.start + np.arange(0, domain.count, step)
    high = np.minimum(low + step, domain.start + domain.count)
    found = verdict(where, {**call.boxes(names), name: Interval(low, high - 1)}, {}, NUMPY).may
    may = np.broadcast_to(np.asarray(found, dtype=bool), low.shape)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], may.astype(np.int8), [0]))))
    return tuple(domain.part(int(low[a]), int(high[b - 1] - low[a])) for a, b in edges.reshape(-1, 2))


def reach(where: ir.Formula, along: str, call: Call, names: Names) -> int:
    """Cells of an axis past which a condition fails for all other names' cells, by bounds."""
    found = spans(where, along, call, names)
    return found[-1].start + found[-1].count - names[along].start if found else 0


def simpler(where: ir.Formula, call: Call, names: Names) -> ir.Formula:
    """A condition without what holds, or fails, for all these cells."""
    known = verdict(where, call.boxes(names), {})
    if known.must or not known.may:
        return ir.Truth(bool(known.must))
    match where:
        case ir.And(items):
            return ir.conjunction(tuple(simpler(item, call, names) for item in items))
        case ir.Or(items):
            return ir.disjunction(tuple(simpler(item, call, names) for item in items))
        case _:
            return where


def inner_names(binders: tuple[Binder, ...], call: Call, names: Names) -> dict[str, Domain]:
    """What binders run through; later ones may lie inside earlier ones."""
    out: dict[str, Domain] = {}
    for binder in binders:
        domain = call.inner(binder, {**names, **out})
        if domain is not None:
            out[binder.name] = domain
    return out


def tied(term: Term, call: Call, known: dict[str, frozenset[str]] | None = None) -> frozenset[str]:
    """Names of which pieces would each take the work of all: a softmax runs along them; `known` is that of scores."""
    known = {} if known is None else known
    match term:
        case Read(name, indices):
            score = next((score for score in call.program.scores if score.name == name), None)
            if score is None:
                return frozenset()
            if name not in known:
                known[name] = tied(score.value, call, known)
            along = known[name]
            pairs = tuple(zip(score.axes, indices, strict=True))
            # A name that is a whole index besides cuts the score too.
            cuts = {index.name for axis, index in pairs if isinstance(index, ir.Var) and axis not in along}
            return frozenset(x for axis, index in pairs if axis in along for x in variables(index)) - cuts
        case Reduce(_, binders, body):
            inner = tied(body, call, known)
            around = {binder.outer for binder in binders if isinstance(binder, Inside) and binder.name in inner}
            return (inner | around) - {binder.name for binder in binders}
        case Softmax(body, along):
            return tied(body, call, known) | {along}
        case _:
            return frozenset[str]().union(*(tied(child, call, known) for child in children(term)))


def footprint(term: Term, call: Call, names: Names, known: dict[object, int] | None = None) -> int:
    """Numbers, for each head, of the largest tensor that a term makes; what reductions in it need is cut on its own.

    `known` is that of scores for their cells.
    """
    known = {} if known is None else known
    vectors = {one.name: one.vector for one in (*call.program.scores, *call.program.givens)}
    match term:
        case Reduce() | Softmax() if suits(call.q, call.k, call.v) and described(term, call):
            # The fused kernels hold no map but the one they make.
            return _size(free(term), names, 1)
        case Row(_, index) if affine(index, {"n": 1, "m": 1}) is not None and not _places(index, names):
            return 0
        case Softmax(body, along, where):
            whole = {**names, along: call.domain(along) if call.axis(along) else names[along]}
            if where is not None:
                whole[along] = whole[along].part(whole[along].start, max(1, reach(where, along, call, whole)))
            return max(footprint(body, call, whole, known), _size(free(term), whole, 1))
        case Reduce():
            return _size(free(term), names, call.q.shape[4] if is_vector(term, vectors) else 1)
        case Read(name, indices):
            score = next((score for score in call.program.scores if score.name == name), None)
            own = _size(free(term), names, call.q.shape[4] if vectors[name] else 1)
            if score is None:
                return own
            inside = {
                axis: names[index.name] if isinstance(index, ir.Var) and index.name in names else call.domain(axis)
                for axis, index in zip(score.axes, indices, strict=True)
            }
            key = (name, *inside.values())
            if key in call.kept:
                return own
            if key not in known:
                known[key] = footprint(score.value, call, inside, known)
            return max(own, known[key])
        case _:
            own = _size(free(term), names, call.q.shape[4] if is_vector(term, vectors) else 1)
            return max(own, *(footprint(child, call, names, known) for child in children(term)), 0)


def _places(index: ir.Expr, names: Names) -> bool:
    return isinstance(index, ir.Var) and index.name in names and bool(names[index.name].order)


def _size(axes: frozenset[str], names: Names, width: int) -> int:
    return width * math.prod(names[axis].count for axis in axes if axis in names)


def masked_size(body: Term, where: ir.Formula | None, names: Names) -> int:
    """Numbers of the map of what a condition leaves of a body, which may have names that the body lacks."""
    return 0 if where is None else _size(free(body) | names_of(where), names, 1)
