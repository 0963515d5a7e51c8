"""The fast evaluator against the dense definition: every part of a score, every rule, in pieces and at once."""

from typing import Any

import pytest
import torch

import weft
from tests.brute import PATTERNS
from tests.test_weigh_fused import plainly
from weft.codegen import named, weigh_call
from weft.codegen import select as select_module
from weft.compiler.dense_only import only_densely
from weft.selection import job_of, select

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
    monkeypatch.setattr(weigh_call, "fused_sums", lambda one, room: plainly(one))
    check(weft.load(PATTERNS / "selection" / f"{name}.sparse", **SMALL[name]), 101, m, monkeypatch, (1 << 28, 1 << 12))


PRELUDE = """causal
    axis I = q // 8  axis J = k // 8  axis i = q // 4  axis j = k // 4  axis t = last 12 of q  axis d = q - k
    axis D = q // 8 - k // 8
    let mq[I] = mean(u in I) Q[u]  let mk[J] = mean(u in J) K[u]  let s[I, J] = mq[I] . mk[J]
    let w[i, j] = Q[i * 4] . K[j * 4]  let row[t, k] = softmax(Q[t] . K[k] * scale over k where k <= t)
"""
ODD = [
    "let x[I, J] = softmax(s[I, J] over I) keep x[I, J] > 0.1",
    "let x[J] = sum(I where I >= J) s[I, J] / 30 keep J in top 2 by x[J]",
    "let x[I, J] = sum(I2 < 2) s[I - I2, J] keep J in top 2 by x[I, J]",
    "let x[q] = max(k where k < 5 or k // 16 == q // 16 and k <= q) Q[q] . K[k] * scale keep x[q] > 0.7",
    "let x[q] = mean(k where k % 3 == 1 and k <= q) Q[q] . K[k] keep x[q] > 0",
    "let x[J] = mean(u in J) ((K[u] - mk[J]) . (K[u] - mk[J])) keep J in top 2 by x[J]",
    "let x[I] = mean(i in I, u in i) Q[u] . Q[u] keep x[I] > 15",
    "let x[I, J] = sum(i in I, j in J where j <= i) w[i, j] - s[I, J] keep J in top 2 by x[I, J]",
    "let x[I, J] = max(h) s[I, J] keep J in top 2 by x[I, J]",
    "let x[I, J] = sum(h in g) s[I, J] * h keep J in top 2 by x[I, J]",
    "let x[J] = mean(h, u in J) K[u] let y[J] = mean(I) mq[I] . x[J] keep J in top 2 by y[J]",
    "let x[I, J] = descend(u in J) mq[I] . K[u] keep J in top 2 by x[I, J]",
    "let x[J] = max(u in J) softmax(K[u] . K[u] over u) keep J in top 2 by x[J]",
    "let x[d] = sum(t) row[t, t - d] keep d in top 9 by x[d] counting (d < 3)",
    "let x[D] = sum(I, J where I - J == D) s[I, J] keep D in cover 0.5 by x[D]",
    "let x[I, D] = s[I, I - D] keep D in top 2 by x[I, D]",
    "let x[q] = max(min(Q[q], 0.5), -Q[q])[2 .. 9] . Q[q][0 .. 7] keep x[q] > 1",
    "let x[I] = probit(1 / (I + 2) + h / 100) keep x[I] > -1",
    "keep J in top 1 + I // 3 by s[I, J] among (J != 2)",
    "let a[I] = count(J in top 50% of visible by s[I, J]) keep J in top a[I] / 2 by s[I, J]",
    "keep (I, J) in top 12 by s[I, J] counting (J == I)",
    "keep j in top 4 by w[i, j] among (J in top 2 by s[I, J])",
    "keep J in top 2 by s[I, J] when s[I, 0] > 0",
    "let hot[k] = sum(t) row[t, k] order p = k by hot[k] within 16  axis P = p // 4  let mp[P] = mean(u in P) K[u]"
    " let x[P] = mean(t) Q[t] . mp[P] keep P in top 3 by x[P] counting (P == p[0] // 4)",
    "let hot[k] = K[k] . K[k] order p = k by hot[k] within 8  axis P = p // 8  let x[I, P] = max(u in P) mq[I] . K[u]"
    " keep P in top 2 by x[I, P] require q - k < 40",
    "axis e = 3  input f[q, e]: vector  input c[e]: float"
    " let x[q, J] = sum(e) c[e] * abs(f[q, e] . f[q, 2]) + J keep J in top 2 by x[q, J]",
]  # fmt: skip


@pytest.mark.parametrize("body", ODD)
def test_every_part(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = weft.load(f"pattern x {{ {PRELUDE} {body} }}")
    for m in (67, 30):
        check(pattern, 67, m, monkeypatch, (1 << 28, 600))


@pytest.mark.parametrize("room", [1 << 14, 1 << 17])
def test_keys_that_a_condition_excludes_are_not_scored(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reduction over a first block and a window makes maps of those, none larger than there is room for."""
    pattern = weft.load("""pattern p { causal
        let x[q] = max(k where k < 16 or k // 128 == q // 128 and k <= q) Q[q] . K[k] * scale
        keep x[q] > 0.5 }""")
    n, made = 2048, list[int]()
    product = named._product  # pyright: ignore[reportPrivateUsage]

    def counted(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        made.append(x.shape[0] * x.shape[1] * y.shape[2])
        return product(x, y)

    monkeypatch.setattr(named, "_product", counted)
    monkeypatch.setattr(select_module, "map_bytes", lambda *_: room)
    q, k, v = tensors(n, n, 1, 1, 1)
    job = job_of(pattern, pattern.program(1, 1), q, k, {})
    select(job, q, k, v, 0.25, {})
    assert 8 * max(made) <= room
    assert sum(made) <= n * (16 + 2 * 128)
