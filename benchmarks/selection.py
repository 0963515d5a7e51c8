"""Time and memory of dynamic patterns: choosing and attending, against dense attention in the same run.

B = 1, 32 query and 8 key/value heads, head dim 128, bf16. `--n 32768 65536 131072`, `--rules`. Inputs have planted
structure: keys near the query and a few key blocks score high. `top P` rules force a density. Each call is timed as it
is and as a captured CUDA graph. Dense attention is causal, through `scaled_dot_product_attention` with cuDNN and with
its FlashAttention-2 back end.
"""

import argparse
import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from triton.testing import do_bench

import weft
from weft.selection import job_of, select
from weft.selection_kept import Kept, keep
from weft.selection_tensors import Tensors, cell_counts

HEADS, GROUPS, HEAD_DIM = 32, 8, 128
FOLDER = Path(__file__).resolve().parent.parent / "patterns" / "selection"
BLOCKS = ("xattention", "minference_blocks", "sparge_attention", "top 5", "top 10", "top 25", "top 50")
FORCED = """pattern forced() {{
    causal
    axis i = q // 16
    axis j = k // 16
    axis I = q // 128
    axis J = k // 128
    let score[i, j] = (sum(r < 16) Q[i * 16 + 15 - r] . K[j * 16 + r]) * scale / 16
    let weight[I, J] = sum(i in I, j in J) softmax(score[i, j] over j where j <= i)
    keep J in top {percent}% of visible by weight[I, J] counting (J == I)
}}"""


def planted(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows that lean on slowly turning directions, so that near keys score high, and a few needles in the keys."""
    generator = torch.Generator("cuda").manual_seed(0)

    def noise(heads: int) -> torch.Tensor:
        return torch.randn(1, heads, n, HEAD_DIM, generator=generator, device="cuda", dtype=torch.bfloat16)

    turn = torch.arange(n, device="cuda")[:, None] / 3000 + torch.linspace(0, 6, HEAD_DIM, device="cuda")
    near = (3 * torch.sin(turn)).to(torch.bfloat16)
    q, k, v = noise(HEADS) + near, noise(GROUPS) + near, noise(GROUPS)
    k[:, :, n // 3 : n // 3 + 128] += 2 * near.mean(0)
    return q, k, v


def timed(call: Callable[[], Any]) -> float:
    """Median milliseconds; of one call where that takes half a second."""
    call()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    call()
    torch.cuda.synchronize()
    once = 1000 * (time.perf_counter() - begin)
    return once if once > 500 else cast(float, do_bench(call, warmup=25, rep=400, return_mode="median"))


def dense(backend: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> float:
    """Milliseconds of dense causal attention."""
    k, v = (x.repeat_interleave(HEADS // GROUPS, 1) for x in (k, v))
    with sdpa_kernel(backend):
        return timed(lambda: scaled_dot_product_attention(q, k, v, is_causal=True))


def captured(call: Callable[[], Any]) -> float:
    """Milliseconds of a CUDA graph of the call, for which the host has nothing to do."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return timed(graph.replay)


def density(kept: Kept) -> float:
    """Kept pairs over admissible ones, of 512 rows of every eighth head."""
    n = kept.tensors.n
    rows = torch.arange(n - 1, -1, -max(1, n // 512), device="cuda")
    found = torch.zeros(2, dtype=torch.long, device="cuda")
    for head in range(0, HEADS, 8):
        for chunk in kept.chunks(rows):
            some, allowed = kept.rows(0, head, chunk)
            found += torch.stack([some.sum(), allowed.sum()])
    return float(found[0] / found[1])


def row(name: str, pattern: weft.Pattern, qkv: tuple[torch.Tensor, ...], against: tuple[float, float]) -> str:
    """One line of the table."""
    q, k, v = qkv
    n, scale = q.shape[2], HEAD_DIM**-0.5
    program = pattern.program(HEADS, GROUPS)
    counts = cell_counts(program.axes, n)
    inputs: dict[str, Any] = {
        one.name: torch.randn(
            1, 1, *(counts[axis] for axis in one.axes), *([64] if one.vector else []), device="cuda", dtype=q.dtype
        )
        for one in program.givens
    }
    job = job_of(pattern, program, q, k, inputs)

    def attend() -> object:
        return pattern.attention(q, k, v, **inputs)

    attend()  # which compiles
    choosing = timed(lambda: select(job, q, k, v, scale, inputs))
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    attend()
    extra = torch.cuda.max_memory_allocated() - held - q.numel() * 2
    whole, alone = timed(attend), captured(attend)
    share = density(keep(pattern, Tensors(q, k, v, inputs, "")))
    return (
        f"| {name} | {n} | {100 * share:.1f} | {choosing:.1f} | {whole:.1f} | {alone:.1f} "
        f"| {100 * choosing / against[0]:.0f} | {against[0] / whole:.2f} | {against[1] / whole:.2f} "
        f"| {100 * extra / (2 * k.numel() * 2):.0f} |"
    )


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[32768, 65536, 131072])
    parser.add_argument("--rules", nargs="+", help="shipped patterns, or `top P`; the rules on blocks by default")
    given = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {datetime.date.today()}:\n")
    print(
        "| rule | N | density % | choosing ms | whole ms | in a graph ms | choosing, % of cuDNN | over cuDNN "
        "| over FA2 | extra, % of K, V |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for n in given.n:
        qkv = planted(n)
        against = dense(SDPBackend.CUDNN_ATTENTION, *qkv), dense(SDPBackend.FLASH_ATTENTION, *qkv)
        print(f"| dense causal: cuDNN {against[0]:.1f} ms, FA2 {against[1]:.1f} ms | {n} | | | | | | | | |", flush=True)
        for name in given.rules or BLOCKS:
            forced = FORCED.format(percent=name.removeprefix("top ")) if name.startswith("top ") else None
            pattern = weft.load(forced or FOLDER / f"{name}.sparse")
            try:
                print(row(f"{name} %" if forced else name, pattern, qkv, against), flush=True)
            except (torch.OutOfMemoryError, weft.TensorError) as error:
                # What cannot run at a length is a result as well.
                print(f"| {name} | {n} | {type(error).__name__}: {str(error)[:120]} | | | | | | | |", flush=True)


if __name__ == "__main__":
    main()
