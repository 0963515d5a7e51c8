"""Relations as quadtrees against boolean matrices."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.brute import Bools
from weft.compiler.quadtree import EMPTY, FULL, Forest


def tree(forest: Forest, pairs: Bools) -> int:
    if pairs.shape[0] == 1:
        return FULL if pairs[0, 0] else EMPTY
    half = len(pairs) // 2
    corners = (pairs[:half, :half], pairs[:half, half:], pairs[half:, :half], pairs[half:, half:])
    a, b, c, d = (tree(forest, corner) for corner in corners)
    return forest.node(a, b, c, d)


@st.composite
def matrices(draw: st.DrawFn) -> tuple[int, Bools, Bools]:
    """A level, and two matrices of 2^level tokens: sparse, dense, banded."""
    level = draw(st.integers(0, 5))
    n = 1 << level
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    q, k = np.arange(n)[:, None], np.arange(n)[None, :]
    out: list[Bools] = []
    for _ in range(2):
        random = rng.random((n, n)) < draw(st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0]))
        band = (q - k >= draw(st.integers(-3, 3))) & (q - k < draw(st.integers(0, 40)))
        out.append(np.asarray(draw(st.sampled_from([random, band, random & band]))))
    return level, out[0], out[1]


@given(matrices())
def test_algebra(case: tuple[int, Bools, Bools]) -> None:
    level, a, b = case
    forest = Forest(1_000_000)
    x, y = tree(forest, a), tree(forest, b)
    # Equal relations are the same number.
    assert forest.union(x, y) == tree(forest, a | b)
    assert forest.minus(x, y) == tree(forest, a & ~b)
    assert forest.meet(x, y) == tree(forest, a & b)
    assert forest.compose(x, y) == tree(forest, (a.astype(int) @ b.astype(int)) > 0)
    assert forest.identity(level) == tree(forest, np.eye(1 << level, dtype=bool))


@given(matrices(), st.data())
def test_questions(case: tuple[int, Bools, Bools], data: st.DataObject) -> None:
    level, pairs, _ = case
    forest, n = Forest(1_000_000), 1 << level
    node = tree(forest, pairs)
    assert forest.count(node, level) == pairs.sum()
    assert np.array_equal(forest.row_counts(node, level), pairs.sum(axis=1))
    q, k = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
    assert forest.contains(node, level, q, k) == pairs[q, k]
    assert [x for low, high in forest.row(node, level, q) for x in range(low, high)] == np.nonzero(pairs[q])[0].tolist()
    columns = [x for low, high in forest.column(node, level, k) for x in range(low, high)]
    assert columns == np.nonzero(pairs[:, k])[0].tolist()
    missing = np.nonzero(~pairs[q, : k + 1])[0]
    assert forest.unbroken(node, level, q, k) == (k - missing[-1] if len(missing) else k + 1)
    if pairs.any():
        assert pairs[forest.first(node, level)]
    for cells in range(level + 1):
        side = n >> cells
        shares = pairs.reshape(1 << cells, side, 1 << cells, side).mean(axis=(1, 3))
        assert np.allclose(forest.densities(node, level, cells), shares)
        touched = forest.densities(forest.touched(node, cells), cells, cells)
        assert np.array_equal(touched > 0, shares > 0)
