"""Masks written out key by key, and the comparison of a shipped pattern with them."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import weft

PATTERNS = Path(__file__).resolve().parent.parent / "patterns"

Bools = npt.NDArray[np.bool_]


def load(name: str, **params: Any) -> weft.Pattern:
    """The shipped pattern of that name."""
    return weft.load(PATTERNS / f"{name}.sparse", **params)


def rows(keys: Callable[[int], Iterable[int]], n: int) -> Bools:
    """[n, n]: query q keeps keys(q), those of them that exist."""
    mask = np.zeros((n, n), dtype=bool)
    for q in range(n):
        for k in keys(q):
            if 0 <= k < n:
                mask[q, k] = True
    return mask


def causal(mask: Bools) -> Bools:
    """The mask without the keys after the query."""
    return np.tril(mask)


def blown_up(layout: Bools, block: int, n: int) -> Bools:
    """A mask over blocks as one over n tokens, the last block cut where the tokens end."""
    return np.repeat(np.repeat(layout, block, axis=-2), block, axis=-1)[..., :n, :n]


def blocks(block: int, n: int) -> int:
    """How many blocks n tokens need."""
    return -(-n // block)


def assert_mask(pattern: weft.Pattern, expected: Bools, **call: Any) -> None:
    """The pattern keeps exactly `expected`, [n, n] or [heads, n, n], and its last rows when asked for few queries."""
    n = expected.shape[-1]
    if expected.ndim == 3:
        call["heads"] = len(expected)
    for m in sorted({n, (n + 1) // 2, 1}):
        got = pattern.mask(n, m=m, **call)
        assert got.dtype == np.bool_
        wanted = expected[..., n - m :, :]
        assert np.array_equal(np.broadcast_to(got, wanted.shape), wanted)
