"""Which dynamic patterns make sense once their numbers are known, and which the tiled back ends can score."""

from collections.abc import Iterator, Mapping
from typing import assert_never

from ..dsl.diagnostics import CompileError, Diagnostic
from ..dsl.source import Span
from .ir import Expr, Var
from .ir import Read as TableRead
from .lower_term import free
from .selection import (
    Apply,
    Arithmetic,
    Axis,
    Below,
    Binder,
    ByHead,
    Chosen,
    Count,
    Dot,
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
)
from .walk import parts, reads

# Tokens of a cell, and things that one reduction counts through.
MOST_CELL, MOST_COUNTED = 1 << 20, 1 << 20
Scope = Mapping[str, Binder | Axis]


def judge_program(program: Program, span: Span | None) -> None:
    """Raise CompileError for what only numbers show: cells of other sizes, rows by head, counts out of all bounds."""
    axes = {axis.name: axis for axis in program.axes}
    if big := next((axis for axis in program.axes if axis.size > MOST_CELL), None):
        _fail("E005", span, f"a cell of `{big.name}` has {big.size} tokens, and {MOST_CELL} are the most")
    owners = {one.name: one.axes for one in (*program.scores, *program.givens)}
    for term, scope in _terms(program, axes):
        match term:
            case Reduce(_, binders, _):
                counted = 1
                for binder in binders:
                    counted *= binder.count if isinstance(binder, Below | Last) else 1
                if counted > MOST_COUNTED:
                    _fail("E005", span, f"a reduction counts through {counted} things, and {MOST_COUNTED} are the most")
            case Row(_, index) if _by_head(index):
                _fail("E003", span, "a row of Q, K or V is one of tokens: it cannot depend on heads, tables or inputs")
            case Read(name, indices):
                for place, axis in zip(indices, owners[name], strict=True):
                    index = place.name if isinstance(place, Var) else ""
                    if index in scope and _size(scope[index]) != axes[axis].size:
                        cells = f"cells of {axes[axis].size} tokens"
                        _fail("E006", span, f"`{name}` has {cells} along `{axis}`, and `{index}` has others")
            case _:
                pass


def only_densely(program: Program) -> str:
    """Why the tiled back ends cannot score a program; empty where they can."""
    axes = {axis.name: axis for axis in program.axes}
    deep = {score.name for score in program.scores if any(isinstance(t, Softmax) for t, _ in _inner(score.value, axes))}
    for term, scope in _terms(program, axes):
        match term:
            case Softmax(body, along, where):
                place = scope.get(along)
                if along not in axes:
                    return "a softmax over tokens that are no axis"
                if axes[along].side == "q" or (isinstance(place, Inside) and axes[place.outer].side == "q"):
                    return "a softmax over queries"
                if along not in free(body):
                    return "a softmax over what its numbers do not depend on"
                if where is not None and reads(where):
                    return "a condition that reads numbers"
            case Reduce(op, binders, body, where) if op == "descend" or where is not None:
                return "a reduction that is not on the fast path yet"
            case Reduce(_, binders, body):
                outer = {b.outer for b in binders if isinstance(b, Inside)}
                bound = {b.name for b in binders} | {
                    name for name, place in scope.items() if not isinstance(place, Axis)
                }
                if outer & (free(body) | bound):
                    return "a reduction inside cells that its body mentions too, or inside bound ones"
            case Read(_, indices) if not all(isinstance(index, Var) for index in indices):
                return "a score read beside its cells"
            case Read(name, indices):
                if name in deep and any(isinstance(scope.get(x.name), Last) for x in indices if isinstance(x, Var)):
                    return "a softmax that is read at the last tokens only"
            case ByHead() | Integer() | Slice() | Count():
                return "an expression that is not on the fast path yet"
            case _:
                pass
    for choice in program.choices:
        if choice.when or (isinstance(choice, Chosen) and (choice.inside or choice.joint)):
            return "a rule that is not on the fast path yet"
        if isinstance(choice, Chosen) and any(f and reads(f) for f in (choice.counting, choice.among)):
            return "a condition that reads numbers"
    return ""


def _fail(code: str, span: Span | None, message: str) -> None:
    raise CompileError([Diagnostic(code, span, message)])


def _by_head(index: Expr) -> bool:
    return any(isinstance(part, TableRead) or part in (Var("h"), Var("g")) for part in parts(index))


def _size(place: Binder | Axis) -> int:
    return place.size if isinstance(place, Inside | Axis) else 1


def _terms(program: Program, axes: Mapping[str, Axis]) -> Iterator[tuple[Term, Scope]]:
    """Every term of a program, with what its names mean."""
    for score in program.scores:
        yield from _inner(score.value, axes)
    for choice in program.choices:
        for term in (choice.by,) if isinstance(choice, Chosen) else (choice.left, choice.right):
            yield from _inner(term, axes)


def _inner(term: Term, scope: Scope) -> Iterator[tuple[Term, Scope]]:
    yield term, scope
    match term:
        case Number() | Scale() | Read() | Row() | ByHead() | Integer() | Count():
            pass
        case Arithmetic(_, left, right) | Dot(left, right):
            yield from _inner(left, scope)
            yield from _inner(right, scope)
        case Apply(_, operand) | Slice(operand):
            yield from _inner(operand, scope)
        case Softmax(body, _, _):
            yield from _inner(body, scope)
        case Reduce(_, binders, body):
            yield from _inner(body, {**scope, **{binder.name: binder for binder in binders}})
        case _:
            assert_never(term)
