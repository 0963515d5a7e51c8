"""Bounds without enumeration: the interval of an expression, and what must or may hold on a box."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from .evaluate import INTEGERS, Array, ArrayLibrary, compare, powers
from .ir import And, Binary, Compare, Const, Expr, Formula, InPowers, Not, Or, Read, Truth, Var

# Stands for "no bound known"; far above every position, far below int64's limit.
UNBOUNDED = 1 << 60
# What is known of a table's numbers when nothing else is: inputs are checked to fit 32 bits.
ANY_READ_BITS = 31


@dataclass(frozen=True, slots=True)
class Interval:
    """Both ends are inside; ends are ints or arrays, one element a box."""

    low: Array
    high: Array


ANY_READ = Interval(-(1 << ANY_READ_BITS), (1 << ANY_READ_BITS) - 1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`must`: true on the whole box. `may`: not excluded anywhere in it."""

    must: Array
    may: Array


def interval(
    expr: Expr, boxes: Mapping[str, Interval], tables: Mapping[str, Interval], lib: ArrayLibrary = INTEGERS
) -> Interval:
    """Bounds of an expression over a box of each variable and of each table read.

    `tables` is keyed by the read itself (`read_key`), since its range depends on what it reads.
    """
    match expr:
        case Const(value):
            return Interval(value, value)
        case Var(name):
            return boxes.get(name, Interval(-UNBOUNDED, UNBOUNDED))
        case Read():
            return tables.get(read_key(expr), ANY_READ)
        case Binary(op, left, right):
            a = interval(left, boxes, tables, lib)
            b = interval(right, boxes, tables, lib)
            return combine(op, a, b, lib)
        case _:
            assert_never(expr)


def extent(expr: Expr, boxes: Mapping[str, Interval], tables: Mapping[str, Interval]) -> tuple[Interval, int]:
    """An expression's interval, and how far anything computed on the way may reach; tables by name."""
    match expr:
        case Const(value):
            return Interval(value, value), reach(Interval(value, value))
        case Var(name):
            found = boxes.get(name, Interval(-UNBOUNDED, UNBOUNDED))
            return found, reach(found)
        case Read(table, index):
            _, inner = extent(index, boxes, tables)
            found = tables.get(table, ANY_READ)
            return found, max(inner, reach(found))
        case Binary(op, left, right):
            a, most_a = extent(left, boxes, tables)
            b, most_b = extent(right, boxes, tables)
            found = combine(op, a, b, INTEGERS)
            # Floors are computed from a remainder lifted by the divisor, up to twice the divisor.
            lifted = 2 * b.high if op in ("//", "%") else 0
            return found, max(most_a, most_b, reach(found), lifted)
        case _:
            assert_never(expr)


def reach(bounds: Interval) -> int:
    """The largest value that two's complement must hold on either side of zero: -2^31 reaches 2^31 - 1."""
    return max(bounds.high, -1 - bounds.low)


def read_key(read: Read) -> str:
    """A name for one read expression, equal for equal reads."""
    return repr(read)


def combine(op: str, a: Interval, b: Interval, lib: ArrayLibrary) -> Interval:
    if all(isinstance(x, int) for x in (a.low, a.high, b.low, b.high)):
        lib = INTEGERS
    match op:
        case "+":
            return Interval(a.low + b.low, a.high + b.high)
        case "-":
            return Interval(a.low - b.high, a.high - b.low)
        case "*":
            corners = [a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high]
            return Interval(_fold(lib.minimum, corners), _fold(lib.maximum, corners))
        case "//":
            return Interval(a.low // b.low, a.high // b.low)
        case "%":
            c = b.low
            same = (a.low // c) == (a.high // c)
            return Interval(lib.where(same, a.low % c, a.low * 0), lib.where(same, a.high % c, a.high * 0 + (c - 1)))
        case "min":
            return Interval(lib.minimum(a.low, b.low), lib.minimum(a.high, b.high))
        case "max":
            return Interval(lib.maximum(a.low, b.low), lib.maximum(a.high, b.high))
        case "&" | "|" | "^":
            return _bits(op, a, b, lib)
        case ">>":
            lows, highs = (a.low >> b.low, a.low >> b.high), (a.high >> b.low, a.high >> b.high)
            return Interval(lib.minimum(*lows), lib.maximum(*highs))
        case _:
            raise AssertionError(op)


def _fold(function: Callable[[Array, Array], Array], items: list[Array]) -> Array:
    out = items[0]
    for item in items[1:]:
        out = function(out, item)
    return out


def _bits(op: str, a: Interval, b: Interval, lib: ArrayLibrary) -> Interval:
    """Bits above the highest one that varies are known; a result never needs more bits than its operands."""
    varying = _smear((a.low ^ a.high) | (b.low ^ b.high))
    point = a.low & b.low if op == "&" else a.low | b.low if op == "|" else a.low ^ b.low
    top = _smear(lib.maximum(lib.maximum(a.high, b.high), lib.maximum(-1 - a.low, -1 - b.low)))
    # Where a sign varies, so does every bit.
    signs = varying < 0
    low = lib.where(signs, -1 - top, point & ~varying)
    high = lib.where(signs, top, point | varying)
    return Interval(low, high)


def _smear(x: Array) -> Array:
    """All bits below the highest one set too."""
    for shift in (1, 2, 4, 8, 16, 32):
        x = x | (x >> shift)
    return x


def verdict(
    formula: Formula, boxes: Mapping[str, Interval], tables: Mapping[str, Interval], lib: ArrayLibrary = INTEGERS
) -> Verdict:
    """What a formula must and may be over a box; sound, not always tight."""
    match formula:
        case Truth(value):
            return Verdict(value, value)
        case Compare(op, left, right):
            # Both sides move together, so the difference is bounded, not the sides.
            d = interval(Binary("-", left, right), boxes, tables, lib)
            return _sign(op, d)
        case InPowers(value, base):
            x = interval(value, boxes, tables, lib)
            may = (x.low <= 1) & (x.high >= 1)
            for power in powers(base, UNBOUNDED)[1:]:
                may = may | ((x.low <= power) & (x.high >= power))
            return Verdict(may & (x.low == x.high), may)
        case And(items) | Or(items):
            parts = [verdict(item, boxes, tables, lib) for item in items]
            must, may = parts[0].must, parts[0].may
            for part in parts[1:]:
                if isinstance(formula, And):
                    must, may = must & part.must, may & part.may
                else:
                    must, may = must | part.must, may | part.may
            return Verdict(must, may)
        case Not(item):
            inner = verdict(item, boxes, tables, lib)
            return Verdict(inner.may ^ True, inner.must ^ True)
        case _:
            assert_never(formula)


def _sign(op: str, d: Interval) -> Verdict:
    match op:
        case "<" | "<=":
            return Verdict(compare(op, d.high, 0), compare(op, d.low, 0))
        case ">" | ">=":
            return Verdict(compare(op, d.low, 0), compare(op, d.high, 0))
        case "==":
            return Verdict((d.low == 0) & (d.high == 0), (d.low <= 0) & (d.high >= 0))
        case "!=":
            return Verdict((d.low > 0) | (d.high < 0), (d.low != 0) | (d.high != 0))
        case _:
            raise AssertionError(op)
