"""Distances and places that rules may choose among, whatever is required of pairs: what the definition says."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import weft
from weft.codegen import candidates
from weft.codegen.scores import call_of
from weft.codegen.views import Domain

# What is required, and whether it goes on to hold as a query and a key move on together.
REQUIRED = {
    "causal": True,
    "require k <= q and q - k < 40": True,
    "require q - k < 20 or k > 30": True,
    "require 2 * k >= q": True,
    "require k * (n - 60) <= q": False,
    "require k * (60 - n) <= 60 - q": True,
    "require k * (n - 30) <= 60": False,
    "require q + k < 70 + h": False,
    "require k % 3 == 1 and q % 2 == 0 or q - k == 7": False,
    "require q + k * (n - 60) >= 90": True,
    "require q * (m - 20) >= 2 * k": True,
}
N = 67


def assert_right(pattern: weft.Pattern, m: int) -> None:
    generator = torch.Generator().manual_seed(m)
    sizes = ((4, m), (2, N), (2, N))
    q, k, v = (torch.randn(1, heads, tokens, 8, generator=generator).double() for heads, tokens in sizes)
    right = pattern.attention(q, k, v, backend="reference")
    torch.testing.assert_close(pattern.attention(q, k, v, backend="cpu"), right)


@pytest.mark.parametrize("m", [N, 30])
@pytest.mark.parametrize("required", REQUIRED)
def test_distances(required: str, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "FEW", 8)
    monkeypatch.setattr(candidates, "PROBED", 5)
    score = "axis t = last 9 of q  axis I = q // 16  let x[d] = sum(t) Q[t] . K[t - d]"
    rules = "keep d in top 40% of visible by x[d]  let y[I, d] = x[d] * 1.5 - I * d keep d in top 3 by y[I, d]"
    assert_right(weft.load(f"pattern p {{ {required} axis d = q - k {score} {rules} }}"), m)


@pytest.mark.parametrize("required", REQUIRED)
def test_places(required: str) -> None:
    rules = "let hot[k] = K[k] . K[k] order p = k by hot[k] within 16  axis I = q // 8  axis P = p // 4"
    rules += "  let mp[P] = mean(u in P) K[u] let x[I, P] = mp[P] . Q[I * 8] keep P in top 40% of visible by x[I, P]"
    assert_right(weft.load(f"pattern p {{ {required} {rules} }}"), N)


class Waits(TorchDispatchMode):
    """Counts numbers that the host waits for."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += func.overloadpacket == torch.ops.aten._local_scalar_dense
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("required", REQUIRED)
def test_no_waiting_for_the_device(required: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it goes on to hold, the last query of a cell decides, and nothing is looked for."""
    monkeypatch.setattr(candidates, "FEW", 8)
    pattern = weft.load(f"pattern p {{ {required} axis d = q - k let x[d] = V[d] . V[d] keep d in top 3 by x[d] }}")
    program, q, k = pattern.program(4, 2), torch.zeros(1, 4, N, 8), torch.zeros(1, 2, N, 8)
    call = call_of(program, q, k, k, 1.0, {})
    with Waits() as waits:
        candidates.possible(program.choices[0], call, Domain(0, 1, N))
    assert (waits.count == 0) == REQUIRED[required]
