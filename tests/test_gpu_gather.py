"""Gathered keys on a GPU: single ones, chosen distances, places of an order, queries that choose alone."""

from dataclasses import replace

import pytest
import torch

from tests.gather_case import CAUSAL, FIRST, Case, shuffled, some
from tests.test_gather import NEAR, OWN, cell_of
from weft import selection_setting
from weft.codegen import columns as columns_module
from weft.compiler.ir import Not

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("n", [257, 1000])
@pytest.mark.parametrize("cost", [0.0, 2.0])
def test_gathered_keys(n: int, dtype: torch.dtype, cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns_module, "GATHER_COST", cost)
    batch, heads = 2, 4
    shape, tolerance = (batch, heads, n), 2e-2 if dtype == torch.bfloat16 else 1e-4
    places = shuffled(batch, heads, n, 256)
    single, coarse = some(shape, n, 1, 0.05), some(shape, 256, 1, 0.02)
    blocks, slashes = some(shape, 128, 128, 0.4), some(shape, n, 1, 0.02, "d")
    for cells in ((single,), (single, coarse, blocks), (slashes,), (single, slashes), (some(shape, 1, 1, 0.02),)):
        case = Case(n, heads, 2, batch, cells, keeps=(FIRST,), dtype=dtype)
        case.check("gpu", tolerance, "cuda")
    for cells in ((some(shape, 128, 128, 0.4, "p"),), (some(shape, 64, 32, 0.3, "p"), single)):
        case = Case(n, heads, 2, batch, cells, places=places, within=256, dtype=dtype)
        case.check("gpu", tolerance, "cuda")
        replace(case, keeps=(OWN, cell_of(0, 128))).check("gpu", tolerance, "cuda")
        replace(case, limits=(CAUSAL, Not(cell_of(5, 16))), keeps=(NEAR,)).check("gpu", tolerance, "cuda")


@pytest.mark.parametrize("heads", [2, 8, 32])
def test_queries_that_choose_alone(heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads of a group in one tile: 16 rows, or 32."""
    monkeypatch.setattr(selection_setting, "FEWEST_ROWS", 1)
    for shared in (some((2, 1, 700), 1, 64, 0.1), some((2, 1, 700), 1, 1, 0.01)):
        Case(700, heads, 1, 2, (shared,), dtype=torch.bfloat16).check("gpu", 2e-2, "cuda")
