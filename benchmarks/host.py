"""Host time of one repeated call, in microseconds: short kernels wait for it.

python3 benchmarks/host.py
"""

import time
from argparse import ArgumentParser
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import weft


def host_microseconds(call: Any) -> float:
    """The least, over a few rounds, of the mean time until a call returns; the device idles between rounds."""
    rounds: list[float] = []
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(50):
            call()
        rounds.append((time.perf_counter() - start) / 50 * 1e6)
    return min(rounds)


def main() -> None:
    """Measure weft and compiled FlexAttention on tensors too small to fill the device's queue."""
    ArgumentParser(description=__doc__).parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this needs a GPU")
    q, k, v = (torch.randn(1, 2, 512, 128, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    doc = torch.arange(512, device="cuda") // 128

    def documents(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (q >= k) & (doc[q] == doc[k])

    pattern = weft.load("packed_documents")
    mask = create_block_mask(documents, None, None, 512, 512, device="cuda")
    flex = torch.compile(flex_attention, dynamic=False)
    calls = {
        "weft": lambda: pattern.attention(q, k, v, doc=doc),
        "flex": lambda: flex(q, k, v, block_mask=mask),
        "sdpa": lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
    }
    with torch.no_grad():
        for name, call in calls.items():
            call()
            print(f"{name}: {host_microseconds(call):.1f} us a call")


if __name__ == "__main__":
    main()
