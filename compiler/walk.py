"""Small questions about formulas: which variables and tables they mention, and their parts."""

from collections.abc import Callable, Iterator
from typing import assert_never

from .evaluate import powers
from .ir import And, Binary, Compare, Const, Expr, Formula, InPowers, Mask, Not, Op, Or, Read, Truth, Var


def expressions(formula: Formula) -> Iterator[Expr]:
    """The outermost integer expressions of a formula."""
    match formula:
        case Truth():
            return
        case Compare(_, left, right):
            yield left
            yield right
        case InPowers(value, _):
            yield value
        case And(items) | Or(items):
            for item in items:
                yield from expressions(item)
        case Not(item):
            yield from expressions(item)
        case _:
            assert_never(formula)


def parts(expr: Expr) -> Iterator[Expr]:
    """An expression and all expressions inside it."""
    yield expr
    match expr:
        case Const() | Var():
            pass
        case Binary(_, left, right):
            yield from parts(left)
            yield from parts(right)
        case Read(_, index):
            yield from parts(index)
        case _:
            assert_never(expr)


def variables(formula: Formula) -> frozenset[str]:
    """Names of the variables a formula mentions."""
    return frozenset(p.name for e in expressions(formula) for p in parts(e) if isinstance(p, Var))


def operations(formula: Formula, ops: tuple[Op, ...]) -> frozenset[Expr]:
    """The different operations of some kinds in a formula."""
    return frozenset(p for e in expressions(formula) for p in parts(e) if isinstance(p, Binary) and p.op in ops)


def depends_on_head(mask: Mask) -> bool:
    """Whether different heads may see different keys."""
    return bool({"h", "g"} & variables(mask.formula))


def reads(formula: Formula) -> tuple[Read, ...]:
    """Every distinct table read of a formula, inner ones first."""
    found = [p for e in expressions(formula) for p in parts(e) if isinstance(p, Read)]
    return tuple(dict.fromkeys(reversed(found)))


def has_powers(formula: Formula) -> bool:
    """Whether the formula's expansion depends on how large positions get."""
    match formula:
        case InPowers():
            return True
        case And(items) | Or(items):
            return any(has_powers(item) for item in items)
        case Not(item):
            return has_powers(item)
        case Truth() | Compare():
            return False
        case _:
            assert_never(formula)


def rewrite(formula: Formula, change: Callable[[Expr], Expr]) -> Formula:
    """The formula with `change` applied to its outermost expressions."""
    match formula:
        case Truth():
            return formula
        case Compare(op, left, right):
            return Compare(op, change(left), change(right))
        case InPowers(value, base):
            return InPowers(change(value), base)
        case And(items):
            return And(tuple(rewrite(item, change) for item in items))
        case Or(items):
            return Or(tuple(rewrite(item, change) for item in items))
        case Not(item):
            return Not(rewrite(item, change))
        case _:
            assert_never(formula)


def substitute(expr: Expr, name: str, value: Expr) -> Expr:
    """The expression with a variable replaced."""
    match expr:
        case Var(found):
            return value if found == name else expr
        case Const():
            return expr
        case Binary(op, left, right):
            return Binary(op, substitute(left, name, value), substitute(right, name, value))
        case Read(table, index):
            return Read(table, substitute(index, name, value))
        case _:
            assert_never(expr)


def holds_on_diagonal(formula: Formula) -> bool:
    """Whether a comparison surely holds where q == k."""
    match formula:
        case Compare("==" | "<=" | ">=", left, right):
            return substitute(left, "q", Var("k")) == substitute(right, "q", Var("k"))
        case _:
            return False


def differ_in_one_bit(left: Expr, right: Expr, top: int) -> Formula:
    """`left ^ right in powers(2)` without a bitwise operator, for operands up to `top`."""
    members: list[Formula] = []
    for bit in powers(2, max(1, top)):
        parity = Binary("%", Binary("//", left, Const(bit)), Const(2))
        for value, partner in enumerate((Binary("+", left, Const(bit)), Binary("-", left, Const(bit)))):
            members.append(And((Compare("==", parity, Const(value)), Compare("==", right, partner))))
    return Or(tuple(members))
