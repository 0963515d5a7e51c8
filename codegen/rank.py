"""Which cells a rule keeps of each row, on a GPU: no sorting, and no more memory than the answer takes."""

import math
from contextlib import nullcontext
from typing import Any

import torch

from ..compiler.selection import Chosen
from .rules import amount, budget, budgets

# Cells of a row looked at together, where rows are too long to be held in registers.
STEP = 1024
# Cells that a warp holds in registers; half as many where lanes cannot hold cells side by side.
WARP = 1 << 10
# Warps that hold a row at most.
WARPS = 16
# Cells of the longest rows there are.
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

    All may have any strides and up to five axes, and are broadcast to what is returned; no `forced` is none forced.
    Nothing is copied, and nothing waits for the device.
    """
    given = [x for x in (score, candidates, forced, amounts) if x is not None]
    shape = torch.broadcast_shapes(*(x.shape for x in given))
    kept = torch.empty(shape, dtype=torch.bool, device=score.device)
    if not kept.numel():
        return kept
    each = _amount(rule, candidates, amounts, shape[-1])
    each, constant = (each, 0.0) if isinstance(each, torch.Tensor) else (None, each)
    tensors = (score, candidates, forced, each)
    views = [None if x is None else x.expand(shape).stride() for x in tensors]
    axes = _axes(shape[:-1], [(0,) * len(shape) if view is None else view for view in views])
    strides = tuple(tuple(steps[place] for _, steps in axes) for place in range(len(tensors)))
    steps = tuple(0 if view is None else view[-1] for view in views)
    aligned = shape[-1] % ALIGNED == 0 and max(steps) <= 1
    aligned &= all(stride % ALIGNED == 0 for of in strides[:3] for stride in of)
    with torch.cuda.device(score.device) if score.is_cuda else nullcontext():
        given = (tensors, strides, steps, constant, kept.view(torch.int8))
        _launch(given, [size for size, _ in axes], shape[-1], RULES[rule.rule], aligned)
    return kept


def _launch(given: tuple[Any, ...], sizes: list[int], count: int, rule: int, aligned: bool) -> None:
    from . import rank_kernel  # triton is not everywhere

    kernels: Any = rank_kernel
    rows, cells = math.prod(sizes), max(ALIGNED, 1 << (count - 1).bit_length())
    warp = WARP if aligned else WARP // 2
    if cells > warp * WARPS:
        kernels.rank_long[(rows,)](*given, *sizes[1:], count, rule, STEP, MIDDLES, aligned, num_warps=8)
        return
    together = max(1, warp // cells)
    grid, warps = (-(-rows // together),), max(1, cells // warp)
    kernels.rank_held[grid](*given, rows, *sizes[1:], count, rule, together, cells, aligned, num_warps=warps)


def _axes(shape: torch.Size, strides: list[tuple[int, ...]]) -> list[tuple[int, tuple[int, ...]]]:
    """Four axes of rows, each with a stride of each tensor: those of 1 left out, those in one step put together."""
    found: list[tuple[int, tuple[int, ...]]] = []
    for size, steps in zip(shape, zip(*strides, strict=True), strict=False):
        if size == 1:
            continue
        before, outer = found[-1] if found else (0, ())
        if found and all(a == b * size for a, b in zip(outer, steps, strict=True)):
            found[-1] = (before * size, steps)
        else:
            found.append((size, steps))
    if len(found) > AXES:
        raise ValueError(f"rows of {len(found)} axes, at most {AXES}")
    return [(1, (0,) * len(strides))] * (AXES - len(found)) + found


def _amount(rule: Chosen, candidates: torch.Tensor, amounts: torch.Tensor | None, size: int) -> float | torch.Tensor:
    """A number of cells for `top`, a share or a weight for others; with a last axis of 1 where it is no constant."""
    if rule.rule != "top":
        return amount(rule) if amounts is None else amounts.float()
    if not rule.percent:
        return float(min(size, int(amount(rule)))) if amounts is None else amounts.clamp(0, size).floor().float()
    seen = candidates.expand(*candidates.shape[:-1], size)[..., : size if rule.of == "visible" else 0]
    count = seen.sum(-1, keepdim=True)
    if amounts is None:
        return budget(rule, count, size).float()
    return torch.where(amounts.isnan(), torch.nan, budgets(rule, amounts, count, size))
