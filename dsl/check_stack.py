"""Whether a stack and the claims of a definition make sense, before any number is known."""

from collections.abc import Sequence

from .diagnostics import Diagnostic
from .infer import constant, infer
from .loader import Module
from .parameters import define_parameters, unused
from .scope import FUNCTIONS, Scope
from .syntax import Call, Decimal, Definition, Else, Expr, HeadLine, LayerLine, Name, StackDef
from .walk import limits, walk


def check_stack(module: Module, stack: StackDef) -> list[Diagnostic]:
    """Findings about one stack: its parameters, depth, lines and claims."""
    scope = Scope(module)
    define_parameters(stack.parameters, scope)
    for parameter in stack.parameters:
        if parameter.default is not None:
            scope.findings += varies(parameter.default, f"`{parameter.name}`", early=True)
    constant(stack.depth, scope, "the number of layers")
    scope.findings += varies(stack.depth, "the number of layers", early=True)
    _check_else("layers", stack.lines, scope)
    for line in stack.lines:
        for limit in limits(line.layers):
            constant(limit, scope, "a selection of layers")
            scope.findings += varies(limit, "a selection of layers")
        _check_else("heads", line.heads, scope)
        for share in line.heads:
            for limit in limits(share.heads) if share.heads else ():
                constant(limit, scope, "a selection of heads")
            _check_use(share.use, scope)
    check_claims(stack, scope)
    return [*scope.findings, *unused(scope, {})]


def check_claims(definition: Definition, scope: Scope) -> None:
    """Findings about the claims of a definition, in a scope that has its parameters alone."""
    for block in definition.coverage[1:]:
        scope.report("E008", block.span, f"`{definition.name}` has its claims already: `coverage` stands once")
    for claim in (claim for block in definition.coverage for claim in block.claims):
        percent = None if isinstance(claim.percent, Decimal) else claim.percent
        parts = {"a percentage": percent, "a number of layers": claim.within, "a length": claim.at}
        for what, expr in parts.items():
            if expr is not None:
                constant(expr, scope, what)
                scope.findings += varies(expr, what)


def varies(expr: Expr, what: str, *, early: bool = False) -> list[Diagnostic]:
    """What stands against an expression that all layers share: it speaks of `layer`, or `early` of `layers`."""
    names = {node.name for node, _ in walk(expr) if isinstance(node, Name)}
    if "layer" in names:
        message = f"{what} is the same for all layers, but this depends on `layer`"
        return [Diagnostic("E004", expr.span, message, "arguments may: `layers else: window(512 << layer)`")]
    if early and "layers" in names:
        return [Diagnostic("E004", expr.span, f"{what} must be known before `layers` is")]
    return []


def _check_else(word: str, lines: Sequence[LayerLine | HeadLine], scope: Scope) -> None:
    """Of the lines side by side, one at most says `else`."""
    rest = [line for line in lines if isinstance(line.layers if isinstance(line, LayerLine) else line.heads, Else)]
    for line in rest[1:]:
        hint = f"the first one is on line {rest[0].span.line}" if rest[0].span else ""
        scope.report("E008", line.span, f"`{word} else` stands twice", hint)


def _check_use(use: Call, scope: Scope) -> None:
    if use.module is None and use.name in FUNCTIONS:
        scope.report("E003", use.span, f"`{use.name}` is not a pattern", "layers and heads use patterns")
    else:
        infer(use, scope)
