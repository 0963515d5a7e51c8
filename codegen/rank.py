"""Which cells a rule keeps of each row, on a GPU: no sorting, and no more memory than the answer takes."""

from contextlib import nullcontext
from typing import Any

import torch

from ..compiler.selection import Chosen
from .rules import amount, budget, budgets

# Cells of a row looked at together.
STEP = 1024
# Cells of a row from which reading it some thirty times costs more than sorting it.
WIDEST = 1 << 15
RULES = {"top": 0, "cover": 1, "reach": 2, "under": 3}


def ranks(score: torch.Tensor) -> bool:
    """Whether `rank_rows` is for these scores."""
    return score.is_cuda and score.dtype == torch.float32 and 0 < score.shape[-1] <= WIDEST


def rank_rows(
    rule: Chosen,
    score: torch.Tensor,
    candidates: torch.Tensor,
    forced: torch.Tensor,
    amounts: torch.Tensor | None = None,
) -> torch.Tensor:
    """What `rules.choose` keeps, but for the rounding of sums; all of the shape of `score`, fp32."""
    size, shape = score.shape[-1], score.shape
    if rule.rule == "top":
        count = candidates.sum(-1, keepdim=True)
        spend = budget(rule, count, size) if amounts is None else budgets(rule, amounts, count, size)
        # No row has as many cells as fp32 counts exactly.
        each = spend.clamp(max=size).to(torch.float32)
        each = each if amounts is None else torch.where(amounts.isnan(), torch.nan, each)
    else:
        each = score.new_tensor(amount(rule)) if amounts is None else amounts.to(torch.float32)
    each = each.expand(*shape[:-1], 1).contiguous()
    kept = torch.empty(shape, dtype=torch.bool, device=score.device)
    if not kept.numel():
        return kept
    from .rank_kernel import rank  # triton is not everywhere

    kernel: Any = rank
    rows = score.numel() // size
    step = min(STEP, max(32, 1 << (size - 1).bit_length()))
    data = (score.contiguous(), candidates.expand(shape).contiguous(), forced.expand(shape).contiguous())
    with torch.cuda.device(score.device) if score.is_cuda else nullcontext():
        kernel[(rows,)](*data, each, kept.view(torch.int8), size, RULES[rule.rule], step, num_warps=4)
    return kept
