"""`weft demo`: one shipped pattern from text to attention, with what each step says."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable

import torch
import torch.nn.functional as functional

from .commands import findings, locate, parameters
from .compiler.report import Call, as_text, explain
from .pattern import Pattern, load
from .terminal import UsageError, paint

NAME = "power_attention"
HEADS, HEAD_DIM = 4, 64
SMALL = 1024
REPEATS = 3

NEXT_STEPS = """  weft show longformer                 draw another shipped pattern
  weft explain --help                  what can be asked about one
  weft coverage gemma --n 131072       what a mixture of layers lets each token see
  weft test xattention                 a rule that chooses keys by content
  cat > mine.sparse                    write your own: docs/language.md has the language
  weft check mine.sparse               then let weft look at it
  python examples/quickstart.py        and call it from Python"""


def run_demo(arguments: Namespace) -> int:
    """`weft demo`."""
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("there is no CUDA device here; leave out --device")
    pattern, path = load(NAME), locate(NAME)
    title(f"1. A pattern is a small file: {path}")
    with open(path, encoding="utf-8") as file:
        print(file.read().rstrip())
    title(f"2. weft check {NAME}")
    found = findings(path)
    print("\n\n".join(d.render() for d in found) or f"{NAME}: ok")
    n = arguments.n
    title(f"3. weft show {NAME} --n {n}")
    print(pattern.show(n))
    title(f"4. weft explain {NAME} --n {n}")
    start = time.perf_counter()
    plan = pattern.plan(n)
    plan_ms = 1000 * (time.perf_counter() - start)
    call = Call(n, n, HEADS, HEADS, HEAD_DIM, 4 if device.type == "cpu" else 2)
    print(as_text(explain(plan, call, where=pattern.where, parameters=parameters(pattern), plan_ms=plan_ms)))
    title(f"5. pattern.attention(q, k, v) on {device}, against dense attention with the mask")
    error = compare(pattern, device)
    print(f"{SMALL} tokens: largest difference {error:.1e}")
    time_it(pattern, device, n)
    title(f"6. weft coverage {NAME} --n 1048576: what 24 such layers let a million tokens see")
    print(pattern.coverage(1 << 20, layers=24))
    title("Next")
    print(NEXT_STEPS)
    return 0


def title(text: str) -> None:
    """A heading."""
    print("\n" + paint(text, "bold"), flush=True)


def tensors(device: torch.device, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q, k and v in the type the device is good at."""
    kind = torch.float32 if device.type == "cpu" else torch.bfloat16
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, n, HEAD_DIM, generator=random).to(device, kind) for _ in range(3))
    return q, k, v


def dense_mask(pattern: Pattern, device: torch.device, n: int) -> torch.Tensor:
    """What one writes without weft: the whole mask."""
    return torch.as_tensor(pattern.mask(n), device=device)


def compare(pattern: Pattern, device: torch.device) -> float:
    """Largest difference to torch's own attention."""
    q, k, v = tensors(device, SMALL)
    wanted = functional.scaled_dot_product_attention(q, k, v, attn_mask=dense_mask(pattern, device, SMALL))
    return float((pattern.attention(q, k, v) - wanted).abs().max())


def time_it(pattern: Pattern, device: torch.device, n: int) -> None:
    """Time weft and torch on the same tensors, and say so."""
    q, k, v = tensors(device, n)
    mask = dense_mask(pattern, device, n)
    ours = best(lambda: pattern.attention(q, k, v), device)
    dense = best(lambda: functional.scaled_dot_product_attention(q, k, v, attn_mask=mask), device)
    print(f"{n} tokens, {HEADS} heads of {HEAD_DIM}, {q.dtype}: weft {1000 * ours:.1f} ms, ", end="")
    print(f"torch with the dense mask {1000 * dense:.1f} ms: {verdict(ours, dense)} (measured)")


def verdict(ours: float, dense: float) -> str:
    """Who took how many times as long as the other."""
    slower, ratio = ("torch", dense / ours) if dense >= ours else ("weft", ours / dense)
    return f"{slower} took {ratio:.1f} times as long"


def best(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of a few calls, after one to warm up."""
    seconds: list[float] = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
