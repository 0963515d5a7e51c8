"""Rows that can be empty: `check` warns of each pattern that leaves one so for some tensors, and of no other."""

from typing import Any

import pytest
import torch

import weft
from weft.check import check_pattern

AXES = (
    "axis I = q // 4  axis J = k // 4  axis A = k // 8  axis B = k // 2  axis d = q - k  input w[I, J]: float "
    "input y[q, J]: float  input a[I, A]: float  input b[I, B]: float  input u[J]: float  input e[q, d]: float "
    "axis D = q // 2 - k // 2  input f[d]: float  input r[I, D]: float "
)
SURE = [
    "causal keep J in top 2 by w[I, J]",
    "causal keep J in under 0.5 by w[I, J]",
    "causal keep J in cover 0.5 by y[q, J] among (J < 3)",
    "causal keep J in top 3% by w[I, J]",
    "causal keep A in top 1 by a[I, A]",
    "causal keep d in top max(1, n // 100) by e[q, d]",
    "causal keep B in top 1 by b[I, B] counting (B == I * 2)",
    "causal keep B in reach 9 by b[I, B] counting (B == 0)",
    "causal keep J in top 1 by w[I, J] among (A in top 1 by a[I, A])",
    "causal keep w[I, J] > 0.5 or q == k",
    "keep J in top 1 by u[J]",
    "keep d in top 1 by e[q, d]",
    "keep d in top 1 by e[q, d] counting (d < 3)",
    "require q - k < 3 and k <= q keep J in top 1 by y[q, J]",
    "require q - k < 3 and k <= q keep J in top 1 by w[I, J] counting (J == I)",
]
EMPTY = [
    "causal keep B in top 1 by b[I, B]",
    "causal keep B in under 0.5 by b[I, B]",
    "causal keep J in reach 9 by w[I, J]",
    "causal keep J in top 1 by u[J]",
    "causal keep w[I, J] > 0.5",
    "causal keep J in top 1 by w[I, J] among (J < I)",
    "causal keep J in top 1 by w[I, J] among (J > 0 and A in top 1 by a[I, A])",
    "causal keep J in top 2 by w[I, J] when u[0] > 0.5",
    "causal keep (I, J) in top 3 by w[I, J]",
    "causal drop k == 0 keep J in top 2 by w[I, J]",
    "require q - k < 3 and k <= q keep J in top 1 by w[I, J]",
    "keep J in top u[0] by w[I, J]",
    "keep d in top 1 by f[d]",
    "keep d in top 1 by e[q, d] among (d > 2)",
    "keep D in top 1 by r[I, D]",
]


def warned(text: str) -> list[str]:
    found = check_pattern(weft.load(text))
    assert all(d.code == "W101" for d in found)
    return [d.message for d in found]


def smallest(text: str, n: int) -> int:
    """How few keys a row keeps, over random tensors."""
    pattern, generator = weft.load(text), torch.Generator().manual_seed(7)
    x = torch.zeros(1, 1, n, 4)
    counts = {"I": -(-n // 4), "J": -(-n // 4), "A": -(-n // 8), "B": -(-n // 2), "q": n, "d": n, "D": -(-n // 2)}
    shapes = {"w": "IJ", "y": "qJ", "a": "IA", "b": "IB", "u": "J", "e": "qd", "f": "d", "r": "ID"}
    least = n
    for _ in range(20):
        given: dict[str, Any] = {
            name: torch.rand(1, 1, *(counts[axis] for axis in axes), generator=generator)
            for name, axes in shapes.items()
        }
        lse = pattern.attention(x, x, x, backend="reference", return_lse=True, **given)[1]
        least = min(least, round(float(lse.exp().min())))
    return least


@pytest.mark.parametrize("rule", SURE)
def test_no_row_is_empty(rule: str) -> None:
    text = f"pattern p {{ {AXES} {rule} }}"
    assert warned(text) == []
    assert all(smallest(text, n) > 0 for n in (1, 5, 19))


@pytest.mark.parametrize("rule", EMPTY)
def test_a_row_is_empty(rule: str) -> None:
    """Where the warning says so: at the length and the query that it names."""
    text = f"pattern p {{ {AXES} {rule} }}"
    (message,) = warned(text)
    assert message.startswith("rows can be empty: with n = ")
    assert smallest(text, 19) == 0


@pytest.mark.parametrize(
    ("rule", "first"),
    [
        ("causal keep J in top 1 by u[J]", 5),
        ("causal keep J in top 3 by u[J]", 13),
        ("keep d in top max(2, n // 9) by f[d]", 3),
    ],
)
def test_no_row_is_empty_where_a_rule_takes_all_cells(rule: str, first: int) -> None:
    text = f"pattern p {{ {AXES} {rule} }}"
    (message,) = warned(text)
    assert message.startswith(f"rows can be empty: with n = {first}, query ")
    assert smallest(text, first) == 0 < smallest(text, first - 1)


def test_what_an_empty_row_gives() -> None:
    """The declared fallback: output 0 and log-sum-exp minus infinity, on every back end that runs here."""
    pattern = weft.load("sparge_attention", block_q=8, block_k=4, mass=0.1)
    assert [d.code for d in check_pattern(pattern)] == ["W101"]
    q, k, v = torch.randn(3, 1, 2, 64, 8, generator=torch.Generator().manual_seed(3))
    rows: list[torch.Tensor] = []
    for backend in ("reference", "cpu"):
        out, lse = pattern.attention(q, k, v, backend=backend, return_lse=True)
        rows.append(torch.isneginf(lse))
        assert rows[-1].any() and (out[rows[-1]] == 0).all() and torch.isfinite(lse[~rows[-1]]).all()
    assert torch.equal(*rows)
