"""The CPU back end against dense masked attention: several times faster, and memory that does not grow with n squared.

Each measurement is a process of its own: this one has set its threads for other tests, and its peak memory is spent.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.brute import PATTERNS

WINDOW, HEADS, HEAD_DIM = 1024, 8, 64

SPEED = """
import json, statistics, sys, time
import torch, weft
from torch.nn.functional import scaled_dot_product_attention

n, window, heads, head_dim = json.loads(sys.argv[1])
q, k, v = (torch.randn(1, heads, n, head_dim) for _ in range(3))
pattern = weft.load("sliding_window", window=window)
mask = torch.from_numpy(pattern.mask(n))
results = []
# One thread, and its own clock: what other processes do on this machine then matters little.
torch.set_num_threads(1)

def timed(call):
    start = time.process_time()
    results.append(call())
    return time.process_time() - start

pattern.attention(q, k, v)
sparse = statistics.median(timed(lambda: pattern.attention(q, k, v)) for _ in range(3))
# A slice of the queries is enough: dense attention costs the same for each.
few = slice(0, n, 8)
part = q[:, :, few].contiguous(), mask[few].contiguous()
dense = 8 * statistics.median(
    timed(lambda: scaled_dot_product_attention(part[0], k, v, attn_mask=part[1])) for _ in range(3)
)
assert torch.allclose(results[2][:, :, few], results[-1], atol=1e-5)
print(json.dumps([sparse, dense]))
"""

MEMORY = """
import json, resource, sys
import torch, weft

n, window, heads, head_dim = json.loads(sys.argv[1])
q, k, v = (torch.randn(1, heads, n, head_dim) for _ in range(3))
pattern = weft.load("sliding_window", window=window)
pattern.attention(*(x[:, :, :256] for x in (q, k, v)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pattern.attention(q, k, v)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps((after - before) * 1024))
"""


def measured(script: str, n: int, heads: int) -> Any:
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps([n, WINDOW, heads, HEAD_DIM])],
        env=env,
        cwd=PATTERNS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_a_window_is_five_times_faster_than_dense() -> None:
    """At 16,384 tokens a window of 1,024 leaves 1/16 of the pairs; medians of three, one more try on a busy machine."""
    tries = list[str]()
    for _ in range(2):
        sparse, dense = measured(SPEED, 16384, HEADS)
        tries.append(f"{sparse:.2f} s against {dense:.2f} s dense")
        if dense >= 5 * sparse:
            return
    pytest.fail(" and ".join(tries))


def test_memory_grows_with_the_tokens_not_with_their_square() -> None:
    small, large = (measured(MEMORY, n, 2) for n in (16384, 65536))
    output = 65536 * 2 * HEAD_DIM * 4
    assert large < 65536**2 / 8, "about a boolean mask of all pairs"
    assert large < 6 * max(small, output / 4), f"{small / 1e6:.0f} MB at 16,384 tokens, {large / 1e6:.0f} MB at 65,536"
