"""The fast evaluator against the dense definition: every part of a score, every rule, in pieces and at once."""

from typing import Any

import pytest
import torch

import weft
from tests.brute import PATTERNS
from tests.test_weigh_fused import plainly
from weft.codegen import select as select_module
from weft.codegen import weigh_call
from weft.compiler.dense_only import only_densely

# Arguments for small lengths, so that cells are chosen and left out.
SMALL: dict[str, dict[str, Any]] = {
    "anchor_attention": {"block": 8, "step": 3, "theta": 1.0},
    "deepseek_indexer": {"budget": 9, "index_heads": 3},
    "dhsa": {"block_q": 16, "block_k": 8, "density": 0.3},
    "flash_prefill": {"block": 8, "alpha": 0.4, "sink": 8, "window": 16, "dense": 1},
    "flex_prefill": {"block": 8, "mass": 0.5, "tau": 0.25, "budget": 16},
    "hip": {
        "block": 8, "stride": 4, "sink": 8, "window": 16, "coarse": 16, "middle": 8, "fine": 4,
        "first": 48, "second": 32, "third": 16,
    },
    "minference": {"columns": 12, "slashes": 9, "probes": 24, "sink": 3, "near": 4},
    "minference_blocks": {"block": 16, "blocks": 4},
    "moba": {"block": 32, "blocks": 3},
    "nsa_selected": {"window": 8, "stride": 4, "block": 16, "blocks": 4},
    "pbs_attention": {"block": 8, "segment": 16, "mass": 0.4},
    "quest": {"page": 8, "budget": 32},
    "seer_attention": {"block": 16, "threshold": 0.05},
    "sparge_attention": {"block_q": 32, "block_k": 16, "mass": 0.5},
    "spark": {"dims": 16, "budget": 20},
    "xattention": {"block": 32, "stride": 8, "mass": 0.8},
}  # fmt: skip


def tensors(n: int, m: int, heads: int = 4, groups: int = 2, batch: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(n)
    return tuple(
        torch.randn(batch, count, length, 16, generator=generator, dtype=torch.float64)
        for count, length in ((heads, m), (groups, n), (groups, n))
    )


def inputs_of(pattern: weft.Pattern, n: int, heads: int = 4, batch: int = 2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(n)
    program = pattern.program(heads, 2)
    counts = {axis.name: axis.count or -(-n // axis.size) for axis in program.axes}
    return {
        given.name: torch.randn(
            batch, heads, *(counts[a] for a in given.axes), *([4] if given.vector else []), generator=generator
        )
        for given in program.givens
    }


def check(pattern: weft.Pattern, n: int, m: int, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]) -> None:
    q, k, v = tensors(n, m)
    inputs = inputs_of(pattern, n)
    assert only_densely(pattern.program(4, 2)) == ""
    right = pattern.attention(q, k, v, backend="reference", **inputs)
    for size in sizes:
        monkeypatch.setattr(select_module, "map_bytes", lambda *_, size=size: size)
        out = pattern.attention(q, k, v, backend="cpu", **inputs)
        torch.testing.assert_close(out, right, rtol=1e-9, atol=1e-9)


def test_every_shipped_selection_is_here() -> None:
    assert sorted(SMALL) == sorted(path.stem for path in (PATTERNS / "selection").glob("*.sparse"))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (63, 63), (100, 100), (201, 201), (130, 1), (150, 45)])
@pytest.mark.parametrize("name", sorted(SMALL))
def test_shipped(name: str, n: int, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = weft.load(PATTERNS / "selection" / f"{name}.sparse", **SMALL[name])
    check(pattern, n, m, monkeypatch, (1 << 28, 1 << 12))


@pytest.mark.parametrize("m", [101, 40])
@pytest.mark.parametrize("name", ["flex_prefill", "minference", "nsa_selected", "pbs_attention", "xattention"])
def test_where_kernels_weigh(name: str, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fused kernels would compute is asked of them with the right rows and conditions."""
    monkeypatch.setattr(weigh_call, "suits", lambda *_: True)
    monkeypatch.setattr(weigh_call, "fused_sums", plainly)
    check(weft.load(PATTERNS / "selection" / f"{name}.sparse", **SMALL[name]), 101, m, monkeypatch, (1 << 28, 1 << 12))
