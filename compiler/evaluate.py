"""What a formula means: exact integers with floor semantics, on whole arrays at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from .ir import And, Binary, Compare, Const, Expr, Formula, InPowers, Not, Or, Read, Truth, Var

# An array of numpy or torch, or a plain int: the evaluator only uses operators they share.
Array = Any


@dataclass(frozen=True, slots=True)
class ArrayLibrary:
    """The few functions in which numpy, torch and plain integers differ."""

    minimum: Callable[[Array, Array], Array]
    maximum: Callable[[Array, Array], Array]
    where: Callable[[Array, Array, Array], Array]


def _choose(condition: bool, yes: int, no: int) -> int:
    return yes if condition else no


INTEGERS = ArrayLibrary(min, max, _choose)

# Exponents beyond this leave the range of positions, so no power beyond it can ever be met.
LARGEST_POWER = 1 << 62


def powers(base: int, limit: int = LARGEST_POWER) -> tuple[int, ...]:
    """1, base, base^2, .. up to and including `limit`."""
    out = [1]
    while base > 1 and out[-1] * base <= limit:
        out.append(out[-1] * base)
    return tuple(out)


def number(expr: Expr, values: Mapping[str, Array], tables: Mapping[str, Array], lib: ArrayLibrary) -> Array:
    """The value of an expression where every variable is an integer array that broadcasts."""
    match expr:
        case Const(value):
            return value
        case Var(name):
            return values[name]
        case Read(table, index):
            return _read(tables[table], number(index, values, tables, lib), lib)
        case Binary(op, left, right):
            a = number(left, values, tables, lib)
            b = number(right, values, tables, lib)
            return arithmetic(op, a, b, lib)
        case _:
            assert_never(expr)


def arithmetic(op: str, a: Array, b: Array, lib: ArrayLibrary) -> Array:
    """One operation; both array libraries floor `//` and `%` on integers, as Python does."""
    if isinstance(a, int) and isinstance(b, int):
        lib = INTEGERS
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "//":
            return a // b
        case "%":
            return a % b
        case "min":
            return lib.minimum(a, b)
        case "max":
            return lib.maximum(a, b)
        case "&":
            return a & b
        case "|":
            return a | b
        case "^":
            return a ^ b
        case ">>":
            return a >> b
        case _:
            raise AssertionError(op)


def _read(table: Array, index: Array, lib: ArrayLibrary) -> Array:
    size = len(table)
    if isinstance(index, int):
        return int(table[index]) if 0 <= index < size else -1
    if size == 0:
        return index * 0 - 1
    inside = (index >= 0) & (index < size)
    return lib.where(inside, table[lib.where(inside, index, index * 0)], index * 0 - 1)


def truth(formula: Formula, values: Mapping[str, Array], tables: Mapping[str, Array], lib: ArrayLibrary) -> Array:
    """Whether the formula holds, elementwise; a plain bool where no array is involved."""
    match formula:
        case Truth(value):
            return value
        case Compare(op, left, right):
            return compare(op, number(left, values, tables, lib), number(right, values, tables, lib))
        case InPowers(value, base):
            x = number(value, values, tables, lib)
            if base == 2:
                return (x > 0) & ((x & (x - 1)) == 0)
            out = x == 1
            for power in powers(base)[1:]:
                out = out | (x == power)
            return out
        case And(items):
            out = truth(items[0], values, tables, lib)
            for item in items[1:]:
                out = out & truth(item, values, tables, lib)
            return out
        case Or(items):
            out = truth(items[0], values, tables, lib)
            for item in items[1:]:
                out = out | truth(item, values, tables, lib)
            return out
        case Not(item):
            inner = truth(item, values, tables, lib)
            return not inner if isinstance(inner, bool) else ~inner
        case _:
            assert_never(formula)


def compare(op: str, a: Array, b: Array) -> Array:
    """One comparison of two numbers or arrays; nothing compares with NaN but `!=`."""
    match op:
        case "<":
            return a < b
        case "<=":
            return a <= b
        case ">":
            return a > b
        case ">=":
            return a >= b
        case "==":
            return a == b
        case "!=":
            return a != b
        case _:
            raise AssertionError(op)
