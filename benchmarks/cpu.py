"""The CPU back end against dense masked SDPA on the same machine.

python3 benchmarks/cpu.py [--n 16384] [--window 1024] [--heads 8] [--head-dim 64]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

import weft


def median_ms(call: Callable[[], object], repeats: int) -> float:
    """Median milliseconds of a call, after one that does not count."""
    call()
    times: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=16384)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=64)
    given = parser.parse_args()
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, given.heads, given.n, given.head_dim) for _ in range(3))
    pattern = weft.load("sliding_window", window=given.window)
    mask = torch.from_numpy(pattern.mask(given.n))
    sparse = median_ms(lambda: pattern.attention(q, k, v), 5)
    dense = median_ms(lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask), 3)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {given}")
    print(f"weft {sparse:.0f} ms, dense masked SDPA {dense:.0f} ms, ratio {dense / sparse:.1f}")


if __name__ == "__main__":
    with torch.no_grad():
        main()
