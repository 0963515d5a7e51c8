"""What kind each part of a score is, a number or a vector, and whether scores make sense."""

from typing import assert_never

from .axes import is_integer
from .check_axes import axes_of
from .check_binders import bind
from .check_reads import ROWS, Kind, check_index
from .diagnostics import did_you_mean
from .here import WORDS, Here
from .infer import constant
from .parameters import name_span
from .scanner import REDUCTIONS
from .scope import FUNCTIONS, UNKNOWN, Scope, Value
from .syntax import (
    Absolute,
    Binary,
    Boolean,
    Call,
    Chosen,
    Comparison,
    Coordinate,
    Count,
    Decimal,
    Divide,
    Dot,
    Expr,
    Index,
    ListLiteral,
    Logical,
    Membership,
    Name,
    Negate,
    Not,
    Number,
    Range,
    Reduce,
    Score,
    SetLiteral,
    Slice,
    Softmax,
)
from .walk import walk

RESERVED = (*ROWS, "scale")
# Functions of numbers, and of each number of a vector.
_PLAIN = ("abs", "exp", "log", "sqrt", "probit")


def define_score(score: Score, scope: Scope) -> None:
    """Give a score its meaning: a number, or a row, for each of its cells."""
    before = len(scope.findings)
    here = Here(scope, axes_of(score, score.axes, scope))
    match real(score.value, here):
        case "unknown":
            value = UNKNOWN
        case _ if set(score.axes) - here.cells.keys():
            value = UNKNOWN
        case kind:
            value = Value("rows" if kind == "vector" else "score", axes=score.axes)
    if len(scope.findings) == before:
        for name in (a for a in score.axes if a in scope.cells and a not in here.seen):
            shape = f"{score.name}[{', '.join(score.axes)}]"
            scope.report("E006", name_span(score, score.name), f"`{shape}` does not depend on `{name}`", "leave it out")
        if len(here.orders) > 1:
            message = f"`{score.name}` counts keys and places of `{scope.order}` at once"
            scope.report("E006", name_span(score, score.name), message, "a score has one or the other")
    scope.define(score.name, value, name_span(score, score.name))


def plain(expr: Expr, here: Here) -> bool:
    """Report what is no number; whether nothing was wrong."""
    scope, before = here.scope, len(here.scope.findings)
    kind = real(expr, here)
    if kind == "vector":
        message = "a number is wanted here, and this is a vector"
        scope.report("E003", expr.span, message, "such as `a . b` of two vectors")
    return kind == "real" and len(scope.findings) == before


def real(expr: Expr, here: Here) -> Kind:
    """Whether an expression is a number or a vector; everything wrong inside it is reported."""
    if _misread(expr, here):
        return "unknown"
    if is_integer(expr, here.known):
        here.integers(expr, "number")
        return "real"
    match expr:
        case Number() | Decimal():
            return "real"
        case Name(name):
            return _name(name, expr, here)
        case Index():
            return check_index(expr, here)
        case Negate(operand) | Absolute(operand):
            return real(operand, here)
        case Binary("+" | "-" | "*", left, right) | Divide(left, right):
            return _either((left, right), here)
        case Dot():
            return _dot(expr, here)
        case Reduce():
            return _reduce(expr, here)
        case Softmax(value, axis, where):
            plain(value, here)
            here.at(axis, expr.span)
            if where is not None:
                here.integers(where, "condition")
            return "real"
        case Slice():
            return _slice(expr, here)
        case Count(axis, rule):
            from .check_rule import check_count  # which imports this module

            check_count(axis, rule, here)
            return "real"
        case Call(None, name) if name in (*_PLAIN, *REDUCTIONS) or name not in FUNCTIONS:
            return _function(expr, here)
        case Binary():
            return _of_integers(expr, here)
        case Call() | Coordinate():
            here.integers(expr, "number")
            return "real"
        case (
            Boolean()
            | Not()
            | Logical()
            | Comparison()
            | Membership()
            | Chosen()
            | Range()
            | SetLiteral()
            | ListLiteral()
        ):
            hint = "conditions stand after `where`, in `among (..)` and after `when`"
            here.scope.report("E003", expr.span, "a number is wanted here, and this is a condition or a set", hint)
            return "unknown"
        case _:
            assert_never(expr)


def _misread(expr: Expr, here: Here) -> bool:
    """Whether rows are written `q[..]`, or scores without brackets `a . b`; then that is reported."""
    scope = here.scope
    match expr:
        case Index("q" | "k" as name):
            rows = "`Q[..]`" if name == "q" else "`K[..]` or `V[..]`"
            hint = f"the rows of {WORDS[name]} are {rows}"
            scope.report("E003", expr.span, f"`{name}` is a number and cannot be indexed", hint)
        case Coordinate(base, axis) if base in scope.names and scope.names[base].axes:
            scope.used.update((base, axis))
            hint = f"the dot product is of two of them: `{base}[..] . {axis}[..]`"
            scope.report("E003", expr.span, f"`{base}` has a value for each cell", hint)
        case _:
            return False
    scope.touch(expr)
    return True


def _name(name: str, expr: Name, here: Here) -> Kind:
    scope = here.scope
    if name == "scale" and name not in scope.names:
        return "real"
    value = scope.look_up(name, expr.span)
    match value.kind:
        case "score" | "rows" | "reals":
            shape = f"{name}[{', '.join('h' if axis == 'head' else axis for axis in value.axes)}]"
            message = f"`{name}` has a value for each {'head or layer' if value.kind == 'reals' else 'cell'}"
            scope.report("E003", expr.span, message, f"read one: `{shape}`")
            return "unknown"
        case "real":
            return "real"
        case "unknown":
            return "unknown"
        case _:
            here.integers(expr, "number")
            return "real"


def _either(operands: tuple[Expr, ...], here: Here) -> Kind:
    """A vector where one of them is; what is done is done to each of its numbers."""
    kinds = [real(operand, here) for operand in operands]
    return "unknown" if "unknown" in kinds else "vector" if "vector" in kinds else "real"


def _dot(expr: Dot, here: Here) -> Kind:
    for operand in (expr.left, expr.right):
        if real(operand, here) == "real":
            here.scope.report("E003", operand.span, "a vector is wanted here, and this is a number", "use `*`")
    return "real"


def _of_integers(expr: Binary, here: Here) -> Kind:
    if _either((expr.left, expr.right), here) != "unknown":
        hint = "`/` divides them" if expr.op == "//" else ""
        here.scope.report("E003", expr.span, f"`{expr.op}` is of integers, and these are not", hint)
    return "unknown"


def _function(expr: Call, here: Here) -> Kind:
    scope, name, values = here.scope, expr.name, tuple(a.value for a in expr.arguments)
    if name not in (*_PLAIN, *REDUCTIONS):
        return _unknown(expr, here)
    if name in REDUCTIONS - {"min", "max"}:
        hint = f"`{name}(i in I) ..`, `{name}(r < 16) ..` or `{name}(J) ..`"
        hint = "`descend(t in C) ..`" if name == "descend" else hint
        scope.report("E007", expr.span, f"`{name}` says what it runs over", hint)
        return "unknown"
    if (name in ("min", "max") and len(values) < 2) or (name not in ("min", "max") and len(values) != 1):
        count = "2 arguments or more" if name in ("min", "max") else "1 argument"
        scope.report("E007", expr.span, f"`{name}` takes {count}, not {len(values)}")
    for argument in expr.arguments:
        if argument.keyword is not None:
            scope.report("E007", argument.span, f"`{name}` takes no named arguments")
    return _either(values, here)


def _unknown(expr: Call, here: Here) -> Kind:
    """What is called and is no function of scores."""
    scope, name = here.scope, expr.name
    scope.touch(expr)
    scope.used.add(name)
    known = scope.names.get(name)
    match name:
        case "softmax":
            hint = "`softmax(E over J)`, `softmax(E over J where J <= I)`"
            scope.report("E007", expr.span, "`softmax` says which axis it runs along", hint)
        case _ if known is not None and known.axes:
            axes = ", ".join("h" if axis == "head" else axis for axis in known.axes)
            scope.report("E003", expr.span, f"`{name}` is read with brackets", f"write `{name}[{axes}]`")
        case "dot" | "matmul" | "einsum":
            scope.report("E002", expr.span, f"unknown function `{name}`", "the dot product of two vectors is `a . b`")
        case _:
            hint = did_you_mean(name, (*_PLAIN, *REDUCTIONS, "softmax", "count"))
            scope.report("E002", expr.span, f"unknown function `{name}`", hint)
    return "unknown"


def _reduce(expr: Reduce, here: Here) -> Kind:
    inner = bind(expr, here)
    if inner is None:
        here.scope.touch(expr.body)
        return "unknown"
    if expr.op == "descend":
        plain(expr.body, inner)
        return "real"
    return real(expr.body, inner)


def _slice(expr: Slice, here: Here) -> Kind:
    scope = here.scope
    if real(expr.row, here) == "real":
        scope.report("E003", expr.row.span, "a vector is wanted here, and this is a number")
    for bound in (expr.first, expr.last):
        mentioned = {node.name for node, _ in walk(bound) if isinstance(node, Name)}
        if names := sorted(mentioned & here.cells.keys() - scope.names.keys()):
            message = f"a bound of a part must be known before the kernel runs, but it depends on `{names[0]}`"
            scope.report("E004", bound.span, message, "the bounds of a part of a vector are constants")
            scope.touch(expr)
            break
        constant(bound, scope, "a bound of a part")
    match expr.first, expr.last:
        case Number(a), Number(b) if a >= b:
            scope.report("E005", expr.span, f"a part from {a} to {b} has no numbers", "the first is below the last")
        case _:
            pass
    return "vector"
