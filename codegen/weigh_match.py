"""Which terms are sums of softmaxes of products of rows, as `weigh_fused` computes them: read off the IR."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ..compiler import ir
from ..compiler.evaluate import INTEGERS, number
from ..compiler.lower_term import free
from ..compiler.selection import (
    Apply,
    Arithmetic,
    Below,
    Binder,
    Dot,
    Heads,
    Inside,
    Last,
    Number,
    Program,
    Read,
    Reduce,
    Row,
    Scale,
    Score,
    Softmax,
    Term,
    Whole,
)
from ..compiler.walk import parts
from .score_call import Call
from .views import affine, variables
from .weigh_fused import Affine

# n and m.
Known = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Tokens:
    """For cell c, r = 0, 1, ..: the rows of tokens `cell * c + step * r + first`."""

    source: Literal["Q", "K", "V"]
    cell: int
    step: int
    first: int


@dataclass(frozen=True, slots=True)
class Made:
    """Rows that a term gives for each cell of the name that it depends on."""

    term: Term
    name: str


@dataclass(frozen=True, slots=True)
class Match:
    """Sums of `softmax(number * scale ** scales * (sum over r < steps of left . right) over along where ..)`.

    `rows` and `columns` are the binders that the sums run through, of names `query` and `along`; None leaves that name
    as it is.
    """

    left: Tokens | Made
    right: Tokens | Made
    query: str
    along: str
    number: float
    scales: int
    steps: int
    where: Affine | None
    rows: Inside | Last | Whole | None = None
    columns: Inside | None = None
    heads: bool = False


@dataclass(frozen=True, slots=True)
class _Product:
    """A product of rows, with what multiplies it, and what its names are called outside."""

    left: Term
    right: Term
    names: Mapping[str, str]
    number: float = 1.0
    scales: int = 0
    below: Below | None = None


def matched(term: Term, program: Program, n: int, m: int) -> Match | None:
    """The description of a term for n tokens and m queries, if it is one that the fused kernels compute."""
    known = {"n": n, "m": m}
    match term:
        case Softmax():
            return _softmax(term, program, known, {})
        case Reduce("sum", binders, body, None):
            names = dict[str, str]()
            if isinstance(body, Read) and (score := _score(body, program)):
                body, names = score.value, _renamed(score.axes, body, {})
            found = _softmax(body, program, known, names) if isinstance(body, Softmax) else None
            return found and _summed(found, binders)
        case _:
            return None


def described(term: Term, call: Call) -> Match | None:
    """The same for a call, found once for calls of its shape."""
    key = ("weighed", term)
    if key not in call.memory:
        call.memory[key] = matched(term, call.program, call.n, call.m)
    return call.memory[key]


def _summed(found: Match, binders: tuple[Binder, ...]) -> Match | None:
    """The description with each binder at its place, if each has one."""
    for binder in binders:
        match binder:
            case Inside(name) if name == found.along and found.columns is None:
                found = replace(found, columns=binder)
            case Inside(name) | Last(name) | Whole(name) if name == found.query and found.rows is None:
                found = replace(found, rows=binder)
            case Heads(True) if not found.heads:
                found = replace(found, heads=True)
            case _:
                return None
    return found


def _softmax(term: Softmax, program: Program, known: Known, names: Mapping[str, str]) -> Match | None:
    axis = next((axis for axis in program.axes if axis.name == term.along), None)
    along = names.get(term.along, term.along)
    product = _product(term.body, program, names)
    if axis is None or product is None:
        return None
    first, second = (_side(side, product, known, bool(axis.order)) for side in (product.left, product.right))
    if first is None or second is None:
        return None
    (query, left), (key, right) = (second, first) if first[0] == along else (first, second)
    if key != along or query == along:
        return None
    where = None
    if term.where is not None:
        where = _condition(term.where, query, along, names, known)
        if where is None:
            return None
    steps = product.below.count if product.below else 1
    return Match(left, right, query, along, product.number, product.scales, steps, where)


def _product(term: Term, program: Program, names: Mapping[str, str]) -> _Product | None:
    """A term as numbers times a sum of products of rows."""
    match term:
        case Dot(left, right):
            return _Product(left, right, names)
        case Arithmetic("*", Number() | Scale() as by, body) | Arithmetic("*" | "/", body, Number() | Scale() as by):
            inner, over = _product(body, program, names), term.op == "/"
            if inner is None or by == Number(0.0):
                return None
            if isinstance(by, Scale):
                return replace(inner, scales=inner.scales + (-1 if over else 1))
            return replace(inner, number=inner.number / by.value if over else inner.number * by.value)
        case Apply("negate", body):
            inner = _product(body, program, names)
            return inner and replace(inner, number=-inner.number)
        case Reduce("sum", (Below() as below,), body, None):
            inner = _product(body, program, names)
            return replace(inner, below=below) if inner and not inner.below else None
        case Read() if score := _score(term, program):
            return _product(score.value, program, _renamed(score.axes, term, names))
        case _:
            return None


def _score(term: Read, program: Program) -> Score | None:
    """The number for each cell that a read names, where its indices are the axes under other names."""
    plain = all(isinstance(index, ir.Var) for index in term.indices)
    return next((s for s in program.scores if s.name == term.name and plain and not s.vector), None)


def _renamed(axes: tuple[str, ...], term: Read, names: Mapping[str, str]) -> dict[str, str]:
    """What the axes of a score are called outside."""
    indices = (index.name for index in term.indices if isinstance(index, ir.Var))
    return {axis: names.get(index, index) for axis, index in zip(axes, indices, strict=True)}


def _side(term: Term, product: _Product, known: Known, places: bool) -> tuple[str, Tokens | Made] | None:
    """The name that rows depend on, as it is called outside, and the rows. Tokens by place are looked up one by one."""
    r = product.below.name if product.below else ""
    own = free(term) - {r}
    if len(own) != 1:
        return None
    (name,) = own
    outside = product.names.get(name, name)
    steps = _linear(term.index, known) if isinstance(term, Row) and not places else None
    if isinstance(term, Row) and steps and steps.get(name) and steps.keys() <= {name, r, ""}:
        return outside, Tokens(term.source, steps[name], steps.get(r, 0) if r else 0, steps.get("", 0))
    return None if r else (outside, Made(term, name))


def _condition(where: ir.Formula, query: str, along: str, names: Mapping[str, str], known: Known) -> Affine | None:
    """A comparison of cell numbers, the key's on the left."""
    match where:
        case ir.And((one,)):
            return _condition(one, query, along, names, known)
        case ir.Compare("<=" | "<" | ">=" | ">" as op, left, right):
            low, high = (left, right) if op in ("<=", "<") else (right, left)
            steps = _linear(ir.Binary("-", low, high), known)
            if steps is None:
                return None
            steps = {names.get(name, name): factor for name, factor in steps.items() if factor}
            if steps.keys() - {query, along, ""} or along not in steps:
                return None
            strict = 1 if op in ("<", ">") else 0
            return Affine(steps[along], -steps.get(query, 0), -steps.get("", 0) - strict)
        case _:
            return None


def _linear(expr: ir.Expr, known: Known) -> dict[str, int] | None:
    """An integer as factors by name and a constant under ""; what is made of the lengths alone is a constant."""
    if any(isinstance(part, ir.Read) for part in parts(expr)):
        return None
    return affine(_folded(expr, known), known)


def _folded(expr: ir.Expr, known: Known) -> ir.Expr:
    if set(variables(expr)) <= known.keys():
        return ir.Const(int(number(expr, known, {}, INTEGERS)))
    match expr:
        case ir.Binary(op, left, right):
            return ir.Binary(op, _folded(left, known), _folded(right, known))
        case _:
            return expr
