"""Calls on several CUDA streams: what one stream reads, another does not write over."""

import pytest
import torch

import weft
from tests.test_gpu import PACKED, tensors
from weft import calls

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("again", [False, True], ids=["first call", "like one before"])
def test_lists_outlive_a_forgotten_call_on_another_stream(again: bool) -> None:
    """Lists made on one stream may still be read on another when they are evicted and their memory is used again."""
    pattern, n = weft.load(PACKED), 8192
    qkv, doc = tensors(n, n, 2, 2, 64, torch.bfloat16), torch.arange(n, device="cuda") // 300
    right = pattern.attention(*qkv, doc=doc)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(500_000_000)  # pyright: ignore[reportPrivateUsage]
        if not again:
            pattern.calls.clear()
        got = pattern.attention(*qkv, doc=doc)
    pattern.calls.clear()
    calls._prepared.clear()  # pyright: ignore[reportPrivateUsage]
    for size in range(64, 8192, 64):
        torch.full((size,), 3, dtype=torch.int32, device="cuda")
    torch.cuda.synchronize()
    assert torch.equal(got, right)
