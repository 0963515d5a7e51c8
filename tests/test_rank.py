"""What rules keep without sorting, in Triton's interpreter, against what they keep by sorting."""

import math
import os
from collections.abc import Generator
from fractions import Fraction
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.codegen import rank
from weft.codegen.rank import rank_rows, sorts
from weft.codegen.rules import at_least, budgets, choose
from weft.compiler.ir import Var
from weft.compiler.selection import Chosen, Integer, Number

pytestmark = pytest.mark.skipif(not os.environ.get("TRITON_INTERPRET"), reason="needs Triton's interpreter")

# Eighths: their sums are exact in any order.
EIGHTHS = st.integers(-16, 40).map(lambda x: x / 8)
ODD = st.sampled_from([0.0, -0.0, float("nan"), float("inf"), float("-inf")])
CELL = st.tuples(EIGHTHS | ODD, st.booleans() | st.just(True), st.sampled_from([False, False, False, True]))
ROWS = st.integers(1, 70).flatmap(lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), max_size=3))
RULES = ("top", "cover", "reach", "under")


def chosen(rule: Any, amount: float | None, percent: bool = False, of: Any = "visible") -> Chosen:
    term = Integer(Var("n")) if amount is None else Number(amount)
    return Chosen(rule, term, percent, of, "J", "I", Number(0), None, None, "")


SOME = (chosen("top", 70), chosen("top", 12.5, True), chosen("cover", 0.5), chosen("reach", 20.0), chosen("under", 9.0))


def agree(rule: Chosen, rows: list[list[tuple[float, bool, bool]]], amounts: list[float] | None = None) -> None:
    score, candidates, forced = (torch.tensor([[cell[part] for cell in row] for row in rows]) for part in range(3))
    each = None if amounts is None else torch.tensor(amounts)[:, None]
    wanted = choose(rule, score, candidates, candidates & forced, amounts=each)
    assert torch.equal(rank_rows(rule, score, candidates, candidates & forced, each), wanted)


@pytest.fixture(params=["held", "steps"])
def kernel(request: pytest.FixtureRequest) -> Generator[None]:
    """Rows held in registers, and rows read in steps again and again."""
    with mock.patch.object(rank, "WARPS", 16 if request.param == "held" else 0), mock.patch.object(rank, "STEP", 64):
        yield


def cells(*shape: int, candidates: float = 0.9, forced: float = 0.02) -> tuple[torch.Tensor, ...]:
    """Scores with ties and with some that are no number, candidates, and those kept in any case."""
    make = torch.Generator().manual_seed(sum(shape))
    score = torch.randint(-8, 30, shape, generator=make) / 8
    score[torch.rand(shape, generator=make) < 0.02] = float("nan")
    may, must = (torch.rand(shape, generator=make) < share for share in (candidates, forced))
    return score, may, may & must


def same(rule: Chosen, *given: torch.Tensor) -> None:
    shape = torch.broadcast_shapes(*(x.shape for x in given))
    score, candidates, forced = (x.expand(shape) for x in given[:3])
    amounts = given[3].expand(*shape[:-1], 1) if len(given) > 3 else None
    assert torch.equal(rank_rows(rule, *given), choose(rule, score, candidates, forced, amounts=amounts))


@pytest.mark.usefixtures("kernel")
@given(ROWS.filter(len), st.data())
@settings(max_examples=80, deadline=None)
def test_the_same_cells(rows: list[list[tuple[float, bool, bool]]], data: st.DataObject) -> None:
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
    agree(rule, rows)


@pytest.mark.usefixtures("kernel")
@given(st.lists(st.lists(CELL, min_size=9, max_size=9), min_size=3, max_size=3), st.data())
@settings(max_examples=40, deadline=None)
def test_amounts_by_row(rows: list[list[tuple[float, bool, bool]]], data: st.DataObject) -> None:
    percent = data.draw(st.booleans())
    rule = chosen("top" if percent else data.draw(st.sampled_from(RULES)), None, percent)
    amounts = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.5, 9.0, 50.0, float("nan")]), min_size=3, max_size=3)
    agree(rule, rows, data.draw(amounts))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("size", [1, 31, 64, 65, 500, 2048, 4097])
@pytest.mark.parametrize("rule", SOME, ids=lambda rule: rule.rule + "%" * rule.percent)
def test_sizes(rule: Chosen, size: int) -> None:
    with mock.patch.object(rank, "STEP", 512 if size > 500 else 64):
        same(rule, *cells(1 if size > 500 else 3, size))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("rule", SOME, ids=lambda rule: rule.rule + "%" * rule.percent)
def test_rows_of_one_kind(rule: Chosen) -> None:
    """All forced, no candidates, no number, equal scores, scores below 0, and numbers next to each other."""
    score, candidates, _ = cells(6, 100, candidates=1.0)
    forced = torch.zeros_like(candidates)
    forced[0], candidates[1], score[2], score[3], score[4] = True, False, float("nan"), 0.5, -score[4].abs()
    score[5] = torch.tensor(1.0) + torch.arange(100).flip(0) / 2**23
    same(rule, score, candidates, forced)
    assert torch.equal(rank_rows(rule, score, candidates), choose(rule, score, candidates, forced & False))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 3e38, -3e38, 1e-42])
def test_the_ends_of_the_range(value: float) -> None:
    rows = [[(x, True, False) for x in (1.0, value, -1.0, 0.0, value)]]
    for count in range(6):
        agree(chosen("top", count), rows)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(("rule", "amount"), [("top", 3), ("reach", 5.0)])
def test_nothing_need_be_copied(rule: str, amount: float) -> None:
    """What heads, batch elements or queries share, amounts of some of them, and cells far apart."""
    score, candidates, forced = cells(2, 2, 2, 3, 20, forced=0.1)
    constant, own = chosen(rule, amount), chosen(rule, None)
    same(constant, score, candidates[:1, :1, :1], forced[:, :1, :, :1])
    same(constant, score[:, :, :1], candidates[:1], forced[:1])
    by_group, by_query = torch.tensor([0.25, float("nan")]).view(2, 1, 1, 1), torch.tensor([[0.5], [2.0], [9.0]])
    same(own, score, candidates[:, :1], forced[:, :1], by_group)
    same(own, score[..., 0].transpose(0, 3), candidates[0, 0, 0, :2, :1], forced[0, 0, 0, 0, :2], by_query[:2])
    same(own, score.transpose(1, 2)[..., ::3], candidates[0, 0, 0, :, ::3], forced[0, 0, 0, 0, ::3], by_query)


def test_shares_are_exact() -> None:
    """Of any count of things, and of what fp32 says without looking at it."""
    for share in (Fraction(text) for text in ("0", "1", "0.001", "0.3333", "1e-9", "0.7071067811865476")):
        up = at_least(share, 300)
        assert up.denominator <= 300
        assert [math.ceil(up * count) for count in range(301)] == [math.ceil(share * count) for count in range(301)]
    percents = torch.tensor([0.0, 1e-30, 0.1, 12.5, 33.3, 75.0, 99.99, 100.0, 100 - 100 * 0.25**2])[:, None]
    for of in ("visible", "total", "triangle"):
        for total in (1, 7, 64, 1000):
            counts = torch.arange(len(percents))[:, None].clamp(max=total)
            by_value = budgets(chosen("top", None, True, of), percents.double(), counts, total)
            assert torch.equal(budgets(chosen("top", None, True, of), percents, counts, total), by_value)


def test_few_very_long_rows_are_sorted() -> None:
    assert not sorts(1 << 20, 64) and not sorts(64, 1 << 20) and not sorts(1, 1 << 17)
    assert sorts(8, 1 << 20) and sorts(1 << 20, (1 << 20) + 1)
