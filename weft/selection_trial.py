"""`weft test` and `weft show` of a dynamic pattern: the tiled back end against the definition, and a picture."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .codegen.reference import attend_dense
from .compiler.report import plural
from .selection_kept import Kept, densely, keep
from .selection_report import SelectionReport, looked_at, report_on
from .selection_tensors import Tensors, from_arguments
from .tensors import TensorError
from .terminal import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .pattern import Pattern

# Pairs, of all heads, up to which the definition, which holds them all, is asked.
MOST_PAIRS = 1 << 27
CELLS = 64


@dataclass(frozen=True, slots=True)
class Compared:
    """Keys, queries, the largest difference to the definition in float64 (0 where it cannot tell), and words for it."""

    n: int
    m: int
    error: float
    words: str
    # Whether the definition keeps all admissible pairs.
    every_pair: bool = False


def compared(pattern: Pattern, arguments: Namespace, n: int) -> Compared:
    """The fast evaluator against the definition, on the tensors of a command line; raises UsageError."""
    tensors = from_arguments(pattern, arguments, n)
    with enough_memory(pattern, tensors.n):
        return _compared(pattern, tensors.to(torch.float64))


def _compared(pattern: Pattern, tensors: Tensors) -> Compared:
    n, (batch, heads, m, _) = tensors.n, tensors.q.shape
    if batch * heads * m * n > MOST_PAIRS:
        longest = math.isqrt(MOST_PAIRS // (batch * heads))
        of = plural(heads, "head") + (f" and batch {batch}" if batch > 1 else "")
        return Compared(n, m, 0.0, f"not compared: the definition holds all pairs, {longest} tokens at most for {of}")
    kept = _keep(pattern, tensors)
    mask = densely(kept.job, tensors)
    inputs: dict[str, Any] = {**tensors.inputs}
    wanted = attend_dense(tensors.q, tensors.k, tensors.v, mask, tensors.scale)
    got = pattern.attention(tensors.q, tensors.k, tensors.v, return_lse=True, backend="cpu", **inputs)
    both = zip(got, wanted, strict=True)  # equal infinities are equal, and a NaN is as wrong as can be
    error = max(float(torch.where(a == b, 0.0, (a - b).abs()).nan_to_num(nan=math.inf).max()) for a, b in both)
    wrong = admissible = 0
    for b, h in np.ndindex(mask.shape[:2]):
        for rows in kept.chunks(torch.arange(mask.shape[2])):
            some, allowed = kept.rows(b, h, rows)
            wrong += int((some != mask[b, h, rows]).sum())
            admissible += int(allowed.sum())
    differ = f"{wrong} pairs differ, " if wrong else ""
    pairs = int(mask.sum())
    share = f"{100 * pairs / max(1, admissible):.3g} % of admissible pairs kept"
    return Compared(n, m, error, f"{differ}largest difference {error:.1e}, {share}", pairs == admissible)


def measured(pattern: Pattern, arguments: Namespace, n: int, layers: tuple[int, int] = (0, 1)) -> SelectionReport:
    """The report on the tensors of a command line, on the GPU where there is one."""
    tensors = from_arguments(pattern, arguments, n)
    exact = bool(arguments.qkv) and tensors.q.dtype == torch.float64
    device = "cuda" if torch.cuda.is_available() and not exact else "cpu"
    usual = torch.bfloat16 if device == "cuda" else torch.float32
    with enough_memory(pattern, tensors.n):
        return report_on(pattern, tensors.to(tensors.q.dtype if arguments.qkv else usual, device), layers)


def picture(pattern: Pattern, arguments: Namespace) -> tuple[NDArray[np.float64], Tensors]:
    """The share of kept pairs in squares, for one head of the first batch element; raises UsageError."""
    tensors = from_arguments(pattern, arguments, arguments.n)
    if arguments.head >= tensors.heads:
        raise UsageError(f"there is no head {arguments.head} among {tensors.heads}")
    m, n = tensors.q.shape[2], tensors.n
    with enough_memory(pattern, n):
        kept, rows = _keep(pattern, tensors), looked_at(m)
    down, across = (np.arange(min(CELLS, size) + 1) * size // min(CELLS, size) for size in (m, n))
    sums, looked = np.zeros((len(down) - 1, len(across) - 1)), np.zeros(len(down) - 1)
    for chunk in kept.chunks(rows):
        some, _ = kept.rows(0, arguments.head, chunk)
        band = np.searchsorted(down, chunk.numpy(), side="right") - 1
        np.add.at(sums, band, np.add.reduceat(some.numpy().astype(np.float64), across[:-1], axis=1))
        np.add.at(looked, band, 1)
    return sums / np.outer(looked, np.diff(across)), tensors


@contextmanager
def enough_memory(pattern: Pattern, n: int) -> Generator[None]:
    """Raise UsageError where what is done inside runs out of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch has a class of its own for a full device, and none for a full host.
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        raise UsageError(f"pattern `{pattern.name}`: {n} tokens need more memory than there is here") from None


def _keep(pattern: Pattern, tensors: Tensors) -> Kept:
    try:
        return keep(pattern, tensors)
    except TensorError as error:
        raise UsageError(f"{tensors.source}: {error}") from None
