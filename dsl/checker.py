"""Names and types of a file, without evaluating anything: all findings at once."""

import re
from collections.abc import Iterator
from typing import assert_never

from .diagnostics import Diagnostic, did_you_mean
from .infer import check_value, condition, constant, infer
from .loader import Module
from .scope import FUNCTIONS, Kind, Scope, Value
from .source import Span
from .syntax import (
    Causal,
    Drop,
    Grid,
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

_TYPES = ("int", "tokens", "bool", "table")
_TABLES = (("head",), ("layer", "head"), ("layer",))
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
    for pattern in module.file.patterns:
        yield from _Pattern(module, pattern).check()
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


def _name_span(node: Node, name: str) -> Span | None:
    """The last place of a definition that spells its name, before any value it has."""
    span = node.span
    if span is None:
        return None
    text = span.source.text[span.start : span.end]
    match node:
        case Parameter() | Grid():
            found = re.search(rf"\b{name}\b", text)
        case Let() | Input() | PatternDef():
            found = re.search(rf"\b{name}\b", text[text.index(" ") :] if " " in text else text)
        case _:
            found = None
    return span


class _Pattern:
    """One pattern being checked."""

    def __init__(self, module: Module, pattern: PatternDef) -> None:
        self.pattern = pattern
        self.scope = Scope(module)
