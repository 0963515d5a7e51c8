"""The rules that keep cells by score: top, and the three of cumulative mass."""

import math
from fractions import Fraction
from typing import assert_never

import torch

from ..compiler.evaluate import compare
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
    return compare(threshold.op, a, b)


def _until(stop: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    """Places before the first that stops; what is forced never does."""
    return (stop & (rank < 2)).long().cumsum(-1) == 0


def budget(rule: Chosen, count: torch.Tensor, total: int) -> torch.Tensor:
    """How many cells `top` keeps where a row has `count` candidates of `total` cells; shares as decimals say them."""
    if not rule.percent:
        return torch.full_like(count, min(total, int(amount(rule))))
    return _share(rule, Fraction(str(amount(rule))) / 100, count, total)


def budgets(rule: Chosen, amounts: torch.Tensor, count: torch.Tensor, total: int) -> torch.Tensor:
    """`budget` where each row has an amount of its own: rounded down, or a share of 0% to 100%; none where NaN."""
    if not rule.percent:
        return amounts.nan_to_num(0.0, total, 0.0).clamp(0, total).floor().long()
    percent = amounts.nan_to_num(0.0).clamp(0.0, 100.0)
    if amounts.dtype == torch.float32:
        return _percent(rule, percent.double(), count, total)
    found = torch.zeros((), dtype=torch.long, device=count.device)
    for each in percent.unique().tolist():
        found = torch.where(percent == each, _share(rule, Fraction(str(each)) / 100, count, total), found)
    return found


def at_least(share: Fraction, most: int) -> Fraction:
    """The least fraction not below a share, of denominators up to `most`: of so many things it is as many, rounded up.

    It is the closest of these fractions, or the next after that.
    """
    close = share.limit_denominator(most)
    if close >= share:
        return close
    a, b = close.as_integer_ratio()
    below = most - (most + pow(a, -1, b)) % b
    return Fraction(a * below + 1, b * below)


def _share(rule: Chosen, share: Fraction, count: torch.Tensor, total: int) -> torch.Tensor:
    match rule.of:
        case "total":
            return torch.full_like(count, math.ceil(share * total))
        case "visible":
            up = at_least(share, max(total, 1))
            return -(-count * up.numerator // up.denominator)
        case "triangle":
            # floor(total - root) of an exact root: the least whole number whose square is not below.
            square = math.ceil((1 - share) * total * total)
            root = math.isqrt(square - 1) + 1 if square else 0
            return torch.full_like(count, max(1, total - root))
        case _:
            assert_never(rule.of)


def _percent(rule: Chosen, percent: torch.Tensor, count: torch.Tensor, total: int) -> torch.Tensor:
    """`_share` of percents that fp32 holds, without looking at them: products of them and whole numbers are exact."""
    match rule.of:
        case "total" | "visible":
            product = percent * (count if rule.of == "visible" else total)
            whole = (product / 100).floor()
            return (whole + (product > whole * 100)).long().expand_as(count)
        case "triangle":
            # floor(total - root), unless rounding the root says one more or less: k of them are a share where
            # 100 k (2 total - k) <= percent total^2, whose right side is exact in two parts.
            high = (percent.float().view(torch.int32) & -4096).view(torch.float32).double()
            k = (total - (1 - percent / 100).sqrt() * total).floor() - 1
            for _ in range(2):
                k = k + (100 * (k + 1) * (2 * total - k - 1) - high * total**2 <= (percent - high) * total**2)
            return k.clamp(1, total).long().expand_as(count)
        case _:
            assert_never(rule.of)


def amount(rule: Chosen) -> float:
    """A rule's amount where it is a constant."""
    assert isinstance(rule.amount, Number)
    return rule.amount.value
