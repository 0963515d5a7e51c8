"""Forward speed against compiled FlexAttention and dense SDPA, in one run on one GPU.

python3 benchmarks/forward.py [--n 8192 32768] [--cases causal ..] [--sweep] [--markdown FILE]

Every figure is the median of triton's do_bench over the same tensors; weft's output is compared with FlexAttention's
before anything is timed. FlexAttention is compiled anew for each mask (torch.compiler.reset()), since past its
recompile limit it silently runs dense. `--sweep` also times FlexAttention with the kernel options listed below.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from triton.testing import do_bench

import weft

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

HEADS, HEAD_DIM, DTYPE = 16, 128, torch.bfloat16

SWEEP: tuple[dict[str, Any], ...] = (
    {"USE_TMA": True},
    *(
        {"BLOCK_M": m, "BLOCK_N": n, "num_warps": warps, "num_stages": stages, "USE_TMA": tma}
        for m, n, warps, stages, tma in (
            (128, 128, 8, 2, True),
            (128, 128, 8, 3, False),
            (128, 64, 8, 3, True),
            (128, 64, 4, 3, True),
            (128, 64, 4, 3, False),
            (64, 64, 4, 3, True),
        )
    ),
)


@dataclass(frozen=True)
class Case:
    """One mask, written for weft and for FlexAttention."""

    name: str
    pattern: str
    parameters: dict[str, Any]
    mask_mod: Callable[..., Any]
    inputs: dict[str, Any] = field(default_factory=dict)
    per_head: bool = False


def window(size: int) -> Callable[..., Any]:
    """Sliding window."""
    return lambda b, h, q, k: (q >= k) & (q - k < size)


def cases(n: int) -> list[Case]:
    """The masks compared, for one length."""
    doc = torch.arange(n, device="cuda") * 16 // n

    def causal(b: Any, h: Any, q: Any, k: Any) -> Any:
        return q >= k

    def sinks(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (q >= k) & ((q - k < 4096) | (k < 64))

    def longformer(b: Any, h: Any, q: Any, k: Any) -> Any:
        return ((q - k).abs() <= 512) | (k < 64) | (q < 64)

    def prefix(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (q >= k) | (k < 2048)

    def power(b: Any, h: Any, q: Any, k: Any) -> Any:
        d = q // 256 - k // 256
        return (q >= k) & ((d < 5) | ((d & (d - 1)) == 0) | (k < 256))

    def shards(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (q >= k) & ((q // 64 - k // 64 < 16) | ((k // 64 + h) % 8 == 0))

    def documents(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (q >= k) & (doc[q] == doc[k])

    return [
        Case("causal", "causal_attention", {}, causal),
        Case("window 1024", "sliding_window", {"window": 1024}, window(1024)),
        Case("window 4096", "sliding_window", {"window": 4096}, window(4096)),
        Case("sinks 64 + window 4096", "attention_sinks", {"start": 64, "recent": 4096}, sinks),
        Case("longformer 512 + 64", "longformer", {"window": 512, "globals": 64}, longformer),
        Case("prefix 2048", "prefix_lm", {"prefix": 2048}, prefix),
        Case("PowerAttention", "power_attention", {}, power),
        Case("S2 shards", "s2_attention", {}, shards, per_head=True),
        Case("16 packed documents", "packed_documents", {}, documents, {"doc": doc}),
    ]


def timed(call: Callable[[], Any]) -> float:
    """Median milliseconds of a call."""
    return cast(float, do_bench(call, warmup=25, rep=100, return_mode="median"))


def flex(case: Case, n: int, tensors: Tensors, options: Any) -> Callable[[], Any]:
    """A compiled FlexAttention call for one mask."""
    torch.compiler.reset()
    heads = HEADS if case.per_head else None
    mask = torch.compile(create_block_mask)(case.mask_mod, None, heads, n, n, device="cuda")
    attend = torch.compile(flex_attention, dynamic=False)
    return lambda: attend(*tensors, block_mask=mask, kernel_options=options)


def measure(case: Case, n: int, sweep: bool) -> dict[str, Any]:
    """One row of the table."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, n, HEAD_DIM, device="cuda", dtype=DTYPE) for _ in range(3))
    tensors = (q, k, v)
    pattern = weft.load(case.pattern, **case.parameters)
    baseline = flex(case, n, tensors, None)
    expected = baseline().float()
    found = pattern.attention(*tensors, **case.inputs).float()
    error = ((found - expected).norm() / expected.norm()).item()
    if not error < 5e-3:
        raise SystemExit(f"{case.name}, n = {n}: weft and FlexAttention differ by {error}")
    row: dict[str, Any] = {"case": case.name, "n": n, "error": round(error, 5)}
    row["weft_ms"] = timed(lambda: pattern.attention(*tensors, **case.inputs))
    row["triton_ms"] = timed(lambda: pattern.attention(*tensors, backend="triton", **case.inputs))
    row["flex_ms"] = timed(baseline)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        row["cudnn_causal_ms"] = timed(lambda: F.scaled_dot_product_attention(*tensors, is_causal=True))
    pairs = kept_pairs(case, n)
    row["weft_tflops"] = 4 * HEAD_DIM * pairs / row["weft_ms"] / 1e9
    best = row["flex_ms"]
    for options in SWEEP if sweep else ():
        try:
            best = min(best, timed(flex(case, n, tensors, options)))
        except (RuntimeError, ValueError) as error:
            # A configuration that does not fit is FlexAttention's answer to it.
            print(f"  {case.name} {options}: {type(error).__name__}", file=sys.stderr)
    if sweep:
        row["flex_best_ms"] = best
    return row


def kept_pairs(case: Case, n: int) -> int:
    """Pairs of all heads together, counted with the mask function."""
    total = 0
    keys = torch.arange(n, device="cuda")[None, :]
    for h in range(HEADS if case.per_head else 1):
        for start in range(0, n, 2048):
            rows = torch.arange(start, min(n, start + 2048), device="cuda")[:, None]
            total += int(case.mask_mod(0, h, rows, keys).sum())
    return total if case.per_head else total * HEADS


def markdown(rows: list[dict[str, Any]], command: str) -> str:
    """The table with what it takes to repeat it."""
    head = (
        "| mask | N | weft ms | TFLOP/s | plain Triton ms | Flex ms | over Flex | over Flex's best | cuDNN causal ms |"
    )
    lines = [
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {datetime.date.today()}, `{command}`:",
        "",
        head,
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        best = f"{r['flex_best_ms'] / r['weft_ms']:.2f}" if "flex_best_ms" in r else "-"
        lines.append(
            f"| {r['case']} | {r['n']} | {r['weft_ms']:.3f} | {r['weft_tflops']:.0f} | {r['triton_ms']:.3f} "
            f"| {r['flex_ms']:.3f} | {r['flex_ms'] / r['weft_ms']:.2f} | {best} | {r['cudnn_causal_ms']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="*", default=[8192, 32768])
    parser.add_argument("--cases", nargs="*", help="names of masks, all by default")
    parser.add_argument("--sweep", action="store_true", help="also time FlexAttention's kernel options")
    parser.add_argument("--markdown", help="write the table to this file")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    command = "python3 benchmarks/forward.py" + (" --sweep" if given.sweep else "")
    for n in given.n:
        for case in cases(n):
            if given.cases and case.name not in given.cases:
                continue
            rows.append(measure(case, n, given.sweep))
            print(json.dumps(rows[-1]), flush=True)
            if given.markdown:
                with open(given.markdown, "w") as out:
                    out.write(markdown(rows, command))
    print(markdown(rows, command))


if __name__ == "__main__":
    with torch.no_grad():
        main()
