"""Whether one axis or one part of a score makes sense, now that its numbers are known."""

from collections.abc import Mapping

from ..dsl.source import Span
from .ir import Expr, Read, Var
from .scope import fail
from .selection import Apply, Arithmetic, Axis, Below, Binder, Last, Reduce, Slice, Term, Whole
from .selection import Read as ScoreRead
from .walk import parts

# Tokens of a cell, and things that one reduction counts through.
MOST_CELL, MOST_COUNTED = 1 << 20, 1 << 20
# What functions of real numbers take; outside of it they give NaN.
_ANY = float("inf")
_TAKES = {"log": (0.0, _ANY, "0 or more"), "sqrt": (0.0, _ANY, "0 or more"), "probit": (0.0, 1.0, "0 to 1")}


def judge_axis(axis: Axis, span: Span | None) -> None:
    """Refuse cells, and counts of things, out of all bounds."""
    if axis.count > MOST_COUNTED:
        fail("E005", span, f"`{axis.name}` counts {axis.count} things, and {MOST_COUNTED} are the most")
    if axis.size > MOST_CELL:
        fail("E005", span, f"a cell of `{axis.name}` has {axis.size} tokens, and {MOST_CELL} are the most")


def judge_binders(binders: tuple[Binder, ...], axes: Mapping[str, Axis], span: Span | None) -> None:
    """Refuse what counts through too many things."""
    counted = 1
    for binder in binders:
        match binder:
            case Below(_, count) | Last(_, _, count):
                counted *= count
            case Whole(name):
                counted *= max(1, axes[name].count)
            case _:  # which the length of a sequence limits
                pass
    if counted > MOST_COUNTED:
        fail("E005", span, f"a reduction counts through {counted} things, and {MOST_COUNTED} are the most")


def judge_name(source: str, cell: Axis, size: str, span: Span | None) -> None:
    """Refuse a row of Q, K or V at the bare name of cells of several tokens, whose number is no token's."""
    if cell.size > 1:
        token = "t" if cell.name != "t" else "x"
        hint = f"`mean({token} in {cell.name}) {source}[{token}]`"
        # The row of a cell's first place is read at no sum: a place is no token.
        hint += "" if cell.order else f", or `{source}[{cell.name} * {size}]` for its first token"
        what = "places" if cell.order else "tokens"
        fail("E006", span, f"`{cell.name}` counts cells of {cell.size} {what}, `{source}[..]` takes a token", hint)


def judge_row(index: Expr, span: Span | None) -> None:
    """Refuse rows of Q, K and V that differ by more than their token."""
    if any(isinstance(part, Read) or part in (Var("h"), Var("g")) for part in parts(index)):
        fail("E003", span, "a row of Q, K or V is one of tokens: it cannot depend on heads, tables or inputs")


def judge_cell(name: str, axis: Axis, index: Expr, cells: Mapping[str, Axis | None], span: Span | None) -> None:
    """Refuse a name that counts other cells than those a score has values for."""
    found = cells.get(index.name) if isinstance(index, Var) else None
    if found is not None and (found.size, found.count) != (axis.size, axis.count):
        what = f"cells of {axis.size} tokens" if axis.side else f"{axis.count} values"
        other = f"cells of {found.size}" if found.side else f"{found.count}"
        fail("E006", span, f"`{name}` has {what} along `{axis.name}`, and `{found.name}` has {other}")


def judge_meeting(left: int | None, right: int | None, span: Span | None) -> None:
    """Refuse two vectors that meet number by number, and have different lengths."""
    if left is not None and right is not None and left != right:
        fail(
            "E003",
            span,
            f"a vector of {left} numbers meets one of {right}",
            "vectors that meet number by number have one length",
        )


def judge_part(whole: int | None, last: int, span: Span | None) -> None:
    """Refuse a part of a vector that goes on past its end."""
    if whole is not None and last > whole:
        fail("E005", span, f"a part up to {last} of a vector of {whole} numbers", f"its last bound is {whole} at most")


def judge_argument(function: str, value: float, span: Span | None) -> None:
    """Refuse a constant for which a function has no value: cells whose score is NaN are never chosen."""
    low, high, what = _TAKES.get(function, (-_ANY, _ANY, ""))
    if not low <= value <= high:
        fail("E005", span, f"`{function}` of {value:g} is not a number", f"it takes {what}")


def width(value: Term, widths: Mapping[str, int | None]) -> int | None:
    """How many numbers a vector has, where the text says so; `widths` are those of scores."""
    match value:
        case Slice(_, first, last):
            return last - first
        case ScoreRead(name):
            return widths.get(name)
        case Arithmetic(_, left, right):
            return width(left, widths) or width(right, widths)
        case Apply(_, operand) | Reduce(_, _, operand):
            return width(operand, widths)
        case _:
            return None
