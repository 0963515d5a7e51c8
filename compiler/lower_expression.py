"""One expression of the surface syntax as integers or conditions of the mask language."""

from typing import assert_never

from ..dsl import syntax as s
from ..dsl.source import Span
from .evaluate import INTEGERS, arithmetic, compare
from .intervals import Interval, extent
from .ir import (
    And,
    Binary,
    Compare,
    Const,
    Expr,
    Formula,
    InPowers,
    Not,
    Op,
    Or,
    Read,
    Table,
    Truth,
    Var,
    conjunction,
    disjunction,
    weight,
)
from .scope import LARGEST_RESULT, LARGEST_VALUE, MOST_NODES, InputValue, Scope, TableValue, fail
from .walk import parts

VARIABLES = ("q", "k", "h", "g", "n", "m")


def number(expr: s.Expr, scope: Scope) -> Expr:
    """The integer an expression stands for."""
    scope.spend(1, expr.span)
    match expr:
        case s.Number(value):
            return Const(value)
        case s.Name(name):
            return _name(name, expr.span, scope)
        case s.Coordinate(base, axis):
            return coordinate(Var(base), axis, expr.span, scope)
        case s.Index(name, indices):
            return _index(name, indices, expr.span, scope)
        case s.Negate(operand):
            return make("-", Const(0), number(operand, scope), expr.span)
        case s.Absolute(operand):
            return absolute(number(operand, scope), expr.span)
        case s.Binary(op, left, right):
            return _binary(op, left, right, expr.span, scope)
        case s.Call(None, "abs" | "min" | "max" as function, arguments):
            values = [number(argument.value, scope) for argument in arguments]
            if function == "abs":
                return absolute(values[0], expr.span)
            out = values[0]
            for value in values[1:]:
                out = make(function, out, value, expr.span)
            return out
        case _:
            fail("E003", expr.span, "a number is wanted here, and this is none")


def _name(name: str, span: Span | None, scope: Scope) -> Expr:
    shape = scope.shape
    known = {"heads": shape.heads, "layer": shape.layer, "layers": shape.layers}
    if name in known:
        scope.ledger.layered |= name == "layer"
        return Const(known[name])
    meaning = scope.names.get(name)
    if isinstance(meaning, Expr):
        scope.spend(scope.sizes.get(name, 1), span)
        return meaning
    if name in VARIABLES:
        return Var(name)
    fail("E003", span, f"`{name}` is not a number here")


def constant(expr: s.Expr, scope: Scope, what: str) -> int:
    """An expression whose value must be known before the kernel runs."""
    match number(expr, scope):
        case Const(value):
            return value
        case _:
            fail("E004", expr.span, f"{what} must be known before the kernel runs", "use literals and parameters")


def make(op: Op, left: Expr, right: Expr, span: Span | None) -> Expr:
    """An operation, folded when constant, with bit operations on constants turned into arithmetic."""
    if weight(left) + weight(right) > MOST_NODES:
        fail("E011", span, f"the expression expands to more than {MOST_NODES} terms", "|x| and bit operations copy x")
    match op, left, right:
        case _, Const(a), Const(b):
            value = int(arithmetic(op, a, b, INTEGERS))
            if abs(value) > LARGEST_VALUE:
                fail("E005", span, "this number is beyond 2^40", "positions and lengths stay below 2^31")
            return Const(value)
        case (("+" | "-"), _, Const(0)):
            return left
        case "+", Const(0), _:
            return right
        case (("*" | "//"), _, Const(1)):
            return left
        case "*", Const(1), _:
            return right
        case "*", _, Const(0):
            return right
        case "*", Const(0), _:
            return left
        case (("&" | "|" | "^"), Const(), _):
            return make(op, right, left, span)
        case "&", _, Const(mask) if mask >= 0:
            bits = [b for b in range(mask.bit_length()) if mask >> b & 1]
            if mask & (mask + 1) == 0:
                return make("%", left, Const(mask + 1), span)
            out: Expr = Const(0)
            for b in bits:
                bit = Binary("%", make("//", left, Const(1 << b), span), Const(2))
                out = make("+", out, make("*", bit, Const(1 << b), span), span)
            return out
        case (("|" | "^"), _, Const(mask)) if mask >= 0:
            both = make("&", left, right, span)
            both = both if op == "|" else make("*", both, Const(2), span)
            return make("-", make("+", left, right, span), both, span)
        case _:
            return Binary(op, left, right)


def absolute(value: Expr, span: Span | None) -> Expr:
    """|value|."""
    return make("max", value, make("-", Const(0), value, span), span)


def _binary(op: s.BinaryOp, left: s.Expr, right: s.Expr, span: Span | None, scope: Scope) -> Expr:
    a = number(left, scope)
    if op in ("<<", ">>"):
        amount = constant(right, scope, "a shift")
        if not 0 <= amount <= 40:
            fail("E005", right.span, f"a shift by {amount}", "shifts are 0 to 40")
        return make("*" if op == "<<" else "//", a, Const(1 << amount), span)
    if op in ("//", "%"):
        divisor = constant(right, scope, "a divisor" if op == "//" else "a modulus")
        if divisor <= 0:
            fail("E004", right.span, f"division by {divisor}" if op == "//" else f"modulus {divisor}", "use 1 or more")
        return Const(0) if op == "%" and divisor == 1 else make(op, a, Const(divisor), span)
    return make(op, a, number(right, scope), span)


def _place(order: str, index: s.Expr, scope: Scope) -> Expr:
    """The place of a token in a selection's order; -1 where there is no such token. See `selection.Order`."""
    scope.ledger.tables[order] = Table(order, "order", "none")
    token = fits(number(index, scope), index.span, scope)
    if not (isinstance(token, Const) and token.value >= 0) and token not in (Var("q"), Var("k")):
        token = make("max", token, Const(-1), index.span)
    if token not in (Var("q"), Var("k")):
        token = make("min", token, Var("n"), index.span)
    return Read(order, Binary("+", Binary("*", Var("h"), Binary("+", Var("n"), Const(1))), token))


def _index(name: str, indices: tuple[s.Expr, ...], span: Span | None, scope: Scope) -> Expr:
    if name == scope.order:
        return _place(name, indices[0], scope)
    match scope.names.get(name):
        case InputValue(axis):
            scope.ledger.used.add(name)
            position = number(indices[0], scope)
            if axis == "query":
                position = make("-", position, Binary("-", Var("n"), Var("m")), span)
            return Read(name, position)
        case TableValue(axes, rows):
            row = rows[0]
            if "layer" in axes:
                layer = constant(indices[axes.index("layer")], scope, "a layer")
                if not 0 <= layer < len(rows):
                    fail("E007", span, f"table `{name}` has {len(rows)} layers, not layer {layer}")
                row = rows[layer]
            if "head" not in axes:
                return Const(row[0])
            if len(row) != scope.shape.heads:
                fail("E007", span, f"table `{name}` has {len(row)} heads, the attention has {scope.shape.heads}")
            return table_read(name, row, number(indices[axes.index("head")], scope), scope)
        case _:
            fail("E003", span, f"`{name}` cannot be indexed")


def table_read(name: str, row: tuple[int, ...], index: Expr, scope: Scope) -> Expr:
    """A read of constants by head; constants alike need no table."""
    if len(set(row)) == 1 and index == Var("h"):
        return Const(row[0])
    if isinstance(index, Const):
        return Const(row[index.value] if 0 <= index.value < len(row) else -1)
    # No name in a file has a dot.
    key = f"{name}.{len(scope.ledger.tables)}"
    for known, table in scope.ledger.tables.items():
        if table.kind == "head" and table.values == row:
            key = known
    scope.ledger.tables[key] = Table(key, "head", "head", values=row)
    return Read(key, index)


def coordinate(base: Var, axis: str, span: Span | None, scope: Scope) -> Expr:
    """A grid coordinate: the last axis varies fastest, the first has no upper end."""
    grid = scope.grid
    if grid is None or axis not in grid.axes:
        fail("E006", span, f"no grid axis `{axis}`", "declare it: grid (y, x) over (height, width)")
    place = grid.axes.index(axis)
    below = grid.cell
    for size in grid.extents[place + 1 :]:
        below *= size
    out = make("//", base, Const(below), span)
    return out if place == 0 else make("%", out, Const(grid.extents[place]), span)


def formula(expr: s.Expr, scope: Scope) -> Formula:
    """The condition an expression stands for."""
    from .lower_condition import call, membership  # which imports this module

    scope.spend(1, expr.span)
    match expr:
        case s.Boolean(value):
            return Truth(value)
        case s.Name(name):
            meaning = scope.names.get(name)
            if isinstance(meaning, Formula):
                scope.spend(scope.sizes.get(name, 1), expr.span)
                return meaning
            fail("E003", expr.span, f"`{name}` is not a condition here")
        case s.Not(operand):
            return negation(formula(operand, scope))
        case s.Logical(op, operands):
            items = tuple(formula(operand, scope) for operand in operands)
            return conjunction(items) if op == "and" else disjunction(items)
        case s.Comparison(operands, ops):
            values = [number(operand, scope) for operand in operands]
            for operand, value in zip(operands, values, strict=True):
                fits(value, operand.span, scope)
            chain = [comparison(op, values[p], values[p + 1]) for p, op in enumerate(ops)]
            return conjunction(tuple(chain))
        case s.Membership(value, members, negated):
            inside = membership(value, members, scope)
            return negation(inside) if negated else inside
        case s.Call():
            return call(expr, scope)
        case _:
            fail("E003", expr.span, "a condition is wanted here, and this is none")


POSITION = Interval(0, 1 << 30)
BOXES = {
    **dict.fromkeys(("k", "n", "m"), POSITION),
    "q": Interval(-(1 << 30), 1 << 30),
    **{name: Interval(0, 1 << 16) for name in ("h", "g")},
}


def fits(value: Expr, span: Span | None, scope: Scope) -> Expr:
    """The value itself; fails where 64 bits may not hold it, or something on the way, for some length."""
    tables = {
        name: Interval(min(table.values), max(table.values))
        for name, table in scope.ledger.tables.items()
        if table.kind == "head"
    }
    # What is no variable of the language counts cells or tokens.
    boxes = {part.name: BOXES.get(part.name, POSITION) for part in parts(value) if isinstance(part, Var)}
    if extent(value, boxes, tables)[1] > LARGEST_RESULT:
        hint = "positions reach 2^30 and inputs 2^31; divide before you multiply"
        fail("E005", span, "this may leave 61 bits", hint)
    return value


def negation(item: Formula) -> Formula:
    """not item, folded."""
    match item:
        case Truth(value):
            return Truth(not value)
        case Not(inner):
            return inner
        case And() | Or() | Compare() | InPowers():
            return Not(item)
        case _:
            assert_never(item)


def comparison(op: s.CompareOp, left: Expr, right: Expr) -> Formula:
    """A comparison, folded when constant; `x & (x - 1) == 0` is known for what it is."""
    match op, left, right:
        case _, Const(a), Const(b):
            return Truth(bool(compare(op, a, b)))
        case "==", Binary("&", x, Binary("-", y, Const(1))), Const(0) if x == y:
            return Or((Compare("==", x, Const(0)), InPowers(x, 2)))
        case "==", Binary("^", x, y), Const(0):
            return Compare("==", x, y)
        case _:
            return Compare(op, left, right)
