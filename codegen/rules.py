"""The rules that keep cells by score: top, and the three of cumulative mass."""

import math
from fractions import Fraction
from functools import lru_cache
from typing import assert_never

import torch

from ..compiler.selection import Chosen, Number


def choose(rule: Chosen, score: torch.Tensor, candidates: torch.Tensor, forced: torch.Tensor) -> torch.Tensor:
    """The cells a rule keeps of each row (the last axis); `forced` candidates are kept and come first, NaN or not."""
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
    match rule.rule:
        case "top":
            places = torch.arange(score.shape[-1], device=score.device)
            kept = places < budget(rule, candidates.sum(-1, keepdim=True), score.shape[-1])
        case "cover":
            kept = _until(before >= amount(rule) * total, rank)
        case "reach":
            # Sums rise, then fall where scores are negative: what counts is the first prefix that gets there.
            reached = (torch.where(rank == 1, torch.maximum(before, through), float("-inf")) >= amount(rule)).any(-1)
            kept = _until(before >= amount(rule), rank) & reached[..., None]
        case "under":
            within = (rank > 0) & (through <= amount(rule))
            kept = within.flip(-1).cummax(-1).values.flip(-1)
            kept[..., 0] = True
        case _:
            assert_never(rule.rule)
    kept = (rank == 2) | (kept & (rank == 1))
    return torch.zeros_like(kept).scatter(-1, order, kept)


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
    share = Fraction(str(amount(rule))) / 100
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
    """A rule's amount, a number."""
    assert isinstance(rule.amount, Number)
    return rule.amount.value
