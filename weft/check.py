"""Everything that can be said against a file or a pattern before it runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from .compiler.judge import judge
from .compiler.judge_program import judge_program
from .compiler.plan import Shape
from .compiler.stack import outline
from .compiler.walk import depends_on_head
from .dsl import syntax as s
from .dsl.checker import check
from .dsl.diagnostics import CompileError, Diagnostic
from .dsl.loader import Module
from .dsl.parser import parse_expression
from .dsl.source import Source
from .dsl.uses import is_dynamic
from .dsl.walk import expressions, walk

if TYPE_CHECKING:
    from .pattern import Pattern

# Heads assumed for a pattern whose heads differ, when nobody says how many there are.
USUAL_HEADS = 8


def check_module(module: Module) -> tuple[Diagnostic, ...]:
    """Names and types of a whole file; raises CompileError when there are errors, returns the warnings."""
    found = check(module)
    errors = [d for d in found if d.severity == "error"]
    if errors:
        raise CompileError(errors)
    return found


def natural_heads(pattern: Pattern) -> int:
    """As many heads as a table parameter has; 8 when heads differ without a table; else 1."""
    if found := table_heads(pattern.definition.parameters, pattern.given):
        return found
    return USUAL_HEADS if depends_on_head(pattern.bind()) else 1


def table_heads(parameters: Sequence[s.Parameter], given: Mapping[str, object]) -> int:
    """How many heads the first table parameter by head has; 0 when there is none."""
    for parameter in parameters:
        if parameter.type.name in ("table", "float") and "head" in parameter.type.axes:
            value = given.get(parameter.name, parameter.default)
            if length := _row_length(parse_expression(Source("", value)) if isinstance(value, str) else value):
                return length
    return 0


def _row_length(value: object) -> int:
    """How many numbers a list, or each of its rows, has: as syntax, Python's or numpy's; 0 for anything else."""
    plain: object = getattr(value, "tolist", lambda: value)()
    items = plain.items if isinstance(plain, s.ListLiteral) else plain
    if not isinstance(items, list | tuple) or not items:
        return 0
    row = cast("Sequence[object]", items)
    return _row_length(row[0]) or len(row)


def check_pattern(pattern: Pattern) -> list[Diagnostic]:
    """What a pattern's meaning says against it: empty, subsumed, impossible clauses, rows without keys."""
    if pattern.missing:
        return []
    try:
        if is_dynamic(pattern.definition):
            heads = table_heads(pattern.definition.parameters, pattern.given) or USUAL_HEADS
            found = judge_program(pattern.program(heads), pattern.definition, Shape(True, heads, heads))
        else:
            heads = natural_heads(pattern)
            found = judge(pattern.bind(heads), Shape(True, heads, heads), pattern.definition.span)
    except CompileError as error:
        return list(error.diagnostics)
    return [d for d in found if not (d.code in ("W103", "W105") and _switched_off(pattern, d))]


def check_stack(module: Module, stack: s.StackDef) -> list[Diagnostic]:
    """Whether the defaults of a stack give each layer one line, and its claims sense."""
    file = s.File((), (), (), (stack,))
    names = {node.name for expr in expressions(file) for node, _ in walk(expr) if isinstance(node, s.Name)}
    if "heads" in names or any(p.default is None for p in stack.parameters):
        return []  # that is for whoever says how many heads there are, and gives the parameters
    try:
        outline(module, stack, {}, USUAL_HEADS, USUAL_HEADS)
    except CompileError as error:
        return list(error.diagnostics)
    return []


def _switched_off(pattern: Pattern, finding: Diagnostic) -> bool:
    """Whether a clause never holds because a parameter it mentions is 0: that is how options are left out."""
    off = set[str]()
    for parameter in pattern.definition.parameters:
        match pattern.given.get(parameter.name, parameter.default):
            case s.Number(0) | s.Boolean(False) | 0:
                off.add(parameter.name)
            case _:
                pass
    text = finding.span.source.text[finding.span.start : finding.span.end] if finding.span else ""
    return any(re.search(rf"\b{name}\b", text) for name in off)
