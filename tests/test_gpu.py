"""The kernels on a real GPU: exact masks of random and shipped patterns, values, large tensors, precompiled kernels.

Compiling takes most of the time, so cases run in a pool of processes; a case that fails prints the pattern's text.
`WEFT_GPU_CASES=1000` asks for more random patterns than 200, `WEFT_GPU_SEED` for others, `WEFT_GPU_WORKERS` for more
processes.
"""

import os
import subprocess
import sys
import traceback
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

import weft
from tests.brute import PATTERNS
from tests.oracle import SMALL, assert_attends, assert_close, definition, guarded, layouts, poisoned, small_inputs
from tests.random_text import random_pattern
from weft.codegen import choose
from weft.codegen.launch import Launcher

pytestmark = pytest.mark.gpu

HAS_HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
RANDOM = int(os.environ.get("WEFT_GPU_CASES", "200"))
SEED = int(os.environ.get("WEFT_GPU_SEED", "0"))
WORKERS = int(os.environ.get("WEFT_GPU_WORKERS", "0")) or max(1, min(10, (os.cpu_count() or 2) - 4))
# Seconds one case may take, waiting included: a kernel that never ends is a failure, not a hang.
PATIENCE = 420
BY_HEAD = "pattern by_head(w: table[head] = [3, 90, 9, 0, 300, 21]) { keep |q - k| < w[h]\n keep k % 64 == g }"
GAPS = "pattern gaps { causal\n keep k < 2 and q % 3 != 1\n keep 0 < q - k < 400 and (q - k) % 4 == 1 and q % 3 != 1 }"
PACKED = "pattern packed { input doc[token]: int\n causal\n keep doc[q] == doc[k] }"
WINDOW = "pattern window { keep |q - k| <= 100 }"


@dataclass(frozen=True)
class Case:
    """One pattern, the kernels it is to run through, and lengths for each."""

    text: str
    sizes: tuple[tuple[int, int], ...]
    dtype: str = "bf16"
    head_dim: int = 64
    heads: int = 4
    kv_heads: int = 2
    # "auto", "triton", or the place of a kernel among those that "auto" chooses from.
    backend: str = "auto"
    values: bool = False
    params: tuple[tuple[str, Any], ...] = ()

    @property
    def pattern(self) -> weft.Pattern:
        return weft.load(self.text, **dict(self.params))

    def __str__(self) -> str:
        shape = f"{self.dtype} head_dim {self.head_dim} heads {self.heads}/{self.kv_heads} {self.backend}"
        return f"{self.text}{dict(self.params) or ''}\n{shape} (n, m) {self.sizes}"


def run_case(case: Case) -> None:
    """In a process of the pool: raises what went wrong, with the case and its size as a note."""
    n = m = 0
    with forced(case.backend):
        for n, m in case.sizes:
            try:
                (check_values if case.values else check_mask)(case, n, m)
            except (AssertionError, RuntimeError, ValueError, TypeError, LookupError, OSError) as error:
                # Errors of other libraries may not survive the way back from the process; text does.
                text = f"{case}\nat n={n} m={m}\n{traceback.format_exc(limit=-4)}"
                raise AssertionError(text) from error


@contextmanager
def forced(backend: str) -> Generator[None]:
    """For "0", "1", ..: "auto" has this kernel to choose from and no other; the last one where there are fewer."""
    every = choose.configurations

    def one(*case: Any) -> Any:
        found = every(*case)
        return found[min(int(backend), len(found) - 1) :][:1]

    only = mock.patch.multiple(choose, configurations=one, FEW_TILES=0.0)
    with only if backend.isdigit() else nullcontext():
        yield


def check_mask(case: Case, n: int, m: int) -> None:
    pattern = case.pattern
    inputs = small_inputs(pattern, n, m, seed=n, heads=case.heads)
    call: dict[str, Any] = {"dtype": DTYPES[case.dtype], "head_dim": case.head_dim, "device": "cuda"}
    backend = "triton" if case.backend == "triton" else "auto"
    assert_attends(pattern, n, m, case.heads, case.kv_heads, inputs, backend=backend, **call)


def check_values(case: Case, n: int, m: int) -> None:
    pattern = case.pattern
    inputs = small_inputs(pattern, n, m, seed=n, heads=case.heads)
    backend = "triton" if case.backend == "triton" else "auto"
    kept = definition(pattern, n, m, case.heads, case.kv_heads, **inputs)
    for seed in (0, 1):  # the second call repeats the first one's launch, on other tensors
        q, k, v = tensors(n, m, case.heads, case.kv_heads, case.head_dim, DTYPES[case.dtype], batch=2, seed=seed)
        with poisoned():
            got = pattern.attention(*map(guarded, (q, k, v)), return_lse=True, backend=backend, **inputs)
        assert_close(got, q, k, v, kept)


def tensors(
    n: int, m: int, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, batch: int = 1, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    make = torch.Generator("cuda").manual_seed(seed)
    shapes = ((batch, heads, m, head_dim), (batch, kv_heads, n, head_dim), (batch, kv_heads, n, head_dim))
    q, k, v = (torch.randn(s, generator=make, device="cuda", dtype=dtype) for s in shapes)
    return q, k, v


def random_case(seed: int) -> Case:
    """A random pattern, with lengths that share one kernel: all square, or none, or few queries."""
    rng = np.random.default_rng(seed + 10_000)
    n = sorted(int(x) for x in rng.choice([1, 2, 65, 127, 128, 129, 255, 300, 511, 777, 1023, 1025, 1499], 3))
    match seed % 5:
        case 0 | 1 | 2:
            sizes = tuple((max(x, 65), max(x, 65)) for x in n)
        case 3:
            sizes = tuple((x, int(rng.integers(66, 1200))) for x in n)
        case _:
            sizes = tuple((x, 1 + int(rng.integers(0, 16))) for x in n)
    heads, kv_heads = [(4, 4), (4, 2), (4, 1), (6, 2), (3, 1)][int(rng.integers(5))]
    return Case(
        random_pattern(seed),
        sizes,
        ["bf16", "fp16", "bf16", "fp16", "fp32"][int(rng.integers(5))],
        [64, 128, 64, 128, 80, 256, 32][int(rng.integers(7))],
        heads,
        kv_heads,
        ["auto", "0", "1", "0", "1", "triton"][int(rng.integers(6))],
    )


def cases() -> dict[str, Case]:
    found = {f"random-{seed}": random_case(seed) for seed in range(SEED, SEED + RANDOM)}
    for path in sorted(PATTERNS.glob("*.sparse")):
        params = tuple(SMALL.get(path.stem, {}).items())
        for backend, dtype, head_dim in (
            ("auto", "bf16", 128),
            ("0", "bf16", 128),
            ("1", "fp16", 64),
            ("triton", "fp16", 64),
        ):
            sizes = ((600, 333), (99, 300)) if backend == "triton" else ((600, 600), (131, 131), (1025, 1025))
            found[f"{path.stem}-{backend}"] = Case(str(path), sizes, dtype, head_dim, 4, 2, backend, params=params)
    for dtype in DTYPES:
        for head_dim in (16, 40, 64, 80, 96, 128, 192, 256):
            sizes = ((1, 1), (63, 63), (100, 100), (257, 257), (1025, 1025))
            for backend in "012" if head_dim in (40, 64, 80, 96, 128) and dtype != "fp32" else "0":
                case = Case(GAPS, sizes, dtype, head_dim, 4, 2, backend, values=True)
                found[f"values-{dtype}-{head_dim}-{backend}"] = case
    for name, text in (("gaps", GAPS), ("by_head", BY_HEAD), ("packed", PACKED), ("window", WINDOW)):
        for backend in ("0", "1", "triton"):
            for kind, sizes in (("cross", ((700, 257), (257, 700), (513, 100))), ("few", ((900, 1), (300, 7)))):
                case = Case(text, sizes, "bf16", 128, 6, 2, backend, True)
                found[f"values-{name}-{kind}-{backend}"] = case
    return found


CASES = cases()


def work(name: str) -> None:
    run_case(CASES[name])


@pytest.fixture(scope="module")
def answers(request: pytest.FixtureRequest) -> Iterator[dict[str, "Future[None]"]]:
    """All chosen cases under way at once; each test waits for its own."""
    chosen = [str(item.name).partition("[")[2].rstrip("]") for item in request.session.items]
    pool = ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"))
    try:
        yield {name: pool.submit(work, name) for name in chosen if name in CASES}
    finally:
        children = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.kill()


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, answers: "dict[str, Future[str]]") -> None:
    """Exactly the pattern's keys; or values within twice the dense computation's error."""
    try:
        answers[name].result(PATIENCE)
    except TimeoutError:
        pytest.fail(f"no answer in {PATIENCE} s, perhaps a kernel that never ends\n{CASES[name]}", pytrace=False)


# --- one process ------------------------------------------------------------------------------------------------------


def windowed_rows(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: list[int], window: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A causal window's output and log-sum-exp on a few rows of one head, in float64."""
    outs, sums = list[torch.Tensor](), list[torch.Tensor]()
    for row in rows:
        keys = slice(max(0, row - window + 1), row + 1)
        scores = (k[keys].double() @ q[row].double()) * q.shape[-1] ** -0.5
        outs.append(torch.softmax(scores, 0) @ v[keys].double())
        sums.append(torch.logsumexp(scores, 0))
    return torch.stack(outs), torch.stack(sums)


def check_rows(out: torch.Tensor, lse: torch.Tensor, qkv: tuple[torch.Tensor, ...], h: int, window: int) -> None:
    q, k, v = (x[0, h * x.shape[1] // out.shape[1]] for x in qkv)
    n = q.shape[0]
    rows = [0, 1, window - 1, window, n // 2 + 3, n - 129, n - 1]
    want, sums = windowed_rows(q, k, v, rows, window)
    assert (out[0, h, rows].double() - want).abs().max() < 4 * torch.finfo(out.dtype).eps
    assert (lse[0, h, rows].double() - sums).abs().max() < 1e-3


@pytest.mark.parametrize("backend", ["auto", "triton"])
def test_a_hundred_thousand_tokens(backend: str) -> None:
    n, window = 100_000, 1024
    pattern = weft.load("sliding_window", window=window)
    q, k, v = tensors(n, n, 4, 1, 128, torch.bfloat16)
    with poisoned():
        out, lse = pattern.attention(q, k, v, return_lse=True, backend=backend)
    assert out.isfinite().all() and lse.isfinite().all()
    for h in range(4):
        check_rows(out, lse, (q, k, v), h, window)


@pytest.mark.parametrize("head_dim", [128, 100], ids=["descriptors", "pointers"])
@pytest.mark.parametrize("backend", ["auto", "triton"])
def test_more_than_2_to_31_elements(backend: str, head_dim: int) -> None:
    """Offsets leave 32 bits: within one head's tokens, and from head to head."""
    n, window = 300_000, 200
    heads = -(-(2**31 + 2**28) // (n * head_dim))
    if torch.cuda.mem_get_info()[0] < 4.5 * heads * n * head_dim * 2:
        pytest.skip("not enough memory")
    pattern = weft.load("sliding_window", window=window)
    # One head's tokens lie `heads` rows apart, so that row times stride is large as well.
    q, k, v = (
        torch.randn(1, n, heads, head_dim, device="cuda", dtype=torch.bfloat16).transpose(1, 2) for _ in range(3)
    )
    out, lse = pattern.attention(q, k, v, return_lse=True, backend=backend)
    for h in (0, heads // 2, heads - 1):
        check_rows(out, lse, (q, k, v), h, window)


@pytest.mark.parametrize("backend", ["auto", "triton"])
def test_layouts(backend: str) -> None:
    pattern = weft.load(GAPS)
    q, k, v = tensors(300, 300, 4, 2, 64, torch.bfloat16, batch=2)
    mask = definition(pattern, 300, 300, 4)
    for (name, q1), k1, v1 in zip(layouts(q).items(), layouts(k).values(), layouts(v).values(), strict=True):
        for mixed in ((q1, k1, v1), (q1.contiguous(), k1, v1.contiguous()), (q1, k1.contiguous(), v1)):
            with poisoned():
                got = pattern.attention(*mixed, return_lse=True, backend=backend)
            assert got[0].shape == q.shape, name
            assert_close(got, *mixed, mask)


@pytest.mark.parametrize("text", [WINDOW, PACKED, BY_HEAD], ids=["run", "table", "by-head"])
def test_calls_are_repeatable_and_threads_independent(text: str) -> None:
    """The same bits every time, from eight threads at once, each with its own length and inputs."""
    pattern = weft.load(text)

    def one(seed: int) -> None:
        n = 200 + 57 * (seed % 4)
        q, k, v = tensors(n, n, 6, 2, 64, torch.bfloat16, seed=seed)
        inputs: dict[str, Any] = {name: x.cuda() for name, x in small_inputs(pattern, n, n, seed, heads=6).items()}
        first = pattern.attention(q, k, v, return_lse=True, **inputs)
        assert_close(first, q, k, v, definition(pattern, n, n, 6, 2, **inputs))
        for _ in range(5):
            again = pattern.attention(q, k, v, return_lse=True, **inputs)
            assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))


@pytest.mark.parametrize("backend", ["auto", "triton"])
def test_batched_inputs_and_changes_in_place(backend: str) -> None:
    pattern, n = weft.load(PACKED), 300
    q, k, v = tensors(n, n, 2, 1, 64, torch.bfloat16, batch=3)
    doc = torch.stack([small_inputs(pattern, n, n, seed)["doc"] for seed in range(3)]).cuda()
    for _ in range(3):
        for _ in range(2):
            got = pattern.attention(q, k, v, return_lse=True, backend=backend, doc=doc)
            mask = np.stack([definition(pattern, n, n, 2, doc=doc[b].cpu().numpy()) for b in range(3)])
            assert_close(got, q, k, v, mask)
        doc[:, 100:] += 1


@pytest.mark.parametrize("scale", [0.0, -0.3, 4.0])
@pytest.mark.parametrize("backend", ["auto", "triton"])
def test_scales_and_large_scores(backend: str, scale: float) -> None:
    pattern = weft.load(GAPS)
    q, k, v = tensors(300, 300, 2, 2, 64, torch.bfloat16)
    got = pattern.attention(q, k, v, scale=scale, return_lse=True, backend=backend)
    assert got[0].isfinite().all()
    assert_close(got, q, k, v, definition(pattern, 300, 300, 2), scale)


def test_zero_size() -> None:
    for shape in ((0, 2, 8), (1, 0, 8), (1, 8, 0)):
        batch, m, n = shape
        q, k, v = tensors(n, m, 2, 2, 64, torch.bfloat16, batch=batch)
        out, lse = weft.load(WINDOW).attention(q, k, v, return_lse=True)
        assert out.shape == q.shape and not out.any() and (lse == float("-inf")).all()


@pytest.mark.skipif(not HAS_HOPPER, reason="needs compute capability 9.0")
@pytest.mark.parametrize("n", [100, 4096])
@pytest.mark.parametrize("window", [32, 2048])
def test_a_back_end_asked_for_by_name_runs(window: int, n: int) -> None:
    """Whatever the model of their speed says."""
    pattern, ran = weft.load("sliding_window", window=window), list[bool]()
    original = Launcher.run

    def watched(self: Launcher, *arguments: Any) -> Any:
        ran.append(self.kernel.config.hopper)
        return original(self, *arguments)

    qkv = tensors(n, n, 2, 2, 64, torch.bfloat16)
    with mock.patch.object(Launcher, "run", watched):
        for backend in ("hopper", "triton", "hopper", "triton"):
            pattern.calls.clear()
            pattern.attention(*qkv, backend=backend)
    assert ran == [True, False, True, False]


def test_a_back_end_asked_for_by_name_is_refused_not_replaced() -> None:
    pattern = weft.load(WINDOW)
    with pytest.raises(weft.TensorError, match="`window`: backend 'hopper' cannot run"):
        pattern.attention(*tensors(300, 16, 2, 2, 64, torch.bfloat16), backend="hopper")
    with pytest.raises(weft.TensorError, match="backend 'cpu' got tensors on cuda"):
        pattern.attention(*tensors(300, 300, 2, 2, 64, torch.bfloat16), backend="cpu")
    with pytest.raises(weft.TensorError, match=r"no kernel for torch\.float64"):
        pattern.attention(*(x.double() for x in tensors(30, 30, 2, 2, 64, torch.bfloat16)))


def test_another_device_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one device only")
    pattern = weft.load(WINDOW)
    q, k, v = (x.to("cuda:1") for x in tensors(300, 300, 2, 2, 64, torch.bfloat16))
    got = pattern.attention(q, k, v, return_lse=True)
    assert got[0].device == q.device
    assert_close(got, q, k, v, definition(pattern, 300, 300, 2))


SECOND = """
import torch, triton, weft
compiled = []
triton.knobs.compilation.listener = lambda **seen: compiled.append((seen["src"].name, seen["cache_hit"]))
for name, dtype in (("causal_attention", torch.bfloat16), ("packed_documents", torch.float16)):
    q, k, v = (torch.randn(1, 4, 8192, 128, device="cuda", dtype=dtype) for _ in range(3))
    inputs = {"doc": torch.arange(8192) // 3000} if name == "packed_documents" else {}
    weft.load(name).attention(q, k, v, **inputs)
torch.cuda.synchronize()
assert len(compiled) == 2, compiled
assert all(hit for _, hit in compiled), compiled
"""
FIRST = """
import weft
target = "sm{}{}".format(*__import__("torch").cuda.get_device_capability())
weft.load("causal_attention").precompile(target, "bf16", 128)
weft.load("packed_documents").precompile(target, "fp16", 128)
"""


def test_a_second_process_compiles_nothing_after_precompile(tmp_path: Path) -> None:
    folders = {"WEFT_CACHE_DIR": str(tmp_path / "weft"), "TRITON_CACHE_DIR": str(tmp_path / "triton")}
    for script in (FIRST, SECOND):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | folders,
            cwd=PATTERNS.parent,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
