"""Closed forms against boolean matrices: what is stated of any distances holds, and what is known is stated."""

from collections.abc import Callable, Iterable
from math import ceil, comb, factorial, floor, inf, log2
from operator import eq, ge, le
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from weft.compiler import closed_forms
from weft.compiler.closed_forms import Claim, Distances, Window, forms, tidy
from weft.compiler.coverage import Form

from .brute import causal, rows

Bools = NDArray[np.bool_]

REACHED = "keys the last query reaches after d layers"
CONTIGUOUS = "contiguous keys of the last query after d layers"
COMPLETE = "layers until complete"
SHARE = "share of pairs ever reached"


def growing(hop: Bools) -> list[Bools]:
    """What is reached at depths 1, 2, .. until nothing new comes; staying in place is free."""
    hop = hop | np.eye(len(hop), dtype=bool)
    found, step = [hop], hop.astype(np.float32)
    while not np.array_equal(found[-1], after := found[-1].astype(np.float32) @ step > 0):
        found.append(after)
    return found


def complete(hop: Bools, admissible: Bools | None = None) -> float:
    """The depth at which all admissible pairs are reached; infinite when they never are."""
    found = growing(hop)
    return len(found) if found[-1][... if admissible is None else admissible].all() else inf


def lower(n: int) -> Bools:
    """All pairs that a causal stack may reach."""
    return causal(np.ones((n, n), dtype=bool))


def by_distance(n: int, distances: Iterable[int], sinks: int = 0) -> Bools:
    """The relation with these distances and sinks."""
    distance = np.arange(n)[:, None] - np.arange(n)
    return causal(np.isin(distance, list(distances)) | (np.arange(n) < sinks))


def facts(hop: Bools, layers: int) -> dict[str, float]:
    """The quantities of all forms."""
    n, found = len(hop), growing(hop)
    last = found[min(layers, len(found)) - 1][-1]
    return {
        REACHED: int(last.sum()),
        CONTIGUOUS: n if last.all() else int(last[::-1].argmin()),
        COMPLETE: len(found) if found[-1].sum() == lower(n).sum() else inf,
        SHARE: found[-1].sum() / lower(n).sum(),
    }


def number(form: Form) -> float:
    """The number in a form's value."""
    words = form.value.removeprefix("at most ").removeprefix("at least ").split()
    return inf if words == ["never"] else float(words[0].replace(",", ""))


def agrees(form: Form, known: dict[str, float]) -> bool:
    """Whether a form says of its quantity what brute force says."""
    relation = {"<=": le, ">=": ge}.get(form.formula[:2], eq)
    assert form.value.startswith({le: "at most ", ge: "at least ", eq: ""}[relation])
    if form.quantity == SHARE:
        return number(form) == pytest.approx(100 * known[SHARE], rel=1e-2)
    return relation(known[form.quantity], number(form))


def stated(n: int, distances: Iterable[int], layers: int, sinks: int = 0, unit: int = 1) -> dict[str, Form]:
    """The forms of a set of distances, by quantity, each held against matrices."""
    kept = [distance for distance in distances if distance < n]
    spans = tidy(((distance, distance + 1) for distance in kept), n)
    found = {form.quantity: form for form in forms(Distances(n, unit, spans, sinks), layers)}
    known = facts(by_distance(n, kept, sinks), layers) if found else {}
    assert all(agrees(form, known) for form in found.values()), (found, known)
    return found


def exactly(found: dict[str, Form], **values: float) -> None:
    """The forms say this, with no bounds."""
    names = {"reached": REACHED, "contiguous": CONTIGUOUS, "complete": COMPLETE}
    for name, value in values.items():
        form = found[names[name]]
        assert (number(form), form.formula[:2] in {"<=", ">="}) == (value, False)


lengths = st.integers(2, 90) | st.integers(2, 256)
short = st.integers(2, 130)
depths = st.integers(1, 9)
sink_counts = st.sampled_from([0, 0, 1, 4, 30])


def powers(n: int) -> list[int]:
    """The powers of two below n."""
    return [1 << e for e in range(n.bit_length()) if 1 << e < n]


@given(lengths, st.sets(st.integers(0, 255), max_size=12), st.integers(0, 40), depths, sink_counts)
def test_any_distances(n: int, some: set[int], window: int, layers: int, sinks: int) -> None:
    stated(n, some | set(range(min(window, n))), layers, sinks)


@st.composite
def regular(draw: st.DrawFn) -> set[int]:
    """A union of what shapes are made of."""
    near, stride, keys = draw(st.integers(0, 60)), draw(st.integers(1, 60)), draw(st.integers(1, 12))
    parts = range(near), powers(256), range(0, 256, stride), range(0, stride * keys, stride), range(9, 13)
    return set[int]().union(*draw(st.lists(st.sampled_from(parts), min_size=1, max_size=3)))


@given(lengths, regular(), depths, sink_counts)
def test_anything_regular(n: int, distances: set[int], layers: int, sinks: int) -> None:
    stated(n, distances, layers, sinks)


@given(lengths, st.integers(2, 300), depths, sink_counts)
def test_windows_and_sinks(n: int, w: int, layers: int, sinks: int) -> None:
    found = stated(n, range(w), layers, sinks)
    run, rest = layers * (w - 1) + 1, n - sinks
    exactly(found, reached=min(n, run + sinks), contiguous=n if run >= rest else run)
    exactly(found, complete=max(1, ceil((rest - 1) / (w - 1))))


@given(short, st.integers(2, 20), st.integers(2, 20), depths, st.integers(0, 4))
def test_dilated(n: int, m: int, r: int, layers: int, sinks: int) -> None:
    rest = n - sinks
    assume(rest > r)
    found = stated(n, [r * key for key in range(m)], layers, sinks)
    m = min(m, ceil(rest / r))
    exactly(found, reached=min(ceil(rest / r), layers * (m - 1) + 1) + sinks, contiguous=1, complete=inf)
    assert (SHARE in found) == (sinks == 0)


@given(lengths, depths, st.integers(0, 4))
def test_powers(n: int, layers: int, sinks: int) -> None:
    rest, run = n - sinks, 2 ** (layers + 1) - 1
    assume(rest > 4)
    found = stated(n, [0, *powers(n)], layers, sinks)
    exactly(found, contiguous=n if run >= rest else run, complete=floor(log2(rest)))
    if rest & (rest - 1) == 0:
        exactly(found, reached=sum(comb(int(log2(rest)), i) for i in range(layers + 1)) + sinks)


def test_shortest_ways_of_powers() -> None:
    n = 64
    hop = by_distance(n, powers(n)).astype(int)
    ways, count = np.eye(n, dtype=int), 0
    while ways.any():
        for distance in range(n):
            ones = distance.bit_count()
            assert count > ones or ways[-1, n - 1 - distance] == (factorial(ones) if count == ones else 0)
        ways, count = ways @ hop if count < 6 else ways * 0, count + 1


@given(short, st.integers(4, 60), depths, st.integers(0, 4))
def test_windows_and_powers(n: int, w: int, layers: int, sinks: int) -> None:
    some = {*range(w), *powers(n)}
    w = next(distance for distance in range(n + 999) if distance not in some)
    rest, power = n - sinks, 1 << (w - 1).bit_length() - 1
    assume(1 << (w - 1).bit_length() < rest)
    found = stated(n, some, layers, sinks)
    run, hops = (2**layers - 1) * power + 1, ceil(log2((rest - 1) / power + 1))
    assert (number(found[CONTIGUOUS]), number(found[COMPLETE])) == (n if run >= rest else run, hops)
    assert (found[COMPLETE].formula[:2] == "<=") == (w - 1 > power)


@given(st.integers(30, 130), st.integers(2, 30), st.integers(2, 30), st.integers(0, 4))
def test_relative_strides(n: int, w: int, s: int, sinks: int) -> None:
    distances = {*range(w), *range(0, n, s)}
    assume(w < s <= (n - sinks) // 2 and not distances <= {*range(w), *powers(n)})
    exactly(stated(n, distances, 1, sinks), complete=1 + ceil((s - 1) / (w - 1)))


def test_everything() -> None:
    exactly(stated(77, range(77), 3), reached=77, contiguous=77, complete=1)
    exactly(stated(77, range(2), 3, sinks=76), reached=77, contiguous=77, complete=1)
    exactly(stated(77, [], 3, sinks=99), complete=1)


@pytest.mark.parametrize("distances", [[], [0], [0, 2, 3], [0, 1, 5, 6], [0, 3, 9], range(0, 40, 7)[2:]])
def test_nothing_is_known(distances: Iterable[int]) -> None:
    assert stated(100, distances, 4) == {}


def test_a_block_that_does_not_see_itself() -> None:
    assert stated(100, [1, 2, 4, 8, 16, 32, 64], 2, unit=1)
    assert not stated(100, [1, 2, 4, 8, 16, 32, 64], 2, unit=256)
    assert forms(Distances(1, 1, ((0, 1),), 0), 4) == ()


def test_words() -> None:
    first, second, third = forms(Distances(8192, 1, ((0, 512),), 4), 4)
    smaller = "brute force at n = 65 and 132, with smaller parameters; sums of distances at n = 8192"
    given = "n = 8192, d = 4, window w = 512, sinks s = 4"
    assert first == Form(REACHED, f"min(n, d*(w - 1) + s + 1) with {given}", "2,049", smaller)
    assert second.formula == f"n if n - s <= d*(w - 1) + 1 else d*(w - 1) + 1 with {given}"
    without = "ceil((n - s - 1)/(w - 1)) with n = 8192, window w = 512, sinks s = 4"
    assert third == Form(COMPLETE, without, "17 layers", smaller)
    blocks = forms(Distances(4096, 256, ((0, 7), (8, 9), *((1 << e, (1 << e) + 1) for e in range(4, 12))), 0), 3)
    checked = "brute force at n = 61 and 128; sums of distances at n = 4096"
    bound = ">= min(n, p*(2**d - 1) + 1) with n = 4096, d = 3, power of two p = 4"
    assert blocks[0] == Form(CONTIGUOUS, bound, "at least 29 blocks of 256", checked)
    assert blocks[1].value == "at most 11 layers"
    never = forms(Distances(100, 1, ((0, 1), (3, 4)), 0), 3)[2]
    assert (never.formula.split(" with")[0], never.value) == ("never if r > 1 else ceil((n - 1)/(m - 1))", "never")


def test_lengths_too_large_to_add_up() -> None:
    found = {form.quantity: form for form in forms(Distances(1 << 24, 1, ((0, 3),), 0), 8)}
    assert found[COMPLETE].checked == "brute force at n = 61 and 128"
    assert found[REACHED].checked.endswith("sums of distances at n = 16777216")
    exactly(found, reached=17, complete=(1 << 23))


def test_a_form_that_brute_force_denies_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [Claim("reached", "=", closed_forms.d * closed_forms.w), Claim("complete", "<=", closed_forms.oo)]
    monkeypatch.setattr(closed_forms, "claims", lambda *_: (wrong[0], wrong[1]))
    assert [form.quantity for form in forms(Distances(500, 1, ((0, 5),), 0), 4)] == [COMPLETE]
    # Right for few units and wrong at the length: only the sums can tell.
    late = closed_forms.Piecewise((closed_forms.d, closed_forms.n > 200), (closed_forms.d * 4 + 1, True))
    monkeypatch.setattr(closed_forms, "claims", lambda *_: (Claim("reached", "=", late),))
    assert forms(Distances(500, 1, ((0, 5),), 0), 4) == ()


@given(short, st.sets(st.integers(0, 255), max_size=9), st.integers(0, 30), sink_counts)
def test_sums_are_the_matrices(n: int, some: set[int], window: int, sinks: int) -> None:
    sinks = min(sinks, n - 1)
    distances = {0} | {d for d in some | set(range(window)) if d < n}
    found = closed_forms.sums(tidy(((d, d + 1) for d in distances), n - sinks), n - sinks, sinks)
    for layers in {1, 2, 3, len(found.reached), len(found.reached) + 2}:
        known = facts(by_distance(n, distances, sinks), layers)
        assert found.value("reached", layers) == known[REACHED]
        assert found.value("contiguous", layers) == known[CONTIGUOUS]
        assert found.value("complete", layers) == known[COMPLETE]


def test_brute_is_the_matrices() -> None:
    found = closed_forms.brute(Window(4), 50, 3)
    assert found.value("complete", 1) == complete(by_distance(50, range(4), 3), lower(50)) == 16


# What else the catalogue of patterns states, which does not follow from distances.


def neighbourhood(length: int, k: int) -> Bools:
    """The nearest k keys along an axis, as many at its ends."""
    return rows(lambda q: range(low := min(max(q - k // 2, 0), length - k), low + k), length)


def along(length: int, k: int) -> int:
    """Layers until an axis is complete."""
    return 1 if k == length else 1 + ceil((length - k) / (k // 2))


@given(st.integers(3, 60), st.integers(1, 29))
def test_neighbourhood(length: int, half: int) -> None:
    k = 2 * half + 1
    assume(k <= length)
    assert complete(neighbourhood(length, k)) == along(length, k)


@given(st.tuples(st.integers(5, 12), st.integers(5, 12)), st.sampled_from([3, 5]), st.sampled_from([3, 5]))
def test_neighbourhood_of_two_axes(shape: tuple[int, int], k: int, j: int) -> None:
    both: Bools = np.kron(neighbourhood(shape[0], k), neighbourhood(shape[1], j))
    assert complete(both) == max(along(shape[0], k), along(shape[1], j))


@pytest.mark.parametrize("bits", range(1, 9))
def test_butterfly(bits: int) -> None:
    n = 1 << bits
    hop = rows(lambda q: [q ^ 1 << bit for bit in range(bits)], n)
    assert complete(hop) == bits
    reached = growing(causal(hop))[-1].sum()
    assert 1 - reached / (n * (n + 1) / 2) == pytest.approx(1 - 3**bits / (2 ** (bits - 1) * (n + 1)))


@given(short, st.integers(2, 40), st.integers(2, 40))
def test_absolute_stride(n: int, v: int, near: int) -> None:
    hop = rows(lambda q: [k for k in range(q + 1) if k % v == 0 or q - k < near], n)
    assert complete(hop, lower(n)) <= 1 + ceil((v - 1) / (near - 1))


@given(short, st.integers(1, 9), st.integers(1, 40), st.integers(2, 40))
def test_slashes(n: int, m: int, s: int, w: int) -> None:
    hop = by_distance(n, {*range(w), *(s * key for key in range(m + 1))})
    assert complete(hop, lower(n)) <= ceil(n / (m * s)) + ceil(s / (w - 1))


@given(st.integers(1, 12), st.integers(1, 8))
def test_block_diffusion(count: int, b: int) -> None:
    n = count * b

    def keys(q: int) -> list[int]:
        own, clean = q % n // b, q >= n
        before = [n + k for k in range(n) if k // b < own + clean]
        return before if clean else before + [k for k in range(n) if k // b == own]

    assert rows(keys, 2 * n).sum() == n * n + n * b


@given(st.integers(1, 200), st.integers(1, 200))
def test_the_best_keys(n: int, t: int) -> None:
    assume(t <= n)
    assert sum(min(q + 1, t) for q in range(n)) == t * (t + 1) // 2 + (n - t) * t


@pytest.mark.parametrize("near", [2, 7, 16])
@pytest.mark.parametrize("far", ["strided", "fixed"])
def test_sparse_transformer(near: int, far: str) -> None:
    n = 100
    kinds: dict[str, tuple[Callable[[int, int], Any], Callable[[int, int], Any]]] = {
        "strided": (lambda q, k: q - k < near, lambda q, k: (q - k) % near == 0),
        "fixed": (lambda q, k: q // near == k // near, lambda q, k: k % near == near - 1),
    }
    first, second = (rows(lambda q, f=f: [k for k in range(q + 1) if f(q, k)], n) for f in kinds[far])
    stay = np.eye(n, dtype=bool)
    assert complete(first | second, lower(n)) == 2
    # One after the other does as well, the near keys nearer to the input.
    assert np.array_equal((second | stay).astype(int) @ (first | stay) > 0, lower(n))
