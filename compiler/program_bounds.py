"""What a dynamic pattern keeps whatever the tensors are, and what at most: pairs, and keys of a row."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, assert_never

import numpy as np

from .cells_of_pairs import axes_of, forced
from .evaluate import number
from .expand import NUMPY, Ints
from .intervals import Interval, verdict
from .ir import Clause, Compare, Const, Formula, Mask, Truth
from .measure import CAUSAL, Amount, census, conjuncts
from .pipeline import make_plan
from .plan import Shape, Tiling
from .selection import Arithmetic, Axis, ByHead, Choice, Chosen, Integer, Number, Program, Term, Threshold
from .walk import reads, variables

# Cells of a choice that are looked at one by one.
MOST_CELLS = 1 << 24
TILE = 128
# A step in fp32 is off by less than this share of its result.
ROUNDING = 2.0**-22


@dataclass(frozen=True, slots=True)
class Bound:
    """One choice: tokens of its cells, and how many it keeps at most where that is known beforehand."""

    text: str
    kind: str
    query_size: int
    key_size: int
    # Cells for each cell of queries (of all of them together where `joint`), and keys of a row.
    cells: int | None
    keys: int | None
    joint: bool
    # Whether `counting` may force more than that.
    beyond: bool


@dataclass(frozen=True, slots=True)
class Bounds:
    """Pairs of all heads: those that may be kept at all, that surely are, and that the rules allow at most."""

    admissible: Amount
    guaranteed: Amount
    possible: Amount
    choices: tuple[Bound, ...]


def bounds(program: Program, shape: Shape, n: int, m: int, inputs: Mapping[str, Ints]) -> Bounds:
    """The bounds of a program for one size; masks whose inputs are not given are bounded, not guessed."""
    tables = without_orders(program).tables
    names = {table.name for table in tables}
    limits = tuple(c for c in program.limits.clauses if _known(c.formula, names))

    def pairs(clauses: tuple[Clause, ...]) -> Amount:
        plan = make_plan(Mask(program.name, clauses, tables), shape, Tiling(TILE, TILE))
        found = census(plan, n, m, inputs)
        return Amount(found.pairs.value * shape.heads // found.heads, found.pairs.claim)

    required = tuple(c for c in limits if c.kind == "require")
    sure = (*program.keeps, *(Clause("keep", forced(c, program), "") for c in program.choices))
    sure = tuple(c for c in sure if _known(c.formula, names) and c.formula != Truth(False))
    doubtful = len(limits) < len(program.limits.clauses)
    admissible, never = pairs(required), Amount(0, "at least" if doubtful else "exact")
    guaranteed = pairs((*limits, *sure)) if sure and not doubtful else never
    causal = any(CAUSAL in conjuncts(c.formula) for c in required)
    found = tuple(_bound(choice, program, n, m, causal) for choice in program.choices)
    each = [_pairs_of(one, c, program, n, m, causal) for one, c in zip(found, program.choices, strict=True)]
    static = all(_known(c.formula, names) for c in program.keeps)
    known = [value for value in each if value is not None]
    whole = static and len(known) == len(each) and guaranteed.claim in ("exact", "at most")
    spare = [c for one, c in zip(found, program.choices, strict=True) if one.beyond]
    extra = (*program.keeps, *(Clause("keep", forced(c, program), "") for c in spare))
    beyond = pairs((*limits, *extra)).value if extra and whole else 0
    total = sum(known) * shape.heads + beyond if whole else admissible.value
    possible = Amount(min(admissible.value, total), "at most")
    return Bounds(admissible, guaranteed, possible, found)


def without_orders(program: Program) -> Mask:
    """The limits with the tables that are known before anything is scored."""
    return replace(program.limits, tables=tuple(t for t in program.limits.tables if t.kind != "order"))


def _known(formula: Formula, tables: set[str]) -> bool:
    """Whether a condition reads nothing that scores decide."""
    return all(read.table in tables for read in reads(formula))


def most_keys(choice: Choice, program: Program, n: int, m: int) -> int | None:
    """The most keys that a choice keeps for one cell of queries, what is forced included; None where scores decide."""
    causal = any(CAUSAL in conjuncts(c.formula) for c in program.limits.clauses if c.kind == "require")
    found = _bound(choice, program, n, m, causal)
    return None if found.beyond else found.keys


def _bound(choice: Choice, program: Program, n: int, m: int, causal: bool) -> Bound:
    axes = axes_of(program)
    query, key = (axes[name] if name else Axis("", "", n) for name in (choice.query, choice.key))
    kind = "places" if key.order else "distances" if key.side == "d" else "keys"
    match choice:
        case Threshold():
            return Bound(choice.text, kind, query.size, key.size, None, None, False, False)
        case Chosen(inside=inside, joint=joint):
            cells = _most_cells(choice, -(-n // key.size), n, m)
            around = _bound(inside, program, n, m, causal) if inside else None
            outer = None if around is None or around.beyond else around.keys
            own = None if cells is None or joint else min(n, cells * key.size)
            keys = min((most for most in (own, outer) if most is not None), default=None)
            beyond = not _within_budget(choice, cells, program, n, m, causal)
            return Bound(choice.text, kind, query.size, key.size, cells, keys, joint, beyond)
        case _:
            assert_never(choice)


def _most_cells(choice: Chosen, total: int, n: int, m: int) -> int | None:
    """The most cells a rule takes for one cell of queries, what is forced apart; None where scores decide."""
    most = _constant(choice.amount, n, m)
    if choice.rule != "top" or most is None:
        return None
    if not choice.percent:
        return total if most >= total else max(0, math.floor(most))
    share = min(Fraction(1), max(Fraction(0), Fraction(str(most)) / 100))
    return math.ceil(share * total) if choice.of != "triangle" else max(1, math.ceil((1 - (1 - share) ** 0.5) * total))


def _constant(term: Term, n: int, m: int) -> float | None:
    """The most that a number may be over heads, which no score and no cell decides; None for others."""
    if isinstance(term, Number):
        return None if math.isnan(term.value) else term.value
    found = _between(term, n, m)
    return None if found is None or not all(map(math.isfinite, found)) else found[1]


def _between(term: Term, n: int, m: int) -> tuple[float, float] | None:
    """The least and the most that such a number may be in fp32, where each step rounds."""
    match term:
        case Number(value):
            return _held((value,))
        case ByHead(values):
            return _held(values)
        case Integer(value):
            same = Compare("==", value, Const(0))
            if not variables(same) <= {"n", "m"} or reads(same):
                return None
            return _held((float(number(value, {"n": n, "m": m}, {}, NUMPY)),))
        case Arithmetic(op, left, right):
            a, b = _between(left, n, m), _between(right, n, m)
            if a is None or b is None or (op == "/" and b[0] <= 0 <= b[1]):
                return None
            ends = [_result(op, x, y) for x in a for y in b]
            if not all(map(math.isfinite, ends)):
                return None
            low, high = min(ends), max(ends)
            return low - abs(low) * ROUNDING, high + abs(high) * ROUNDING
        case _:
            return None


def _held(values: tuple[float, ...]) -> tuple[float, float]:
    """The ends of numbers, and of what fp32 has for them."""
    with np.errstate(over="ignore"):
        both = (*values, *map(float, np.array(values, dtype=np.float32)))
    return min(both), max(both)


def _result(op: Literal["+", "-", "*", "/", "min", "max"], a: float, b: float) -> float:
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/":
            return a / b
        case "min":
            return min(a, b)
        case "max":
            return max(a, b)
        case _:
            assert_never(op)


def _pairs_of(bound: Bound, choice: Choice, program: Program, n: int, m: int, causal: bool) -> int | None:
    """The most pairs of one head that a choice keeps beyond what is forced."""
    if bound.cells is not None and bound.joint:
        return bound.cells * bound.query_size * bound.key_size
    if bound.keys is None or not isinstance(choice, Chosen):
        return None
    return _rows(n, bound.keys, causal) - _rows(n - m, bound.keys, causal)


def _within_budget(choice: Chosen, cells: int | None, program: Program, n: int, m: int, causal: bool) -> bool:
    """Whether what a choice is forced to keep surely is no more than its budget."""
    counting, axes = choice.counting, axes_of(program)
    if counting is None:
        return True
    rows = -(-n // axes[choice.query].size) if choice.query else 1
    columns = -(-n // axes[choice.key].size)
    known = {choice.query, choice.key, "n", "m"}
    if cells is None or choice.joint or variables(counting) - known or reads(counting):
        return False
    # Of many rows some are looked at together, by bounds.
    step = -(-rows * columns // MOST_CELLS)
    first, column = np.arange(0, rows, step)[:, None], np.arange(columns)
    last = np.minimum(first + step, rows) - 1
    boxes = {choice.query or "": Interval(first, last), choice.key: Interval(column, column)}
    boxes |= {name: Interval(value, value) for name, value in (("n", n), ("m", m))}
    met = np.broadcast_to(np.asarray(verdict(counting, boxes, {}, NUMPY).may, dtype=bool), (len(first), columns))
    if causal and not axes[choice.key].order:
        # A cell that begins after the last of the queries is no candidate; neither is a distance past the first key.
        end = np.minimum(n, (last + 1) * axes[choice.query].size) if choice.query else n
        met = met & (column * axes[choice.key].size < end)
    return int(met.sum(1).max(initial=0)) <= cells


def _rows(rows: int, keys: int, causal: bool) -> int:
    """Pairs of the first rows where each has so many keys at most, and no later ones if causal."""
    if not causal:
        return rows * keys
    full = min(rows, keys)
    return full * (full + 1) // 2 + (rows - full) * keys
