"""One expression of a score: numbers and rows over cells, and conditions over cells."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from ..dsl import syntax as s
from ..dsl.axes import is_integer
from ..dsl.selection_syntax import Binder
from ..dsl.source import Span
from . import selection as ir
from .ir import Const, Expr, Formula, Var
from .judge_term import (
    judge_argument,
    judge_binders,
    judge_cell,
    judge_meeting,
    judge_name,
    judge_part,
    judge_row,
    width,
)
from .lower_expression import VARIABLES, constant, fits, formula, number
from .scope import InputValue, Scope, TableValue, fail
from .walk import parts, variables

# Names that a condition over cells may mention beside its cells.
ALWAYS = frozenset(("h", "g", "n", "m"))

Arithmetics = Literal["+", "-", "*", "/", "min", "max"]
Functions = Literal["abs", "exp", "log", "sqrt", "negate", "probit"]
_FOLDED: dict[Arithmetics, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b,
    "min": min,
    "max": max,
}

# The cells each name counts; None for the plain numbers of `r < 16`.
Cells = Mapping[str, ir.Axis | None]


@dataclass(frozen=True, slots=True)
class Reals:
    """A `float[layer, head]`: one row a layer where it has layers, one column a head where it has heads."""

    axes: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Names:
    """What names mean in one pattern: `scope` knows the integers, the rest is ours."""

    scope: Scope
    floats: dict[str, float] = field(default_factory=dict[str, float])
    tables: dict[str, Reals] = field(default_factory=dict[str, Reals])
    axes: dict[str, ir.Axis] = field(default_factory=dict[str, ir.Axis])
    # How many tokens a cell of an axis has, as the pattern's text says it.
    sizes: dict[str, str] = field(default_factory=dict[str, str])
    # Scores and inputs: whether their values are rows, of how many numbers where that is known, and their axes.
    reads: dict[str, bool] = field(default_factory=dict[str, bool])
    widths: dict[str, int | None] = field(default_factory=dict[str, int | None])
    owners: dict[str, tuple[ir.Axis, ...]] = field(default_factory=dict[str, tuple[ir.Axis, ...]])


def real(expr: s.Expr, names: Names, what: str) -> float:
    """An expression whose value is known without the tensors."""
    match term(expr, {}, names):
        case ir.Number(value):
            return value
        case _:
            fail("E004", expr.span, f"{what} must be known before the kernel runs", "use literals and parameters")


def term(expr: s.Expr, cells: Cells, names: Names) -> ir.Term:
    """The number, or the row of numbers, that an expression stands for where the names of `cells` vary."""
    names.scope.spend(1, expr.span)
    if is_integer(expr, lambda name: _is_integer(name, cells, names)):
        return _integer(expr, cells, names)
    match expr:
        case s.Decimal(text):
            return ir.Number(float(text))
        case s.Name("scale"):
            return ir.Scale()
        case s.Name(name) if name in names.floats:
            return ir.Number(names.floats[name])
        case s.Negate(operand):
            return _apply("negate", term(operand, cells, names), operand.span)
        case s.Absolute(operand):
            return _apply("abs", term(operand, cells, names), operand.span)
        case s.Call(None, "abs" | "exp" | "log" | "sqrt" | "probit" as function, arguments):
            return _apply(function, term(arguments[0].value, cells, names), expr.span)
        case s.Call(None, "min" | "max" as op, arguments):
            first, *rest = (term(argument.value, cells, names) for argument in arguments)
            for each in rest:
                first = _arithmetic(op, first, each, expr.span, names)
            return first
        case s.Binary("+" | "-" | "*" as op, left, right):
            return _arithmetic(op, term(left, cells, names), term(right, cells, names), expr.span, names)
        case s.Divide(left, right):
            return _arithmetic("/", term(left, cells, names), term(right, cells, names), expr.span, names)
        case s.Index("Q" | "K" | "V" as source, (index,)):
            token = _index(index, cells, names)
            judge_row(token, index.span)
            if isinstance(index, s.Name) and (cell := cells.get(index.name)) is not None:
                judge_name(source, cell, names.sizes.get(index.name, "1"), index.span)
            return ir.Row(source, token)
        case s.Index(name, indices) if name in names.reads:
            return _read(name, indices, cells, names)
        case s.Index(name, indices) if name in names.tables:
            return _by_head(name, indices, expr.span, names)
        case s.Dot(left, right):
            sides = term(left, cells, names), term(right, cells, names)
            judge_meeting(width(sides[0], names.widths), width(sides[1], names.widths), expr.span)
            return ir.Dot(*sides)
        case s.Reduce() | s.Softmax() | s.Slice() | s.Count():
            return _reduction(expr, cells, names)
        case _:
            return ir.Number(float(constant(expr, names.scope, "a number in a score")))


def _reduction(expr: s.Reduce | s.Softmax | s.Slice | s.Count, cells: Cells, names: Names) -> ir.Term:
    match expr:
        case s.Reduce(op, binders, body, where):
            inner, bound = dict(cells), list[ir.Binder]()
            for each in binders:
                bound.append(_bind(each, inner, names))
            judge_binders(tuple(bound), names.axes, expr.span)
            met = None if where is None else condition_over(where, inner, names)
            return ir.Reduce(op, tuple(bound), term(body, inner, names), met)
        case s.Softmax(value, along, where):
            met = None if where is None else condition_over(where, cells, names)
            return ir.Softmax(term(value, cells, names), along, met)
        case s.Slice(row, low, high):
            first, last = (constant(bound, names.scope, "a bound of a part") for bound in (low, high))
            if not 0 <= first < last:
                fail("E005", expr.span, f"a part from {first} to {last}", "0 or more, and the first below the last")
            whole = term(row, cells, names)
            judge_part(width(whole, names.widths), last, expr.span)
            return ir.Slice(whole, first, last)
        case s.Count(axis, rule):
            from .lower_rule import chosen  # which imports this module

            return ir.Count(chosen(axis, rule, "", names))
        case _:
            assert_never(expr)


def _read(name: str, indices: tuple[s.Expr, ...], cells: Cells, names: Names) -> ir.Term:
    """A score or an input, at the very cells that it has."""
    places = tuple(_index(index, cells, names) for index in indices)
    for index, place, axis in zip(indices, places, names.owners[name], strict=True):
        judge_cell(name, axis, place, cells, index.span)
    return ir.Read(name, places)


def _is_integer(name: str, cells: Cells, names: Names) -> bool:
    plain = isinstance(names.scope.names.get(name), Expr | TableValue | InputValue)
    known = name in names.axes or name in VARIABLES or name in ("heads", "layer", "layers")
    return name in cells or plain or known


def _integer(expr: s.Expr, cells: Cells, names: Names) -> ir.Term:
    match _index(expr, cells, names):
        case Const(value):
            return ir.Number(float(value))
        case value:
            return ir.Integer(value)


def _by_head(name: str, indices: tuple[s.Expr, ...], span: Span | None, names: Names) -> ir.Term:
    """A table of real numbers, at one of its layers: a number for each head, or one."""
    table, heads = names.tables[name], names.scope.shape.heads
    row = table.rows[0]
    if "layer" in table.axes:
        layer = constant(indices[table.axes.index("layer")], names.scope, "a layer")
        if not 0 <= layer < len(table.rows):
            fail("E007", span, f"`{name}` has {len(table.rows)} layers, not layer {layer}")
        row = table.rows[layer]
    if "head" not in table.axes:
        return ir.Number(row[0])
    if len(row) != heads:
        fail("E007", span, f"`{name}` has {len(row)} heads, the attention has {heads}")
    match number(indices[table.axes.index("head")], names.scope):
        case Var("h"):
            return ir.Number(row[0]) if len(set(row)) == 1 else ir.ByHead(row)
        case Const(head) if 0 <= head < heads:
            return ir.Number(row[head])
        case _:
            fail("E005", span, f"`{name}` is read at `h`, or at a head from 0 to {heads - 1}")


def condition_over(expr: s.Expr, cells: Cells, names: Names) -> Formula:
    """A condition in which the names of `cells` are variables."""
    out = formula(expr, _integers(cells, names))
    _closed(variables(out), cells, expr.span)
    return out


def _index(index: s.Expr, cells: Cells, names: Names) -> Expr:
    """An integer over cells and bound names."""
    scope = _integers(cells, names)
    out = fits(number(index, scope), index.span, scope)
    _closed(frozenset(p.name for p in parts(out) if isinstance(p, Var)), cells, index.span)
    return out


def _integers(cells: Cells, names: Names) -> Scope:
    """The scope in which an axis is a variable rather than what it is of a token."""
    kept = {name: meaning for name, meaning in names.scope.names.items() if name not in names.axes}
    return replace(names.scope, names={**kept, **{name: Var(name) for name in cells}})


def _closed(mentioned: frozenset[str], cells: Cells, span: Span | None) -> None:
    stray = sorted(mentioned - cells.keys() - ALWAYS)
    if stray:
        fail("E003", span, f"`{stray[0]}` has no value here", f"what has: {', '.join(cells)}")


def _bind(binder: Binder, cells: dict[str, ir.Axis | None], names: Names) -> ir.Binder:
    """One binder; its name joins `cells`, since the binders after it may lie inside it."""
    name, span = binder.name, binder.span
    count = 1 if binder.bound is None else constant(binder.bound, names.scope, "a binder's bound")
    if count < 1:
        fail("E005", span, f"`{name}` runs through nothing", "use 1 or more")
    match binder.inside:
        case None if binder.bound is not None:
            cells[name] = None
            return ir.Below(name, count)
        case None | "g" if name == "h":
            return ir.Heads(binder.inside == "g")
        case None if name in names.axes:
            cells[name] = names.axes[name]
            return ir.Whole(name)
        case "q" | "k" as side if binder.bound is not None:
            cells[name] = ir.Axis(name, side, 1)
            return ir.Last(name, side, count)
        case None:
            fail("E006", span, f"`{name}` is not an axis")
        case outer:
            return _inside(binder, outer, cells, names)


def _inside(binder: Binder, outer: str, cells: dict[str, ir.Axis | None], names: Names) -> ir.Binder:
    name, span = binder.name, binder.span
    around, own = cells.get(outer), names.axes.get(name)
    if around is None or (own is not None and (own.side, own.order) != (around.side, around.order)):
        fail("E003", span, f"`{name}` does not lie inside `{outer}`")
    size = 1 if own is None else own.size
    if around.size % size:
        hint = "the finer size divides the coarser one"
        fail("E005", span, f"cells of {around.size} tokens are not made of cells of {size}", hint)
    cells[name] = ir.Axis(name, around.side, size, order=around.order)
    return ir.Inside(name, outer, size)


def _arithmetic(op: Arithmetics, left: ir.Term, right: ir.Term, span: Span | None, names: Names) -> ir.Term:
    """An operation, folded when constant."""
    judge_meeting(width(left, names.widths), width(right, names.widths), span)
    match op, left, right:
        case "/", _, ir.Number(0.0):
            fail("E004", span, "division by 0")
        case _, ir.Number(a), ir.Number(b):
            return ir.Number(_FOLDED[op](a, b))
        case _:
            return ir.Arithmetic(op, left, right)


def _apply(function: Functions, operand: ir.Term, span: Span | None) -> ir.Term:
    if isinstance(operand, ir.Number):
        judge_argument(function, operand.value, span)
    match function, operand:
        case "negate", ir.Number(value):
            return ir.Number(-value)
        case "abs", ir.Number(value):
            return ir.Number(abs(value))
        case _:
            return ir.Apply(function, operand)


def is_vector(value: ir.Term, reads: Mapping[str, bool]) -> bool:
    """Whether a term is a row of numbers; `reads` says it of scores and inputs."""
    match value:
        case ir.Row():
            return True
        case ir.Read(name):
            return reads[name]
        case ir.Arithmetic(_, left, right):
            return is_vector(left, reads) or is_vector(right, reads)
        case ir.Apply(_, operand) | ir.Slice(operand):
            return is_vector(operand, reads)
        case ir.Reduce(_, _, body):
            return is_vector(body, reads)
        case ir.Number() | ir.ByHead() | ir.Integer() | ir.Scale() | ir.Dot() | ir.Softmax() | ir.Count():
            return False
        case _:
            assert_never(value)


def free(value: ir.Term) -> frozenset[str]:
    """The axes that a term depends on and does not bind."""
    match value:
        case ir.Number() | ir.Scale() | ir.ByHead():
            return frozenset()
        case ir.Read(_, indices):
            return frozenset[str]().union(*map(_names, indices))
        case ir.Row(_, index) | ir.Integer(index):
            return _names(index)
        case ir.Arithmetic(_, left, right) | ir.Dot(left, right):
            return free(left) | free(right)
        case ir.Apply(_, operand) | ir.Slice(operand):
            return free(operand)
        case ir.Softmax(body, along, where):
            return free(body) | _met(where) | {along}
        case ir.Reduce(_, binders, body, where):
            out = set(free(body) | _met(where))
            for binder in reversed(binders):
                out.discard(binder.name)
                if isinstance(binder, ir.Inside):
                    out.add(binder.outer)
            return frozenset(out)
        case ir.Count(chosen):
            return frozenset((chosen.query,)) if chosen.query else frozenset()
        case _:
            assert_never(value)


def _names(index: Expr) -> frozenset[str]:
    return frozenset(p.name for p in parts(index) if isinstance(p, Var)) - ALWAYS


def _met(where: Formula | None) -> frozenset[str]:
    return frozenset() if where is None else variables(where) - ALWAYS
