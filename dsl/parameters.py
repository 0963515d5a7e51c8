"""Whether the parameters of a definition make sense, and where definitions spell their names."""

import re
from collections.abc import Iterator, Mapping

from .arguments import check_value
from .diagnostics import Diagnostic, did_you_mean
from .scope import UNKNOWN, Scope, Value
from .source import Span
from .syntax import Import, Node, Parameter, Type

_TYPES = ("int", "tokens", "bool", "float", "table")
_TABLES = (("head",), ("layer", "head"), ("layer",))

# A keyword and what may stand between it and the name it defines.
_TO_NAME = re.compile(r"\w+(?:\s++|#[^\n]*+)*+")


def name_span(node: Node, name: str) -> Span | None:
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


def index_span(node: Node, name: str) -> Span | None:
    """Where a definition spells one of its axes."""
    span = node.span
    if span is None:
        return None
    brackets = span.source.text.find("[", span.start)
    found = re.compile(rf"\b{name}\b").search(span.source.text, brackets, span.end)
    return Span(span.source, found.start(), found.end()) if found else span


def define_parameters(parameters: tuple[Parameter, ...], scope: Scope) -> None:
    """Give each parameter its meaning, for the defaults to its right too."""
    # Defaults see the parameters to their left, so `later` serves them as well.
    scope.later = frozenset(p.name for p in parameters)
    for parameter in parameters:
        _check_type(parameter.type, scope)
        if parameter.default is not None:
            check_value(parameter, parameter.default, scope)
        scope.define(parameter.name, _parameter_value(parameter.type), name_span(parameter, parameter.name))


def unused(scope: Scope, kinds: Mapping[str, str]) -> Iterator[Diagnostic]:
    """W104 for each name that nothing used; those not among `kinds` are parameters."""
    # After a misspelt name its definition looks unused: one mistake, one finding.
    if any(f.code == "E002" for f in scope.findings):
        return
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
        case "float":
            return Value("reals", axes=type.axes) if type.axes else Value("real")
        case "table":
            return Value("table", axes=type.axes)
        case _:
            return UNKNOWN


def _check_type(type: Type, scope: Scope) -> None:
    if type.name not in _TYPES:
        scope.report("E002", type.span, f"unknown type `{type.name}`", did_you_mean(type.name, _TYPES))
    elif (type.name == "table" or (type.name == "float" and type.axes)) and type.axes not in _TABLES:
        axes = f"[{', '.join(type.axes)}]" if type.axes else " without axes"
        hint = f"there are {type.name}[head], {type.name}[layer, head] and {type.name}[layer]"
        scope.report("E006", type.span, f"there is no {type.name}{axes}", hint)
    elif type.name not in ("table", "float") and type.axes:
        scope.report("E006", type.span, f"`{type.name}` has no axes", "lists of numbers are tables: table[head]")
