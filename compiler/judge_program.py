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
    Choice,
    Chosen,
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
from .walk import parts, reads

# Tokens of a cell, and things that one reduction counts through.
MOST_CELL, MOST_COUNTED = 1 << 20, 1 << 20
Scope = Mapping[str, Binder | Axis]


def judge_program(program: Program, span: Span | None) -> None:
    """Raise CompileError for what only numbers show: cells of other sizes, rows by head, counts out of all bounds."""
    axes = {axis.name: axis for axis in program.axes}
    if long := next((axis for axis in program.axes if axis.count > MOST_COUNTED), None):
        _fail("E005", span, f"`{long.name}` counts {long.count} things, and {MOST_COUNTED} are the most")
    if big := next((axis for axis in program.axes if axis.size > MOST_CELL), None):
        _fail("E005", span, f"a cell of `{big.name}` has {big.size} tokens, and {MOST_CELL} are the most")
    owners = {one.name: one.axes for one in (*program.scores, *program.givens)}
    for term, scope in _terms(program, axes):
        match term:
            case Reduce(_, binders, _):
                counted = 1
                for binder in binders:
                    counted *= _counted(binder, axes)
                if counted > MOST_COUNTED:
                    _fail("E005", span, f"a reduction counts through {counted} things, and {MOST_COUNTED} are the most")
            case Row(_, index) if _by_head(index):
                _fail("E003", span, "a row of Q, K or V is one of tokens: it cannot depend on heads, tables or inputs")
            case Read(name, indices):
                for place, axis in zip(indices, owners[name], strict=True):
                    index = place.name if isinstance(place, Var) else ""
                    if index in scope and not _matches(scope[index], axes[axis]):
                        what = f"cells of {axes[axis].size} tokens" if axes[axis].side else f"{axes[axis].count} values"
                        _fail("E006", span, f"`{name}` has {what} along `{axis}`, and `{index}` has others")
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


def _matches(place: Binder | Axis, axis: Axis) -> bool:
    """Whether a name counts the very cells of an axis, or plain numbers, which may be any of them."""
    match place:
        case Axis():
            return (place.size, place.count) == (axis.size, axis.count)
        case Inside(_, _, size):
            return size == axis.size
        case Last():
            return axis.size == 1
        case Below() | Whole() | Heads():
            return True
        case _:
            assert_never(place)


def _counted(binder: Binder, axes: Mapping[str, Axis]) -> int:
    """How many things a binder runs through that the length of a sequence does not limit."""
    match binder:
        case Below(_, count) | Last(_, _, count):
            return count
        case Whole(name):
            return max(1, axes[name].count)
        case Inside() | Heads():
            return 1
        case _:
            assert_never(binder)


def _terms(program: Program, axes: Mapping[str, Axis]) -> Iterator[tuple[Term, Scope]]:
    """Every term of a program, with what its names mean."""
    for score in program.scores:
        yield from _inner(score.value, axes)
    for order in program.orders:
        yield from _inner(order.by, axes)
    for choice in program.choices:
        yield from _of_choice(choice, axes)


def _of_choice(choice: Choice, axes: Scope) -> Iterator[tuple[Term, Scope]]:
    """The terms of a rule or a threshold."""
    for term in (choice.by, choice.amount) if isinstance(choice, Chosen) else (choice.left, choice.right):
        yield from _inner(term, axes)
    for met in choice.when:
        yield from _of_choice(met, axes)
    if isinstance(choice, Chosen) and choice.inside is not None:
        yield from _of_choice(choice.inside, axes)


def _inner(term: Term, scope: Scope) -> Iterator[tuple[Term, Scope]]:
    yield term, scope
    match term:
        case Number() | Scale() | Read() | Row() | ByHead() | Integer():
            pass
        case Count(chosen):
            yield from _of_choice(chosen, scope)
        case Arithmetic(_, left, right) | Dot(left, right):
            yield from _inner(left, scope)
            yield from _inner(right, scope)
        case Apply(_, operand) | Slice(operand):
            yield from _inner(operand, scope)
        case Softmax(body, _, _):
            yield from _inner(body, scope)
        case Reduce(_, binders, body):
            bound = {binder.name: binder for binder in binders if not isinstance(binder, Whole | Heads)}
            yield from _inner(body, {**scope, **bound})
        case _:
            assert_never(term)
