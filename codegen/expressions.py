"""The mask language as Triton expressions: floor semantics kept, integers wide enough."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from ..compiler.evaluate import powers
from ..compiler.intervals import Interval, interval
from ..compiler.ir import And, Binary, Compare, Const, Expr, Formula, InPowers, Not, Or, Read, Relation, Truth, Var
from ..compiler.walk import parts
from .quote import constant, expression

INT32 = 1 << 31


@dataclass(frozen=True, slots=True)
class Context:
    """How variables are spelled, how large they get, and whether 64-bit integers are needed."""

    spelling: Mapping[str, ast.expr]
    boxes: Mapping[str, Interval]
    wide: bool = False


def emit_bound(expr: Expr, context: Context) -> ast.expr:
    """A loop bound. Tiles have 32-bit numbers; bounds beyond those of any tile are brought back among them."""
    bound = emit_number(expr, context)
    if not context.wide or isinstance(expr, Const):
        return bound
    limit = constant(1 << 29)
    return expression("tl.maximum(tl.minimum(B, L), -L).to(tl.int32)", B=bound, L=limit)


def emit_number(expr: Expr, context: Context) -> ast.expr:
    """An integer expression; `//` and `%` floor although Triton's truncate."""
    match expr:
        case Const(value):
            return constant(value)
        case Var(symbol):
            return _widened(context.spelling[symbol], context)
        case Read(table, index):
            value = expression(
                "read(TABLE, SIZE, INDEX)",
                TABLE=context.spelling[table],
                SIZE=context.spelling[f"{table}:size"],
                INDEX=emit_number(index, context),
            )
            return _widened(value, context)
        case Binary(op, left, right):
            return _operation(op, left, right, context)
        case _:
            assert_never(expr)


def _widened(value: ast.expr, context: Context) -> ast.expr:
    return expression("V.to(tl.int64)", V=value) if context.wide else value


def _operation(op: str, left: Expr, right: Expr, context: Context) -> ast.expr:
    a, b = emit_number(left, context), emit_number(right, context)
    match op:
        case "+":
            return expression("A + B", A=a, B=b)
        case "-":
            return expression("A - B", A=a, B=b)
        case "*":
            return expression("A * B", A=a, B=b)
        case "&":
            return expression("A & B", A=a, B=b)
        case "|":
            return expression("A | B", A=a, B=b)
        case "^":
            return expression("A ^ B", A=a, B=b)
        case ">>":
            return expression("A >> B", A=a, B=b)
        case "min":
            return expression("tl.minimum(A, B)", A=a, B=b)
        case "max":
            return expression("tl.maximum(A, B)", A=a, B=b)
        case "//" | "%":
            assert isinstance(right, Const)
            return _division(op, a, right.value, is_natural(left, context))
        case _:
            raise AssertionError(op)


def is_natural(expr: Expr, context: Context) -> bool:
    """Whether an expression is proved never negative."""
    if any(isinstance(p, Read) for p in parts(expr)):
        return False
    return interval(expr, context.boxes, {}).low >= 0


def _division(op: str, a: ast.expr, divisor: int, natural: bool) -> ast.expr:
    """Shifts and masks floor by themselves; otherwise the remainder is lifted above zero first."""
    if divisor & (divisor - 1) == 0:
        if op == "//":
            return expression("A >> B", A=a, B=constant(divisor.bit_length() - 1))
        return expression("A & B", A=a, B=constant(divisor - 1))
    b = constant(divisor)
    if natural:
        return expression("A // B" if op == "//" else "A % B", A=a, B=b)
    remainder = expression("(A % B + B) % B", A=a, B=b)
    return remainder if op == "%" else expression("(A - R) // B", A=a, R=remainder, B=b)


def emit_truth(formula: Formula, context: Context) -> ast.expr:
    """A condition; `&` and `|` because both sides may be tensors."""
    match formula:
        case Truth(value):
            return ast.Constant(value)
        case Compare(op, left, right):
            template = {"<": "A < B", "<=": "A <= B", ">": "A > B", ">=": "A >= B", "==": "A == B", "!=": "A != B"}
            return expression(template[op], A=emit_number(left, context), B=emit_number(right, context))
        case InPowers(value, base):
            return _in_powers(value, base, context)
        case And(items):
            return _join("(A) & (B)", [emit_truth(item, context) for item in items])
        case Or(items):
            return _join("(A) | (B)", [emit_truth(item, context) for item in items])
        case Not(item):
            return _emit_not(item, context)
        case _:
            assert_never(formula)


OPPOSITE: dict[Relation, Relation] = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


def _emit_not(item: Formula, context: Context) -> ast.expr:
    """Negation pushed to the leaves: a scalar condition has no `~`."""
    match item:
        case Truth(value):
            return ast.Constant(not value)
        case Compare(op, left, right):
            return emit_truth(Compare(OPPOSITE[op], left, right), context)
        case InPowers():
            return expression("(A) == 0", A=emit_truth(item, context))
        case And(items):
            return _join("(A) | (B)", [_emit_not(part, context) for part in items])
        case Or(items):
            return _join("(A) & (B)", [_emit_not(part, context) for part in items])
        case Not(inner):
            return emit_truth(inner, context)
        case _:
            assert_never(item)


def _in_powers(value: Expr, base: int, context: Context) -> ast.expr:
    x = emit_number(value, context)
    if base == 2:
        return expression("(X > 0) & ((X & (X - 1)) == 0)", X=x)
    high = interval(value, context.boxes, {}).high
    members = powers(base, max(1, high))
    return _join("(A) | (B)", [expression("X == P", X=x, P=constant(p)) for p in members])


def _join(template: str, items: list[ast.expr]) -> ast.expr:
    """A balanced tree, so that long unions stay shallow."""
    if len(items) == 1:
        return items[0]
    middle = len(items) // 2
    return expression(template, A=_join(template, items[:middle]), B=_join(template, items[middle:]))
