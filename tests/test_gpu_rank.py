"""What rules keep without sorting, on a real GPU, against what they keep by sorting."""

from typing import Any

import pytest
import torch

from tests.test_rank import SOME, chosen
from weft.codegen.rank import rank_rows, ranks
from weft.codegen.rules import choose
from weft.compiler.selection import Chosen

pytestmark = pytest.mark.gpu

# Rows of many to a program, of one warp, of several, the widest held, and those read in steps. A kernel is compiled for
# each, so that not all rules are tried with all.
TOP, SHARE, COVER, REACH, UNDER = SOME
CASES = [
    ((7, 1), UNDER),
    *(((70000, 64), rule) for rule in (TOP, REACH)),
    *(((4099, 65), rule) for rule in (SHARE, COVER)),
    *(((513, 2048), rule) for rule in (TOP, UNDER)),
    *(((33, 16384), rule) for rule in (SHARE, COVER)),
    *(((9, 16385), rule) for rule in (TOP, REACH)),
    *(((140, 131072), rule) for rule in (COVER, UNDER)),
    *(((64, 1 << 20), rule) for rule in (TOP, REACH)),
]


def cells(*shape: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores in eighths, whose sums are exact in any order, some no number; candidates, and those kept in any case."""
    make = torch.Generator("cuda").manual_seed(sum(shape))
    score = torch.randint(-8, 30, shape, generator=make, device="cuda") / 8
    score.masked_fill_(torch.rand(shape, generator=make, device="cuda") < 0.01, float("nan"))
    candidates, forced = (torch.rand(shape, generator=make, device="cuda") < share for share in (0.9, 0.01))
    return score, candidates, candidates & forced


def same(rule: Chosen, *given: torch.Tensor, **rest: Any) -> None:
    assert torch.equal(rank_rows(rule, *given, **rest), choose(rule, *given, **rest))


@pytest.mark.parametrize(("shape", "rule"), CASES, ids=lambda part: getattr(part, "rule", str(part)))
def test_the_same_cells(shape: tuple[int, int], rule: Chosen) -> None:
    score, candidates, forced = cells(*shape)
    assert ranks(score)
    same(rule, score, candidates, forced)


@pytest.mark.parametrize("count", [1, 100, 5000])
@pytest.mark.parametrize("shape", [(5000, 64), (512, 2048), (64, 40000)], ids=str)
def test_top_of_any_scores(shape: tuple[int, int], count: int) -> None:
    """Of as many scores as there are cells, and of infinities and scores below 0."""
    score = torch.randn(shape, device="cuda")
    score[::3] *= torch.rand_like(score[::3]).pow(9)
    score[1::7, ::5] = float("inf")
    score[2::5, ::3] = float("-inf")
    candidates = torch.rand(shape, device="cuda") < 0.8
    same(chosen("top", count), score, candidates, torch.zeros_like(candidates))


@pytest.mark.parametrize("rule", ["top", "cover", "reach", "under"])
def test_weights_differ_by_rounding_only(rule: Any) -> None:
    score = (torch.randn(2000, 700, device="cuda") * 2).softmax(-1)
    candidates = torch.ones_like(score, dtype=torch.bool)
    one = chosen(rule, 50 if rule == "top" else 0.9)
    apart = rank_rows(one, score, candidates) != choose(one, score, candidates, ~candidates)
    assert apart.sum(-1).max() <= (0 if rule == "top" else 1)


@pytest.mark.parametrize("size", [60, 20000])
def test_shared_and_far_apart(size: int) -> None:
    """Candidates that heads share, amounts by head, scores far from each other: nothing is copied."""
    score, candidates, forced = cells(2, 3, 2, 5, size)
    candidates, forced = candidates[:1, :1, :1], forced[:, :1, :, :1]
    amounts = torch.tensor([2.0, float("nan"), 300.0], device="cuda").view(3, 1, 1, 1)
    for rule, x in (("top", score), ("reach", score.transpose(3, 4).contiguous().transpose(3, 4))):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        got = rank_rows(chosen(rule, None), x, candidates, forced, amounts)
        assert torch.cuda.max_memory_allocated() - before <= got.numel() + 4096
        whole = (candidates.expand_as(x), forced.expand_as(x))
        assert torch.equal(got, choose(chosen(rule, None), x, *whole, amounts=amounts.expand(2, 3, 2, 5, 1)))


def test_nothing_waits_for_the_device() -> None:
    score, candidates, forced = cells(1, 4, 100, 300)
    rules = [
        *((one, None) for one in (TOP, SHARE, COVER)),
        *((chosen("top", 33.3, True, of), None) for of in ("total", "triangle")),
        *((chosen("top", None, True, of), 12.5) for of in ("visible", "total", "triangle")),
        *((chosen(rule, None), 5.0) for rule in ("top", "reach")),
    ]
    for rule, amount in rules:
        amounts = None if amount is None else torch.full((4, 1, 1), amount, device="cuda")
        # Where a kernel is compiled, loading it may wait.
        wanted = rank_rows(rule, score, candidates, forced, amounts)
        torch.cuda.set_sync_debug_mode("error")
        try:
            got = rank_rows(rule, score, candidates, forced, amounts)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.equal(got, wanted)
