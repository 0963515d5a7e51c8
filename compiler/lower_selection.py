"""A pattern that selects by content, with its parameters given, as a program of scores and choices over cells."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from math import isfinite
from typing import assert_never, cast

from ..dsl import syntax as s
from ..dsl.diagnostics import CompileError, Diagnostic
from ..dsl.loader import Module
from ..dsl.parser import parse_expression
from ..dsl.printer import format_expression
from ..dsl.source import Source, Span
from . import lower as static
from . import selection as ir
from .ir import Binary, Const, Var
from .lower_term import ALWAYS, Names, condition_over, free, is_vector, real, term
from .plan import Shape
from .scope import fail
from .walk import variables

# What Python code may give a parameter here.
Given = static.Given | float

TOKENS = (ir.Axis("q", "q", 1), ir.Axis("k", "k", 1))


def lower_selection(module: Module, definition: s.PatternDef, given: Mapping[str, Given], shape: Shape) -> ir.Program:
    """The program of a pattern with axes; raises CompileError with every statement's finding."""
    names = bind(module, definition, given, shape)
    own = (x.name for x in definition.statements if isinstance(x, s.Score | s.Given))
    numbers = frozenset((*names.floats, "scale", *own))
    statements = tuple(chain.from_iterable(_split(x, numbers) for x in definition.statements))
    plain = (_static(x) for x in statements if not (isinstance(x, s.Keep) and selects(x.condition, numbers)))
    mask = static.finish(replace(definition, statements=tuple(x for x in plain if x is not None)), names.scope)
    names.axes.update({axis.name: axis for axis in TOKENS})
    givens: list[ir.Given] = []
    scores: list[ir.Score] = []
    choices: list[ir.Choice] = []
    found: list[Diagnostic] = []
    for statement in statements:
        try:
            match statement:
                case s.Axis(name, side):
                    names.axes[name] = ir.Axis(name, side, _size(names.scope.names[name]))
                case s.Given(name, axes, kind):
                    givens.append(ir.Given(name, axes, kind.name == "vector"))
                    names.reads[name] = givens[-1].vector
                case s.Score(name, axes, value):
                    lowered = term(value, {axis: names.axes[axis] for axis in axes}, names)
                    scores.append(ir.Score(name, axes, lowered, is_vector(lowered, names.reads)))
                    names.reads[name] = scores[-1].vector
                case s.Keep(condition) if selects(condition, numbers):
                    choices.append(_choice(condition, names))
                case _:
                    pass
        except CompileError as error:
            found.extend(error.diagnostics)
            if isinstance(statement, s.Score) or any(d.code == "E011" for d in error.diagnostics):
                break
    if found:
        raise CompileError(found)
    # Scores and choices may have asked for tables that the mask did not.
    inputs = tuple(x for x in statements if isinstance(x, s.Input))
    later = static.finish(replace(definition, statements=inputs), names.scope).tables
    tables = tuple(dict.fromkeys((*mask.tables, *later)))
    limits = replace(mask, clauses=tuple(c for c in mask.clauses if c.kind != "keep"), tables=tables)
    keeps = tuple(c for c in mask.clauses if c.kind == "keep")
    return ir.Program(
        definition.name, tuple(names.axes.values()), tuple(givens), tuple(scores), limits, keeps, tuple(choices)
    )


def bind(module: Module, definition: s.PatternDef, given: Mapping[str, Given], shape: Shape) -> Names:
    """The parameters' values; `float` ones may be computed from the others."""
    exact = tuple(p for p in definition.parameters if p.type.name != "float")
    floats = tuple(p for p in definition.parameters if p.type.name == "float")
    if not given.keys() <= {p.name for p in definition.parameters}:
        static.bind(module, definition, dict.fromkeys(given, 0), shape)  # which says what parameters there are
    others = {p.name: cast("static.Given", given[p.name]) for p in exact if p.name in given}
    names = Names(static.bind(module, replace(definition, parameters=exact), others, shape))
    for parameter in floats:
        names.floats[parameter.name] = _float(parameter, given.get(parameter.name), names)
    return names


def _float(parameter: s.Parameter, value: Given | None, names: Names) -> float:
    try:
        plain: object = getattr(value, "item", lambda: value)()
        plain = float(plain) if isinstance(plain, int) and not isinstance(plain, bool) else plain
    except (OverflowError, RuntimeError, ValueError):  # of many numbers, or of too large a one
        fail("E003", parameter.span, f"`{parameter.name}` is one finite number")
    match plain:
        case None if parameter.default is None:
            hint = f"give it: {parameter.name}=.."
            fail("E007", parameter.span, f"parameter `{parameter.name}` has no default", hint)
        case None:
            assert parameter.default is not None
            return real(parameter.default, names, f"`{parameter.name}`")
        case str(text):
            return real(parse_expression(Source(f"<{parameter.name}>", text)), names, f"`{parameter.name}`")
        case int() | float() if not isinstance(plain, bool) and isfinite(plain):
            return float(plain)
        case _:
            fail("E003", parameter.span, f"`{parameter.name}` is a finite number, not {plain!r}")


def _split(statement: s.Statement, real_names: frozenset[str]) -> tuple[s.Statement, ...]:
    """`keep A or B` is `keep A` and `keep B`, which matters where one of them is a choice."""
    match statement:
        case s.Keep(s.Logical("or", operands) as condition) if selects(condition, real_names):
            keeps = (_split(s.Keep(each, span=each.span), real_names) for each in operands)
            return tuple(chain.from_iterable(keeps))
        case _:
            return (statement,)


def _static(statement: s.Statement) -> s.Statement | None:
    """What a mask can say of a statement: an axis is a name for the number of a token's cell."""
    match statement:
        case s.Axis(name, side, size):
            token = s.Name(side, span=statement.span)
            cell = token if size is None else s.Binary("//", token, size, span=size.span)
            return s.Let(name, cell, span=statement.span)
        case s.Score() | s.Given():
            return None
        case _:
            return statement


def _size(cell: object) -> int:
    match cell:
        case Binary("//", Var(), Const(size)):
            return size
        case _:
            return 1


def selects(expr: s.Expr, real_names: frozenset[str]) -> bool:
    """Whether a condition depends on numbers that only the call's tensors give."""
    match expr:
        case s.Membership(_, s.Chosen()):
            return True
        case s.Comparison(operands):
            return any(_is_real(operand, real_names) for operand in operands)
        case s.Logical(_, operands):
            return any(selects(operand, real_names) for operand in operands)
        case s.Not(operand):
            return selects(operand, real_names)
        case _:
            return False


def _is_real(expr: s.Expr, real_names: frozenset[str]) -> bool:
    match expr:
        case s.Decimal() | s.Divide() | s.Dot() | s.Reduce() | s.Softmax():
            return True
        case s.Name(name) | s.Index(name):
            return name in real_names
        case s.Call(None, name, arguments):
            return name in ("exp", "log", "sqrt") or any(_is_real(a.value, real_names) for a in arguments)
        case s.Negate(operand) | s.Absolute(operand):
            return _is_real(operand, real_names)
        case s.Binary(_, left, right):
            return _is_real(left, real_names) or _is_real(right, real_names)
        case _:
            return False


def _choice(condition: s.Expr, names: Names) -> ir.Choice:
    text = f"keep {format_expression(condition)}"
    match condition:
        case s.Membership(s.Name(axis), s.Chosen() as rule, False) if axis in names.axes:
            return _chosen(axis, rule, text, names)
        case s.Comparison((left, right), ("<" | "<=" | ">" | ">=" as op,)):
            sides = term(left, names.axes, names), term(right, names.axes, names)
            key, query = _cells(free(sides[0]) | free(sides[1]), condition.span, names)
            return ir.Threshold(op, *sides, key, query, text)
        case s.Comparison():
            fail("E003", condition.span, "a threshold is one comparison, with `<`, `<=`, `>` or `>=`")
        case _:
            hint = "write `among (..)` in it, or several `keep`s"
            fail("E003", condition.span, "a selection stands alone in its `keep`", hint)


def _chosen(axis: str, rule: s.Chosen, text: str, names: Names) -> ir.Chosen:
    by = term(rule.by, names.axes, names)
    counting, among = (
        None if expr is None else condition_over(expr, names.axes, names) for expr in (rule.counting, rule.among)
    )
    mentioned = free(by).union(*(variables(x) for x in (counting, among) if x is not None)) - ALWAYS
    key, query = _cells(mentioned | {axis}, rule.span, names)
    if key is None or key != axis:
        fail("E003", rule.span, f"`{axis}` counts queries, and a rule chooses keys")
    amount = real(rule.amount, names, "an amount")
    low, high, what = 0.0, float("inf"), "a mass of 0 or more"
    match rule.rule:
        case "top" if rule.percent:
            high, what = 100.0, "0% to 100%"
        case "top":
            what = "a whole number of cells"
        case "cover":
            high, what = 1.0, "a share from 0 to 1"
        case "reach" | "under":
            pass
        case _:
            assert_never(rule.rule)
    whole = rule.rule != "top" or rule.percent or (isfinite(amount) and amount == int(amount))
    if not (isfinite(amount) and low <= amount <= high and whole):
        fail("E005", rule.amount.span, f"`{rule.rule}` takes {what}, not {amount:g}")
    return ir.Chosen(
        rule.rule, ir.Number(amount), rule.percent, rule.of or "visible", key, query, by, counting, among, text
    )


def _cells(mentioned: frozenset[str], span: Span | None, names: Names) -> tuple[str | None, str | None]:
    """The key-sided and the query-sided axis among names."""
    sides = {side: sorted(x for x in mentioned if names.axes[x].side == side) for side in ("k", "q")}
    for found in sides.values():
        if len(found) > 1:
            hint = "a selection has one axis a side"
            fail("E003", span, f"`{found[0]}` and `{found[1]}` count the same tokens", hint)
    key, query = (found[0] if found else None for found in sides.values())
    return key, query
