"""What is left of a mask on one aligned square of pairs: the canonical form by which equal squares are recognised.

On the square whose corner is (q0, k0), q = q0 + u and k = k0 + v with u and v below the square's size. Constants fold,
floors that do not vary vanish, comparisons that are decided vanish: squares that look alike have one residual.
"""

from collections.abc import Mapping
from math import gcd
from typing import Literal, NamedTuple, assert_never

import numpy as np

from .evaluate import INTEGERS, arithmetic, powers
from .intervals import Interval, combine
from .ir import And, Binary, Compare, Const, Expr, Formula, InPowers, Not, Op, Or, Read, Relation, Truth, Var
from .tables import Ints

FALSE, TRUE = 0, 1
U, V = 0, 1


class Sum(NamedTuple):
    """A constant, and atoms (by their number) with their factors, in order."""

    constant: int
    terms: tuple[tuple[int, int], ...] = ()


class Operation(NamedTuple):
    """An atom that is no sum: `//`, `%`, `min`, `max`, `*`, `&`, `|`, `^`."""

    op: Op
    left: Sum
    right: Sum


class Lookup(NamedTuple):
    """An atom: one element of a table."""

    table: int
    place: Sum


class Test(NamedTuple):
    """`sum >= 0`, `sum == 0`, or `sum in powers(base)`."""

    kind: Literal["least", "zero", "power"]
    sum: Sum
    base: int


class Junction(NamedTuple):
    """All or any of other residuals, by their numbers."""

    kind: Literal["and", "or"]
    items: tuple[int, ...]


class Denial(NamedTuple):
    """Not another residual."""

    item: int


class Known(NamedTuple):
    """What a formula's names stand for: numbers, and tables by their places; names that are not here are unknown."""

    values: Mapping[str, int]
    tables: Mapping[str, int]


class Residuals:
    """The residuals met so far, each with a number, and what they become on smaller squares."""

    def __init__(self) -> None:
        self._tables: list[Ints] = []
        self._table_places: dict[bytes, int] = {}
        # The first two stand for u and v, which no operation is.
        self._atoms: list[Operation | Lookup] = [Lookup(-1, Sum(U)), Lookup(-1, Sum(V))]
        self._formulas: list[Test | Junction | Denial] = [Junction("or", ()), Junction("and", ())]
        self._atom_numbers: dict[Operation | Lookup, int] = {}
        self._formula_numbers: dict[Test | Junction | Denial, int] = {}
        self._moved: dict[tuple[int, bool, bool, int], int] = {}
        self._moved_atoms: dict[tuple[int, bool, bool, int], Sum] = {}
        self._ranges: dict[tuple[int, int], tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._moved)

    def known(self, values: Mapping[str, int], tables: Mapping[str, Ints]) -> Known:
        """The meaning of names; tables with the same numbers are one."""
        places: dict[str, int] = {}
        for name, array in tables.items():
            content = np.ascontiguousarray(array).tobytes()
            if content not in self._table_places:
                self._table_places[content] = len(self._tables)
                self._tables.append(array)
            places[name] = self._table_places[content]
        return Known(values, places)

    def of(self, formula: Formula, known: Known, size: int, unknown: bool) -> int:
        """The residual of a formula on the square of all pairs below `size`.

        What reads a table that is not there counts as `unknown`, and the other way around under a negation: with
        True nothing that may hold is lost, with False nothing is claimed that may not.
        """
        match formula:
            case Truth(value):
                return int(value)
            case Compare(op, left, right):
                if _blind(left, known) or _blind(right, known):
                    return int(unknown)
                difference = self._add(self._sum(left, known, size), self._sum(right, known, size), -1)
                return self._compare(op, difference, size)
            case InPowers(value, base):
                if _blind(value, known):
                    return int(unknown)
                return self._test("power", self._sum(value, known, size), base, size)
            case And(items):
                return self._join("and", [self.of(item, known, size, unknown) for item in items])
            case Or(items):
                return self._join("or", [self.of(item, known, size, unknown) for item in items])
            case Not(item):
                return self._deny(self.of(item, known, size, not unknown))
            case _:
                assert_never(formula)

    def moved(self, number: int, down: bool, right: bool, size: int) -> int:
        """The residual on one quarter, of `size`, of the square that residual `number` is about."""
        if number <= TRUE:
            return number
        key = (number, down, right, size)
        if key not in self._moved:
            formula = self._formulas[number]
            match formula:
                case Test(kind, sum, base):
                    found = self._test(kind, self._move(sum, down, right, size), base, size)
                case Junction(kind, items):
                    found = self._join(kind, [self.moved(item, down, right, size) for item in items])
                case Denial(item):
                    found = self._deny(self.moved(item, down, right, size))
                case _:
                    assert_never(formula)
            self._moved[key] = found
        return self._moved[key]

    def _compare(self, op: Relation, difference: Sum, size: int) -> int:
        match op:
            case "<":
                return self._test("least", self._add(Sum(-1), difference, -1), 0, size)
            case "<=":
                return self._test("least", self._add(Sum(0), difference, -1), 0, size)
            case ">":
                return self._test("least", self._add(difference, Sum(-1), 1), 0, size)
            case ">=":
                return self._test("least", difference, 0, size)
            case "==":
                return self._test("zero", difference, 0, size)
            case "!=":
                return self._deny(self._test("zero", difference, 0, size))
            case _:
                assert_never(op)

    def _test(self, kind: Literal["least", "zero", "power"], sum: Sum, base: int, size: int) -> int:
        """The number of a test, decided where the sum's range allows it."""
        low, high = self._range(sum, size)
        divisor = gcd(*(factor for _, factor in sum.terms))
        match kind:
            case "least":
                if low >= 0 or high < 0:
                    return int(low >= 0)
                sum = Sum(sum.constant // divisor, tuple((atom, factor // divisor) for atom, factor in sum.terms))
            case "zero":
                if low > 0 or high < 0 or (divisor and sum.constant % divisor):
                    return FALSE
                if low == high:
                    return TRUE
                sign = divisor if sum.terms[0][1] > 0 else -divisor
                sum = Sum(sum.constant // sign, tuple((atom, factor // sign) for atom, factor in sum.terms))
            case "power":
                inside = any(low <= power <= high for power in powers(base, max(1, high)))
                if not inside or low == high:
                    return int(inside)
            case _:
                assert_never(kind)
        return self._number(Test(kind, sum, base))

    def _join(self, kind: Literal["and", "or"], items: list[int]) -> int:
        deciding, neutral = (FALSE, TRUE) if kind == "and" else (TRUE, FALSE)
        left = sorted({item for item in items if item != neutral})
        if deciding in left:
            return deciding
        if len(left) < 2:
            return left[0] if left else neutral
        return self._number(Junction(kind, tuple(left)))

    def _deny(self, item: int) -> int:
        if item <= TRUE:
            return TRUE - item
        formula = self._formulas[item]
        return formula.item if isinstance(formula, Denial) else self._number(Denial(item))

    def _number(self, formula: Test | Junction | Denial) -> int:
        found = self._formula_numbers.get(formula)
        if found is None:
            found = self._formula_numbers[formula] = len(self._formulas)
            self._formulas.append(formula)
        return found

    def _sum(self, expr: Expr, known: Known, size: int) -> Sum:
        """An expression over q and k as a sum, on the square of all pairs below `size`."""
        match expr:
            case Const(value):
                return Sum(value)
            case Var("q"):
                return Sum(0, ((U, 1),))
            case Var("k"):
                return Sum(0, ((V, 1),))
            case Var(name):
                return Sum(known.values[name])
            case Read(table, index):
                return self._look(known.tables[table], self._sum(index, known, size), size)
            case Binary(op, left, right):
                return self._operate(op, self._sum(left, known, size), self._sum(right, known, size), size)
            case _:
                assert_never(expr)

    def _move(self, sum: Sum, down: bool, right: bool, size: int) -> Sum:
        """A sum on a quarter, of `size`, of its square."""
        out, terms = sum.constant, dict[int, int]()
        for atom, factor in sum.terms:
            match atom:
                case 0 | 1:
                    out += factor * size * (right if atom == V else down)
                    if size > 1:
                        terms[atom] = terms.get(atom, 0) + factor
                case _:
                    moved = self._move_atom(atom, down, right, size)
                    out += factor * moved.constant
                    for inner, times in moved.terms:
                        terms[inner] = terms.get(inner, 0) + factor * times
        return Sum(out, tuple(sorted((atom, factor) for atom, factor in terms.items() if factor)))

    def _move_atom(self, atom: int, down: bool, right: bool, size: int) -> Sum:
        key = (atom, down, right, size)
        if key not in self._moved_atoms:
            known = self._atoms[atom]
            match known:
                case Lookup(table, index):
                    found = self._look(table, self._move(index, down, right, size), size)
                case Operation(op, a, b):
                    found = self._operate(op, self._move(a, down, right, size), self._move(b, down, right, size), size)
                case _:
                    assert_never(known)
            self._moved_atoms[key] = found
        return self._moved_atoms[key]

    def _add(self, a: Sum, b: Sum, times: int) -> Sum:
        terms = dict(a.terms)
        for atom, factor in b.terms:
            terms[atom] = terms.get(atom, 0) + times * factor
        return Sum(
            a.constant + times * b.constant, tuple(sorted((atom, factor) for atom, factor in terms.items() if factor))
        )

    def _operate(self, op: Op, a: Sum, b: Sum, size: int) -> Sum:
        if not a.terms and not b.terms:
            return Sum(arithmetic(op, a.constant, b.constant, INTEGERS))
        match op:
            case "+":
                return self._add(a, b, 1)
            case "-":
                return self._add(a, b, -1)
            case "*" if not a.terms or not b.terms:
                return self._add(Sum(0), a if a.terms else b, b.constant if a.terms else a.constant)
            case "*" | ">>":
                return self._atom(Operation(op, a, b))
            case "//":
                return self._floor(a, b.constant, size)
            case "%":
                return self._rest(a, b.constant, size)
            case "min" | "max":
                return self._extreme(op, a, b, size)
            case "&" | "|" | "^":
                return self._bits(op, a, b, size)
            case _:
                assert_never(op)

    def _floor(self, a: Sum, divisor: int, size: int) -> Sum:
        """Multiples of the divisor leave the floor; what does not vary then vanishes."""
        whole = tuple((atom, factor // divisor) for atom, factor in a.terms if factor % divisor == 0)
        inner = Sum(a.constant % divisor, tuple(term for term in a.terms if term[1] % divisor))
        low, high = self._range(inner, size)
        if low // divisor == high // divisor:
            return Sum(a.constant // divisor + low // divisor, whole)
        common = gcd(divisor, *(factor for _, factor in inner.terms))
        inner = Sum(inner.constant // common, tuple((atom, factor // common) for atom, factor in inner.terms))
        floor = self._atom(Operation("//", inner, Sum(divisor // common)))
        return self._add(Sum(a.constant // divisor, whole), floor, 1)

    def _rest(self, a: Sum, divisor: int, size: int) -> Sum:
        """Multiples of the divisor do not count; where the floor does not vary, a sum is left."""
        inner = Sum(a.constant % divisor, tuple(term for term in a.terms if term[1] % divisor))
        low, high = self._range(inner, size)
        if low // divisor == high // divisor:
            return Sum(inner.constant - divisor * (low // divisor), inner.terms)
        return self._atom(Operation("%", inner, Sum(divisor)))

    def _extreme(self, op: Literal["min", "max"], a: Sum, b: Sum, size: int) -> Sum:
        low, high = self._range(self._add(a, b, -1), size)
        if low >= 0 or high <= 0:
            return a if (low >= 0) == (op == "max") else b
        shift = a.constant
        return self._add(Sum(shift), self._atom(Operation(op, Sum(0, a.terms), Sum(b.constant - shift, b.terms))), 1)

    def _bits(self, op: Literal["&", "|", "^"], a: Sum, b: Sum, size: int) -> Sum:
        """Bits above those that vary are constants, and leave the operation."""
        ranges = self._range(a, size), self._range(b, size)
        width = max((low ^ high).bit_length() for low, high in ranges)
        high_a, high_b = (low >> width << width for low, _ in ranges)
        low_a, low_b = self._add(a, Sum(high_a), -1), self._add(b, Sum(high_b), -1)
        above = int(arithmetic(op, high_a, high_b, INTEGERS))
        if not low_a.terms and not low_b.terms:
            return Sum(above + int(arithmetic(op, low_a.constant, low_b.constant, INTEGERS)))
        for one, other in ((low_a, low_b), (low_b, low_a)):
            if one == Sum(0):
                return Sum(above) if op == "&" else self._add(Sum(above), other, 1)
        return self._add(Sum(above), self._atom(Operation(op, low_a, low_b)), 1)

    def _look(self, table: int, index: Sum, size: int) -> Sum:
        """One element; a constant where the elements that may be meant are all equal."""
        low, high = self._elements(table, index, size)
        return Sum(low) if low == high else self._atom(Lookup(table, index))

    def _elements(self, table: int, index: Sum, size: int) -> tuple[int, int]:
        values = self._tables[table]
        low, high = self._range(index, size)
        part = values[max(0, low) : max(0, high + 1)]
        outside = [-1] if low < 0 or high >= len(values) else []
        ends = [*outside, *((int(part.min()), int(part.max())) if len(part) else ())]
        return min(ends), max(ends)

    def _atom(self, atom: Operation | Lookup) -> Sum:
        found = self._atom_numbers.get(atom)
        if found is None:
            found = self._atom_numbers[atom] = len(self._atoms)
            self._atoms.append(atom)
        return Sum(0, ((found, 1),))

    def _range(self, sum: Sum, size: int) -> tuple[int, int]:
        """Bounds of a sum on the square; each atom counts by itself."""
        low = high = sum.constant
        for atom, factor in sum.terms:
            least, most = (0, size - 1) if atom <= V else self._range_of(atom, size)
            low += factor * (least if factor > 0 else most)
            high += factor * (most if factor > 0 else least)
        return low, high

    def _range_of(self, atom: int, size: int) -> tuple[int, int]:
        key = (atom, size)
        if key not in self._ranges:
            known = self._atoms[atom]
            match known:
                case Lookup(table, index):
                    self._ranges[key] = self._elements(table, index, size)
                case Operation(op, a, b):
                    found = combine(op, Interval(*self._range(a, size)), Interval(*self._range(b, size)), INTEGERS)
                    self._ranges[key] = (found.low, found.high)
                case _:
                    assert_never(known)
        return self._ranges[key]


def _blind(expr: Expr, known: Known) -> bool:
    """Whether an expression reads a table that is not there."""
    match expr:
        case Read(table, index):
            return table not in known.tables or _blind(index, known)
        case Binary(_, left, right):
            return _blind(left, known) or _blind(right, known)
        case Const() | Var():
            return False
        case _:
            assert_never(expr)
