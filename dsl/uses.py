"""Which pattern uses which: circles, and the inputs a pattern inherits from those it uses."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from .diagnostics import Diagnostic
from .loader import Module
from .scope import FUNCTIONS, find_pattern
from .syntax import Axis, Call, Chosen, Definition, Given, Input, Order, PatternDef, Score, StackDef, Statement
from .walk import operands, walk


@dataclass(frozen=True, slots=True)
class Use:
    """One call of a pattern, and where that pattern lives."""

    call: Call
    module: Module
    pattern: PatternDef


@dataclass(slots=True)
class _Visit:
    pattern: PatternDef
    pending: Iterator[Use]
    inputs: dict[str, str] = field(default_factory=dict[str, str])


def is_dynamic(definition: Definition) -> bool:
    """Whether a pattern selects by content: scores decide which pairs it keeps, and it has no fixed mask."""
    return selecting(definition) is not None


def selecting(definition: Definition) -> Statement | None:
    """The first statement of a pattern that has to do with scores; None where it is a fixed mask."""
    if isinstance(definition, StackDef):
        return None
    return next((s for s in definition.statements if _selects(s)), None)


def _selects(statement: Statement) -> bool:
    if isinstance(statement, Axis | Order | Score | Given):
        return True
    return any(isinstance(node, Chosen) for operand in operands(statement) for node, _ in walk(operand))


def check_uses(module: Module) -> Iterator[Diagnostic]:
    """Circles among the patterns a file defines or uses, and inputs of one name on two axes."""
    done: dict[int, dict[str, str]] = {}
    for start in module.file.patterns:
        if id(start) not in done:
            yield from _visit(module, start, done)


def _visit(module: Module, start: PatternDef, done: dict[int, dict[str, str]]) -> Iterator[Diagnostic]:
    """Depth first without recursion: a file may chain thousands of patterns."""
    path = [_enter(module, start)]
    active = {id(start)}
    while path:
        top = path[-1]
        use = next(top.pending, None)
        if use is None:
            done[id(top.pattern)] = top.inputs
            active.discard(id(top.pattern))
            path.pop()
            continue
        key = id(use.pattern)
        if key in active:
            names = [v.pattern.name for v in path]
            circle = names[[id(v.pattern) for v in path].index(key) :]
            shown = " -> ".join([*circle, use.pattern.name])
            yield Diagnostic("E009", use.call.span, f"`{use.pattern.name}` uses itself: {shown}")
        elif key in done:
            yield from _merge(top, use, done[key])
        else:
            # The use comes up again once its pattern is done, and the inputs are merged then.
            top.pending = chain((use,), top.pending)
            path.append(_enter(use.module, use.pattern))
            active.add(key)


def _enter(module: Module, pattern: PatternDef) -> _Visit:
    inputs = {s.name: s.axis for s in pattern.statements if isinstance(s, Input)}
    return _Visit(pattern, _uses(module, pattern), inputs)


def _uses(module: Module, pattern: PatternDef) -> Iterator[Use]:
    for statement in pattern.statements:
        for operand in operands(statement):
            for node, _ in walk(operand):
                match node:
                    case Call(prefix, name) if prefix is not None or name not in FUNCTIONS:
                        found = find_pattern(module, node)
                        if found is not None:
                            yield Use(node, *found)
                    case _:
                        pass


def _merge(visit: _Visit, use: Use, inherited: dict[str, str]) -> Iterator[Diagnostic]:
    for name, axis in inherited.items():
        known = visit.inputs.setdefault(name, axis)
        if known != axis:
            message = f"`{use.pattern.name}` has an input `{name}` over {axis}, and here `{name}` is over {known}"
            yield Diagnostic("E006", use.call.span, message, "one input has one axis: rename one of them")
