"""The shipped prefill selections on the tiled CPU back end attend to what the definition keeps."""

from typing import Any

import pytest
import torch

import weft
from tests.brute import PATTERNS
from tests.test_selection_prefill import GROUPS, HEADS, KINDS, SCALE, WIDTH, kept, tensors

SMALL: dict[str, dict[str, Any]] = {
    "pbs_attention": {"block": 16, "segment": 32, "mass": 0.7},
    "minference": {"columns": 20, "slashes": 24, "probes": 16, "sink": 3, "near": 5},
    "flex_prefill": {"block": 16, "mass": 0.5, "tau": 0.25, "budget": 16},
    "anchor_attention": {"block": 8, "step": 4, "theta": 1.0},
    "flash_prefill": {"block": 8, "sink": 8, "window": 16, "dense": 1},
}


def pattern_of(name: str) -> weft.Pattern:
    return weft.load(PATTERNS / "selection" / f"{name}.sparse", **SMALL[name])


@pytest.mark.parametrize(("n", "m"), [(1, 1), (63, 63), (130, 130), (130, 41)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SMALL)
def test_attention(name: str, kind: str, n: int, m: int) -> None:
    q, k = tensors(n, kind)
    q = q[:, :, n - m :]
    v = torch.randn(1, GROUPS, n, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    right, lse = pattern_of(name).attention(q, k, v, scale=SCALE, backend="reference", return_lse=True)
    out, found = pattern_of(name).attention(q, k, v, scale=SCALE, backend="cpu", return_lse=True)
    assert out.shape == (1, HEADS, m, WIDTH)
    torch.testing.assert_close(out, right, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, lse, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["noise", "equal"])
@pytest.mark.parametrize("name", SMALL)
def test_exact_pairs(name: str, kind: str) -> None:
    """What was attended, read off the output: each key's value in turn is a row of its own."""
    n = 100
    q, k = tensors(n, kind)
    v = torch.eye(n, dtype=torch.float64).expand(1, GROUPS, n, n)
    wide, key = (torch.nn.functional.pad(x, (0, n - WIDTH)) for x in (q, k))
    out = pattern_of(name).attention(wide, key, v, scale=SCALE, backend="cpu")
    wanted = kept(name, q, k, **SMALL[name])
    assert torch.equal(out > 0, wanted)
