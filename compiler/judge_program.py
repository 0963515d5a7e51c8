"""Which dynamic patterns make sense once their numbers are known."""

from collections.abc import Iterator, Mapping
from typing import assert_never

from ..dsl.diagnostics import CompileError, Diagnostic
from ..dsl.source import Span
from .ir import Expr, Var
from .ir import Read as TableRead
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
from .walk import parts

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
