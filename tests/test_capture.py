"""CUDA graphs: what they may capture, and that it follows the tensors; on a GPU where it must be one."""

from typing import Any

import pytest
import torch

import weft
from tests.test_gpu import PACKED, WINDOW
from tests.test_selection import PATTERNS
from tests.test_selection_fast import SMALL
from tests.test_selection_fast import inputs_of as shipped_inputs
from weft import calls, selection
from weft import pattern as pattern_module

HEADS, GROUPS = 4, 2
CHOICE = "pattern p { causal\n axis J = k // 16\n let w[J] = mean(j in J) (K[j] . K[j])\n keep J in top 2 by w[J] }"
ROUTES = """pattern routes(block: tokens = 64) {
    causal
    input route[token]: int
    axis I = q // block
    axis J = k // block
    let mk[J] = mean(j in J) K[j]
    let weight[I, J] = sum(i in I) Q[i] . mk[J]
    require route[q] == route[k]
    keep J in top 2 by weight[I, J]
}"""


def tensors(n: int, device: str, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return [torch.randn(2, h, n, 64, generator=generator).to(device, dtype) for h in (HEADS, GROUPS, GROUPS)]


def capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, as if a graph were captured."""
    for module in (calls, selection):
        monkeypatch.setattr(module, "capturing", lambda device: True)  # pyright: ignore[reportUnknownLambdaType]
    monkeypatch.setattr(pattern_module, "capturing_now", lambda: True)


@pytest.mark.parametrize("text", [WINDOW, CHOICE])
def test_a_first_call_is_not_captured(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one with other lengths than any before; another like it is."""
    pattern = weft.load(text)
    pattern.attention(*tensors(100, "cpu"))
    capture(monkeypatch)
    pattern.attention(*tensors(100, "cpu"))
    with pytest.raises(weft.TensorError, match=r"has not run lately with tensors of these shapes: call it once"):
        pattern.attention(*tensors(99, "cpu"))


@pytest.mark.parametrize("text", [WINDOW, CHOICE])
def test_many_shapes_are_captured_after_all_of_them_ran(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern, sizes = weft.load(text), range(64, 96)
    for n in sizes:
        pattern.attention(*tensors(n, "cpu"))
    capture(monkeypatch)
    for n in sizes:
        pattern.attention(*tensors(n, "cpu"))


def test_what_is_used_again_is_remembered_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = weft.load(WINDOW)
    pattern._memory.clear()  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(pattern_module, "MOST_REMEMBERED", 2)
    for key in ("first", "second", "first", "third"):
        pattern.remember((key,), lambda key=key: key)
    assert pattern.remember(("first",), lambda: "made again") == "first"
    assert pattern.remember(("second",), lambda: "made again") == "made again"


@pytest.mark.parametrize(("text", "name"), [(PACKED, "doc"), (ROUTES, "route")])
def test_inputs_that_the_host_reads_are_not_captured(text: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern, inputs = weft.load(text), {name: torch.zeros(100, dtype=torch.int64)}
    pattern.attention(*tensors(100, "cpu"), **inputs)
    capture(monkeypatch)
    with pytest.raises(weft.TensorError, match=rf"the host reads `{name}`, which no CUDA graph can capture"):
        pattern.attention(*tensors(100, "cpu"), **inputs)


def follows(pattern: weft.Pattern, n: int, inputs: dict[str, Any]) -> None:
    """A graph gives what calls give, for other tensors too, whatever was forgotten meanwhile."""
    qkv, other = tensors(n, "cuda"), tensors(n, "cuda", 1)
    right = pattern.attention(*other, return_lse=True, **inputs)
    pattern.attention(*qkv, **inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = pattern.attention(*qkv, return_lse=True, **inputs)
    pattern.calls.clear()
    pattern._memory.clear()  # pyright: ignore[reportPrivateUsage]
    torch.full((1 << 26,), 3, dtype=torch.int32, device="cuda")
    for x, y in zip(qkv, other, strict=True):
        x.copy_(y)
    for _ in range(2):
        graph.replay()
        torch.cuda.synchronize()
        assert all(torch.equal(x, y) for x, y in zip(got, right, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(SMALL))
def test_selections_in_a_graph(name: str) -> None:
    pattern, n = weft.load(PATTERNS / "selection" / f"{name}.sparse", **SMALL[name]), 500
    follows(pattern, n, {key: x.cuda() for key, x in shipped_inputs(pattern, n).items()})


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["causal_attention", "longformer", "bigbird", "power_attention"])
def test_masks_in_a_graph(name: str) -> None:
    """Loops, lists and tables."""
    follows(weft.load(PATTERNS / f"{name}.sparse"), 1000, {})


@pytest.mark.gpu
def test_what_is_not_captured() -> None:
    pattern, qkv = weft.load(WINDOW), tensors(300, "cuda")
    with pytest.raises(weft.TensorError, match="has not run"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        pattern.attention(*qkv)
