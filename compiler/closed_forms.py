"""Closed forms of stacks that keep the same distances in every layer; none is stated that brute force does not confirm.

The only module that imports sympy, which is slow to load: import this one where it is needed.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import reduce
from operator import eq, ge, le, or_
from typing import Any, Literal, assert_never

from sympy import Function, Integer, Min, Mod, Piecewise, Sum, Symbol, binomial, ceiling, floor, oo
from sympy.codegen.cfunctions import log2

from .coverage import Form

Expression = Any
Quantity = Literal["reached", "contiguous", "complete", "share"]
Spans = tuple[tuple[int, int], ...]
Number = int | Fraction | float

# Lengths of brute force, less the sinks: one of no special form, and a power of two.
SMALL = (61, 128)
# Bits that checking at the length itself may touch: below a second.
BUDGET = 10**10
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Distances:
    """What every layer keeps: distances q - k >= 0, in order and below n, and the first `sinks` units.

    There are n units, of `unit` tokens each. Staying in place is free.
    """

    n: int
    unit: int
    spans: Spans
    sinks: int


@dataclass(frozen=True, slots=True)
class Full:
    """Every distance."""


@dataclass(frozen=True, slots=True)
class Window:
    """Distances below w."""

    w: int


@dataclass(frozen=True, slots=True)
class Dilated:
    """The first m multiples of r > 1, 0 included."""

    m: int
    r: int


@dataclass(frozen=True, slots=True)
class Powers:
    """0 and the powers of two."""


@dataclass(frozen=True, slots=True)
class WindowPowers:
    """Distances below w, and the powers of two."""

    w: int


@dataclass(frozen=True, slots=True)
class Strided:
    """Distances below w, and all multiples of r >= w - 1, of which there are two."""

    w: int
    r: int


Shape = Full | Window | Dilated | Powers | WindowPowers | Strided


@dataclass(frozen=True, slots=True)
class Claim:
    """A quantity, at each depth d where it has one, beside an expression."""

    quantity: Quantity
    relation: Literal["=", "<=", ">="]
    expression: Expression


@dataclass(frozen=True, slots=True)
class Facts:
    """The last query at depths 1, 2, ..; `complete` is infinite for never, and None when the depths end before."""

    reached: tuple[int, ...]
    contiguous: tuple[int, ...]
    complete: Number | None
    share: Fraction | None

    def value(self, quantity: Quantity, depth: int) -> Number | None:
        """A quantity at a depth; None when it was not computed."""
        known = self.complete is not None or depth <= len(self.reached)
        match quantity:
            case "reached":
                return self.reached[min(depth, len(self.reached)) - 1] if known else None
            case "contiguous":
                return self.contiguous[min(depth, len(self.reached)) - 1] if known else None
            case "complete":
                return self.complete
            case "share":
                return self.share
            case _:
                assert_never(quantity)


def symbol(name: str) -> Expression:
    """A whole number of at least 1."""
    return Symbol(name, integer=True, positive=True)


n, d, w, s, r, m, p, i = map(symbol, "ndwsrmpi")
NAMES = {n: "n", d: "d", w: "window w", s: "sinks s", r: "stride r", m: "keys m", p: "power of two p"}
COMPARE = {"=": eq, "<=": le, ">=": ge}
LIMITS = {"=": "", "<=": "at most ", ">=": "at least "}
QUANTITIES: dict[Quantity, str] = {
    "reached": "keys the last query reaches after d layers",
    "contiguous": "contiguous keys of the last query after d layers",
    "complete": "layers until complete",
    "share": "share of pairs ever reached",
}


def forms(distances: Distances, layers: int) -> tuple[Form, ...]:
    """What is known in closed form about `layers` layers that keep these distances; nothing for an unknown shape."""
    sinks = min(distances.sinks, distances.n - 1)
    # A query sees sinks in one hop, and from there only sinks: all other keys are as in a stack without them.
    length = distances.n - sinks
    spans = tidy((*distances.spans, (0, 1)), length)
    # Inside a block, tokens are at distance 0 too, and only a kept distance lets them see each other.
    apart = distances.unit > 1 and not any(low <= 0 < high for low, high in distances.spans)
    shape = recognise(spans, length)
    if shape is None or apart or distances.n < 2:
        return ()
    less, few = scaled_down(shape), min(sinks, 5)
    small = [(claims(less, size, few), numbers(less, size + few, few), brute(less, size + few, few)) for size in SMALL]
    exact = sums(spans, length, sinks)
    values = numbers(shape, distances.n, sinks)
    stated: list[Form] = []
    for place, claim in enumerate(claims(shape, length, sinks)):
        if claim.quantity == "share" and distances.unit > 1:
            continue  # of blocks, not of tokens
        if all(holds(c[place], v, f, range(1, 9)) for c, v, f in small) and holds(claim, values, exact, (layers,)):
            checked = f"brute force at n = {' and '.join(str(size + few) for size in SMALL)}"
            checked += "" if less == shape else ", with smaller parameters"
            known = exact.value(claim.quantity, layers) is not None
            checked += f"; sums of distances at n = {distances.n}" if known else ""
            stated.append(form(claim, {**values, d: layers}, distances.unit, checked))
    return tuple(stated)


def tidy(spans: Iterable[tuple[int, int]], n: int) -> Spans:
    """Spans below n in order, with gaps between them."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted((max(low, 0), min(high, n)) for low, high in spans if low < min(high, n)):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def recognise(spans: Spans, n: int) -> Shape | None:
    """The shape that keeps exactly these distances below n."""
    return next((shape for shape in candidates(spans, n) if tidy(kept(shape, n), n) == spans), None)


def candidates(spans: Spans, n: int) -> Iterator[Shape]:
    """The shapes that the first few distances suggest."""
    window = spans[0][1]
    further = [low for low, _ in spans[1:3]]
    if window >= n:
        yield Full()
    elif not further:
        if window > 1:
            yield Window(window)
    else:
        if window == 1:
            yield Dilated(len(spans), further[0])
        yield Powers()
        stride = further[-1] - further[0] if len(further) > 1 else further[0]
        if window > 1:
            yield WindowPowers(window)
            if window - 1 <= stride <= n // 2:
                yield Strided(window, stride)


def kept(shape: Shape, n: int) -> Spans:
    """The distances below n that a shape keeps, in any order."""
    match shape:
        case Full():
            return ((0, n),)
        case Window(window):
            return ((0, window),)
        case Dilated(keys, stride):
            return tuple((stride * key, stride * key + 1) for key in range(keys))
        case Powers():
            return ((0, 1), *((1 << power, (1 << power) + 1) for power in range(n.bit_length())))
        case WindowPowers(window):
            return ((0, window), *kept(Powers(), n))
        case Strided(window, stride):
            return ((0, window), *((key, key + 1) for key in range(0, n, stride)))
        case _:
            assert_never(shape)


def scaled_down(shape: Shape) -> Shape:
    """A shape of the same kind that the small lengths hold a few times."""
    match shape:
        case Full() | Powers():
            return shape
        case Window(window):
            return Window(window if window <= 20 else 20 - window % 7)
        case Dilated(keys, stride):
            return Dilated(min(keys, 5), min(stride, 6))
        case WindowPowers(window):
            return WindowPowers(window if window <= 20 else 17 if power_below(window) == window - 1 else 20)
        case Strided(window, stride):
            return shape if stride <= 20 else Strided(max(2, window * 20 // stride), 20)
        case _:
            assert_never(shape)


def power_below(number: int) -> int:
    """The largest power of two below a number."""
    return 1 << ((number - 1).bit_length() - 1)


def numbers(shape: Shape, length: int, sinks: int) -> dict[Expression, int]:
    """What the symbols stand for, d excepted."""
    values = {n: length, s: sinks, **{symbol(name): value for name, value in asdict(shape).items()}}
    return {**values, p: power_below(values[w])} if w in values else values


def claims(shape: Shape, length: int, sinks: int) -> tuple[Claim, ...]:
    """What holds of a shape on `length` units after the sinks."""
    seen = s if sinks else Integer(0)
    rest = n - seen

    def gapless(run: Expression) -> Expression:
        return Piecewise((n, run >= rest), (run, True)) if sinks else Min(n, run)

    match shape:
        case Full():
            return Claim("reached", "=", n), Claim("contiguous", "=", n), Claim("complete", "=", Integer(1))
        case Window():
            run = d * (w - 1) + 1
            return (
                Claim("reached", "=", Min(n, run + seen)),
                Claim("contiguous", "=", gapless(run)),
                Claim("complete", "=", ceiling((rest - 1) / (w - 1))),
            )
        case Dilated():
            congruent = (n * (n + r) + Mod(n, r) * (r - Mod(n, r))) / (n * r * (n + 1))
            return (
                Claim("reached", "=", seen + Min(ceiling(rest / r), d * (m - 1) + 1)),
                Claim("contiguous", "=", Integer(1)),
                Claim("complete", "=", Piecewise((oo, r > 1), (ceiling((rest - 1) / (m - 1)), True))),
                *(() if sinks else (Claim("share", "=", congruent),)),
            )
        case Powers():
            inexact = length != 2 * power_below(length)
            ways = Sum(binomial(ceiling(log2(rest)), i), (i, 0, d))
            return (
                Claim("reached", "<=", seen + Min(rest, ways)) if inexact else Claim("reached", "=", seen + ways),
                Claim("contiguous", "=", gapless(2 ** (d + 1) - 1)),
                Claim("complete", "=", floor(log2(rest))),
            )
        case WindowPowers(window):
            exact = window - 1 == power_below(window)
            return (
                Claim("contiguous", "=" if exact else ">=", gapless(p * (2**d - 1) + 1)),
                Claim("complete", "=" if exact else "<=", ceiling(log2((rest - 1) / p + 1))),
            )
        case Strided():
            return (Claim("complete", "=", 1 + ceiling((r - 1) / (w - 1))),)
        case _:
            assert_never(shape)


def evaluate(expression: Expression, values: Mapping[Expression, int]) -> Number:
    """What an expression is worth."""
    known = {of: Integer(value) for of, value in values.items()}
    # Added up first: sympy does not compare sums that it has not.
    sums = {part: added(part, known) for part in expression.atoms(Sum)}
    value = expression.xreplace(sums).xreplace(known).doit()
    if value is oo:
        return NEVER
    return int(value) if value.is_Integer else Fraction(int(value.p), int(value.q))


def added(total: Any, values: Mapping[Expression, Expression]) -> Expression:
    """A sum, term by term."""
    ((index, low, high),) = total.limits
    places = range(int(low.xreplace(values)), int(high.xreplace(values)) + 1)
    term = total.function.xreplace(values)
    return sum((term.xreplace({index: Integer(place)}).doit() for place in places), Integer(0))


def holds(claim: Claim, values: Mapping[Expression, int], facts: Facts, depths: Iterable[int]) -> bool:
    """Whether a claim agrees with the facts, as far as they go."""
    found = ((facts.value(claim.quantity, depth), {**values, d: depth}) for depth in depths)
    return all(fact is None or COMPARE[claim.relation](fact, evaluate(claim.expression, at)) for fact, at in found)


def brute(shape: Shape, n: int, sinks: int) -> Facts:
    """The facts by following every hop of every query, rows of pairs being the bits of numbers."""
    distances = {distance for span in kept(shape, n) for distance in range(*span)}
    hops = [[k for k in range(q + 1) if q - k in distances or k < sinks or k == q] for q in range(n)]
    everything, every = (1 << n) - 1, n * (n + 1) // 2
    reached: list[int] = []
    contiguous: list[int] = []
    rows, before = [1 << q for q in range(n)], n
    while True:
        rows = [reduce(or_, (rows[k] for k in keys)) for keys in hops]
        pairs = sum(row.bit_count() for row in rows)
        if pairs == before:
            complete = len(reached) if pairs == every else NEVER
            return Facts(tuple(reached), tuple(contiguous), complete, Fraction(pairs, every))
        before = pairs
        reached.append(rows[-1].bit_count())
        contiguous.append(n - (everything & ~rows[-1]).bit_length())


def sums(spans: Spans, n: int, sinks: int) -> Facts:
    """The facts by adding up distances below n, as bits of one number, for as many depths as the budget holds."""
    everything = (1 << n) - 1
    reached: list[int] = []
    contiguous: list[int] = []
    complete, now = None, 1
    for depth in range(BUDGET // (n * sum((high - low).bit_length() for low, high in spans))):
        wide = {length: smeared(now, length) for length in {high - low for low, high in spans}}
        before, now = now, reduce(or_, (wide[high - low] << low for low, high in spans)) & everything
        if depth and now == before:
            complete = NEVER
            break
        # The lowest bit that is not set; with all keys after the sinks, nothing is missing before them.
        run = (~now & (now + 1)).bit_length() - 1
        reached.append(now.bit_count() + sinks)
        contiguous.append(n + sinks if run == n else run)
        if run == n:
            # Other queries have their keys at no more than the last query's distances.
            complete = depth + 1
            break
    return Facts(tuple(reached), tuple(contiguous), complete, None)


def smeared(bits: int, length: int) -> int:
    """Every bit, and as many above it as make `length`."""
    done = 1
    while done < length:
        step = min(done, length - done)
        bits, done = bits | bits << step, done + step
    return bits


def form(claim: Claim, values: Mapping[Expression, int], unit: int, checked: str) -> Form:
    """A claim in words, with its value."""
    value = evaluate(claim.expression, values)
    match claim.quantity:
        case "reached" | "contiguous":
            text = f"{value:,}" if unit == 1 else f"{value:,} blocks of {unit}"
        case "complete":
            text = "never" if value == NEVER else f"{value:,} layer{'' if value == 1 else 's'}"
        case "share":
            text = f"{100 * float(value):.3g} %"
        case _:
            assert_never(claim.quantity)
    used = [f"{name} = {values[of]}" for of, name in NAMES.items() if of in claim.expression.free_symbols]
    bound = "" if claim.relation == "=" else f"{claim.relation} "
    formula = bound + written(claim.expression) + (f" with {', '.join(used)}" if used else "")
    return Form(QUANTITIES[claim.quantity], formula, LIMITS[claim.relation] + text, checked)


def written(expression: Expression) -> str:
    """An expression in the words of a reader."""
    if isinstance(expression, Piecewise):
        (value, condition), (other, _) = (case.args for case in expression.args)
        return f"{written(value)} if {written(condition)} else {written(other)}"
    plain = expression.replace(Min, Function("min")).replace(ceiling, Function("ceil"))
    return str(plain.replace(oo, Symbol("never")))
