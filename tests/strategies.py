"""Hypothesis strategies over syntax trees: any tree that can be written, and patterns that mean something.

`files()` gives well-typed files: one pattern (and at times a second one that it uses) whose parameters all have
defaults, whose divisors are positive literals, and whose positions are mostly combined linearly. Load them with
HEADS heads and up to LAYERS layers. Inputs come from INPUTS; `parent` holds parents (-1, or an earlier token).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import reject
from hypothesis import strategies as st

import weft
from tests.selection_trees import axes, selections
from tests.stack_trees import coverages, pile, stacks
from weft.dsl import syntax as s
from weft.dsl.builder import clean_docstring
from weft.dsl.printer import format_file
from weft.dsl.scanner import SOFT

T = TypeVar("T")

HEADS = 2
LAYERS = 2
# Every input a generated pattern may have, with its axis.
INPUTS = {"doc": "token", "seg": "query", "bag": "key", "group": "head", "parent": "token"}

_KEYWORDS = (
    "pattern import as precompile head_dim keep require drop causal let grid over of input and or not in true false "
    "stack coverage else"
).split()
_BINARY: tuple[s.BinaryOp, ...] = ("+", "-", "*", "//", "%", "&", "|", "^", "<<", ">>")
_COMPARE: tuple[s.CompareOp, ...] = ("<", "<=", ">", ">=", "==", "!=")

_words = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,7}", fullmatch=True).filter(lambda n: n not in _KEYWORDS)
names = _words | st.sampled_from(sorted(SOFT))


def tuples(items: st.SearchStrategy[s.Expr], least: int = 1, most: int = 3) -> st.SearchStrategy[tuple[s.Expr, ...]]:
    """Tuples of a few expressions."""
    return st.lists(items, min_size=least, max_size=most).map(tuple)


def _flat(op: str, operands: tuple[s.Expr, ...]) -> s.Expr:
    """`and` and `or` as the parser builds them: never directly inside themselves."""
    out: list[s.Expr] = []
    for operand in operands:
        match operand:
            case s.Logical(inner, items) if inner == op:
                out.extend(items)
            case _:
                out.append(operand)
    return s.Logical("and" if op == "and" else "or", tuple(out))


def _compound(items: st.SearchStrategy[s.Expr]) -> st.SearchStrategy[s.Expr]:
    chains = st.integers(1, 3).flatmap(
        lambda size: st.builds(
            s.Comparison,
            tuples(items, size + 1, size + 1),
            st.lists(st.sampled_from(_COMPARE), min_size=size, max_size=size).map(tuple),
        )
    )
    arguments = st.lists(st.builds(s.Argument, st.none() | names, items), max_size=3).map(tuple)
    return st.one_of(
        st.builds(s.Negate, items),
        st.builds(s.Not, items),
        st.builds(s.Absolute, items),
        st.builds(s.Binary, st.sampled_from(_BINARY), items, items),
        chains,
        st.builds(s.Membership, items, items | st.builds(s.Range, items, items), st.booleans()),
        st.builds(_flat, st.sampled_from(("and", "or")), tuples(items, 2)),
        st.builds(s.SetLiteral, tuples(items)),
        st.builds(s.ListLiteral, tuples(items)),
        st.builds(s.Index, names, tuples(items)),
        st.builds(s.Call, st.none() | names, names, arguments),
        selections(names, items),
    )


def expressions() -> st.SearchStrategy[s.Expr]:
    """Any expression that can be written, meaningful or not."""
    leaves: st.SearchStrategy[s.Expr] = st.one_of(
        st.builds(s.Number, st.integers(0, 2**31)),
        st.builds(s.Decimal, st.from_regex(r"[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True)),
        st.builds(s.Boolean, st.booleans()),
        st.builds(s.Name, names),
        st.builds(s.Coordinate, names, names),
    )
    return st.recursive(leaves, _compound, max_leaves=12)


def docstrings() -> st.SearchStrategy[str]:
    """Docstrings as the parser cleans them, with quotes, indents and text that is not ASCII."""
    lines = st.text(st.sampled_from('ab "é\\#{}'), max_size=8)
    texts = st.lists(lines, max_size=4).map("\n".join).map(clean_docstring)
    return texts.filter(lambda t: '"""' not in t and clean_docstring(t) == t)


def any_files() -> st.SearchStrategy[s.File]:
    """Any file that can be written, meaningful or not."""
    expr = expressions()
    some_names = st.lists(names, min_size=1, max_size=3).map(tuple)
    types = st.builds(s.Type, names, st.lists(names, max_size=2).map(tuple))
    statements = st.one_of(
        st.builds(s.Keep, expr, st.none() | expr),
        st.builds(s.Require, expr),
        st.builds(s.Drop, expr),
        st.builds(s.Causal),
        st.builds(s.Let, names, expr),
        st.builds(s.Grid, some_names, tuples(expr), st.none() | expr),
        st.builds(s.Input, names, names, types),
        st.builds(s.Given, names, some_names, st.builds(s.Type, st.sampled_from(("float", "vector")))),
        axes(names, expr),
        st.builds(s.Score, names, some_names, expr),
    )
    parameters = st.lists(st.builds(s.Parameter, names, types, st.none() | expr), max_size=3).map(tuple)
    body = st.lists(statements, max_size=4).map(tuple)
    patterns = st.builds(s.PatternDef, names, parameters, docstrings(), body, coverages(expr))
    return st.builds(
        s.File,
        st.lists(st.builds(s.Import, some_names, names), max_size=2).map(tuple),
        st.lists(st.builds(s.Precompile, names, st.integers(0, 512)), max_size=2).map(tuple),
        st.lists(patterns, max_size=3).map(tuple),
        st.lists(stacks(names, parameters, docstrings(), expr), max_size=2).map(tuple),
    )


@dataclass
class _Names:
    """What a pattern under construction can speak of."""

    numbers: list[str] = field(default_factory=list[str])
    constants: list[str] = field(default_factory=list[str])
    conditions: list[str] = field(default_factory=list[str])
    tables: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    inputs: list[str] = field(default_factory=list[str])
    axes: tuple[str, ...] = ()
    samples: bool = True
    used: s.PatternDef | None = None


def _number(value: int) -> s.Expr:
    return s.Number(value) if value >= 0 else s.Negate(s.Number(-value))


def _call(name: str, *values: s.Expr) -> s.Expr:
    return s.Call(None, name, tuple(s.Argument(None, v) for v in values))


class _Draw:
    """Typed construction: every method draws a tree of its type."""

    def __init__(self, draw: st.DrawFn, scope: _Names) -> None:
        self._draw = draw
        self.scope = scope

    def pick(self, choices: Sequence[T]) -> T:
        return self._draw(st.sampled_from(choices))

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def chance(self, percent: int) -> bool:
        return self.integer(1, 100) > 100 - percent

    def constant(self, low: int = 0, high: int = 8) -> s.Expr:
        """A number known before the kernel runs."""
        if self.scope.constants and self.chance(30):
            return s.Name(self.pick(self.scope.constants))
        return _number(self.integer(low, high))

    def position(self) -> s.Expr:
        """`q` or `k`, at times of a grid."""
        base = self.pick(("q", "k"))
        if self.scope.axes and self.chance(40):
            return s.Coordinate(base, self.pick(self.scope.axes))
        return s.Name(base)

    def leaf(self) -> s.Expr:
        kind = self.integer(0, 9)
        if kind <= 4:
            return self.position()
        if kind == 5 and self.scope.numbers:
            return s.Name(self.pick(self.scope.numbers))
        if kind == 6:
            return s.Name(self.pick(("n", "m", "h", "g", "layer", "layers", "heads")))
        if kind == 7 and (self.scope.inputs or self.scope.tables):
            return self.read()
        return self.constant()

    def read(self) -> s.Expr:
        """One number of an input or a table, indexed on its own side."""
        known = [*self.scope.inputs, *self.scope.tables]
        name = self.pick(known)
        sides: dict[str, s.Expr] = {
            "head": s.Name("h"),
            "layer": s.Name("layer"),
            "query": s.Name("q"),
            "key": s.Name("k"),
            "token": s.Name(self.pick(("q", "k"))),
        }
        axes = self.scope.tables.get(name) or (INPUTS[name],)
        index = tuple(sides[a] for a in axes)
        if axes == ("token",) and "parent" in self.scope.inputs and self.chance(20):
            index = (s.Index("parent", index),)
        return s.Index(name, index)

    def number(self, depth: int = 2) -> s.Expr:
        """An integer, mostly linear in the positions."""
        if depth == 0 or self.chance(25):
            return self.leaf()
        inner = self.number(depth - 1)
        match self.integer(0, 13):
            case 0 | 1 | 2:
                return s.Binary(self.pick(("+", "-", "-")), inner, self.number(depth - 1))
            case 3:
                return s.Binary("*", inner, _number(self.integer(-3, 4)))
            case 4 | 5:
                return s.Binary(self.pick(("//", "%")), inner, s.Number(self.integer(1, 8)))
            case 6 | 7:
                return s.Absolute(s.Binary("-", self.position(), self.position()))
            case 8:
                return s.Binary(self.pick(("&", "|", "^")), inner, s.Number(self.integer(0, 7)))
            case 9:
                return s.Binary(self.pick(("<<", ">>")), inner, s.Number(self.integer(0, 3)))
            case 10:
                return _call(self.pick(("min", "max")), inner, self.number(depth - 1))
            case 11:
                return self.pick((s.Negate(inner), s.Absolute(inner), _call("abs", inner)))
            case 12:
                return s.Binary(self.pick(("^", "*")), self.leaf(), self.leaf())
            case _:
                return s.Binary("-", s.Name("q"), s.Name("k"))

    def members(self) -> s.Expr:
        """A set to the right of `in`."""
        match self.integer(0, 4 if self.scope.samples else 3):
            case 0:
                low = self.number(1)
                return s.Range(low, s.Binary("+", low, s.Number(self.integer(0, 8))))
            case 1:
                return s.SetLiteral(tuple(_number(self.integer(-4, 12)) for _ in range(self.integer(1, 3))))
            case 2:
                return _call("powers", s.Number(self.integer(2, 4)))
            case 3:
                return _call("multiples", s.Number(self.integer(1, 5)))
            case _:
                return self.sample()

    def sample(self) -> s.Expr:
        size = self.pick((s.Number(self.integer(1, 12)), s.Binary("//", s.Name("n"), s.Number(self.integer(1, 4)))))
        block = s.Number(self.integer(1, 8))
        keys: tuple[s.Expr, ...] = (
            s.Name("h"),
            s.Name("g"),
            s.Name("layer"),
            s.Binary("//", s.Name("q"), block),
            s.Binary("//", s.Name("k"), block),
        )
        chosen = [self.pick(keys) for _ in range(self.integer(1, 2))]
        return _call("sample", s.Number(self.integer(1, 4)), size, s.Number(self.integer(0, 9)), *chosen)

    def condition(self, depth: int = 2) -> s.Expr:
        kind = self.integer(0, 11)
        if depth > 0 and kind <= 2:
            op = self.pick(("and", "or"))
            return _flat(op, tuple(self.condition(depth - 1) for _ in range(self.integer(2, 3))))
        if depth > 0 and kind == 3:
            return s.Not(self.condition(depth - 1))
        if kind == 4:
            return s.Membership(self.number(1), self.members(), self.chance(30))
        if kind == 5 and self.scope.axes:
            radius = s.Number(self.integer(0, 3))
            mode = self.pick(((), (s.Name("clamp"),), (s.Name("wrap"),)))
            return _call("near", s.Name(self.pick(self.scope.axes)), radius, *mode)
        if kind == 6 and "parent" in self.scope.inputs:
            return _call("ancestor", s.Name("parent"))
        if kind == 7 and self.scope.conditions:
            return s.Name(self.pick(self.scope.conditions))
        if kind == 8 and self.scope.used is not None:
            return self.use(self.scope.used)
        if kind == 9:
            low, high = self.integer(-4, 4), self.integer(0, 12)
            return s.Comparison((_number(low), self.number(1), _number(high)), ("<=", self.pick(("<", "<="))))
        op = self.pick((*_COMPARE, "<", "<=", "<", "<="))
        return s.Comparison((self.number(), self.number(1)), (op,))

    def use(self, pattern: s.PatternDef) -> s.Expr:
        arguments: list[s.Argument] = []
        for parameter in pattern.parameters:
            if parameter.type.name in ("int", "tokens") and self.chance(50):
                arguments.append(s.Argument(parameter.name, s.Number(self.integer(0, 8))))
        return s.Call(None, pattern.name, tuple(arguments))

    def parameter(self, name: str) -> s.Parameter:
        kind = self.pick(("int", "tokens", "tokens", "bool", "table"))
        match kind:
            case "bool":
                self.scope.conditions.append(name)
                return s.Parameter(name, s.Type("bool"), s.Boolean(self.chance(50)))
            case "table":
                axes = self.pick((("head",), ("layer", "head"), ("layer",)))
                row = [s.ListLiteral(tuple(s.Number(self.integer(0, 8)) for _ in range(HEADS))) for _ in range(LAYERS)]
                self.scope.tables[name] = axes
                return s.Parameter(name, s.Type("table", axes), s.ListLiteral(tuple(row)) if len(axes) == 2 else row[0])
            case _:
                if self.chance(25):
                    # It depends on the length, so it may not divide.
                    self.scope.numbers.append(name)
                    divided = s.Binary("//", s.Name("n"), s.Number(self.integer(1, 4)))
                    return s.Parameter(name, s.Type(kind), divided)
                self.scope.numbers.append(name)
                self.scope.constants.append(name)
                return s.Parameter(name, s.Type(kind), _number(self.integer(0 if kind == "tokens" else -4, 8)))

    def grid(self) -> s.Grid:
        self.scope.axes = self.pick((("y", "x"), ("t", "y", "x")))
        extents = tuple(s.Number(self.integer(1, 5)) for _ in self.scope.axes)
        return s.Grid(self.scope.axes, extents, s.Number(self.integer(1, 3)) if self.chance(30) else None)

    def clause(self) -> s.Statement:
        match self.integer(0, 9):
            case 0:
                return s.Causal()
            case 1:
                # Two ways to hold, so that masks are not empty most of the time.
                return s.Require(_flat("or", (self.condition(1), self.condition(1))))
            case 2:
                return s.Drop(self.condition(1))
            case _:
                return s.Keep(self.condition())

    def let(self, name: str) -> s.Let:
        if self.chance(30):
            value = self.condition(1)
            self.scope.conditions.append(name)
        else:
            value = self.number()
            self.scope.numbers.append(name)
        return s.Let(name, value)


@st.composite
def patterns(
    draw: st.DrawFn, name: str = "main", inputs: bool = True, samples: bool = True, used: s.PatternDef | None = None
) -> s.PatternDef:
    """A well-typed pattern that can be loaded without arguments."""
    make = _Draw(draw, _Names(samples=samples, used=used))
    parameters = tuple(make.parameter(f"p{i}") for i in range(make.integer(0, 3)))
    statements: list[s.Statement] = []
    if make.chance(25):
        statements.append(make.grid())
    if inputs:
        make.scope.inputs = [i for i in INPUTS if make.chance(20)]
        statements.extend(s.Input(i, INPUTS[i], s.Type("int")) for i in make.scope.inputs)
    for index in range(make.integer(1, 4)):
        if make.chance(25):
            statements.append(make.let(f"l{index}"))
        statements.append(make.clause())
    return s.PatternDef(name, parameters, draw(docstrings()), tuple(statements))


@st.composite
def files(draw: st.DrawFn, inputs: bool = True, samples: bool = True) -> s.File:
    """A well-typed file; its last pattern is `main`, and may use the one before."""
    stack = (draw(pile("main")),) if draw(st.integers(0, 3)) == 3 else ()
    if not draw(st.booleans()):
        return s.File((), (), (draw(patterns(inputs=inputs, samples=samples)),), stack)
    part = draw(patterns("part", inputs=inputs, samples=samples))
    return s.File((), (), (part, draw(patterns(inputs=inputs, samples=samples, used=part))), stack)


def load(file: s.File, name: str = "main") -> weft.Pattern:
    """A generated pattern, by way of its text; those whose numbers may leave 61 bits (E005) are no examples."""
    pattern = weft.load(format_file(file), name)
    try:
        for layer in range(LAYERS):
            pattern.bind(HEADS, 1, layer, LAYERS)
    except weft.CompileError as error:
        if {d.code for d in error.diagnostics} == {"E005"}:
            reject()
        raise
    return pattern
