"""Dynamic patterns on made-up tensors: the tiled back end against the definition, the density, and a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .codegen.reference import attend_dense
from .codegen.select_reference import selected
from .tensors import TensorError
from .terminal import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .pattern import Pattern

HEADS, HEAD_DIM, GATE_DIM = 2, 32, 8
# Tokens up to which the definition, which holds all pairs, is asked.
MOST_TOKENS = 8192
CELLS = 64


def made_up(n: int, heads: int = HEADS) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values: noise, a direction that turns slowly, so that near keys score high, and a needle."""
    random = torch.Generator().manual_seed(n)
    q, k, v = (torch.randn(1, heads, n, HEAD_DIM, generator=random, dtype=torch.float64) for _ in range(3))
    turn = torch.arange(n, dtype=torch.float64)[:, None] / 150 + torch.linspace(0, 6, HEAD_DIM, dtype=torch.float64)
    near = 1.5 * torch.sin(turn)
    k[:, :, n // 3 : n // 3 + 8] += 3 * near.mean(0)
    return q + near, k + near, v


def gates(pattern: Pattern, n: int, heads: int = HEADS) -> dict[str, torch.Tensor]:
    """The inputs of a pattern, made up."""
    program, random = pattern.program(heads), torch.Generator().manual_seed(n + 1)
    sizes = {axis.name: axis.size for axis in program.axes}
    out: dict[str, torch.Tensor] = {}
    for given in program.givens:
        shape = [-(-n // sizes[axis]) for axis in given.axes] + ([GATE_DIM] if given.vector else [])
        out[given.name] = torch.randn(1, heads, *shape, generator=random, dtype=torch.float64)
    return out


def kept(pattern: Pattern, tensors: tuple[torch.Tensor, ...], inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Which pairs are kept, by definition: [H, n, n]."""
    q, k, v = tensors
    return selected(pattern.program(q.shape[1]), q, k, v, HEAD_DIM**-0.5, inputs)[0]


def trial(pattern: Pattern, n: int) -> tuple[float, float]:
    """The largest difference to the definition, and the share of all earlier keys that was kept."""
    tensors = made_up(n)
    inputs: dict[str, Any] = {**gates(pattern, n)}
    mask = kept(pattern, tensors, inputs)
    wanted = attend_dense(*tensors, mask[None], HEAD_DIM**-0.5)
    got = pattern.attention(*tensors, return_lse=True, backend="cpu", **inputs)
    pairs = zip(got, wanted, strict=True)
    error = max(float(torch.where(a == b, 0.0, (a - b).abs()).nan_to_num(nan=math.inf).max()) for a, b in pairs)
    return error, float(mask.sum()) / (HEADS * n * (n + 1) / 2)


def picture(pattern: Pattern, n: int, head: int) -> NDArray[np.float64]:
    """The share of kept pairs in squares, for made-up tensors; raises UsageError."""
    if n > MOST_TOKENS:
        raise UsageError(f"{pattern.name} selects by content: its picture takes {MOST_TOKENS} tokens at most, not {n}")
    try:
        mask = kept(pattern, made_up(n), gates(pattern, n))[head].numpy()
    except TensorError as error:
        raise UsageError(str(error)) from None
    side = min(CELLS, n)
    edges = np.arange(side + 1) * n // side
    sums = np.add.reduceat(np.add.reduceat(mask.astype(np.float64), edges[:-1], 0), edges[:-1], 1)
    sizes = np.diff(edges)
    return sums / np.outer(sizes, sizes)
