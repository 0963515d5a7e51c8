"""Names and types of a file, without evaluating anything: all findings at once."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import assert_never

from .diagnostics import Diagnostic, did_you_mean
from .infer import check_value, condition, constant, infer
from .loader import Module
from .scope import ARGUMENTS, FUNCTIONS, UNKNOWN, VARIABLES, Scope, Value
from .source import Span
from .syntax import (
    Causal,
    Drop,
    Grid,
    Import,
    Input,
    Keep,
    Let,
    Node,
    Parameter,
    PatternDef,
    Require,
    Statement,
    Type,
)
from .uses import check_uses
from .walk import operands

_TYPES = ("int", "tokens", "bool", "table")
_TABLES = (("head",), ("layer", "head"), ("layer",))
_DTYPES = ("bf16", "fp16", "fp32")
_INPUT_AXES = ("token", "query", "key", "head")


def check(module: Module) -> tuple[Diagnostic, ...]:
    """Every error and warning of a file, and the errors of the files it imports, in order of position."""
    own = sorted(_check_file(module), key=_position)
    imported = [f for other in _imported(module) for f in sorted(_check_file(other), key=_position)]
    return (*(f for f in imported if f.severity == "error"), *dict.fromkeys(own))


def _position(finding: Diagnostic) -> int:
    return finding.span.start if finding.span else 0


def _imported(module: Module) -> Iterator[Module]:
    """Every module reached by imports, once."""
    seen = {module.source.path}
    pending = list(module.imports.values())
    while pending:
        other = pending.pop(0)
        if other.source.path not in seen:
            seen.add(other.source.path)
            pending.extend(other.imports.values())
            yield other


def _check_file(module: Module) -> Iterator[Diagnostic]:
    yield from _check_names(module)
    for line in module.file.precompiles:
        if line.dtype not in _DTYPES:
            hint = did_you_mean(line.dtype, _DTYPES)
            yield Diagnostic("E002", _name_span(line, line.dtype), f"unknown number format `{line.dtype}`", hint)
    for pattern in module.file.patterns:
        yield from _check_pattern(module, pattern)
    yield from (d for d in check_uses(module) if d.span is None or d.span.source is module.source)


def _check_names(module: Module) -> Iterator[Diagnostic]:
    """Patterns and imports share one space of names."""
    first: dict[str, Span | None] = {}
    named: list[tuple[str, Node]] = [(i.alias, i) for i in module.file.imports]
    named.extend((p.name, p) for p in module.file.patterns)
    for name, node in named:
        span = _name_span(node, name)
        if name in FUNCTIONS:
            yield Diagnostic("E008", span, f"`{name}` is built in and cannot be redefined")
        elif name in first:
            place = first[name]
            hint = f"the first definition is on line {place.line}" if place else ""
            yield Diagnostic("E008", span, f"`{name}` is defined twice", hint)
        first.setdefault(name, span)


# A keyword and what may stand between it and the name it defines.
_TO_NAME = re.compile(r"\w+(?:\s++|#[^\n]*+)*+")


def _name_span(node: Node, name: str) -> Span | None:
    """Where a definition spells the name it defines."""
    span = node.span
    if span is None:
        return None
    text = span.source.text
    match node:
        case Parameter():
            start = span.start
        case Import():
            start = span.end - len(name)
        case _:
            found = _TO_NAME.match(text, span.start)
            start = found.end() if found else span.start
    return Span(span.source, start, start + len(name))


def _axis_span(grid: Grid, place: int) -> Span | None:
    """Where a grid spells one of its axes."""
    if grid.span is None:
        return None
    words = re.compile(r"\w+").finditer(grid.span.source.text, grid.span.start)
    word = next(islice(words, place + 1, None))
    return Span(grid.span.source, word.start(), word.end())


def _check_pattern(module: Module, pattern: PatternDef) -> list[Diagnostic]:
    scope = Scope(module)
    # Defaults see the parameters to their left, so `later` serves them too.
    scope.later = frozenset((*(p.name for p in pattern.parameters), *_defined(pattern)))
    for parameter in pattern.parameters:
        _check_type(parameter.type, scope)
        if parameter.default is not None:
            check_value(parameter, parameter.default, scope)
        scope.define(parameter.name, _parameter_value(parameter.type), _name_span(parameter, parameter.name))
    for statement in pattern.statements:
        _check_statement(statement, scope)
    # After a misspelt name its definition looks unused: one mistake, one finding.
    if all(f.code != "E002" for f in scope.findings):
        scope.findings.extend(_unused(pattern, scope))
    return scope.findings


def _defined(pattern: PatternDef) -> Iterator[str]:
    for statement in pattern.statements:
        match statement:
            case Let(name) | Input(name):
                yield name
            case _:
                pass


def _unused(pattern: PatternDef, scope: Scope) -> Iterator[Diagnostic]:
    kinds = {s.name: "let" if isinstance(s, Let) else "input" for s in pattern.statements if isinstance(s, Let | Input)}
    for name in scope.names:
        if name not in scope.used and scope.names[name].kind != "unknown":
            message = f"{kinds.get(name, 'parameter')} `{name}` is never used"
            yield Diagnostic("W104", scope.places[name], message, severity="warning")


def _parameter_value(type: Type) -> Value:
    match type.name:
        case "int" | "tokens":
            return Value("number")
        case "bool":
            return Value("condition")
        case "table":
            return Value("table", axes=type.axes)
        case _:
            return UNKNOWN


def _check_type(type: Type, scope: Scope) -> None:
    if type.name not in _TYPES:
        scope.report("E002", type.span, f"unknown type `{type.name}`", did_you_mean(type.name, _TYPES))
    elif type.name == "table" and type.axes not in _TABLES:
        axes = f"[{', '.join(type.axes)}]" if type.axes else " without axes"
        hint = "a table is table[head], table[layer, head] or table[layer]"
        scope.report("E006", type.span, f"there is no table{axes}", hint)
    elif type.name != "table" and type.axes:
        scope.report("E006", type.span, f"`{type.name}` has no axes", "lists of numbers are tables: table[head]")


def _check_statement(statement: Statement, scope: Scope) -> None:
    match statement:
        case Keep(clause) | Require(clause) | Drop(clause):
            condition(clause, scope)
        case Let(name, value):
            found = infer(value, scope)
            if found.kind not in ("number", "condition", "unknown"):
                scope.report("E003", value.span, "a `let` names a number or a condition, and this is neither")
                found = UNKNOWN
            scope.define(name, found, _name_span(statement, name))
        case Grid():
            _check_grid(statement, scope)
        case Input(name, axis, type):
            _check_input(axis, type, statement.span, scope)
            value = Value("input", axes=(axis,)) if axis in _INPUT_AXES else UNKNOWN
            if name in ARGUMENTS - VARIABLES:
                hint = "rename it: calls take inputs by name, beside their own arguments"
                scope.report("E008", _name_span(statement, name), f"`{name}` is an argument of every call", hint)
            scope.define(name, value, _name_span(statement, name))
        case Causal():
            pass
        case _:
            assert_never(statement)


def _check_grid(grid: Grid, scope: Scope) -> None:
    for size in operands(grid):
        constant(size, scope, "a size of the grid")
    if scope.axes:
        scope.report("E008", grid.span, "a pattern has one grid, and this is a second one")
        return
    if not 2 <= len(grid.axes) <= 3:
        scope.report("E006", grid.span, f"a grid has 2 or 3 axes, not {len(grid.axes)}")
    elif len(grid.axes) != len(grid.extents):
        scope.report("E006", grid.span, f"a grid of {len(grid.axes)} axes has as many sizes, not {len(grid.extents)}")
    for place, axis in enumerate(grid.axes):
        scope.claim(axis, _axis_span(grid, place))
    scope.axes = grid.axes


def _check_input(axis: str, type: Type, span: Span | None, scope: Scope) -> None:
    if axis not in _INPUT_AXES:
        scope.report("E006", span, f"there is no axis `{axis}`", did_you_mean(axis, _INPUT_AXES))
    if type.name != "int" or type.axes:
        scope.report("E003", type.span, "the numbers of an input are `int`")
