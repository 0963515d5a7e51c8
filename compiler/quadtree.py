"""Relations between tokens as quadtrees in which equal squares are one node: exact at a million tokens.

A node is a number. 0 is the empty square of any size, 1 the full one; any other names its quarters: queries low and
keys low, queries low and keys high, queries high and keys low, queries high and keys high. The masks of attention
repeat themselves, along diagonals and from one scale to the next, so that a relation with 10^12 pairs has some hundred
nodes, and one product of nodes stands for all places where they meet.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

EMPTY, FULL = 0, 1
Quarters = tuple[int, int, int, int]
Interval = tuple[int, int]


class OverBudget(Exception):
    """A relation is too irregular to be held in the nodes and products that are allowed."""


class Forest:
    """All nodes of one analysis, and what is known of them."""

    def __init__(self, budget: int) -> None:
        self._quarters: list[Quarters] = [(EMPTY, EMPTY, EMPTY, EMPTY), (FULL, FULL, FULL, FULL)]
        self._numbers: dict[Quarters, int] = {}
        self._unions: dict[tuple[int, int], int] = {}
        self._differences: dict[tuple[int, int], int] = {}
        self._products: dict[tuple[int, int], int] = {}
        self._counts: dict[tuple[int, int], int] = {}
        self._touched: dict[tuple[int, int], int] = {}
        self._left = budget

    @contextmanager
    def allowance(self, budget: int) -> Generator[None]:
        """Let a part of the work spend only so much."""
        kept = max(0, self._left - budget)
        self._left -= kept
        try:
            yield
        finally:
            self._left = max(0, self._left) + kept

    def node(self, a: int, b: int, c: int, d: int) -> int:
        """The node with these quarters."""
        if a == b == c == d and a <= FULL:
            return a
        key = (a, b, c, d)
        found = self._numbers.get(key)
        if found is None:
            self._spend()
            found = self._numbers[key] = len(self._quarters)
            self._quarters.append(key)
        return found

    def quarters(self, a: int) -> Quarters:
        """The quarters of a node; those of a plain square are plain too."""
        return self._quarters[a]

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise OverBudget

    def identity(self, level: int) -> int:
        """Every token with itself, on 2^level tokens."""
        out = FULL
        for _ in range(level):
            out = self.node(out, EMPTY, EMPTY, out)
        return out

    def union(self, a: int, b: int) -> int:
        """Pairs in either."""
        if a == b or b == EMPTY:
            return a
        if a == EMPTY:
            return b
        if a == FULL or b == FULL:
            return FULL
        key = (a, b) if a < b else (b, a)
        found = self._unions.get(key)
        if found is None:
            self._spend()
            (a0, a1, a2, a3), (b0, b1, b2, b3) = self._quarters[a], self._quarters[b]
            union = self.union
            found = self._unions[key] = self.node(union(a0, b0), union(a1, b1), union(a2, b2), union(a3, b3))
        return found

    def minus(self, a: int, b: int) -> int:
        """Pairs in the first and not in the second."""
        if a in (EMPTY, b) or b == FULL:
            return EMPTY
        if b == EMPTY:
            return a
        key = (a, b)
        found = self._differences.get(key)
        if found is None:
            self._spend()
            (a0, a1, a2, a3), (b0, b1, b2, b3) = self._quarters[a], self._quarters[b]
            minus = self.minus
            found = self._differences[key] = self.node(minus(a0, b0), minus(a1, b1), minus(a2, b2), minus(a3, b3))
        return found

    def meet(self, a: int, b: int) -> int:
        """Pairs in both."""
        return self.minus(a, self.minus(a, b))

    def compose(self, a: int, b: int) -> int:
        """Pairs (q, k) with some t such that (q, t) is in the first and (t, k) in the second."""
        if a == EMPTY or b == EMPTY:
            return EMPTY
        if a == FULL and b == FULL:
            return FULL
        key = (a, b)
        found = self._products.get(key)
        if found is None:
            self._spend()
            (a0, a1, a2, a3), (b0, b1, b2, b3) = self._quarters[a], self._quarters[b]
            compose, union = self.compose, self.union
            found = self._products[key] = self.node(
                union(compose(a0, b0), compose(a1, b2)),
                union(compose(a0, b1), compose(a1, b3)),
                union(compose(a2, b0), compose(a3, b2)),
                union(compose(a2, b1), compose(a3, b3)),
            )
        return found

    def touched(self, a: int, level: int) -> int:
        """The squares of which a relation has a pair, `level` halvings down, as a relation between them."""
        if a <= FULL:
            return a
        if level == 0:
            return FULL
        key = (a, level)
        if key not in self._touched:
            a0, a1, a2, a3 = self._quarters[a]
            touched, below = self.touched, level - 1
            self._touched[key] = self.node(
                touched(a0, below), touched(a1, below), touched(a2, below), touched(a3, below)
            )
        return self._touched[key]

    def count(self, a: int, level: int) -> int:
        """How many pairs a square of 2^level tokens has."""
        if a <= FULL:
            return a << (2 * level)
        key = (a, level)
        if key not in self._counts:
            self._counts[key] = sum(self.count(quarter, level - 1) for quarter in self._quarters[a])
        return self._counts[key]

    def contains(self, a: int, level: int, q: int, k: int) -> bool:
        """Whether a pair is in."""
        while a > FULL:
            level -= 1
            a = self._quarters[a][2 * (q >> level & 1) + (k >> level & 1)]
        return a == FULL

    def row(self, a: int, level: int, q: int) -> list[Interval]:
        """The keys of one query, as half-open intervals in order."""
        return _merged(self._line(a, level, lambda bit: (2 * (q >> bit & 1), 2 * (q >> bit & 1) + 1), 0))

    def column(self, a: int, level: int, k: int) -> list[Interval]:
        """The queries of one key, as half-open intervals in order."""
        return _merged(self._line(a, level, lambda bit: (k >> bit & 1, 2 + (k >> bit & 1)), 0))

    def _line(self, a: int, level: int, halves: Callable[[int], tuple[int, int]], start: int) -> Iterator[Interval]:
        if a == EMPTY:
            return
        if a == FULL:
            yield start, start + (1 << level)
            return
        first, second = halves(level - 1)
        yield from self._line(self._quarters[a][first], level - 1, halves, start)
        yield from self._line(self._quarters[a][second], level - 1, halves, start + (1 << (level - 1)))

    def unbroken(self, a: int, level: int, q: int, end: int) -> int:
        """How many keys of a query follow each other without a gap, up to and including key `end`."""
        if a <= FULL:
            return (end + 1) * a
        level -= 1
        half = 1 << level
        low, high = self._quarters[a][2 * (q >> level & 1) :][:2]
        if end < half:
            return self.unbroken(low, level, q, end)
        found = self.unbroken(high, level, q, end - half)
        return found + self.unbroken(low, level, q, half - 1) if found == end - half + 1 else found

    def row_counts(self, a: int, level: int) -> NDArray[np.int32]:
        """How many keys each query has."""
        memory: dict[tuple[int, int], NDArray[np.int32]] = {}

        def counts(a: int, level: int) -> NDArray[np.int32]:
            if a <= FULL:
                return np.full(1 << level, a << level, np.int32)
            if (a, level) not in memory:
                a0, a1, a2, a3 = self._quarters[a]
                below = level - 1
                low, high = counts(a0, below) + counts(a1, below), counts(a2, below) + counts(a3, below)
                memory[a, level] = np.concatenate([low, high])
            return memory[a, level]

        return counts(a, level)

    def first(self, a: int, level: int) -> tuple[int, int]:
        """A pair of a square that is not empty: the latest query's earliest key, by halves."""
        q = k = 0
        while level:
            level -= 1
            place = next(place for place in (2, 3, 0, 1) if self._quarters[a][place] != EMPTY)
            a = self._quarters[a][place]
            q, k = q | (place >> 1) << level, k | (place & 1) << level
        return q, k

    def densities(self, a: int, level: int, cells: int) -> NDArray[np.float64]:
        """The share of pairs in each of 2^cells by 2^cells squares."""
        out = np.zeros((1 << cells, 1 << cells))

        def fill(a: int, level: int, view: NDArray[np.float64]) -> None:
            if a <= FULL:
                view[:] = a
            elif len(view) == 1:
                view[0, 0] = self.count(a, level) / 4**level
            else:
                half = len(view) // 2
                corners = (view[:half, :half], view[:half, half:], view[half:, :half], view[half:, half:])
                for quarter, corner in zip(self._quarters[a], corners, strict=True):
                    fill(quarter, level - 1, corner)

        fill(a, level, out)
        return out


def _merged(parts: Iterator[Interval]) -> list[Interval]:
    out: list[Interval] = []
    for low, high in parts:
        if out and out[-1][1] == low:
            out[-1] = (out[-1][0], high)
        else:
            out.append((low, high))
    return out
