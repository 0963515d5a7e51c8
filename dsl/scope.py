"""Names of one pattern while it is checked, what they stand for, and what was found wrong."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from .axes import Side
from .diagnostics import Diagnostic, did_you_mean
from .loader import Module
from .source import Span
from .syntax import Call, Chosen, Coordinate, Expr, Index, Name, PatternDef, Reduce, Softmax
from .walk import walk

# What a kernel only learns while it runs, and what it knows before.
POSITIONS = frozenset(("q", "k"))
HEADS = frozenset(("h", "g"))
LENGTHS = frozenset(("n", "m"))
VARIABLES = POSITIONS | HEADS | LENGTHS | {"heads", "layer", "layers"}

# What a call of a pattern says beside its inputs, which it takes by name.
ARGUMENTS = VARIABLES | {"scale", "backend", "return_lse", "tf32", "head", "kv_heads", "v", "self"}

# Fewest and most arguments of what is built in.
FUNCTIONS = {
    "abs": (1, 1),
    "min": (2, 99),
    "max": (2, 99),
    "powers": (1, 1),
    "multiples": (1, 1),
    "sample": (3, 99),
    "near": (2, 3),
    "ancestor": (1, 1),
}

Kind = Literal[
    "number", "condition", "set", "list", "table", "input", "real", "reals", "cells", "score", "rows", "unknown"
]
PHRASES: dict[Kind, str] = {
    "number": "a number",
    "condition": "a condition",
    "set": "a set",
    "list": "a list",
    "table": "a table",
    "input": "an input",
    "real": "a real number",
    "reals": "a table of real numbers",
    "cells": "an axis of scores",
    "score": "a score",
    "rows": "a score of vectors",
}
SCORES_STAND = "scores stand in `let name[..] = ..`, and in a `keep` of their own"
TENSORS = "this depends on what `Q`, `K` or inputs hold, which is only known when attention runs"
CURES: dict[tuple[Kind, Kind], str] = {
    ("number", "set"): "sets stand to the right of `in`",
    ("condition", "set"): "sets stand to the right of `in`",
    ("number", "table"): "read one of its numbers, as in `t[h]`",
    ("number", "input"): "read one of its numbers, as in `doc[q]`",
    ("condition", "number"): "compare it with something, as in `e > 0`",
    ("number", "real"): "numbers of pairs are integers: `int` or `tokens`",
    ("number", "reals"): "numbers of pairs are integers: `table[head]`",
    ("number", "score"): SCORES_STAND,
    ("number", "rows"): SCORES_STAND,
}

Uses = frozenset[str]
NOTHING: Uses = frozenset()


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression is; `uses` are the variables and inputs it depends on, `layer` among them."""

    kind: Kind
    uses: Uses = NOTHING
    axes: tuple[str, ...] = ()


UNKNOWN = Value("unknown")


@dataclass(frozen=True, slots=True)
class Cell:
    """What an axis or a bound name counts: cells of an axis of one side; no tokens at all where the side is "".

    `axis` is "" for plain numbers such as `r < 16`, `last` where only the last tokens are counted.
    """

    side: Side
    axis: str
    size: int | None
    order: str = ""
    last: bool = False


@dataclass(slots=True)
class Scope:
    """The names defined so far in one pattern; a name reported once is not reported again."""

    module: Module
    findings: list[Diagnostic] = field(default_factory=list[Diagnostic])
    names: dict[str, Value] = field(default_factory=dict[str, Value])
    places: dict[str, Span | None] = field(default_factory=dict[str, Span | None])
    axes: tuple[str, ...] = ()
    cells: dict[str, Cell] = field(default_factory=lambda: {"q": Cell("q", "q", 1), "k": Cell("k", "k", 1)})
    # The pattern's order of keys.
    order: str = ""
    later: frozenset[str] = frozenset()
    used: set[str] = field(default_factory=set[str])
    reported: set[str] = field(default_factory=set[str])

    def report(self, code: str, span: Span | None, message: str, hint: str = "") -> None:
        """Note one error and go on."""
        self.findings.append(Diagnostic(code, span, message, hint))

    def touch(self, expr: Expr) -> None:
        """Count as used what an expression mentions that is not looked into, because it is wrong as a whole."""
        for node, _ in walk(expr):
            match node:
                case Name(name) | Index(name) | Softmax(_, name) | Chosen(joint=str(name)):
                    self.used.add(name)
                case Coordinate(base, axis):
                    self.used.update((base, axis))
                case Reduce(_, binders):
                    self.used.update(name for b in binders for name in (b.name, b.inside) if name)
                case _:
                    pass

    def claim(self, name: str, span: Span | None) -> bool:
        """Whether a name is still free; if not, say so."""
        if name in VARIABLES:
            self.report("E008", span, f"`{name}` is a variable of the language and cannot be redefined")
            self.reported.add(name)
            return False
        if name in self.places:
            first = self.places[name]
            hint = f"the first definition is on line {first.line}" if first else ""
            self.report("E008", span, f"`{name}` is defined twice", hint)
            return False
        self.places[name] = span
        return True

    def define(self, name: str, value: Value, span: Span | None) -> None:
        """Give a name its meaning; the first meaning stays when it has one already."""
        if self.claim(name, span):
            self.names[name] = value

    def look_up(self, name: str, span: Span | None) -> Value:
        """What a name stands for; what it does not stand for is reported once."""
        if name in self.names:
            self.used.add(name)
            if self.names[name].kind != "cells":
                return self.names[name]
            self.report("E006", span, f"`{name}` stands in scores alone", "pairs have no number for it")
            return UNKNOWN
        if name in VARIABLES:
            return Value("number", frozenset((name,)) - {"heads", "layers"})
        if name in self.axes:
            self.report("E006", span, f"`{name}` is an axis of the grid", f"write `q.{name}` or `k.{name}`")
        elif name in FUNCTIONS or name in callables(self.module):
            self.report("E003", span, f"`{name}` is not a value", f"call it: `{name}(..)`")
        elif name not in self.reported:
            self.reported.add(name)
            scores = ("Q", "K", "V", "scale") if len(self.cells) > 2 else ()
            known = (*self.names, *VARIABLES, *scores, "true", "false")
            above = "it is defined further down: definitions come before uses"
            hint = above if name in self.later else did_you_mean(name, known)
            hint = f"write `5% of {name}`" if name in ("total", "visible", "triangle") else hint
            self.report("E002", span, f"unknown name `{name}`", hint)
        return UNKNOWN

    def find_pattern(self, call: Call) -> tuple[Module, PatternDef] | None:
        """The pattern that a call means; None once reported."""
        found = find_pattern(self.module, call)
        path = f"{call.module}.{call.name}" if call.module else call.name
        if found is not None or path in self.reported:
            return found
        self.reported.add(path)
        if call.module is not None and call.module not in self.module.imports:
            hint = did_you_mean(call.module, self.module.imports) or f"import it first: import {call.module}"
            self.report("E002", call.span, f"unknown module `{call.module}`", hint)
        elif call.module is not None or call.name in self.module.imports:
            home = self.module.imports[call.module or call.name]
            patterns = [p.name for p in home.file.patterns]
            wanted = call.name if call.module else home.name
            message = f"`{home.source.path}` has no pattern `{wanted}`"
            self.report("E002", call.span, message, did_you_mean(wanted, patterns))
        elif any(stack.name == call.name for stack in self.module.file.stacks):
            self.report("E003", call.span, f"`{call.name}` is a stack, and only patterns are used")
        elif call.name in self.names or call.name in VARIABLES:
            self.report("E003", call.span, f"`{call.name}` is not a pattern and cannot be called")
        else:
            hint = did_you_mean(call.name, (*FUNCTIONS, *callables(self.module)))
            self.report("E002", call.span, f"unknown pattern or function `{call.name}`", hint)
        return None


def check_side(name: str, kind: Kind, axis: str, uses: Uses, span: Span | None, scope: Scope) -> None:
    """An index must speak of what its axis counts; reads inside it may turn one thing into another."""
    if uses - POSITIONS - HEADS - LENGTHS - {"layer"}:
        return
    wrong: Uses = NOTHING
    match axis:
        case "query" | "key":
            own, other = ("q", "k") if axis == "query" else ("k", "q")
            wrong = uses & {other} if own not in uses else NOTHING
            wrong |= uses & HEADS if not uses & POSITIONS else NOTHING
        case "token":
            wrong = uses & HEADS if not uses & POSITIONS else NOTHING
        case "layer":
            wrong = uses & (POSITIONS | HEADS | LENGTHS)
        case _:
            wrong = uses & (POSITIONS | LENGTHS)
            wrong |= uses & {"layer"} if not uses & HEADS else NOTHING
    if wrong:
        message = f"`{name}` is {PHRASES[kind]} over the {axis} axis, and `{min(wrong)}` does not count that"
        scope.report("E006", span, message)


def callables(module: Module) -> Iterable[str]:
    """Names that a file can call: its patterns and its imports."""
    return (*(p.name for p in module.file.patterns), *module.imports)


def find_pattern(module: Module, call: Call) -> tuple[Module, PatternDef] | None:
    """The pattern of this file or of an import that a call means; a bare import means its namesake."""
    home, name = module, call.name
    if call.module is not None:
        if call.module not in module.imports:
            return None
        home = module.imports[call.module]
    elif all(p.name != name for p in module.file.patterns) and name in module.imports:
        home = module.imports[name]
        name = home.name
    return next(((home, p) for p in home.file.patterns if p.name == name), None)
