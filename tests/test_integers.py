"""Integers beyond 32 bits: the kernels compute what the definition says, or the pattern is refused."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

import weft

LARGE = 2**31 - 1

WIDE = {
    "no limit": ("pattern x(t: table[head] = [2147483647, 3]) { keep q - k < t[h] }", 300, 300, 2, None),
    "beyond 32 bits": ("pattern x(t: table[head] = [3000000 * 3000, 3]) { keep (q - k) * 3 < t[h] }", 90, 90, 2, None),
    "difference of inputs": (
        "pattern x { input doc[token]: int keep doc[q] - doc[k] > 5 }",
        300,
        300,
        1,
        [-LARGE - 1, LARGE, 5] * 100,
    ),
    "product of an input": (
        "pattern x { input doc[token]: int keep doc[q] * 3 > 0 }",
        64,
        64,
        1,
        [2**30, -(2**30)] * 32,
    ),
    "absolute input": ("pattern x { input doc[token]: int keep |doc[q]| > 5 }", 64, 64, 1, [-LARGE - 1, 3] * 32),
    "scaled key": ("pattern x { keep k * 1000000 < n * 400000 }", 9000, 16, 1, None),
    "scaled offset": ("pattern x { keep k * 100003 < (n - m) * 99999 }", 24000, 4, 1, None),
    "scaled query": ("pattern x { keep k * 100003 < q * 100001 }", 24000, 4, 1, None),
    "large modulus": ("pattern x { keep (q - k) % 2147483647 <= 5 }", 100, 100, 1, None),
    "large uniform": (
        "pattern x(t: table[head] = [1000000000, 3]) { keep q * t[h] < k * t[h] + t[h] * n }",
        300,
        300,
        2,
        None,
    ),
}


def attend(
    pattern: weft.Pattern, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, backend: str, inputs: Mapping[str, Any]
) -> torch.Tensor:
    """The output of one call."""
    return pattern.attention(q, k, v, backend=backend, **inputs)


@pytest.mark.parametrize("backend", ["triton", "cpu"])
@pytest.mark.parametrize("name", WIDE)
def test_wide_integers(name: str, backend: str) -> None:
    text, n, m, heads, doc = WIDE[name]
    torch.manual_seed(0)
    q = torch.randn(1, heads, m, 16)
    k, v = torch.randn(1, heads, n, 16), torch.randn(1, heads, n, 16)
    inputs = {} if doc is None else {"doc": torch.tensor(doc)}
    pattern = weft.load(text)
    found = attend(pattern, q, k, v, backend, inputs)
    expected = attend(pattern, q, k, v, "reference", inputs)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "pattern x { keep q * (1 << 40) * (1 << 40) > 0 }",
        "pattern x { keep q*q*q*q*q*q*q*q*q > k }",
        "pattern x { input doc[token]: int keep doc[q] * (1 << 40) > k }",
        "pattern x { keep (q << 40) << 40 > k }",
    ],
)
def test_what_64_bits_may_not_hold_is_refused(text: str) -> None:
    inputs: dict[str, Any] = {"doc": np.zeros(4, int)} if "doc" in text else {}
    with pytest.raises(weft.CompileError, match="E005"):
        weft.load(text).mask(4, **inputs)


@pytest.mark.parametrize(
    "text",
    [
        "pattern x { keep q - k " + "^ 5 ^ 9 " * 12 + "< 5 }",
        "pattern x { keep q " + "& 5 " * 30 + "< 5 }",
        "pattern x { let x0 = q " + " ".join(f"let x{i + 1} = |x{i} - 3|" for i in range(40)) + " keep x40 < 5 }",
        "pattern x { keep " + "abs(" * 30 + "q" + " - 7)" * 30 + " < 5 }",
    ],
)
def test_copies_of_an_operand_are_counted(text: str) -> None:
    with pytest.raises(weft.CompileError, match="E011"):
        weft.load(text).mask(4)


def test_names_of_a_file_never_meet_names_of_weft() -> None:
    doc = np.arange(300) // 7
    keep = "keep {0}[q] == {0}[k] or k in sample(3, n, 1)"
    plain = weft.load("pattern x { input doc[token]: int " + keep.format("doc") + " }").mask(300, doc=doc)
    clash = weft.load("pattern x { input sample_0[token]: int " + keep.format("sample_0") + " }")
    assert np.array_equal(clash.mask(300, sample_0=doc), plain)
    text = "pattern x { input doc[token]: int input doc_size[token]: int keep doc[q] == doc_size[k] }"
    q = torch.randn(1, 1, 64, 16)
    inputs = {"doc": torch.arange(64) // 7, "doc_size": torch.arange(64) // 9}
    found = attend(weft.load(text), q, q, q, "triton", inputs)
    assert torch.allclose(found, attend(weft.load(text), q, q, q, "reference", inputs), atol=1e-5)


def test_a_draw_has_a_limit() -> None:
    with pytest.raises(weft.CompileError, match="E011"):
        weft.load("pattern x { keep k in sample(64, n, 1, q, k) }").mask(5000)


def test_nested_lists_are_batches() -> None:
    doc = [[i // 7 for i in range(300)], [i // 30 for i in range(300)]]
    pattern = weft.load("pattern x { input doc[token]: int keep doc[q] == doc[k] }")
    q = torch.randn(2, 1, 300, 16)
    found = pattern.attention(q, q, q, backend="triton", doc=doc)
    assert torch.allclose(found, pattern.attention(q, q, q, backend="reference", doc=doc), atol=1e-5)


def test_a_buffer_that_is_written_again_is_seen() -> None:
    buffer = np.arange(512) // 256
    x, q = torch.from_numpy(buffer), torch.randn(1, 1, 512, 16)
    pattern = weft.load("packed_documents")
    pattern.attention(q, q, q, doc=x)
    buffer[:] = np.arange(512) // 64
    found = pattern.attention(q, q, q, doc=x)
    assert torch.allclose(found, pattern.attention(q, q, q, doc=x.clone(), backend="reference"), atol=1e-5)


def test_wrong_arguments_are_named() -> None:
    pattern = weft.load("packed_documents")
    q = torch.randn(1, 1, 4, 16)
    with pytest.raises(weft.TensorError, match="torch tensors, not list"):
        pattern.attention([1], q, q)  # pyright: ignore[reportArgumentType]
    with pytest.raises(weft.TensorError, match="ragged"):
        pattern.attention(q, q, q, doc=[[1, 2], [3]])
    with pytest.raises(weft.TensorError, match="32 bits"):
        pattern.attention(q, q, q, doc=np.full(4, 2**64 - 1, np.uint64))
    with pytest.raises(weft.CompileError, match="cannot depend"):
        weft.load("sliding_window", window="q + 1").mask(4)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["triton", "auto"])
@pytest.mark.parametrize("name", WIDE)
def test_wide_integers_on_the_gpu(name: str, backend: str) -> None:
    text, n, m, heads, doc = WIDE[name]
    m = max(m, min(n, 200))
    torch.manual_seed(0)
    q = torch.randn(1, heads, m, 64, device="cuda", dtype=torch.float16)
    k, v = (torch.randn(1, heads, n, 64, device="cuda", dtype=torch.float16) for _ in range(2))
    inputs = {} if doc is None else {"doc": torch.tensor(doc)}
    pattern = weft.load(text)
    found = attend(pattern, q, k, v, backend, inputs)
    expected = attend(pattern, q.float(), k.float(), v.float(), "reference", inputs)
    assert torch.allclose(found.float(), expected, atol=1e-2)
