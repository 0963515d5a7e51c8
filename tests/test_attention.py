"""Attention by the CPU back end and, in the interpreter, by the kernels: exact masks, values, shapes, errors."""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import weft
from tests.brute import PATTERNS
from tests.brute import load as load_shipped
from tests.conftest import HAS_GPU
from tests.oracle import SMALL, assert_attends, assert_close, definition, layouts, small_inputs
from tests.strategies import HEADS, LAYERS, files, load
from weft.codegen import launch
from weft.codegen.launch import Launcher
from weft.dsl.syntax import File

SHIPPED = sorted(path.stem for path in PATTERNS.glob("*.sparse"))
BASE = settings().max_examples
# What stands for all patterns where shapes and dtypes are the point: each strategy, heads that differ, empty rows.
WINDOW = "pattern window { keep |q - k| <= 17 }"
GAPS = "pattern gaps { causal\n keep k < 2 and q % 3 != 1\n keep 0 < q - k < 40 and (q - k) % 4 == 1 and q % 3 != 1 }"
BY_HEAD = "pattern by_head(w: table[head] = [3, 50, 9, 0, 7, 21]) { keep |q - k| < w[h]\n keep k % 16 == g }"
PACKED = "pattern packed { input doc[token]: int\n causal\n keep doc[q] == doc[k] }"

on_cpu = pytest.mark.skipif(HAS_GPU, reason="the interpreter is not on: tests/test_gpu.py runs the kernels")
both = pytest.mark.parametrize("backend", ["cpu", pytest.param("triton", marks=on_cpu)])


def tensors(
    n: int, m: int, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, batch: int = 1, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    make = torch.Generator().manual_seed(seed)
    q = torch.randn(batch, heads, m, head_dim, generator=make)
    k, v = (torch.randn(batch, kv_heads, n, head_dim, generator=make) for _ in range(2))
    return q.to(dtype), k.to(dtype), v.to(dtype)


def run(pattern: weft.Pattern, *qkv: torch.Tensor, **call: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return pattern.attention(*qkv, return_lse=True, **call)


# --- which keys -------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_patterns_attend_their_keys(name: str, backend: str) -> None:
    pattern = load_shipped(name, **SMALL.get(name, {}))
    for n, m in ((150, 150), (101, 37)):
        assert_attends(pattern, n, m, 4, 2, small_inputs(pattern, n, m), backend=backend)


@settings(max_examples=BASE * 5 // 3)
@given(files(), st.integers(1, 300), st.integers(1, 300), st.integers(0, LAYERS - 1), st.integers(0, 9))
def test_random_patterns_on_the_cpu(file: File, n: int, m: int, layer: int, seed: int) -> None:
    attend_random(file, n, m, layer, seed, "cpu")


@on_cpu
@settings(max_examples=BASE * 5 // 12)
@given(files(), st.integers(1, 150), st.integers(1, 150), st.integers(0, LAYERS - 1), st.integers(0, 9))
def test_random_patterns_in_the_interpreter(file: File, n: int, m: int, layer: int, seed: int) -> None:
    attend_random(file, n, m, layer, seed, "triton")


def attend_random(file: File, n: int, m: int, layer: int, seed: int, backend: str) -> None:
    pattern = load(file)
    inputs = small_inputs(pattern, n, m, seed, HEADS)
    assert_attends(pattern, n, m, HEADS, 1 + seed % 2, inputs, layer, LAYERS, backend=backend)


@both
def test_batched_inputs_differ_by_batch(backend: str) -> None:
    """Inputs [B, N]: each batch element has its own documents, tiles and tables."""
    pattern, n = weft.load(PACKED), 100
    doc = torch.stack([small_inputs(pattern, n, n, seed)["doc"] for seed in range(3)])
    q, k, v = tensors(n, 60, 2, 1, 32, torch.float32, batch=3)
    mask = np.stack([definition(pattern, n, 60, 2, doc=doc[b].numpy()) for b in range(3)])
    assert_close(run(pattern, q, k, v, backend=backend, doc=doc), q, k, v, mask)


@both
def test_batched_parents(backend: str) -> None:
    """Tables made from a batched input are batched too."""
    pattern, n = load_shipped("token_tree"), 50
    parent = torch.stack([small_inputs(pattern, n, n, seed)["parent"] for seed in range(2)])
    q, k, v = tensors(n, 40, 2, 2, 32, torch.float32, batch=2)
    mask = np.stack([definition(pattern, n, 40, 2, parent=parent[b].numpy()) for b in range(2)])
    assert_close(run(pattern, q, k, v, backend=backend, parent=parent), q, k, v, mask)


# --- values -----------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("text", [WINDOW, GAPS, BY_HEAD, PACKED], ids=["run", "empty-rows", "by-head", "table"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (63, 63), (100, 100), (257, 257), (257, 100), (63, 150), (100, 1)])
def test_lengths(text: str, n: int, m: int, backend: str) -> None:
    pattern = weft.load(text)
    inputs = small_inputs(pattern, n, m, heads=6)
    for group, dtype in ((1, torch.float32), (2, torch.float16), (3, torch.float32)):
        q, k, v = tensors(n, m, 6, 6 // group, 64, dtype)
        mask = definition(pattern, n, m, 6, 6 // group, **inputs)
        assert_close(run(pattern, q, k, v, backend=backend, **inputs), q, k, v, mask)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("head_dim", [1, 16, 40, 64, 80, 96, 128, 192, 256])
def test_head_dims(head_dim: int, dtype: torch.dtype, backend: str) -> None:
    pattern = weft.load(GAPS)
    q, k, v = tensors(100, 70, 2, 1, head_dim, dtype)
    assert_close(run(pattern, q, k, v, backend=backend), q, k, v, definition(pattern, 100, 70, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("text", [WINDOW, GAPS, BY_HEAD])
def test_dtypes_on_the_cpu(text: str, dtype: torch.dtype) -> None:
    pattern = weft.load(text)
    q, k, v = tensors(300, 280, 6, 2, 64, dtype, batch=2)
    out, lse = run(pattern, q, k, v, backend="cpu")
    assert out.dtype == dtype and lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close((out, lse), q, k, v, definition(pattern, 300, 280, 6, 2))


@both
@pytest.mark.parametrize("scale", [0.0, 1.0, -0.3, 25.0])
def test_scales(scale: float, backend: str) -> None:
    pattern = weft.load(GAPS)
    q, k, v = tensors(90, 90, 2, 2, 32, torch.float32)
    mask = definition(pattern, 90, 90, 2)
    assert_close(run(pattern, q, k, v, backend=backend, scale=scale), q, k, v, mask, scale)


@both
def test_large_scores_do_not_overflow(backend: str) -> None:
    pattern = weft.load(WINDOW)
    q, k, v = tensors(90, 90, 1, 1, 32, torch.float32)
    out, lse = run(pattern, q * 300, k * 300, v, backend=backend)
    assert out.isfinite().all() and lse.isfinite().all()
    assert_close((out, lse), q * 300, k * 300, v, definition(pattern, 90, 90))


@both
def test_empty_rows_are_zero_and_minus_infinity(backend: str) -> None:
    pattern = weft.load(GAPS)
    out, lse = run(pattern, *tensors(100, 100, 1, 1, 32, torch.float32), backend=backend)
    empty = ~torch.as_tensor(definition(pattern, 100, 100)[0].any(-1))
    assert empty.sum() > 30
    assert not out[0, 0, empty].any() and (lse[0, 0, empty] == float("-inf")).all()
    assert lse[0, 0, ~empty].isfinite().all()


@both
@pytest.mark.parametrize("shape", [(0, 2, 2, 8, 8), (1, 2, 2, 0, 8), (1, 2, 2, 8, 0), (2, 2, 1, 0, 0)])
def test_zero_size(shape: tuple[int, int, int, int, int], backend: str) -> None:
    """No batch, no queries, no keys: outputs of the right shape, 0 and minus infinity."""
    batch, heads, kv_heads, m, n = shape
    q, k, v = tensors(n, m, heads, kv_heads, 16, torch.float32, batch=batch)
    out, lse = run(weft.load(WINDOW), q, k, v, backend=backend)
    assert out.shape == q.shape and lse.shape == (batch, heads, m)
    assert not out.any() and (lse == float("-inf")).all()


# --- memory layouts ---------------------------------------------------------------------------------------------------


@both
def test_layouts(backend: str) -> None:
    pattern = weft.load(GAPS)
    q, k, v = tensors(70, 70, 4, 2, 32, torch.float32, batch=2)
    mask = definition(pattern, 70, 70, 4)
    for (name, q1), k1, v1 in zip(layouts(q).items(), layouts(k).values(), layouts(v).values(), strict=True):
        plain = run(pattern, q1.contiguous(), k1.contiguous(), v1.contiguous(), backend=backend)
        for mixed in ((q1, k1, v1), (q1.contiguous(), k1, v1.contiguous())):
            got = run(pattern, *mixed, backend=backend)
            assert torch.allclose(got[0], plain[0], atol=1e-6) and torch.allclose(got[1], plain[1], atol=1e-6), name
        assert_close(got, q1.contiguous(), k1.contiguous(), v1.contiguous(), mask)


@both
def test_tensors_are_not_changed(backend: str) -> None:
    before = tensors(70, 70, 2, 2, 32, torch.float32)
    after = tuple(x.clone() for x in before)
    for scale in (None, -1.0, 0.0):
        run(weft.load(WINDOW), *after, backend=backend, scale=scale)
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


# --- calls ------------------------------------------------------------------------------------------------------------


@both
def test_an_input_changed_in_place_counts(backend: str) -> None:
    """Lists are remembered for an input; a write to it must not go unseen."""
    pattern, n = weft.load(PACKED), 80
    q, k, v = tensors(n, n, 1, 1, 32, torch.float32)
    doc = torch.zeros(n, dtype=torch.int64)
    for cut in (0, 20, 50):
        doc[cut:] += 1
        for _ in range(2):
            got = run(pattern, q, k, v, backend=backend, doc=doc)
            assert_close(got, q, k, v, definition(pattern, n, n, doc=doc.numpy()))
    as_numpy = doc.numpy()
    as_numpy[60:] = 9
    got = run(pattern, q, k, v, backend=backend, doc=as_numpy)
    assert_close(got, q, k, v, definition(pattern, n, n, doc=as_numpy))


@both
def test_inference_mode(backend: str) -> None:
    """Tensors made there do not count their changes, so their lists are not remembered."""
    pattern, n = weft.load(PACKED), 80
    with torch.inference_mode():
        q, k, v = tensors(n, n, 1, 1, 32, torch.float32)
        doc = torch.zeros(n, dtype=torch.int64)
        for _ in range(3):
            got = run(pattern, q, k, v, backend=backend, doc=doc)
            assert_close(got, q, k, v, definition(pattern, n, n, doc=doc.numpy()))
            doc[20:] += 1


@contextmanager
def default_dtype(dtype: torch.dtype) -> Generator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "another default device": lambda: torch.device("meta"),
    "another default dtype": lambda: default_dtype(torch.float16),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no gradients": torch.no_grad,
}


@pytest.mark.parametrize("backend", ["cpu", "reference", pytest.param("triton", marks=on_cpu)])
@pytest.mark.parametrize("around", SURROUNDINGS)
def test_the_surroundings_do_not_matter(around: str, backend: str) -> None:
    """What torch would use where nothing is said; the sizes are this test's own, so that nothing is remembered."""
    place = 2 * list(SURROUNDINGS).index(around)
    n, m = 90 + place, 50 + place
    for text in (WINDOW, BY_HEAD, PACKED):
        pattern = weft.load(text)
        q, k, v = tensors(n, m, 6, 2, 32, torch.float32)
        inputs: dict[str, Any] = {**small_inputs(pattern, n, m, heads=6)}
        with SURROUNDINGS[around]():
            got = run(pattern, q, k, v, backend=backend, **inputs)
        assert (got[0].dtype, got[1].dtype) == (torch.float32, torch.float32)
        assert_close(got, q, k, v, definition(pattern, n, m, 6, 2, **inputs))


@pytest.mark.parametrize("text", [WINDOW, PACKED], ids=["run", "table"])
def test_threads(text: str) -> None:
    """Eight threads, each with its own length and inputs. (Triton's interpreter knows one thread only.)"""
    pattern = weft.load(text)

    def one(seed: int) -> None:
        n = 40 + 13 * (seed % 4)
        q, k, v = tensors(n, n, 2, 1, 32, torch.float32, seed=seed)
        inputs: dict[str, Any] = {**small_inputs(pattern, n, n, seed)}
        for _ in range(3):
            got = run(pattern, q, k, v, **inputs)
            assert_close(got, q, k, v, definition(pattern, n, n, 2, **inputs))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))


@both
def test_calls_are_repeatable(backend: str) -> None:
    qkv = tensors(200, 200, 2, 1, 64, torch.float32)
    first = run(weft.load(GAPS), *qkv, backend=backend)
    for _ in range(3):
        again = run(weft.load(GAPS), *qkv, backend=backend)
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_layers_and_heads_select_tables() -> None:
    pattern = weft.load("pattern p(w: table[layer, head] = [[1, 2], [9, 30]]) { causal\n keep q - k < w[layer, h] }")
    q, k, v = tensors(60, 60, 2, 1, 16, torch.float32)
    for layer in (0, 1):
        got = run(pattern, q, k, v, layer=layer, layers=2)
        assert_close(got, q, k, v, definition(pattern, 60, 60, 2, 1, layer=layer, layers=2))


def test_reference_back_end() -> None:
    pattern = weft.load(BY_HEAD)
    q, k, v = tensors(60, 50, 6, 2, 16, torch.float32, batch=2)
    assert_close(run(pattern, q, k, v, backend="reference"), q, k, v, definition(pattern, 60, 50, 6, 2))


# --- errors -----------------------------------------------------------------------------------------------------------

GOOD = (1, 4, 8, 16)
WRONG: dict[str, tuple[Any, ...]] = {
    "q, k and v are": (GOOD, GOOD, GOOD[1:]),
    "k and v have the same shape": (GOOD, GOOD, (1, 4, 9, 16)),
    "agree in batch and head_dim": (GOOD, (2, 4, 8, 16), (2, 4, 8, 16)),
    "and head_dim": (GOOD, (1, 4, 8, 32), (1, 4, 8, 32)),
    "multiple of the key/value heads": (GOOD, (1, 3, 8, 16), (1, 3, 8, 16)),
    "a multiple of": (GOOD, (1, 0, 8, 16), (1, 0, 8, 16)),
    "head_dim is 1 to 256": ((1, 1, 2, 257),) * 3,
}


@pytest.mark.parametrize("why", WRONG)
def test_wrong_shapes(why: str) -> None:
    """Every message names the pattern and the shapes."""
    qkv = [torch.zeros(shape) for shape in WRONG[why]]
    with pytest.raises(weft.TensorError) as caught:
        weft.load(WINDOW).attention(*qkv)
    message = str(caught.value)
    assert why in message and "`window`" in message
    assert all(str(list(x.shape)) in message for x in qkv)


def test_wrong_dtypes_devices_and_gradients() -> None:
    pattern, good = weft.load(WINDOW), torch.zeros(GOOD)
    wrong: tuple[tuple[str, tuple[torch.Tensor, ...]], ...] = (
        ("one dtype", (good, good.half(), good)),
        ("int64", (good.long(),) * 3),
        ("one device", (good, good.to("meta"), good)),
        ("no backward pass", (good.clone().requires_grad_(), good, good)),
    )
    for why, qkv in wrong:
        with pytest.raises(weft.TensorError, match=why) as caught:
            pattern.attention(*qkv)
        assert "`window`" in str(caught.value) and str(list(GOOD)) in str(caught.value)
    with torch.no_grad():
        pattern.attention(good.clone().requires_grad_(), good, good)


def test_wrong_back_ends() -> None:
    pattern, good = weft.load(WINDOW), torch.zeros(GOOD)
    with pytest.raises(ValueError, match=r"`window`: unknown backend 'cuda', known: auto"):
        pattern.attention(good, good, good, backend="cuda")
    with pytest.raises(weft.TensorError, match=r"`window`.*'hopper' got tensors on cpu"):
        pattern.attention(good, good, good, backend="hopper")
    with pytest.raises(weft.TensorError, match=r"`window`.*'triton' has no float64"):
        if HAS_GPU:
            good = good.cuda()
        pattern.attention(good.double(), good.double(), good.double(), backend="triton")


@pytest.mark.parametrize("window", [32, 100_000])
def test_a_back_end_asked_for_by_name_is_used(window: int) -> None:
    """On a Hopper GPU, made up here: whichever kernel the model thinks faster."""
    pattern, ran = weft.load("sliding_window", window=window), list[bool]()

    def watched(self: Launcher, q: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        ran.append(self.kernel.config.hopper)
        return q, q[..., 0]

    pretend = mock.patch.multiple(launch, architecture=lambda _: 90, build=lambda _: None)
    named = mock.patch("weft.calls.choose_backend", lambda _pattern, _q, backend: backend)
    qkv = tensors(2000, 2000, 1, 1, 64, torch.bfloat16)
    with pretend, named, mock.patch.object(Launcher, "run", watched):
        for backend in ("hopper", "triton", "hopper", "triton"):
            pattern.attention(*qkv, backend=backend)
    launch.launcher.cache_clear()
    assert ran == [True, False, True, False]


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        ({}, "needs the input `doc`: integers, one for each token"),
        ({"doc": torch.zeros(7, dtype=torch.int64)}, r"`doc` is \[7\], wanted \[8\] or \[1, 8\]"),
        ({"doc": torch.zeros(2, 8, dtype=torch.int64)}, r"`doc` is \[2, 8\]"),
        ({"doc": torch.zeros(8)}, "must be integers, not float32"),
        ({"doc": [0] * 7 + [2**31]}, "leaves 32 bits"),
        ({"doc": [0] * 8, "dog": [0] * 8}, r"no input `dog` \(its inputs: doc\)"),
    ],
)
def test_wrong_inputs(inputs: dict[str, Any], why: str) -> None:
    good = torch.zeros(GOOD)
    with pytest.raises(weft.TensorError, match=why) as caught:
        weft.load(PACKED).attention(good, good, good, **inputs)
    assert "`packed`" in str(caught.value)


def test_parents_that_form_no_tree() -> None:
    good = torch.zeros(GOOD)
    with pytest.raises(ValueError, match="token 3 has parent 5: a parent is -1 or an earlier token"):
        load_shipped("token_tree").attention(good, good, good, parent=[-1, 0, 1, 5, 3, 4, 5, 6])
