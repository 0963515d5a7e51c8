"""Ways through an expression tree, for passes that do not care what each node means."""

from collections.abc import Iterator
from typing import assert_never

from .syntax import (
    Absolute,
    Axis,
    Binary,
    Boolean,
    Call,
    Causal,
    Chosen,
    Claim,
    Comparison,
    Coordinate,
    Count,
    Decimal,
    Divide,
    Dot,
    Drop,
    Else,
    Every,
    Expr,
    File,
    Given,
    Grid,
    Index,
    Input,
    Keep,
    Let,
    ListLiteral,
    Logical,
    Membership,
    Name,
    Negate,
    Not,
    Number,
    Order,
    Range,
    Reduce,
    Require,
    Score,
    Selection,
    SetLiteral,
    Slice,
    Softmax,
    Statement,
)


def children(expr: Expr) -> tuple[Expr, ...]:
    """The direct operands of an expression, in the order they are written."""
    match expr:
        case Number() | Decimal() | Boolean() | Name() | Coordinate():
            return ()
        case Negate(operand) | Not(operand) | Absolute(operand):
            return (operand,)
        case Binary(_, left, right) | Range(left, right) | Membership(left, right) | Dot(left, right):
            return (left, right)
        case Divide(left, right):
            return (left, right)
        case Comparison(operands) | Logical(_, operands) | Index(_, operands):
            return operands
        case SetLiteral(items) | ListLiteral(items):
            return items
        case Call(_, _, arguments):
            return tuple(a.value for a in arguments)
        case Reduce(_, binders, body, where):
            return (*(b.bound for b in binders if b.bound is not None), *(() if where is None else (where,)), body)
        case Slice(row, first, last):
            return (row, first, last)
        case Count(axis, rule):
            return (axis, rule)
        case Softmax(value, _, where):
            return (value,) if where is None else (value, where)
        case Chosen():
            parts = (expr.amount, expr.by, expr.counting, expr.among)
            return tuple(p for p in parts if p is not None)
        case _:
            assert_never(expr)


def walk(expr: Expr) -> Iterator[tuple[Expr, int]]:
    """Every node of an expression with its depth from 1, without recursion."""
    stack = [(expr, 1)]
    while stack:
        node, depth = stack.pop()
        yield node, depth
        stack.extend((child, depth + 1) for child in reversed(children(node)))


def operands(statement: Statement) -> tuple[Expr, ...]:
    """The expressions of a statement, in the order they are written."""
    match statement:
        case Keep(condition, when):
            return (condition,) if when is None else (condition, when)
        case Require(condition) | Drop(condition):
            return (condition,)
        case Let(_, value) | Score(_, _, value):
            return (value,)
        case Axis(_, value):
            return (value,)
        case Order(_, by, size):
            return (by, size)
        case Grid(_, extents, cell):
            return extents if cell is None else (*extents, cell)
        case Causal() | Input() | Given():
            return ()
        case _:
            assert_never(statement)


def limits(selection: Selection) -> tuple[Expr, ...]:
    """The expressions of a selection, in the order they are written."""
    match selection:
        case Range(low, high):
            return (low, high)
        case Every(bounds, step):
            return (step,) if bounds is None else (bounds.low, bounds.high, step)
        case SetLiteral(items):
            return items
        case Else():
            return ()
        case _:
            assert_never(selection)


def claim_parts(claim: Claim) -> tuple[Expr, ...]:
    """The expressions of a claim, in the order they are written."""
    return tuple(e for e in (claim.percent, claim.within, claim.at) if e is not None)


def expressions(file: File) -> Iterator[Expr]:
    """Every expression of a file that is not part of another."""
    for definition in (*file.patterns, *file.stacks):
        yield from (p.default for p in definition.parameters if p.default is not None)
        for block in definition.coverage:
            for claim in block.claims:
                yield from claim_parts(claim)
    for pattern in file.patterns:
        for statement in pattern.statements:
            yield from operands(statement)
    for stack in file.stacks:
        yield stack.depth
        for line in stack.lines:
            yield from limits(line.layers)
            for share in line.heads:
                yield from (share.use, *limits(share.heads or Else()))
