"""Conditions with a name of their own: sets after `in`, `near`, `ancestor`, samples and used patterns."""

from ..dsl import syntax as s
from ..dsl.source import Span
from .ir import (
    And,
    Binary,
    Compare,
    Const,
    Expr,
    Formula,
    InPowers,
    Or,
    Read,
    Sample,
    Table,
    Truth,
    Var,
    conjunction,
    disjunction,
)
from .lower_expression import comparison, constant, coordinate, fits, make, number
from .scope import Scope, fail

# Elements one drawn row may hold: each is a comparison in the kernel.
MOST_SAMPLES = 64


def membership(value: s.Expr, members: s.Expr, scope: Scope) -> Formula:
    """`value in members`."""
    x = fits(number(value, scope), value.span, scope)
    match members:
        case s.Range(low, high):
            return conjunction((comparison("<=", number(low, scope), x), comparison("<", x, number(high, scope))))
        case s.SetLiteral(items):
            return disjunction(tuple(comparison("==", x, number(item, scope)) for item in items))
        case s.Call(None, "powers", arguments):
            base = constant(arguments[0].value, scope, "a base")
            if base < 2:
                fail("E005", members.span, f"powers of {base}", "the base is 2 or more")
            return InPowers(x, base)
        case s.Call(None, "multiples", arguments):
            step = constant(arguments[0].value, scope, "a step")
            if step < 1:
                fail("E004", members.span, f"multiples of {step}", "use 1 or more")
            return comparison("==", make("%", x, Const(step), members.span), Const(0)) if step > 1 else Truth(True)
        case s.Call(None, "sample", arguments):
            return _sample(x, [argument.value for argument in arguments], members.span, scope)
        case _:
            fail("E003", members.span, "a set is wanted after `in`", "such as powers(2), 0 .. 8 or {1, 4}")


def _sample(x: Expr, arguments: list[s.Expr], span: Span | None, scope: Scope) -> Formula:
    """A draw becomes a table with a row for each value of its keys, and a comparison for each element."""
    count = constant(arguments[0], scope, "a sample's count")
    if not 0 <= count <= MOST_SAMPLES:
        fail("E005", span, f"a sample of {count}", f"a sample has 0 to {MOST_SAMPLES} elements")
    size = number(arguments[1], scope)
    seed = constant(arguments[2], scope, "a sample's seed")
    keys: list[Expr] = []
    row: Expr = Const(0)
    valid: list[Formula] = [Compare(">=", x, Const(0))]
    for argument in arguments[3:]:
        key = number(argument, scope)
        if isinstance(key, Const):
            seed = (seed * 1_000_003 + key.value) % (1 << 31)
            continue
        extent = _extent(key, argument.span, scope)
        keys.append(extent)
        row = make("+", make("*", row, extent, span), key, span)
        valid.append(Compare(">=", key, Const(0)))
    drawn = Sample(count, size, tuple(keys), seed)
    known = [name for name, table in scope.ledger.tables.items() if table.sample == drawn]
    name = known[0] if known else f"sample.{len(scope.ledger.tables)}"
    scope.ledger.tables[name] = Table(name, "sample", "none", sample=drawn)
    start = make("*", row, Const(count), span)
    hits = tuple(Compare("==", x, Read(name, make("+", start, Const(t), span))) for t in range(count))
    return conjunction((*valid, disjunction(hits)))


def _extent(key: Expr, span: Span | None, scope: Scope) -> Expr:
    match key:
        case Var("h"):
            return Const(scope.shape.heads)
        case Var("g"):
            return Const(scope.shape.kv_heads)
        case Var("q" | "k"):
            return Var("n")
        case Binary("//", Var("q" | "k"), Const(block)):
            return make("//", Binary("+", Var("n"), Const(block - 1)), Const(block), span)
        case _:
            fail("E003", span, "a sample's key is `h`, `g`, `layer` or a position over a constant", "such as q // 64")


def call(expr: s.Call, scope: Scope) -> Formula:
    """A condition written as a call."""
    match expr.module, expr.name:
        case None, "near":
            return _near(expr, scope)
        case None, "ancestor":
            return _ancestor(expr, scope)
        case None, ("powers" | "multiples" | "sample"):
            fail("E003", expr.span, f"`{expr.name}` is a set", f"write: value in {expr.name}(..)")
        case None, ("abs" | "min" | "max"):
            fail("E003", expr.span, f"`{expr.name}` is a number, and a condition is wanted here")
        case _:
            from .lower import use  # `lower` imports this module, through `lower_expression`

            return use(expr, scope)


def _near(expr: s.Call, scope: Scope) -> Formula:
    span = expr.span
    axis = expr.arguments[0].value
    if not isinstance(axis, s.Name) or scope.grid is None or axis.name not in scope.grid.axes:
        fail("E006", span, "`near` takes an axis of the grid first", "such as near(y, 3, clamp)")
    radius = number(expr.arguments[1].value, scope)
    mode = "cut"
    if len(expr.arguments) > 2:
        named = expr.arguments[2].value
        mode = named.name if isinstance(named, s.Name) else ""
    query, key = coordinate(Var("q"), axis.name, span, scope), coordinate(Var("k"), axis.name, span, scope)
    extent = Const(scope.grid.extents[scope.grid.axes.index(axis.name)])
    distance = make("-", query, key, span)
    width = make("+", make("*", radius, Const(2), span), Const(1), span)
    match mode:
        case "cut":
            return And((Compare("<=", distance, radius), Compare("<=", make("-", key, query, span), radius)))
        case "wrap":
            around = make("%", distance, extent, span)
            return Or((Compare("<=", around, radius), Compare(">=", around, make("-", extent, radius, span))))
        case "clamp":
            last = make("max", make("-", extent, width, span), Const(0), span)
            start = make("min", make("max", make("-", query, radius, span), Const(0), span), last, span)
            return And((Compare("<=", start, key), Compare("<", key, make("+", start, width, span))))
        case _:
            fail("E003", span, "the third argument of `near` is `clamp` or `wrap`")


def _ancestor(expr: s.Call, scope: Scope) -> Formula:
    """k is q or above it: q's preorder number lies in k's subtree."""
    source = expr.arguments[0].value
    if not isinstance(source, s.Name):
        fail("E003", expr.span, "`ancestor` takes the name of a token input")
    enter, leave = f"{source.name}.enter", f"{source.name}.leave"
    scope.ledger.tables[enter] = Table(enter, "enter", "token", source.name)
    scope.ledger.tables[leave] = Table(leave, "leave", "token", source.name)
    scope.ledger.used.add(source.name)
    query = Read(enter, Var("q"))
    above = And((Compare("<=", Read(enter, Var("k")), query), Compare("<", query, Read(leave, Var("k")))))
    # The first part follows from the second; said aloud, isl sees that no row is empty.
    return Or((Compare("==", Var("q"), Var("k")), above))
