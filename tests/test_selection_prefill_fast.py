"""The shipped prefill selections on the tiled CPU back end attend to what the definition keeps."""

from typing import Any

import pytest
import torch

import weft
from tests.brute import PATTERNS
from tests.test_selection_prefill import GROUPS, HEADS, WIDTH, tensors

SMALL: dict[str, dict[str, Any]] = {
    "pbs_attention": {"block": 16, "segment": 32, "mass": 0.7},
    "minference": {"columns": 20, "slashes": 24, "probes": 16, "sink": 3, "near": 5},
    "flex_prefill": {"block": 16, "mass": 0.5, "tau": 0.25, "budget": 16},
    "anchor_attention": {"block": 8, "step": 4, "theta": 1.0},
    "flash_prefill": {"block": 8, "sink": 8, "window": 16, "dense": 1},
}


@pytest.mark.parametrize("n", [1, 63, 130])
@pytest.mark.parametrize("kind", ["noise", "sharp", "even"])
@pytest.mark.parametrize("name", SMALL)
def test_attention(name: str, kind: str, n: int) -> None:
    pattern = weft.load(PATTERNS / "selection" / f"{name}.sparse", **SMALL[name])
    q, k = tensors(n, kind)
    v = torch.randn(1, GROUPS, n, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    right, lse = pattern.attention(q, k, v, scale=0.25, backend="reference", return_lse=True)
    out, found = pattern.attention(q, k, v, scale=0.25, backend="cpu", return_lse=True)
    assert out.shape == (1, HEADS, n, WIDTH)
    torch.testing.assert_close(out, right, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, lse, rtol=1e-9, atol=1e-9)
