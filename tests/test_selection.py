"""Dynamic patterns end to end: what the tiled back ends choose and attend to, against the dense definition."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import weft
from tests.brute import PATTERNS
from weft.cli import main
from weft.codegen import select as select_module
from weft.codegen.launch import DeviceLists
from weft.codegen.list_tiles import Visited, lists_by_kernel, lists_plainly, whole
from weft.codegen.map_sizes import reach
from weft.codegen.scores import call_of
from weft.codegen.select_reference import selected
from weft.codegen.select_tiles import Band, Cells, Tiles, aligned, packed, tiles_plainly
from weft.codegen.views import Domain
from weft.codegen.weigh import group_sums
from weft.compiler.plan import Tiling
from weft.compiler.selection import Softmax
from weft.importer import prepare

# Arguments for small lengths, so that cells are chosen and left out.
SMALL: dict[str, dict[str, Any]] = {
    "xattention": {"block": 32, "stride": 8, "mass": 0.8},
    "minference_blocks": {"block": 16, "blocks": 4},
    "sparge_attention": {"block_q": 32, "block_k": 16, "mass": 0.5},
    "seer_attention": {"block": 16, "threshold": 0.05},
    "moba": {"block": 32, "blocks": 3},
}
NAMES = sorted(SMALL)


def pattern_of(name: str) -> weft.Pattern:
    return weft.load(PATTERNS / "selection" / f"{name}.sparse", **SMALL[name])


def tensors(n: int, heads: int, groups: int, batch: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(n)
    return tuple(
        torch.randn(batch, count, n, 32, generator=generator, dtype=dtype) for count in (heads, groups, groups)
    )


def inputs_of(name: str, n: int, heads: int, batch: int) -> dict[str, Any]:
    if name != "seer_attention":
        return {}
    generator = torch.Generator().manual_seed(n)
    cells = -(-n // SMALL[name]["block"])
    return {key: torch.randn(batch, heads, cells, 8, generator=generator) for key in ("gate_q", "gate_k")}


@pytest.mark.parametrize("n", [1, 63, 100, 257, 513])
@pytest.mark.parametrize("name", NAMES)
def test_shipped(name: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunk by chunk and at once, with grouped heads and a batch."""
    pattern, batch, heads = pattern_of(name), 2, 4
    q, k, v = tensors(n, heads, 2, batch, torch.float64)
    inputs = inputs_of(name, n, heads, batch)
    right, lse = pattern.attention(q, k, v, backend="reference", return_lse=True, **inputs)
    for size in (1 << 28, 1 << 14):
        monkeypatch.setattr(select_module, "map_bytes", lambda *_, size=size: size)
        out, found = pattern.attention(q, k, v, backend="cpu", return_lse=True, **inputs)
        torch.testing.assert_close(out, right, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found, lse, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_exact_pairs(name: str) -> None:
    """What was attended, read off the output: queries of zeros weigh all keys alike, so scores come from a copy."""
    pattern, n, heads = pattern_of(name), 130, 2
    q, k, _ = tensors(n, heads, 1, 1, torch.float64)
    inputs = inputs_of(name, n, heads, 1)
    kept = selected(pattern.program(heads, 1), q, k, k, 32**-0.5, inputs)
    # V holds one-hot rows, 32 keys at a time; what comes out is nonzero where a key was attended.
    found = torch.zeros_like(kept)
    for first in range(0, n, 32):
        v = torch.zeros(1, 1, n, 32, dtype=torch.float64)
        count = min(32, n - first)
        v[0, 0, first : first + count, :count] = torch.eye(count, dtype=torch.float64)
        out = pattern.attention(q, k, v, backend="cpu", **inputs)
        found[..., first : first + count] = out[..., :count] != 0
    assert torch.equal(found, kept)


RULES = [
    "keep J in top {a} by s[I, J]",
    "keep J in top {a}0% of visible by s[I, J] counting (J == I)",
    "keep J in cover 0.{a} by w[I, J] counting (J == 0 or J == I)",
    "keep J in reach 0.{a} by w[I, J]",
    "keep J in under 0.{a} by w[I, J] among (I - J < 3)",
    "keep w[I, J] >= 0.{a}",
    "keep J in top {a} by p[J]",
    "keep k in top {a}0 by c[k] counting (k < 3)",
    "keep J in top {a} by s[I, J] keep q - k < 9",
    "keep J in top {a} by s[I, J] drop k == 5",
]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(RULES),
    st.integers(1, 9),
    st.integers(1, 90),
    st.sampled_from([(8, 8), (16, 8), (5, 7), (24, 32), (1, 16), (64, 64)]),
    st.sampled_from([1, 2]),
)
def test_rules(rule: str, amount: int, n: int, sizes: tuple[int, int], groups: int) -> None:
    """Any cells, those too that no tile fits: then the kernel looks up which cells were kept."""
    text = f"""pattern p {{
        causal
        axis I = q // {sizes[0]}
        axis J = k // {sizes[1]}
        let mq[I] = mean(t in I) Q[t]
        let mk[J] = mean(t in J) K[t]
        let s[I, J] = mq[I] . mk[J]
        let w[I, J] = softmax(s[I, J] * scale over J where J * {sizes[1]} < (I + 1) * {sizes[0]})
        let c[k] = sum(t in last 4 of q) softmax(Q[t] . K[k] * scale over k where k <= t)
        let p[J] = max(t in J) c[t]
        {rule.format(a=amount)}
    }}"""
    pattern = weft.load(text)
    q, k, v = tensors(n, 2, groups, 1, torch.float64)
    out = pattern.attention(q, k, v, backend="cpu")
    torch.testing.assert_close(out, pattern.attention(q, k, v, backend="reference"), rtol=1e-9, atol=1e-9)


@given(st.integers(1, 70), st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32))
def test_cells_to_tiles(n: int, rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kept = rng.random((1, 1, -(-n // rows), -(-n // columns))) < 0.5
    cells, tiling = Cells(torch.from_numpy(kept), rows, columns), Tiling(16, 8)
    pairs = kept[0, 0].repeat(rows, 0)[:n].repeat(columns, 1)[:, :n]
    found = tiles_plainly(cells, tiling, Band(0, n), n)
    for i in range(-(-n // 16)):
        for j in range(-(-n // 8)):
            tile = pairs[i * 16 : (i + 1) * 16, j * 8 : (j + 1) * 8]
            assert bool(found.touched[0, 0, i, j]) == tile.any() and bool(found.full[0, 0, i, j]) == tile.all()
            if aligned([packed(cells)], tiling, n):
                assert tile.any() == tile.all()


@pytest.mark.parametrize("make", [lists_plainly, lambda found: lists_by_kernel(found, 300)])
@pytest.mark.parametrize("limited", [(1, 4, 9), (3, 4, 9), (2, 3, 4, 9)])
@pytest.mark.parametrize("parts", [1, 2])
def test_lists(make: Callable[[Visited], DeviceLists], limited: tuple[int, ...], parts: int) -> None:
    rng = np.random.default_rng(0)

    def some(*shape: int) -> Tiles:
        may, must = (torch.from_numpy(rng.random(shape) < share) for share in (0.7, 0.6))
        return Tiles(may, may & must)

    limits, kept = some(*limited), [some(2, 3, 4, 9) for _ in range(parts)]
    touched = torch.stack([one.touched for one in kept]).any(0) & limits.touched
    full = torch.stack([one.full for one in kept]).any(0) & limits.full
    lists = make(Visited(limits, tuple(kept), 2, 3))
    for b in range(2):
        for row in range(12):
            at = b * lists.step + row
            begin, middle, end = int(lists.start[at]), int(lists.split[at]), int(lists.start[at + 1])
            kinds = full[b].flatten(0, 1)[row], (touched & ~full)[b].flatten(0, 1)[row]
            assert lists.tiles[begin:middle].tolist() == kinds[0].nonzero()[:, 0].tolist()
            assert lists.tiles[middle:end].tolist() == kinds[1].nonzero()[:, 0].tolist()


def test_wrong_calls(tmp_path: Path) -> None:
    pattern = pattern_of("seer_attention")
    q, k, v = tensors(64, 2, 1, 1, torch.float32)
    right = inputs_of("seer_attention", 64, 2, 1)
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "needs the input `gate_q`"),
        ({"gate_q": right["gate_q"]}, "needs the input `gate_k`"),
        (right | {"gate": 1}, "has no input `gate`"),
        (right | {"gate_q": right["gate_q"][:, :, :3]}, r"input `gate_q` is \[1, 2, 3, 8\], wanted"),
    ]
    for inputs, message in cases:
        with pytest.raises(weft.TensorError, match=message):
            pattern.attention(q, k, v, **inputs)
    with pytest.raises(weft.TensorError, match="64 queries are more than 9 keys"):
        pattern_of("moba").attention(q, k[:, :, :9], v[:, :, :9])
    for call in (lambda: pattern.mask(64), lambda: pattern.plan(64), lambda: pattern.coverage(64)):
        with pytest.raises(weft.CompileError, match="by content"):
            call()


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 2**32))
def test_weights_in_groups(count: int, ratio: int, seed: int) -> None:
    """Against the softmax itself, rows with nothing and a positive factor included."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(2, 3, count)))
    where = torch.from_numpy(rng.random((3, count)) < 0.6)
    where[0] = False
    weights = torch.softmax(torch.where(where, 0.7 * x, float("-inf")), -1).nan_to_num(0.0)
    padded = torch.nn.functional.pad(weights, (0, -count % ratio)).unflatten(-1, (-1, ratio)).sum(-1)
    torch.testing.assert_close(group_sums(x, where, 0.7, ratio), padded)


@pytest.mark.parametrize(
    ("where", "last"), [("j <= i", 40), ("j * 2 <= i", 20), ("j < 7", 7), ("j >= i", 64), ("j % 5 == 0", 61)]
)
def test_keys_that_cannot_count_are_not_scored(where: str, last: int) -> None:
    text = f"""pattern p {{ axis i = q // 4 axis j = k // 4
        let w[i, j] = softmax(Q[i + 0] . K[j + 0] over j where {where}) keep w[i, j] > 0.1 }}"""
    program = weft.load(text).program()
    softmax = program.scores[0].value
    assert isinstance(softmax, Softmax) and softmax.where is not None
    q, k, v = tensors(256, 1, 1, 1, torch.float64)
    call = call_of(program, q, k, v, 1.0, {})
    names = {"i": Domain(32, 8, 4), "j": Domain(0, 64, 4)}
    assert reach(softmax.where, "j", call, names) == last


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_documents_and_tables_beside_a_selection(backend: str) -> None:
    """The static part may read inputs and tables of numbers, by token and by head."""
    text = """pattern p(near: table[head] = [3, 20]) {
        input doc[token]: int
        causal
        require doc[q] == doc[k]
        axis I = q // 16  axis J = k // 16
        let mq[I] = mean(t in I) Q[t]
        let mk[J] = mean(t in J) K[t]
        let s[I, J] = mq[I] . mk[J]
        keep J in top 1 by s[I, J]
        keep q - k < near[h]
    }"""
    pattern, n = weft.load(text), 100
    q, k, v = tensors(n, 2, 1, 2, torch.float64)
    doc = torch.arange(n) // 37
    out = pattern.attention(q, k, v, backend=backend, doc=doc)
    kept = selected(pattern.program(2, 1), q, k, v, 32**-0.5, {"doc": doc})
    assert not (kept & (doc[:, None] != doc[None, :])).any()
    weights = torch.softmax((q @ k.transpose(-1, -2) * 32**-0.5).masked_fill(~kept, float("-inf")), -1)
    torch.testing.assert_close(out, weights @ v)
    with pytest.raises(weft.TensorError, match="needs the input `doc`"):
        pattern.attention(q, k, v, backend=backend)


def test_no_tokens_and_odd_scales() -> None:
    pattern = pattern_of("moba")
    empty = torch.zeros(1, 2, 0, 32)
    out, lse = pattern.attention(empty, empty, empty, return_lse=True)
    assert out.shape == empty.shape and lse.shape == (1, 2, 0)
    q, k, v = tensors(90, 2, 1, 1, torch.float64)
    for scale in (-0.3, 0.0, 2.0):
        right = pattern.attention(q, k, v, scale=scale, backend="reference")
        torch.testing.assert_close(pattern.attention(q, k, v, scale=scale, backend="cpu"), right)


def test_what_a_dynamic_pattern_says_of_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seer = pattern_of("seer_attention")
    assert seer.dynamic and seer.inputs == ("gate_q", "gate_k") and pattern_of("moba").inputs == ()
    assert seer._repr_svg_() is None  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setenv("WEFT_PRECOMPILE", "sm90:bf16:128")
    prepare(seer)
    with pytest.raises(weft.CompileError, match="by content"):
        seer.precompile("sm90", "bf16", 128)


@pytest.mark.parametrize("name", NAMES)
def test_command_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    params = [word for key, value in SMALL[name].items() for word in ("-p", f"{key}={value}")]
    assert main(["test", name, *params, "-n", "1", "100"]) == 0
    assert "% of admissible pairs kept" in capsys.readouterr().out
    assert main(["show", name, *params, "--n", "300"]) == 0
    assert "tensors made up" in capsys.readouterr().out
    assert main(["check", name]) == 0 and main(["fmt", "--check", str(PATTERNS / "selection" / f"{name}.sparse")]) == 0
    capsys.readouterr()
    assert main(["explain", name, *params]) == 0 and "whatever the tensors are" in capsys.readouterr().out


PRELUDE = """causal
    axis I = q // 8  axis J = k // 8  axis i = q // 4  axis j = k // 4
    let mq[I] = mean(t in I) Q[t]  let mk[J] = mean(t in J) K[t]  let s[I, J] = mq[I] . mk[J]
"""


@pytest.mark.parametrize(
    "body",
    [
        "let x[I, J] = softmax(s[I, J] over I) keep x[I, J] > 0.1",
        "let w[q, k] = softmax(Q[q] . K[k] over k where k <= q) let y[q] = sum(t in last 5 of k) w[q, t] keep y[q] > 1",
        "let w[k] = softmax(K[k] . K[k] over k) let y[q] = sum(t in last 3 of k) (Q[q] . K[t] * w[t]) keep y[q] > 0.01",
        "let z[I, J] = s[I, J] - sum(r < 3) mq[I] . mk[J] keep z[I, J] > 0",
        "let x[I, J] = max(t in J) softmax(mq[I] . K[t] over t) keep J in top 2 by x[I, J]",
        "let v[J] = mean(t in J) ((K[t] - mk[J]) . (K[t] - mk[J])) keep J in top 2 by v[J]",
        "let x[I] = sum(i in I, t in i) Q[t] . Q[t] keep x[I] > 0",
        "keep J in top 2 by s[I, J] among (true)",
        "keep J in top 2 by s[I, J] counting (n > 5)",
        "let x[I, J] = sum(i in I) s[I, J] * softmax(s[I, J] over J where J <= i) keep x[I, J] > 0",
        "let b[I] = mq[I] . mq[I] let x[I, J] = softmax(b[I] over J) keep x[I, J] > 0.01",
        "let a[I, J] = s[I, J] + s[I, J] let b[I, J] = a[I, J] * a[I, J] keep J in top 2 by b[I, J]",
        "axis Z = k // 4096 let z[q, Z] = mean(t in Z) Q[q] . K[t] keep Z in top 1 by z[q, Z]",
    ],
)
def test_odd_programs(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that a chunk of queries, or a shortcut, could get wrong; some are left to the definition."""
    monkeypatch.setattr(select_module, "map_bytes", lambda *_: 512)
    pattern = weft.load(f"pattern p {{ {PRELUDE} {body} }}")
    q, k, v = tensors(67, 4, 2, 2, torch.float64)
    right = pattern.attention(q, k, v, backend="reference")
    torch.testing.assert_close(pattern.attention(q, k, v, backend="cpu"), right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("let x[q, J] = Q[q] . K[J * 8 + h] keep J in top 1 by x[q, J]", "E003.*cannot depend on heads"),
        ("let x[q, J] = sum(r < 9999999) Q[q + r] . mk[J] keep J in top 1 by x[q, J]", "E005.*counts through 9999999"),
        (
            "axis Z = k // 99999999 let z[q, Z] = mean(t in Z) Q[q] . K[t] keep Z in top 1 by z[q, Z]",
            "E005.*has 99999999",
        ),
        ("keep J in top " + "9" * 400 + ".0 by s[I, J]", "E005"),
    ],
)
def test_programs_that_make_no_sense(body: str, message: str) -> None:
    pattern = weft.load(f"pattern p {{ {PRELUDE} {body} }}")
    with pytest.raises(weft.CompileError, match=message):
        pattern.attention(*tensors(20, 2, 1, 1, torch.float64))


def test_cells_of_other_sizes_are_other_cells() -> None:
    text = """pattern p(a: tokens = 8, b: tokens = 8) { causal axis A = q // a axis B = q // b
        let s[A] = mean(t in A) Q[t] let u[B, k] = s[B] . K[k] keep k in top 3 by u[B, k] }"""
    weft.load(text).program()
    with pytest.raises(weft.CompileError, match=r"E006.*`s` has cells of 8 tokens"):
        weft.load(text, b=4).program()


def test_what_only_the_definition_scores_is_refused_by_name_and_at_length() -> None:
    pattern = weft.load(f"pattern p {{ {PRELUDE} let x[J] = sum(t in J, u in J) K[t] . K[u] keep J in top 2 by x[J] }}")
    q = torch.zeros(1, 1, 9000, 8)
    with pytest.raises(weft.TensorError, match="runs through the same cell twice: only the def"):
        pattern.attention(q, q, q)


def test_rows_of_other_widths() -> None:
    pattern = weft.load("pattern p { causal input x[k]: vector let s[q, k] = Q[q] . x[k] keep k in top 3 by s[q, k] }")
    q, k, v = tensors(20, 1, 1, 1, torch.float32)
    for backend in ("cpu", "reference"):
        with pytest.raises(weft.TensorError):
            pattern.attention(q, k, v, backend=backend, x=torch.zeros(1, 1, 20, 5))


def test_autocast_changes_no_choice() -> None:
    pattern = pattern_of("minference_blocks")
    q, k, v = tensors(517, 2, 1, 1, torch.float32)
    right = pattern.attention(q, k, v)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pattern.attention(q, k, v), right)


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([16, 32]), st.integers(1, 3), st.booleans())
def test_lists_of_cells_that_tiles_lie_in(m: int, n: int, key: int, rows: int, shared: bool) -> None:
    """Read from their bits, as by way of their tiles."""
    generator, tiling = torch.Generator().manual_seed(m + n), Tiling(16, 16)
    query = m if shared else 16 * rows
    made = torch.rand(2, 3, -(-m // query), -(-n // key), generator=generator) < 0.5
    cells, shape = Cells(made, query, key), (3, -(-m // 16), -(-n // 16))
    limits = Tiles(*(torch.rand(shape, generator=generator) < share for share in (0.8, 0.5)))
    right = lists_plainly(Visited(limits, (tiles_plainly(cells, tiling, Band(0, m), n),), 2, 3))
    found = lists_by_kernel(Visited(limits, (), 2, 3, whole(packed(cells), tiling)), 6 * shape[1] * shape[2])
    assert torch.equal(found.start, right.start) and torch.equal(found.split, right.split)
    assert torch.equal(found.tiles[: len(right.tiles) - 1], right.tiles[:-1])
