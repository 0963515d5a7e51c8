"""Softmax along keys, summed over groups of keys at once: the weights themselves are never stored."""

from typing import Any

import torch

LOG2E = 1.4426950408889634
# Keys that one step of the kernel looks at.
STEP = 1024


def group_sums(x: torch.Tensor, where: torch.Tensor, factor: float, ratio: int) -> torch.Tensor:
    """Sums over `ratio` neighbours of softmax(factor * x) along the last axis, among the places where `where` holds.

    x `[.., I, J]`, where `[I, J]` or anything that broadcasts; returns `[.., I, ceil(J / ratio)]`. `factor` is
    positive. Rows in which nothing holds give 0.
    """
    fits = x.is_cuda and x.dtype == torch.float32 and ratio & (ratio - 1) == 0 and ratio <= STEP
    if fits and where.ndim == 2 and where.shape == x.shape[-2:]:
        sums, total = _on_device(x.contiguous(), where.contiguous(), factor, ratio)
    else:
        x = torch.where(where, x, float("-inf"))
        most = x.amax(-1, keepdim=True)
        x = torch.exp((x - torch.where(most == float("-inf"), 0.0, most)) * factor)
        total = x.sum(-1)
        sums = grouped(x, ratio)
    return sums / torch.where(total == 0, 1.0, total)[..., None]


def grouped(x: torch.Tensor, ratio: int) -> torch.Tensor:
    """Sums of `ratio` neighbours along the last axis; the last group may be smaller."""
    whole = x.shape[-1] // ratio
    parts = [x[..., : whole * ratio].unflatten(-1, (whole, ratio)).sum(-1)]
    if x.shape[-1] > whole * ratio:
        parts.append(x[..., whole * ratio :].sum(-1, keepdim=True))
    return torch.cat(parts, -1) if len(parts) > 1 else parts[0]


def _on_device(x: torch.Tensor, where: torch.Tensor, factor: float, ratio: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows, count = x.numel() // x.shape[-1], x.shape[-1]
    sums = x.new_empty(*x.shape[:-1], -(-count // ratio))
    total = x.new_empty(x.shape[:-1])
    from .weigh_kernel import weigh  # triton is not everywhere

    kernel: Any = weigh
    with torch.cuda.device(x.device):
        kernel[(rows,)](x, where, sums, total, where.shape[0], count, sums.shape[-1], factor * LOG2E, ratio, STEP)
    return sums, total
