"""Names and types of a file, without evaluating anything: all findings at once."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import assert_never

from .check_axes import define_axis, define_given, define_order, known_sizes, varying
from .check_scores import RESERVED, define_score
from .check_selection import check_keep, check_limit, is_real
from .check_stack import check_claims, check_stack
from .diagnostics import Diagnostic, did_you_mean
from .infer import constant, infer
from .loader import Module
from .parameters import define_parameters, index_span, name_span, unused
from .scope import ARGUMENTS, FUNCTIONS, TENSORS, UNKNOWN, VARIABLES, Scope, Value
from .source import Span
from .syntax import (
    Axis,
    Causal,
    Chosen,
    Drop,
    Given,
    Grid,
    Input,
    Keep,
    Let,
    Node,
    Order,
    PatternDef,
    Require,
    Score,
    Statement,
)
from .uses import check_uses, is_dynamic
from .walk import operands, walk

_KINDS = {Let: "let", Input: "input", Given: "input", Score: "score", Axis: "axis", Order: "order"}
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
            yield Diagnostic("E002", name_span(line, line.dtype), f"unknown number format `{line.dtype}`", hint)
    for pattern in module.file.patterns:
        yield from _check_pattern(module, pattern)
    for stack in module.file.stacks:
        yield from check_stack(module, stack)
    yield from (d for d in check_uses(module) if d.span is None or d.span.source is module.source)


def _check_names(module: Module) -> Iterator[Diagnostic]:
    """Imports, patterns and stacks share one space of names."""
    first: dict[str, Span | None] = {}
    named: list[tuple[str, Node]] = [(i.alias, i) for i in module.file.imports]
    named.extend((d.name, d) for d in (*module.file.patterns, *module.file.stacks))
    for name, node in sorted(named, key=lambda item: item[1].span.start if item[1].span else 0):
        span = name_span(node, name)
        if name in FUNCTIONS:
            yield Diagnostic("E008", span, f"`{name}` is built in and cannot be redefined")
        elif name in first:
            place = first[name]
            hint = f"the first definition is on line {place.line}" if place else ""
            yield Diagnostic("E008", span, f"`{name}` is defined twice", hint)
        first.setdefault(name, span)


def _axis_span(grid: Grid, place: int) -> Span | None:
    """Where a grid spells one of its axes."""
    if grid.span is None:
        return None
    words = re.compile(r"\w+").finditer(grid.span.source.text, grid.span.start)
    word = next(islice(words, place + 1, None))
    return Span(grid.span.source, word.start(), word.end())


def _check_pattern(module: Module, pattern: PatternDef) -> list[Diagnostic]:
    scope = Scope(module)
    define_parameters(pattern.parameters, scope)
    check_claims(pattern, scope)
    scope.later |= frozenset(_defined(pattern))
    for statement in pattern.statements:
        before = len(scope.findings)
        _check_statement(statement, known_sizes(pattern.parameters), scope)
        if len(scope.findings) > before:  # not all of it may have been looked into
            _touch(statement, scope)
    for name in RESERVED if is_dynamic(pattern) else ():
        if name in scope.places:
            message = f"`{name}` is what a call gives, where a pattern selects by content"
            scope.report("E008", scope.places[name], message, "rename it")
    named = (s for s in pattern.statements if isinstance(s, Let | Input | Score | Given | Axis | Order))
    kinds = {s.name: _KINDS[type(s)] for s in named}
    return [*scope.findings, *unused(scope, kinds)]


def _touch(statement: Statement, scope: Scope) -> None:
    """Count as used all that a statement mentions."""
    for operand in operands(statement):
        scope.touch(operand)
    match statement:
        case Score(_, axes) | Given(_, axes):
            scope.used.update(axes)
        case Input(_, axis):
            scope.used.add(axis)
        case _:
            pass


def _defined(pattern: PatternDef) -> Iterator[str]:
    for statement in pattern.statements:
        match statement:
            case Let(name) | Input(name) | Score(name) | Given(name) | Axis(name) | Order(name):
                yield name
            case _:
                pass


def _check_statement(statement: Statement, sizes: dict[str, int], scope: Scope) -> None:
    match statement:
        case Keep():
            check_keep(statement, scope)
        case Require(clause) | Drop(clause):
            check_limit(clause, scope)
        case Let(name, value) if is_real(value, scope) and not any(isinstance(x, Chosen) for x, _ in walk(value)):
            hint = f"a score needs its axes: `let {name}[{', '.join(varying(value, scope)) or 'I'}] = ..`"
            scope.report("E003", value.span, TENSORS, hint)
            scope.define(name, UNKNOWN, name_span(statement, name))
        case Let(name, value):
            before = len(scope.findings)
            found = infer(value, scope)
            if len(scope.findings) > before:
                found = UNKNOWN
            elif found.kind not in ("number", "condition", "unknown"):
                scope.report("E003", value.span, "a `let` names a number or a condition, and this is neither")
                found = UNKNOWN
            scope.define(name, found, name_span(statement, name))
        case Grid():
            _check_grid(statement, scope)
        case Axis():
            define_axis(statement, sizes, scope)
        case Order():
            define_order(statement, scope)
        case Score():
            define_score(statement, scope)
        case Given():
            define_given(statement, scope)
        case Input(name, axis):
            _check_input(statement, scope)
            value = Value("input", axes=(axis,)) if axis in _INPUT_AXES else UNKNOWN
            if name in ARGUMENTS - VARIABLES:
                hint = "rename it: calls take inputs by name, beside their own arguments"
                scope.report("E008", name_span(statement, name), f"`{name}` is an argument of every call", hint)
            scope.define(name, value, name_span(statement, name))
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


def _check_input(given: Input, scope: Scope) -> None:
    axis, type = given.axis, given.type
    if axis in scope.cells:
        side = {"q": "query", "k": "key"}.get(scope.cells[axis].side, "token")
        sample = f"`input {given.name}[{side}]: int`"
        hint = f"integers are per `query`, `key`, `head` or `token`: {sample}; per cell they are `: float`"
        scope.report("E006", index_span(given, axis), f"integers are not per `{axis}`", hint)
    elif axis not in _INPUT_AXES:
        hint = did_you_mean(axis, _INPUT_AXES)
        scope.report("E006", index_span(given, axis), f"there is no axis `{axis}`", hint)
    if type.name != "int" or type.axes:
        scope.report("E003", type.span, "the numbers of an input are `int`")
