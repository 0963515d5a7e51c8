"""Which terms are maps of products of rows, or reductions of such maps, that one kernel computes: read off the IR."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product as combinations
from typing import Literal, assert_never

from ..compiler import ir
from ..compiler.lower_term import free, is_vector
from ..compiler.selection import (
    Apply,
    Arithmetic,
    Below,
    Dot,
    Heads,
    Inside,
    Integer,
    Last,
    Number,
    Program,
    Read,
    Reduce,
    Scale,
    Score,
    Softmax,
    Term,
    Whole,
)
from ..compiler.terms import replaced, within
from ..compiler.walk import parts, reads
from ..compiler.walk import variables as names_of
from .views import Domain, affine

Names = Mapping[str, Domain]
# Of the functions of the IR those that kernels have.
FUNCTIONS = ("abs", "exp", "log", "sqrt", "negate")
ALWAYS = ir.Truth(True)
Fold = Literal["sum", "max", "min", "logsumexp"]


@dataclass(frozen=True, slots=True)
class Side:
    """One name of the map: its cells are the output's, or are folded into the cells of `outer`, or all at once.

    `outer` is "" where all of the name's cells are folded.
    """

    name: str
    outer: str
    binder: Inside | Whole | Last | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """Folds of `body` over rows, columns, loops and shifts, where `where` holds.

    The body is arithmetic of `dots`, whose left side depends on the row's name and whose right side on the column's, of
    `numbers` that depend on one of the names at most, and of integers. It calls columns `inner`: for the output's
    column j those are `factor * j + offset`, `times` times each, for the `(offset, times)` of `shifts`. With `weights`
    what is folded is the softmax of the body along `inner`, all of that axis; cells that do not exist have 0.
    """

    op: Fold
    body: Term
    where: ir.Formula
    row: Side
    column: Side
    dots: tuple[Dot, ...]
    numbers: tuple[Term, ...]
    inner: str
    loops: tuple[Below | Whole | Heads, ...] = ()
    factor: int = 1
    shifts: tuple[tuple[int, int], ...] = ((0, 1),)
    weights: bool = False

    @property
    def statistics(self) -> "Match":
        """The logarithm of each row's sum of exponentials, which weights are relative to."""
        row, column = Side(self.row.name, self.row.name), Side(self.inner, "", Whole(self.inner))
        return Match("logsumexp", self.body, self.where, row, column, self.dots, self.numbers, self.inner)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a fold runs through, by its place in the kernel."""

    row: Side
    column: Side
    loops: tuple[Below | Whole | Heads, ...]


def matched(term: Term, program: Program, names: Names) -> Match | None:
    """The description of a term for the cells of its free names, if it is one that the kernels compute."""
    names = {name: domain for name, domain in names.items() if name in free(term)}
    match term:
        case Reduce("sum" | "max" | "min"):
            term = _flat(term)
            sides = _parts(term, program, names)
            return sides and _fold(term, sides, program, names)
        case Arithmetic() | Apply() | Dot() | Softmax():
            sides = _parts(Reduce("sum", (), term), program, names)
            return sides and _fold(Reduce("sum", (), term), sides, program, names)
        case _:
            return None


def _flat(term: Reduce) -> Reduce:
    """A fold of folds of one kind as one."""
    while isinstance(term.body, Reduce) and term.body.op == term.op:
        inner = term.body
        where = ir.conjunction((term.where or ALWAYS, inner.where or ALWAYS))
        term = Reduce(term.op, (*term.binders, *inner.binders), inner.body, None if where == ALWAYS else where)
    return term


def _parts(term: Reduce, program: Program, names: Names) -> _Parts | None:
    """The rows and the columns of a fold's map; columns are what is folded whole, or keys."""
    sides, loops = dict[str, Side](), list[Below | Whole | Heads]()
    count = {axis.name for axis in program.axes if axis.count}
    for binder in term.binders:
        match binder:
            case Inside(name, outer) if outer in names:
                sides[name] = Side(name, outer, binder)
            case Whole(name) if name not in count:
                sides[name] = Side(name, "", binder)
            case Last(name):
                sides[name] = Side(name, "", binder)
            case Below() | Whole() | Heads():
                loops.append(binder)
            case Inside():
                return None
            case _:
                assert_never(binder)
    if len({binder.name for binder in term.binders}) < len(term.binders):
        return None
    around = {side.outer for side in sides.values()}
    sides |= {name: Side(name, name) for name in names if name not in around | sides.keys()}
    whole = [side for side in sides.values() if not side.outer]
    if len(sides) != 2 or len(whole) == 2:
        return None
    keys = whole or [side for side in sides.values() if names[side.outer].side != "q"]
    if len(keys) != 1:
        return None
    (row,) = (side for side in sides.values() if side is not keys[0])
    return _Parts(row, keys[0], tuple(loops))


def _fold(term: Reduce, sides: _Parts, program: Program, names: Names) -> Match | None:
    """A fold over parts that are known."""
    found = _weights(term.body, sides, program) if term.op == "sum" and term.where is None else None
    if found is None:
        column = sides.column.name
        body = _inlined(term.body, sides, column, program)
        op, where = _op(term), term.where or ALWAYS
        found = Match(op, body, where, sides.row, sides.column, (), (), column, sides.loops)
    for side in (sides.row, sides.column):
        if isinstance(side.binder, Inside):
            found = _through(side.binder, found, names[side.outer].size)
    return _completed(found, program)


def _op(term: Reduce) -> Fold:
    match term.op:
        case "max" | "min":
            return term.op
        case _:
            return "sum"


def _through(binder: Inside, match: Match, size: int) -> Match:
    """A body that mentions the very cell whose inside is run through: that is the cell the inner name lies in."""
    if binder.outer not in free(match.body) | names_of(match.where):
        return match
    ratio = size // binder.size
    value = ir.Binary("//", ir.Var(binder.name), ir.Const(ratio)) if ratio > 1 else ir.Var(binder.name)
    whole = replaced(Reduce("sum", (), match.body, match.where), binder.outer, value)
    assert isinstance(whole, Reduce) and whole.where is not None
    return replace(match, body=whole.body, where=whole.where)


def _weights(body: Term, sides: _Parts, program: Program) -> Match | None:
    """A softmax along an axis, read where the column says, perhaps at several places that plain names shift."""
    match body:
        case Softmax():
            found, place = body, ir.Var(body.along)
        case Read() if (score := _score(body, program)) and isinstance(score.value, Softmax):
            along = score.value.along
            found = _opened(score, body, sides, program, along)
            place = dict(zip(score.axes, body.indices, strict=True)).get(along)
        case _:
            return None
    if not isinstance(found, Softmax) or all(axis.name != found.along for axis in program.axes) or place is None:
        return None
    factor, shifts = _shifts(place, sides) or (0, ())
    loops = tuple(loop for loop in sides.loops if isinstance(loop, Heads))
    if factor < 1 or found.along == sides.row.name:
        return None
    inlined, where = _inlined(found.body, sides, found.along, program), found.where or ALWAYS
    return Match("sum", inlined, where, sides.row, sides.column, (), (), found.along, loops, factor, shifts, True)


def _shifts(place: ir.Expr, sides: _Parts) -> tuple[int, tuple[tuple[int, int], ...]] | None:
    """An index as the column's factor, and each number that loops add to it, with how often they do."""
    steps = affine(place, {})
    plain = {loop.name: loop.count for loop in sides.loops if isinstance(loop, Below)}
    others = [loop for loop in sides.loops if not isinstance(loop, Below | Heads)]
    if steps is None or others or not steps.keys() <= {sides.column.name, *plain, ""}:
        return None
    times = dict[int, int]()
    for values in combinations(*(range(count) for count in plain.values())):
        offset = steps.get("", 0) + sum(steps.get(name, 0) * value for name, value in zip(plain, values, strict=True))
        times[offset] = times.get(offset, 0) + 1
    return steps.get(sides.column.name, 0), tuple(sorted(times.items()))


def _completed(match: Match, program: Program) -> Match | None:
    """The description with its products and numbers, if each part of it has a place in a kernel."""
    known = {match.row.name, match.inner, *(loop.name for loop in match.loops if not isinstance(loop, Heads))}
    named = names_of(match.where) - {"n", "m", "h", "g"}
    if reads(match.where) or not free(match.body) <= known or not named <= known:
        return None
    vectors = {one.name: one.vector for one in (*program.scores, *program.givens)}
    leaves = None if is_vector(match.body, vectors) else _leaves(match.body, match.row.name, match.inner)
    if leaves is None:
        return None
    dots = tuple(leaf for leaf in dict.fromkeys(leaves) if isinstance(leaf, Dot))
    numbers = tuple(leaf for leaf in dict.fromkeys(leaves) if not isinstance(leaf, Dot))
    counts = isinstance(match.body, Number) and {match.row.name, match.inner} <= named
    return replace(match, dots=dots, numbers=numbers) if dots or counts else None


def _leaves(term: Term, row: str, column: str) -> tuple[Term, ...] | None:
    """Products, row by column, and what is made beforehand; None where something depends on both in another way."""
    own = free(term)
    match term:
        case Number() | Scale():
            return ()
        case Integer(value) if not any(isinstance(part, ir.Read) for part in parts(value)):
            return ()
        case Dot(left, right) if {row, column} <= own:
            return (term,) if column not in free(left) and row not in free(right) else None
        case Arithmetic(op, left, right) if {row, column} <= own or not (own or op in ("min", "max")):
            first, second = _leaves(left, row, column), _leaves(right, row, column)
            return None if first is None or second is None else (*first, *second)
        case Apply(function, operand) if function in FUNCTIONS and {row, column} <= own:
            return _leaves(operand, row, column)
        case _:
            return None if {row, column} <= own else (term,)


def _inlined(term: Term, sides: _Parts, column: str, program: Program) -> Term:
    """A term with the definitions of scores of both sides in place of these, and products' rows on the left."""
    rows, columns = {sides.row.name, sides.row.outer}, {column, sides.column.outer}
    match term:
        case Read() if free(term) & rows and free(term) & columns and (score := _score(term, program)):
            found = _opened(score, term, sides, program)
            return term if found is None else _inlined(found, sides, column, program)
        case Arithmetic(_, left, right):
            inner = (_inlined(part, sides, column, program) for part in (left, right))
            return Arithmetic(term.op, *inner)
        case Apply(_, operand):
            return replace(term, operand=_inlined(operand, sides, column, program))
        case Dot(left, right) if free(left) & columns:
            return Dot(right, left)
        case _:
            return term


def _score(term: Read, program: Program) -> Score | None:
    return next((score for score in program.scores if score.name == term.name and not score.vector), None)


def _opened(score: Score, term: Read, sides: _Parts, program: Program, along: str = "") -> Term | None:
    """What a score is at the cells of a read, along one axis as it is; None where it may lack a cell, or mix up names.

    A read has 0 where there is no cell, which the definition need not have.
    """
    limited = {axis.name for axis in program.axes if axis.last or axis.count}
    known = {name for side in (sides.row, sides.column) for name in (side.name, side.outer)}
    bound, value = _bound(score.value), score.value
    pairs = [(axis, index) for axis, index in zip(score.axes, term.indices, strict=True) if axis != along]
    for axis, index in pairs:
        if not isinstance(index, ir.Var) or (index.name != axis and (axis in limited or index.name not in known)):
            return None
        if index.name != axis and {axis, index.name} & bound:
            return None
    # In two steps, so that one axis may be called what another one was.
    for axis, _ in pairs:
        if axis not in bound:
            value = replaced(value, axis, ir.Var(f"own {axis}"))
    for axis, index in pairs:
        value = replaced(value, f"own {axis}", index)
    return value


def _bound(value: Term) -> set[str]:
    """Names that a term binds, lies inside, or runs along."""
    bound = set[str]()
    for inner in within(value):
        match inner:
            case Reduce(_, binders):
                bound |= {binder.name for binder in binders}
                bound |= {binder.outer for binder in binders if isinstance(binder, Inside)}
            case Softmax(_, name):
                bound.add(name)
            case _:
                pass
    return bound
