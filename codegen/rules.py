"""The rules that keep cells by score: top, and the three of cumulative mass."""

import math
from fractions import Fraction
from functools import lru_cache
from typing import assert_never

import torch

from ..compiler.selection import Chosen, Number, Threshold


def choose(
    rule: Chosen,
    score: torch.Tensor,
    candidates: torch.Tensor,
    forced: torch.Tensor,
    *,
    amounts: torch.Tensor | None = None,
) -> torch.Tensor:
    """The cells a rule keeps of each row (the last axis); `forced` candidates are kept and come first, NaN or not.

    `amounts` is each row's amount where that is no constant, with a last axis of 1; where it is NaN, only what is
    forced is kept.
    """
    real = candidates & ~score.isnan()
    # One sort: infinities are left to what is forced and to what is no candidate.
    limits = torch.finfo(score.dtype)
    keys = torch.where(real, score.clamp(limits.min, limits.max), float("-inf")).masked_fill(forced, float("inf"))
    order = torch.sort(keys, dim=-1, descending=True, stable=True).indices
    rank = torch.where(forced, 2, torch.where(real, 1, 0)).to(torch.int8).gather(-1, order)
    # A NaN that is forced weighs nothing.
    through = torch.where(real, score, 0.0).gather(-1, order).cumsum(-1)
    before = torch.nn.functional.pad(through[..., :-1], (1, 0))
    total = through[..., -1:]
    mass = amount(rule) if amounts is None else amounts.to(score.dtype)
    match rule.rule:
        case "top":
            places = torch.arange(score.shape[-1], device=score.device)
            count = candidates.sum(-1, keepdim=True)
            size = score.shape[-1]
            kept = places < (budget(rule, count, size) if amounts is None else budgets(rule, amounts, count, size))
        case "cover":
            kept = _until(before >= mass * total, rank)
        case "reach":
            # Sums rise, then fall where scores are negative: what counts is the first prefix that gets there.
            reached = torch.where(rank == 1, torch.maximum(before, through), float("-inf")) >= mass
            kept = _until(before >= mass, rank) & reached.any(-1, keepdim=True)
        case "under":
            within = (rank > 0) & (through <= mass)
            kept = within.flip(-1).cummax(-1).values.flip(-1)
            kept[..., 0] = True
        case _:
            assert_never(rule.rule)
    if amounts is not None:
        kept = kept & ~amounts.isnan()
    kept = (rank == 2) | (kept & (rank == 1))
    return torch.zeros_like(kept).scatter(-1, order, kept)


def meets(threshold: Threshold, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Where the comparison of a threshold holds between its sides; nowhere that one is NaN."""
    match threshold.op:
        case "<":
            return a < b
        case "<=":
            return a <= b
        case ">":
            return a > b
        case ">=":
            return a >= b
        case _:
            assert_never(threshold.op)


@lru_cache(maxsize=64)
def shares(share: Fraction, total: int) -> tuple[int, ...]:
    """A share of 0, 1, .. total things, rounded up."""
    return tuple(math.ceil(share * seen) for seen in range(total + 1))


def _until(stop: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    """Places before the first that stops; what is forced never does."""
    return (stop & (rank < 2)).long().cumsum(-1) == 0


def budget(rule: Chosen, count: torch.Tensor, total: int) -> torch.Tensor:
    """How many cells `top` keeps where a row has `count` candidates of `total` cells; shares as decimals say them."""
    if not rule.percent:
        return torch.full_like(count, min(total, int(amount(rule))))
    return _share(rule, amount(rule), count, total)


def budgets(rule: Chosen, amounts: torch.Tensor, count: torch.Tensor, total: int) -> torch.Tensor:
    """`budget` where each row has an amount of its own: rounded down, or a share of 0% to 100%; none where NaN."""
    if not rule.percent:
        return amounts.nan_to_num(0.0, total, 0.0).clamp(0, total).floor().long()
    found = torch.zeros((), dtype=torch.long, device=count.device)
    for each in amounts[~amounts.isnan()].unique().tolist():
        found = torch.where(amounts == each, _share(rule, min(max(each, 0.0), 100.0), count, total), found)
    return found


def _share(rule: Chosen, percent: float, count: torch.Tensor, total: int) -> torch.Tensor:
    share = Fraction(str(percent)) / 100
    match rule.of:
        case "total":
            return torch.full_like(count, math.ceil(share * total))
        case "visible":
            return torch.tensor(shares(share, total), device=count.device)[count]
        case "triangle":
            # floor(total - root) of an exact root: the least whole number whose square is not below.
            square = math.ceil((1 - share) * total * total)
            root = math.isqrt(square - 1) + 1 if square else 0
            return torch.full_like(count, max(1, total - root))
        case _:
            assert_never(rule.of)


def amount(rule: Chosen) -> float:
    """A rule's amount where it is a constant."""
    assert isinstance(rule.amount, Number)
    return rule.amount.value
