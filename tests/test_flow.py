"""Ways, walks and bottlenecks of small stacks: every way written out, every set of blocks taken away."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from math import log2
from statistics import median
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from weft.compiler.coverage import Flow
from weft.compiler.flow import flow

Bools = NDArray[np.bool_]


@st.composite
def stacks(draw: st.DrawFn, blocks: int = 7, layers: int = 4) -> list[Bools]:
    """Layers of one size; about half of the stacks are causal."""
    n = draw(st.integers(1, blocks))
    causal = draw(st.booleans())
    bits = st.lists(st.booleans(), min_size=n * n, max_size=n * n)
    drawn = [np.array(draw(bits)).reshape(n, n) for _ in range(draw(st.integers(1, layers)))]
    return [np.tril(layer) if causal else layer for layer in drawn]


def written_out(layers: list[Bools], block: int) -> Iterator[list[int]]:
    """Every way from a block at the top to the input, as the blocks it is at."""
    if not layers:
        yield [block]
        return
    for key in range(len(layers[0])):
        if key == block or layers[-1][block, key]:
            for rest in written_out(layers[:-1], key):
                yield [block, *rest]


def walked(layers: list[Bools], block: int) -> list[Fraction]:
    """Where the walk ends, exactly."""
    n = len(layers[0])
    share = [Fraction(int(b == block)) for b in range(n)]
    for layer in reversed(layers):
        after = [Fraction(0)] * n
        for q in range(n):
            keys = [k for k in range(n) if layer[q, k]]
            after[q] += share[q] / 2 if keys else share[q]
            for k in keys:
                after[k] += share[q] / 2 / len(keys)
        share = after
    return share


def connected(attends: Bools, without: frozenset[int]) -> bool:
    """Whether the last block leads to the first when some others are gone."""
    last = len(attends) - 1
    met, waiting = {last}, [last]
    while waiting:
        q = waiting.pop()
        new = {k for k in range(last + 1) if attends[q, k]} - met - without
        met |= new
        waiting += new
    return 0 in met


@given(stacks(blocks=6))
def test_ways_are_the_ways(layers: list[Bools]) -> None:
    n = len(layers[0])
    ends = [way[-1] for way in written_out(layers, n - 1)]
    counts = [log2(ends.count(b)) for b in set(ends)]
    found = flow(layers, 16)
    assert found.block == 16
    assert found.paths == pytest.approx((min(counts), median(counts), max(counts)), abs=1e-9)


@given(stacks(blocks=24))
def test_influence_is_the_walk(layers: list[Bools]) -> None:
    share = walked(layers, len(layers[0]) - 1)
    tenth = -(-len(share) // 10)
    wanted = (share[-1], sum(share[-tenth:]), sum(share[:tenth]))
    assert flow(layers, 1).influence == pytest.approx([float(w) for w in wanted], abs=1e-12)


@given(stacks())
def test_bottlenecks_and_cuts(layers: list[Bools]) -> None:
    attends: Bools = np.logical_or.reduce(layers)
    last = len(attends) - 1
    found = flow(layers, 1)
    if last == 0 or attends[last, 0]:
        assert (found.bottlenecks, found.cut) == ((), None)
        return
    between = range(1, last)
    alone = tuple(b for b in between if not connected(attends, frozenset({b})))
    sets = (frozenset(s) for size in range(last) for s in combinations(between, size))
    cut = next(len(s) for s in sets if not connected(attends, s))
    assert found.cut == cut
    assert found.bottlenecks == (alone if cut else ())


def test_a_step_back_is_no_link() -> None:
    attends = np.zeros((4, 4), dtype=bool)
    attends[[0, 1, 2, 3, 3], [3, 0, 0, 1, 2]] = True
    assert flow([attends], 1).cut == 2


def test_no_way_at_all() -> None:
    assert flow([np.eye(5, dtype=bool)], 64) == Flow(64, (0.0, 0.0, 0.0), (1.0, 1.0, 0.0), (), 0)


def test_deep_stacks_neither_overflow_nor_vanish() -> None:
    n, depth = 512, 128
    full = np.ones((n, n), dtype=bool)
    assert flow([full] * depth, 1).paths[2] == pytest.approx((depth - 1) * log2(n))
    # One way to the first block, among more than 2^1000 ways to others.
    lone = full.copy()
    lone[:, 0] = False
    first = np.zeros_like(full)
    first[-1, 0] = True
    least, _, most = flow([*[lone] * (depth - 1), first], 1).paths
    assert (least, most > 1000) == (0.0, True)


@pytest.mark.parametrize("window", [2, 8, 64, 171, 256, 511])
def test_windows_of_many_blocks_take_no_time(window: int) -> None:
    n = 512
    distance = np.arange(n)[:, None] - np.arange(n)
    started = perf_counter()
    found = flow([(distance >= 0) & (distance < window)] * 8, 128)
    assert perf_counter() - started < 6
    assert found.cut == window - 1
    assert len(found.bottlenecks) == (n - 2 if window == 2 else 0)
