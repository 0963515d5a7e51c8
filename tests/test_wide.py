"""Integers beyond 32 bits: positions whose product leaves them, numbers of heads, loop bounds far outside the keys."""

from typing import Any

import pytest
import torch

import weft
from tests.conftest import HAS_GPU
from tests.oracle import assert_close, definition, small_inputs

# Long sequences, few queries: 2^31 is passed by products, not by tensors.
PRODUCTS = """
    keep q * k % 7 == 0 and 0 <= q - k < 200
    keep (q - k) * 100000 < 100000 * 30 and 0 <= q - k < 90
    keep q * 40000 // 40000 - k < 30 and 0 <= q - k < 90
    keep (q << 20) - (k << 20) < 30 << 20 and 0 <= q - k < 90
    keep (q ^ k) * 30000 < 3000000 and 0 <= q - k < 190
    keep q - k in powers(3) and q * q - k * k < 100 * n
    keep q - k < n * n - n * n + 40 and 0 <= q - k
    keep (q - k) * 50000 < w[h] * 5000 and 0 <= q - k < 190
    keep q - k < w[h] * n // 1000000000 and 0 <= q - k < 190
    keep doc[q] * 100000000 == doc[k] * 100000000 and 0 <= q - k < 190
    keep doc[q * 40000 - 39999 * q] == doc[k] and 0 <= q - k < 190
"""
# No tile satisfies these: their bounds, cut to 32 bits, would be loops over a billion tiles.
BOUNDS = """
    keep q - k > n * n and k % 64 < 3
    keep k >= n * n or q == k
    keep k < 0 - n * n or q == k
    keep q - k < w[h] * n - n * n or q == k
"""


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def check(condition: str, n: int, backend: str) -> None:
    pattern = weft.load(f"pattern p(w: table[head] = [100000, 2]) {{ input doc[token]: int\n {condition} }}")
    make = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, tokens, 16, generator=make) for tokens in (16, n, n))
    inputs: dict[str, Any] = {**small_inputs(pattern, n, 16, heads=2)}
    got = pattern.attention(q, k, v, return_lse=True, backend=backend, **inputs)
    assert_close(got, q, k, v, definition(pattern, n, 16, 2, **inputs))


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("condition", lines(PRODUCTS))
def test_products(condition: str, backend: str) -> None:
    if backend == "triton" and HAS_GPU:
        pytest.skip("the tensors are on the CPU")
    check(condition, 70_000, backend)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("condition", lines(BOUNDS))
def test_bounds(condition: str, backend: str) -> None:
    if backend == "triton" and HAS_GPU:
        pytest.skip("the tensors are on the CPU")
    check(condition, 300_000, backend)
