"""What rules keep without sorting, in Triton's interpreter, against what they keep by sorting."""

import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.codegen.rank import rank_rows
from weft.codegen.rules import choose
from weft.compiler.ir import Var
from weft.compiler.selection import Chosen, Integer, Number

pytestmark = pytest.mark.skipif(not os.environ.get("TRITON_INTERPRET"), reason="needs Triton's interpreter")

# Eighths: their sums are exact in any order.
EIGHTHS = st.integers(-16, 40).map(lambda x: x / 8)
ODD = st.sampled_from([0.0, -0.0, float("nan")])
CELL = st.tuples(EIGHTHS | ODD, st.booleans() | st.just(True), st.sampled_from([False, False, False, True]))


def chosen(rule: Any, amount: float | None, percent: bool = False, of: Any = "visible") -> Chosen:
    term = Integer(Var("n")) if amount is None else Number(amount)
    return Chosen(rule, term, percent, of, "J", "I", Number(0), None, None, "")


def agree(rule: Chosen, rows: list[list[tuple[float, bool, bool]]], amounts: list[float] | None = None) -> None:
    score, candidates, forced = (torch.tensor([[cell[part] for cell in row] for row in rows]) for part in range(3))
    each = None if amounts is None else torch.tensor(amounts)[:, None]
    wanted = choose(rule, score, candidates, candidates & forced, amounts=each)
    assert torch.equal(rank_rows(rule, score, candidates, candidates & forced, each), wanted)


@given(st.integers(1, 70).flatmap(lambda width: st.lists(CELL, min_size=width, max_size=width)), st.data())
@settings(max_examples=150, deadline=None)
def test_the_same_cells(row: list[tuple[float, bool, bool]], data: st.DataObject) -> None:
    match data.draw(st.sampled_from(["top", "share", "cover", "reach", "under"])):
        case "top":
            rule = chosen("top", data.draw(st.integers(0, 80)))
        case "share":
            of = data.draw(st.sampled_from(["visible", "total", "triangle"]))
            rule = chosen("top", data.draw(st.sampled_from([0.0, 12.5, 50.0, 100.0])), True, of)
        case "cover":
            rule = chosen("cover", data.draw(st.sampled_from([0.0, 0.25, 0.5, 1.0])))
        case name:
            rule = chosen(name, data.draw(st.integers(-2, 40)) / 8)
    agree(rule, [row])


@given(st.lists(st.lists(CELL, min_size=9, max_size=9), min_size=3, max_size=3), st.data())
@settings(max_examples=60, deadline=None)
def test_amounts_by_row(rows: list[list[tuple[float, bool, bool]]], data: st.DataObject) -> None:
    rule = chosen(data.draw(st.sampled_from(["top", "cover", "reach", "under"])), None)
    amounts = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.5, 9.0, 50.0, float("nan")]), min_size=3, max_size=3)
    agree(rule, rows, data.draw(amounts))


@pytest.mark.parametrize(
    "rule", [chosen("top", 700), chosen("cover", 0.5), chosen("reach", 200.0), chosen("under", 9.0)]
)
def test_rows_of_several_steps(rule: Chosen) -> None:
    """Ties go on from one step to the next."""
    make = torch.Generator().manual_seed(0)
    score = torch.randint(0, 5, (2, 2500), generator=make) / 8
    candidates, forced = (torch.rand(2, 2500, generator=make) < share for share in (0.9, 0.01))
    forced &= candidates
    assert torch.equal(rank_rows(rule, score, candidates, forced), choose(rule, score, candidates, forced))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 3e38, -3e38, 1e-42])
def test_the_ends_of_the_range(value: float) -> None:
    rows = [[(x, True, False) for x in (1.0, value, -1.0, 0.0, value)]]
    for count in range(6):
        agree(chosen("top", count), rows)
