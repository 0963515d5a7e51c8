"""The language a second time, as slowly and plainly as it can be: one query, one key, Python's own integers.

Works on the syntax tree alone; nothing of the compiler is used. docs/language.md is the definition it follows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from operator import eq, ge, gt, le, lt, ne
from typing import Any

import numpy as np

from tests.brute import Bools
from weft.dsl import syntax as s

BINARY: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
}
COMPARE: dict[str, Callable[[int, int], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge, "==": eq, "!=": ne}


@dataclass(frozen=True)
class World:
    """What a mask depends on besides its pattern."""

    n: int
    m: int
    heads: int = 1
    kv_heads: int = 1
    layer: int = 0
    layers: int = 1
    inputs: Mapping[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])


@dataclass
class Pair:
    """One query, one key, one head, and the names of one pattern."""

    world: World
    file: s.File
    q: int
    k: int
    h: int
    names: dict[str, Any] = field(default_factory=dict[str, Any])
    axes: dict[str, str] = field(default_factory=dict[str, str])
    grid: s.Grid | None = None

    @property
    def g(self) -> int:
        return self.h // (self.world.heads // self.world.kv_heads)

    def pattern(self, pattern: s.PatternDef, arguments: Mapping[str, Any]) -> bool:
        """Whether a pattern holds the pair; `arguments` are values."""
        inner = Pair(self.world, self.file, self.q, self.k, self.h)
        for parameter in pattern.parameters:
            assert parameter.default is not None or parameter.name in arguments
            given = parameter.name in arguments
            inner.names[parameter.name] = arguments[parameter.name] if given else inner.value(parameter.default)
        keeps, others = list[bool](), list[bool]()
        for statement in pattern.statements:
            match statement:
                case s.Keep(condition):
                    keeps.append(inner.value(condition))
                case s.Require(condition):
                    others.append(inner.value(condition))
                case s.Drop(condition):
                    others.append(not inner.value(condition))
                case s.Causal():
                    others.append(self.k <= self.q)
                case s.Let(name, value):
                    inner.names[name] = inner.value(value)
                case s.Grid():
                    inner.grid = statement
                case s.Input(name, axis, _):
                    inner.axes[name] = axis
                case s.Axis() | s.Order() | s.Score() | s.Given():
                    raise NotImplementedError("what selects by content has no fixed pairs")
        return all(others) and (any(keeps) or not keeps)

    def value(self, expr: s.Expr | None) -> Any:
        """An integer, a truth, or a table's rows."""
        match expr:
            case s.Number(value) | s.Boolean(value):
                return value
            case s.Name("heads" | "layer" | "layers" | "n" | "m" as name):
                return getattr(self.world, name)
            case s.Name("q" | "k" | "h" | "g" as name):
                return getattr(self, name)
            case s.Name(name):
                return self.names[name]
            case s.Coordinate(base, axis):
                return self.coordinate(self.value(s.Name(base)), axis)
            case s.Index(name, indices):
                return self.read(name, [self.value(i) for i in indices])
            case s.Negate(operand):
                return -self.value(operand)
            case s.Not(operand):
                return not self.value(operand)
            case s.Absolute(operand):
                return abs(self.value(operand))
            case s.Binary(op, left, right):
                return BINARY[op](self.value(left), self.value(right))
            case s.Comparison(operands, ops):
                values = [self.value(operand) for operand in operands]
                return all(COMPARE[op](a, b) for op, (a, b) in zip(ops, pairwise(values), strict=True))
            case s.Logical(op, operands):
                return (all if op == "and" else any)([self.value(operand) for operand in operands])
            case s.Membership(value, members, negated):
                return self.member(self.value(value), members) != negated
            case s.ListLiteral(items):
                return [self.value(item) for item in items]
            case s.Call(_, name, arguments):
                return self.call(name, arguments)
            case _:
                raise AssertionError(expr)

    def coordinate(self, position: int, axis: str) -> int:
        """Row-major: the last axis varies fastest, and the first goes on for ever."""
        assert self.grid is not None
        cell = 1 if self.grid.cell is None else self.value(self.grid.cell)
        place = position // cell
        for name, extent in reversed(list(zip(self.grid.axes, self.grid.extents, strict=True))):
            if name == axis:
                return place if name == self.grid.axes[0] else place % self.value(extent)
            place //= self.value(extent)
        raise AssertionError(axis)

    def read(self, name: str, index: list[int]) -> int:
        """An input, -1 outside it; or a table's number."""
        if name in self.axes:
            place = index[0] - (self.world.n - self.world.m if self.axes[name] == "query" else 0)
            numbers = self.world.inputs[name]
            return numbers[place] if 0 <= place < len(numbers) else -1
        return reduce(lambda table, i: table[i], index, self.names[name])

    def member(self, value: int, members: s.Expr) -> bool:
        match members:
            case s.Range(low, high):
                return self.value(low) <= value < self.value(high)
            case s.SetLiteral(items):
                return value in [self.value(item) for item in items]
            case s.Call(_, "powers", (argument,)):
                base = self.value(argument.value)
                return value in [base**e for e in range(64)]
            case s.Call(_, "multiples", (argument,)):
                return value % self.value(argument.value) == 0
            case s.Call(_, "sample", arguments):
                count, size, seed, *keys = [argument.value for argument in arguments]
                return value in self.sample(self.value(count), self.value(size), self.value(seed), keys)
            case _:
                raise AssertionError(members)

    def sample(self, count: int, size: int, seed: int, keys: list[s.Expr]) -> list[int]:
        """Floyd's algorithm: for each of the last `count` tops, a number up to it, or itself if that is taken."""
        row = 0
        for key in keys:
            value = self.value(key)
            match key:
                case s.Name("layer"):
                    seed = (seed * 1_000_003 + value) % 2**31
                case s.Name("h"):
                    row = row * self.world.heads + value
                case s.Name("g"):
                    row = row * self.world.kv_heads + value
                case s.Binary("//", _, block):
                    row = row * -(-self.world.n // self.value(block)) + value
                case _:
                    raise AssertionError(key)
        if row < 0 or any(self.value(key) < 0 for key in keys):
            return []
        drawn = list[int]()
        for place, top in enumerate(range(max(0, size - count), max(0, size))):
            pick = scatter(row, seed, place) % (top + 1)
            drawn.append(top if pick in drawn else pick)
        return drawn

    def call(self, name: str, arguments: tuple[s.Argument, ...]) -> Any:
        match name, [argument.value for argument in arguments]:
            case (("abs" | "min" | "max"), values):
                numbers = [self.value(value) for value in values]
                return abs(numbers[0]) if name == "abs" else min(numbers) if name == "min" else max(numbers)
            case "near", [s.Name(axis), radius, *mode]:
                return self.near(axis, self.value(radius), mode[0].name if mode and isinstance(mode[0], s.Name) else "")
            case "ancestor", [s.Name(parent)]:
                place = self.q
                while place != self.k and place >= 0:
                    place = self.world.inputs[parent][place]
                return place == self.k
            case _:
                used = next(p for p in self.file.patterns if p.name == name)
                positional = zip((p.name for p in used.parameters), arguments, strict=False)
                values = {a.keyword or p: self.value(a.value) for p, a in positional}
                values |= {a.keyword: self.value(a.value) for a in arguments if a.keyword}
                return self.pattern(used, values)

    def near(self, axis: str, radius: int, mode: str) -> bool:
        assert self.grid is not None
        query, key = self.coordinate(self.q, axis), self.coordinate(self.k, axis)
        extent = self.value(self.grid.extents[self.grid.axes.index(axis)])
        if mode == "wrap":
            around = (query - key) % extent
            return min(around, extent - around) <= radius
        if mode == "clamp":
            first = min(max(query - radius, 0), max(extent - 2 * radius - 1, 0))
            return first <= key <= first + 2 * radius
        return abs(query - key) <= radius


def scatter(row: int, seed: int, place: int) -> int:
    """The hash behind `sample`: splitmix64's finaliser. Changing it would change what patterns mean."""
    bits = 2**64 - 1
    x = row * 0xBF58476D1CE4E5B9 + seed * 0x9E3779B97F4A7C15 + place * 0xD1B54A32D192ED03 + 0x8CB92BA72F3D8DD7 & bits
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & bits
    x = (x ^ x >> 27) * 0x94D049BB133111EB & bits
    return x ^ x >> 31


def scalar_mask(file: s.File, world: World) -> Bools:
    """[heads, m, n] of a file's last pattern, pair by pair; its parameters have defaults."""
    mask = np.zeros((world.heads, world.m, world.n), dtype=bool)
    for h, row, k in np.ndindex(mask.shape):
        pair = Pair(world, file, row + world.n - world.m, k, h)
        mask[h, row, k] = pair.pattern(file.patterns[-1], {})
    return mask
