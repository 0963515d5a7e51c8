"""Which cells a rule keeps of each row, on a GPU: no sorting, and no more memory than the answer takes."""

import math
from contextlib import nullcontext
from typing import Any

import torch

from ..compiler.selection import Chosen
from .rules import amount, budget, budgets

# Cells of a row looked at together, where rows are too long to be held in registers.
STEP = 1024
# Cells of a row that is held in registers, and cells that one warp holds.
HELD, WARP = 1 << 14, 1 << 10
WIDEST = 1 << 20
# Scores that one reading of such a row tells apart.
MIDDLES = 8
# Axes that rows have: broadcasting may differ in each.
AXES = 4
ALIGNED = 16
RULES = {"top": 0, "cover": 1, "reach": 2, "under": 3}


def ranks(score: torch.Tensor) -> bool:
    """Whether `rank_rows` is for these scores."""
    cells = score.shape[-1]
    return score.is_cuda and score.dtype == torch.float32 and cells > 0 and not sorts(score.numel() // cells, cells)


def sorts(rows: int, cells: int) -> bool:
    """Whether sorting takes less time: few rows keep few processors busy, and go through long ones some ten times."""
    return cells > WIDEST or (cells > WIDEST // 4 and rows < 64)


def rank_rows(
    rule: Chosen,
    score: torch.Tensor,
    candidates: torch.Tensor,
    forced: torch.Tensor | None = None,
    amounts: torch.Tensor | None = None,
) -> torch.Tensor:
    """What `rules.choose` keeps, but for the rounding of sums, of scores in fp32.

    All have up to five axes, of any strides, and are broadcast to what is returned; no `forced` is none forced. Nothing
    is copied, and nothing waits for the device.
    """
    given = [x for x in (score, candidates, forced, amounts) if x is not None]
    shape = torch.broadcast_shapes(*(x.shape for x in given))
    kept = torch.empty(shape, dtype=torch.bool, device=score.device)
    if not kept.numel():
        return kept
    each = _amount(rule, candidates, amounts, shape[-1])
    each, constant = (each, 0.0) if isinstance(each, torch.Tensor) else (None, each)
    tensors = (score, candidates, forced, each)
    found = tuple(_strides(x, shape) for x in tensors)
    strides, steps = tuple(of[:AXES] for of in found), tuple(of[AXES] for of in found)
    aligned = all(stride % ALIGNED == 0 for of in strides[:3] for stride in of)
    sizes = (1,) * (AXES + 1 - len(shape)) + tuple(shape[:-1])
    with torch.cuda.device(score.device) if score.is_cuda else nullcontext():
        _launch((tensors, strides, steps, constant, kept.view(torch.int8)), sizes, shape[-1], RULES[rule.rule], aligned)
    return kept


def _launch(given: tuple[Any, ...], sizes: tuple[int, ...], count: int, rule: int, aligned: bool) -> None:
    from . import rank_kernel  # triton is not everywhere

    kernels: Any = rank_kernel
    rows = math.prod(sizes)
    cells = max(ALIGNED, 1 << (count - 1).bit_length())
    if cells > HELD:
        step = min(STEP, cells)
        kernels.rank_long[(rows,)](*given, sizes[1:], count, rule, step, MIDDLES, aligned, num_warps=8)
        return
    together = max(1, WARP // cells)
    grid, warps = (-(-rows // together),), max(1, cells // WARP)
    kernels.rank_held[grid](*given, rows, sizes[1:], count, rule, together, cells, aligned, num_warps=warps)


def _strides(x: torch.Tensor | None, shape: torch.Size) -> tuple[int, ...]:
    """Of the axes of rows, and of cells."""
    found = () if x is None else x.expand(shape).stride()
    return (0,) * (AXES + 1 - len(found)) + found


def _amount(rule: Chosen, candidates: torch.Tensor, amounts: torch.Tensor | None, size: int) -> float | torch.Tensor:
    """A number of cells for `top`, a share or a weight for others; with a last axis of 1 where it is no constant."""
    if rule.rule != "top":
        return amount(rule) if amounts is None else amounts.float()
    if not rule.percent:
        return float(min(size, int(amount(rule)))) if amounts is None else amounts.clamp(0, size).floor().float()
    visible = rule.of == "visible"
    count = (
        candidates.expand(*candidates.shape[:-1], size).sum(-1, keepdim=True)
        if visible
        else torch.zeros((1,) * candidates.dim(), dtype=torch.long, device=candidates.device)
    )
    if amounts is None:
        return budget(rule, count, size).float()
    return torch.where(amounts.isnan(), torch.nan, budgets(rule, amounts, count, size))
