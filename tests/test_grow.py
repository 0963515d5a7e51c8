"""Masks as quadtrees against the dense mask: the same pairs at any length, and bounds that hold."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.brute import Bools
from tests.brute import load as load_shipped
from tests.oracle import SMALL, small_inputs
from tests.strategies import HEADS, files, load
from tests.test_tiles import SHIPPED
from weft.compiler.dense import dense_mask
from weft.compiler.grow import Grower
from weft.compiler.ir import Mask
from weft.compiler.plan import Shape
from weft.compiler.quadtree import Forest, OverBudget
from weft.compiler.tables import Ints, table_values
from weft.dsl.syntax import File


def pairs(forest: Forest, node: int, level: int, n: int) -> Bools:
    out = np.zeros((1 << level, 1 << level), dtype=bool)
    for q in range(1 << level):
        for low, high in forest.row(node, level, q):
            out[q, low:high] = True
    assert not out[n:].any() and not out[:, n:].any(), "tokens that are not there have no pairs"
    return out[:n, :n]


def grown(
    mask: Mask, n: int, h: int, heads: int, tables: dict[str, Ints], unknown: bool = True, floor: int = 0
) -> Bools:
    forest = Forest(1_000_000)
    grower = Grower(forest, n)
    values = {"h": h, "g": h}
    node = grower.grow(mask.formula, values, tables, unknown, min(floor, grower.level))
    return pairs(forest, node, grower.level, n)


def all_tables(mask: Mask, inputs: dict[str, Any], n: int, heads: int) -> dict[str, Ints]:
    return {t.name: table_values(t, inputs, n, n, Shape(True, heads, heads)) for t in mask.tables}


def by_head(mask: Mask, inputs: dict[str, Any], n: int, heads: int) -> list[Bools]:
    dense = dense_mask(mask, n, n, Shape(True, heads, heads), inputs)
    return [dense[h] if dense.ndim == 3 else dense for h in range(heads)]


@settings(deadline=None)
@given(files(inputs=False), st.integers(1, 130))
def test_random_masks(file: File, n: int) -> None:
    mask = load(file).bind(HEADS, HEADS)
    tables = all_tables(mask, {}, n, HEADS)
    for h, right in enumerate(by_head(mask, {}, n, HEADS)):
        assert np.array_equal(grown(mask, n, h, HEADS, tables), right)


@pytest.mark.parametrize("n", [1, 63, 100, 257])
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_masks(name: str, n: int) -> None:
    pattern = load_shipped(name, **SMALL.get(name, {}))
    mask = pattern.bind(4)
    inputs = {key: value.numpy() for key, value in small_inputs(pattern, n, n).items()}
    tables = all_tables(mask, inputs, n, 4)
    for h, right in enumerate(by_head(mask, inputs, n, 4)):
        assert np.array_equal(grown(mask, n, h, 4, tables), right)


@settings(deadline=None)
@given(files(), st.integers(1, 100), st.integers(0, 4))
def test_bounds_hold(file: File, n: int, floor: int) -> None:
    """Without inputs and draws, and with squares left undecided: what is certain is in, what is in is possible."""
    pattern = load(file)
    mask = pattern.bind(HEADS, HEADS)
    inputs = {key: value.numpy() for key, value in small_inputs(pattern, n, n, heads=HEADS).items()}
    known = {t.name: table_values(t, {}, n, n, Shape(True, HEADS, HEADS)) for t in mask.tables if t.kind == "head"}
    for h, right in enumerate(by_head(mask, inputs, n, HEADS)):
        certain = grown(mask, n, h, HEADS, known, False, floor)
        possible = grown(mask, n, h, HEADS, known, True, floor)
        assert not (certain & ~right).any() and not (right & ~possible).any()


def test_irregular_masks_are_refused_in_time() -> None:
    forest = Forest(20_000)
    pattern = load_shipped("bigbird")
    mask = pattern.bind()
    with pytest.raises(OverBudget):
        Grower(forest, 1 << 14).grow(mask.formula, {"h": 0, "g": 0}, all_tables(mask, {}, 1 << 14, 1), True)
