"""A pattern with its parameters and shape given, as a mask: names resolved, patterns inlined."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from ..dsl import syntax as s
from ..dsl.diagnostics import CompileError, Diagnostic
from ..dsl.loader import Module
from ..dsl.parameters import name_span
from ..dsl.parser import parse_expression
from ..dsl.printer import format_expression
from ..dsl.source import Source, Span
from ..dsl.uses import is_dynamic
from .ir import Clause, ClauseKind, Compare, Const, Expr, Formula, Mask, Table, TableAxis, Var
from .lower_expression import constant, formula, number
from .plan import Shape
from .scope import LARGEST_VALUE, GridValue, InputValue, Ledger, Meaning, Scope, TableValue, fail
from .walk import parts

# What Python code may give a parameter: a number, an expression, or the rows of a table.
Given = float | bool | str | Sequence[float] | Sequence[Sequence[float]]

MOST_USES = 16


def lower(module: Module, pattern: s.PatternDef, given: Mapping[str, Given], shape: Shape) -> Mask:
    """The mask of a pattern; raises CompileError with every clause's finding."""
    _refuse(pattern, name_span(pattern, pattern.name))
    return finish(pattern, bind(module, pattern, given, shape))


def bind(module: Module, definition: s.Definition, given: Mapping[str, Given], shape: Shape) -> Scope:
    """The scope of a pattern or a stack whose parameters have the values given, or their defaults."""
    scope = Scope(module, shape, Ledger())
    unknown = sorted(set(given) - {p.name for p in definition.parameters})
    if unknown:
        names = ", ".join(f"`{p.name}`" for p in definition.parameters) or "none"
        message = f"`{definition.name}` has no parameter `{unknown[0]}`"
        fail("E007", definition.span, message, f"its parameters: {names}")
    for parameter in definition.parameters:
        value = given.get(parameter.name)
        scope.names[parameter.name] = _default(parameter, scope) if value is None else _given(parameter, value, scope)
    return scope


def finish(pattern: s.PatternDef, scope: Scope) -> Mask:
    """The mask of a pattern in the scope of its parameters."""
    clauses = _statements(pattern, scope)
    tables = tuple(scope.ledger.tables.values())
    inputs = tuple(
        Table(name, "input", cast("TableAxis", meaning.axis), name)
        for name, meaning in input_axes(scope.module, pattern).items()
        if name in scope.ledger.used
    )
    return Mask(pattern.name, clauses, (*inputs, *tables))


def input_axes(module: Module, pattern: s.PatternDef, depth: int = 0) -> dict[str, InputValue]:
    """Inputs of a pattern and of those it uses."""
    found: dict[str, InputValue] = {}
    for statement in pattern.statements:
        match statement:
            case s.Input(name, axis, _):
                found[name] = InputValue(axis)
            case s.Keep(condition) | s.Require(condition) | s.Drop(condition) | s.Let(_, condition):
                for call in _calls(condition):
                    if depth < MOST_USES and (used := find(module, call)) is not None:
                        found |= input_axes(*used, depth + 1)
            case s.Grid() | s.Causal() | s.Axis() | s.Order() | s.Score() | s.Given():
                pass
    return found


def _calls(expr: s.Expr) -> list[s.Call]:
    match expr:
        case s.Call(_, _, arguments):
            return [expr, *(c for a in arguments for c in _calls(a.value))]
        case s.Not(operand):
            return _calls(operand)
        case s.Logical(_, operands):
            return [c for operand in operands for c in _calls(operand)]
        case _:
            return []


def _refuse(pattern: s.PatternDef, span: Span | None) -> None:
    """Stop where a fixed mask is wanted and the pattern has none."""
    if is_dynamic(pattern):
        hint = "attention, `weft check`, `fmt`, `test`, `show` and `explain` work on it; what needs a mask does not"
        fail("E015", span, f"`{pattern.name}` selects by content: it has no fixed mask", hint)


def find(module: Module, call: s.Call) -> tuple[Module, s.PatternDef] | None:
    """The pattern a call means: of this file, of an import, or an import's namesake."""
    home, name = module, call.name
    if call.module is not None:
        home = module.imports.get(call.module, module)
    elif all(p.name != name for p in module.file.patterns) and name in module.imports:
        home = module.imports[name]
        name = next(i.path[-1] for i in module.file.imports if i.alias == name)
    for pattern in home.file.patterns:
        if pattern.name == name:
            return home, pattern
    return None


def use(expr: s.Call, scope: Scope) -> Formula:
    """A used pattern, as one condition."""
    pattern, inner = enter(expr, scope, scope.ledger)
    return Mask(pattern.name, _statements(pattern, inner)).formula


def enter(expr: s.Call, scope: Scope, ledger: Ledger) -> tuple[s.PatternDef, Scope]:
    """A used pattern and the scope of its parameters, whose values come from the user's scope."""
    found = find(scope.module, expr)
    if found is None:
        fail("E002", expr.span, f"unknown pattern `{expr.name}`")
    if scope.depth >= MOST_USES:
        fail("E009", expr.span, "patterns use each other too deeply")
    module, pattern = found
    _refuse(pattern, expr.span)
    inner = Scope(module, scope.shape, ledger, depth=scope.depth + 1)
    unnamed = (a for a in expr.arguments if a.keyword is None)
    values = dict(zip((p.name for p in pattern.parameters), unnamed, strict=False))
    values |= {a.keyword: a for a in expr.arguments if a.keyword is not None}
    for parameter in pattern.parameters:
        argument = values.get(parameter.name)
        if argument is None:
            inner.names[parameter.name] = _default(parameter, inner)
        else:
            inner.names[parameter.name] = _value(parameter, argument.value, scope)
    return pattern, inner


def _default(parameter: s.Parameter, scope: Scope) -> Meaning:
    if parameter.default is None:
        fail("E007", parameter.span, f"parameter `{parameter.name}` has no default", f"give it: {parameter.name}=..")
    return _value(parameter, parameter.default, scope)


def _given(parameter: s.Parameter, value: Given, scope: Scope) -> Meaning:
    """A value that came from Python."""
    if isinstance(value, str):
        text = Source(f"<{parameter.name}>", value)
        meaning = _value(parameter, parse_expression(text), scope)
        if isinstance(meaning, Expr) and any(isinstance(p, Var) and p.name not in ("n", "m") for p in parts(meaning)):
            message = f"`{parameter.name}` cannot depend on q, k, h or g"
            fail("E007", Span(text, 0, len(value)), message, "use n, m, layer, layers, heads and numbers")
        return meaning
    return _value(parameter, _literal(parameter, value), scope)


def _literal(parameter: s.Parameter, value: Given) -> s.Expr:
    """A Python number, or nested sequence of them (numpy's too), as the syntax that would say it."""
    plain: Given = getattr(value, "tolist", lambda: value)()
    match plain:
        case bool(flag):
            return s.Boolean(flag, span=parameter.span)
        case int(whole):
            return _number(whole, parameter.span)
        case list(items) | tuple(items):
            return s.ListLiteral(tuple(_literal(parameter, item) for item in items), span=parameter.span)
        case _:
            what = f"{type(value).__name__} {value!r}"
            fail("E003", parameter.span, f"`{parameter.name}` is an integer, an expression or rows, not {what}")


def _number(value: int, span: Span | None) -> s.Expr:
    return s.Number(value, span=span) if value >= 0 else s.Negate(s.Number(-value, span=span), span=span)


def _value(parameter: s.Parameter, expr: s.Expr, scope: Scope) -> Meaning:
    name, kind, span = parameter.name, parameter.type, expr.span or parameter.span
    match kind.name:
        case "bool":
            return formula(expr, scope)
        case "table":
            return _table(name, kind.axes, expr, span, scope)
        case _:
            if isinstance(expr, s.Name) and isinstance(scope.names.get(expr.name), TableValue):
                fail("E003", span, f"`{name}` takes a number, not a table")
            value = number(expr, scope)
            if isinstance(value, Const) and abs(value.value) > LARGEST_VALUE:
                fail("E005", span, f"`{name}` is beyond 2^40")
            if kind.name == "tokens" and isinstance(value, Const) and value.value < 0:
                fail("E005", span, f"`{name}` is a count of tokens, and {value.value} is negative", "use 0 or more")
            return value


def _table(name: str, axes: tuple[str, ...], expr: s.Expr, span: Span | None, scope: Scope) -> TableValue:
    match expr:
        case s.Name(other) if isinstance(passed := scope.names.get(other), TableValue):
            return passed
        case s.ListLiteral(items):
            rows = items if len(axes) == 2 else (expr,)
            values: list[tuple[int, ...]] = []
            for row in rows:
                if not isinstance(row, s.ListLiteral) or not row.items:
                    fail("E007", span, f"table `{name}` is indexed by {', '.join(axes)}: rows of numbers are wanted")
                values.append(tuple(constant(item, scope, "a table's element") for item in row.items))
            if len({len(row) for row in values}) != 1:
                fail("E007", span, f"the rows of table `{name}` have different lengths")
            if axes == ("layer",):
                values = [(x,) for x in values[0]]
            return TableValue(axes, tuple(values))
        case _:
            fail("E007", span, f"table `{name}` wants a list of numbers", "such as [512, 1024]")


def _statements(pattern: s.PatternDef, scope: Scope) -> tuple[Clause, ...]:
    """Every clause, collecting the findings of all of them before failing."""
    _refuse(pattern, name_span(pattern, pattern.name))
    clauses: list[Clause] = []
    found: list[Diagnostic] = []
    for statement in pattern.statements:
        try:
            match statement:
                case s.Causal():
                    clauses.append(Clause("require", Compare("<=", Var("k"), Var("q")), "causal", statement.span))
                case s.Keep(condition):
                    clauses.append(_clause("keep", condition, statement.span, scope))
                case s.Require(condition):
                    clauses.append(_clause("require", condition, statement.span, scope))
                case s.Drop(condition):
                    clauses.append(_clause("drop", condition, statement.span, scope))
                case s.Let(name, value):
                    before = scope.ledger.nodes
                    scope.names[name] = _either(value, scope)
                    scope.sizes[name] = scope.ledger.nodes - before
                case s.Input(name, axis, _):
                    scope.names[name] = InputValue(axis)
                case s.Grid():
                    scope = replace(scope, grid=_grid(statement, scope))
                case s.Axis() | s.Order() | s.Score() | s.Given():
                    pass  # refused above
        except CompileError as error:
            found.extend(error.diagnostics)
            if any(d.code == "E011" for d in error.diagnostics) or isinstance(statement, s.Let | s.Grid):
                break
    if found:
        raise CompileError(found)
    return tuple(clauses)


def _clause(kind: ClauseKind, condition: s.Expr, span: Span | None, scope: Scope) -> Clause:
    text = f"{kind} {format_expression(condition)}"
    return Clause(kind, formula(condition, scope), text, span)


def _either(value: s.Expr, scope: Scope) -> Meaning:
    """A `let` is a number or a condition; its syntax says which."""
    match value:
        case s.Boolean() | s.Not() | s.Comparison() | s.Membership() | s.Logical():
            return formula(value, scope)
        case s.Name(name):
            meaning = scope.names.get(name)
            return number(value, scope) if meaning is None or isinstance(meaning, Expr) else meaning
        case s.Call(module, name) if module is not None or name not in ("abs", "min", "max"):
            return formula(value, scope)
        case _:
            return number(value, scope)


def _grid(grid: s.Grid, scope: Scope) -> GridValue:
    extents = tuple(constant(extent, scope, "a grid's size") for extent in grid.extents)
    cell = 1 if grid.cell is None else constant(grid.cell, scope, "a grid's cell")
    if min(*extents, cell) < 1:
        fail("E005", grid.span, "a grid's sizes are 1 or more")
    return GridValue(grid.axes, extents, cell)
