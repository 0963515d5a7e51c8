"""What random programs broke: the fast evaluator where a pattern chooses nothing, binds a cell, or counts from one."""

import pytest
import torch

import weft

AXES = "axis I = q // 6  axis J = k // 6  axis i = q // 3  axis d = q - k"
ORDER = "let hot[k] = K[k] . K[k]  order p = k by hot[k] within 4"
BODIES = [
    # Axes, scores or an order, and nothing that is chosen by content.
    f"causal {AXES} keep I == 0 or q - k < 3",
    f"causal {AXES} let w[I] = Q[I * 6]",
    f"causal {ORDER} keep p < 3",
    f"{AXES} keep d < 3",
    # Distances are chosen among pairs that no place limits, and an order is known only with its scores.
    f"{AXES} {ORDER} let w[q, d] = Q[q] . K[0] + d / 7 keep w[q, d] < 1",
    # A score read at a constant cell that may not be there.
    f"causal {AXES} let v[d] = K[0] . K[d * 2] let w[I, J] = v[n - 1] + v[n] + J * I keep J in top 2 by w[I, J]",
    # Tokens inside a cell that the same reduction runs through.
    f"causal {AXES} let v[J] = sum(i, u in i) Q[i + u] . K[J + 0] let w[I, J] = v[J] + I keep J in top 2 by w[I, J]",
    f"causal {AXES} let v[J] = mean(i, u in i) Q[u] . K[J + 0] let w[I, J] = v[J] + I keep J in top 2 by w[I, J]",
    f"causal {AXES} let w[J] = max(i, u in i where u * 2 > i * 6 + 1) Q[u - i] . K[J + 0] keep J in top 2 by w[J]",
    # A threshold with a condition on pairs, as its message says to write it.
    f"causal {AXES} let s[I, J] = Q[I * 6] . K[J * 6] keep max(r < 1 where J >= I - 1) s[I, J] >= 0 keep d < 2",
    f"causal {AXES} let s[I, J] = Q[I * 6] . K[J * 6] keep min(r < 1 where J < I - 1) s[I, J] < 0 keep d < 2",
]

# Sixty scores, each read twice by the next: the sum doubles sixty times, the work must not.
CHAIN = " ".join(f"let z{i + 1}[I] = z{i}[I] / 2 + z{i}[I] / 2" for i in range(60))
BODIES.append(f"causal {AXES} let z0[I] = Q[I * 6] . K[0] {CHAIN} keep z60[I] > 0")


@pytest.mark.parametrize("m", [20, 7])
@pytest.mark.parametrize("body", BODIES)
def test_fast_as_defined(body: str, m: int) -> None:
    generator = torch.Generator().manual_seed(m)
    q, k, v = (
        torch.randn(2, heads, length, 8, generator=generator, dtype=torch.float64)
        for heads, length in ((4, m), (2, 20), (2, 20))
    )
    pattern = weft.load(f"pattern f {{ {body} }}")
    right = pattern.attention(q, k, v, backend="reference")
    torch.testing.assert_close(pattern.attention(q, k, v, backend="cpu"), right, rtol=1e-9, atol=1e-9)
