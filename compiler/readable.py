"""Formulas and loops as people write them: the language's own notation, for reports."""

from typing import assert_never

from ..dsl import syntax as s
from ..dsl.printer import format_expression
from .ir import And, Binary, Compare, Const, Expr, Formula, InPowers, Not, Or, Read, Truth, Var
from .loops import fold
from .plan import ONE, Run


def show_number(expr: Expr) -> str:
    """An integer expression as text."""
    return format_expression(_number(tidy(expr)))


def show_truth(formula: Formula) -> str:
    """A condition as text."""
    return format_expression(_truth(formula))


def show_run(run: Run) -> str:
    """The key tiles of one loop, its end left out: `for j in 0 .. i where i >= 2`."""
    low = show_number(run.low)
    if tidy(run.high) == tidy(fold(Binary("+", run.low, ONE))):
        text = f"j = {low}"
    else:
        step = f" step {run.step}" if run.step > 1 else ""
        text = f"for j in {low} .. {show_number(run.high)}{step}"
    return text if run.guard == Truth(True) else f"{text} where {show_truth(run.guard)}"


def tidy(expr: Expr) -> Expr:
    """The expression with constants moved inside `min` and `max`, where they meet others."""
    match expr:
        case Const() | Var():
            return expr
        case Read(table, index):
            return Read(table, tidy(index))
        case Binary("+" | "-" as op, left, Const() as constant):
            inner = tidy(left)
            if isinstance(inner, Binary) and inner.op in ("min", "max"):
                sides = (tidy(fold(Binary(op, side, constant))) for side in (inner.left, inner.right))
                return Binary(inner.op, *sides)
            return fold(Binary(op, inner, constant))
        case Binary("+", Binary("-", Const(0), negated), right):
            return Binary("-", tidy(right), tidy(negated))
        case Binary(op, left, right):
            return fold(Binary(op, tidy(left), tidy(right)))
        case _:
            assert_never(expr)


def _number(expr: Expr) -> s.Expr:
    match expr:
        case Const(value):
            return s.Number(value) if value >= 0 else s.Negate(s.Number(-value))
        case Var(name):
            return s.Name(name)
        case Read(table, index):
            return s.Index(table, (_number(index),))
        case Binary("-", Const(0), operand):
            return s.Negate(_number(operand))
        case Binary("max", left, Binary("-", Const(0), negated)) if left == negated:
            return s.Absolute(_number(left))
        case Binary(op, left, right):
            if op == "min" or op == "max":
                return s.Call(None, op, tuple(s.Argument(None, _number(part)) for part in _flat(expr, op)))
            return s.Binary(op, _number(left), _number(right))
        case _:
            assert_never(expr)


def _flat(expr: Expr, op: str) -> tuple[Expr, ...]:
    """The arguments of nested `min`s or `max`es as one list."""
    if isinstance(expr, Binary) and expr.op == op:
        return (*_flat(expr.left, op), *_flat(expr.right, op))
    return (expr,)


def _truth(formula: Formula) -> s.Expr:
    match formula:
        case Truth(value):
            return s.Boolean(value)
        case Compare(op, left, right):
            return s.Comparison((_number(tidy(left)), _number(tidy(right))), (op,))
        case InPowers(value, base):
            powers = s.Call(None, "powers", (s.Argument(None, s.Number(base)),))
            return s.Membership(_number(tidy(value)), powers)
        case And(items):
            return s.Logical("and", tuple(map(_truth, items)))
        case Or(items):
            return s.Logical("or", tuple(map(_truth, items)))
        case Not(item):
            return s.Not(_truth(item))
        case _:
            assert_never(formula)
