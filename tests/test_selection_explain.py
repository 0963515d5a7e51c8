"""What `weft explain` says of a dynamic pattern without tensors: true for all, and exact where nothing is known."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import weft
from weft import Pattern
from weft.cli import main
from weft.codegen.select_reference import selected
from weft.compiler.plan import Shape
from weft.compiler.program_bounds import Bounds, bounds
from weft.compiler.program_work import scoring_flops
from weft.selection_tensors import Tensors, made_up

ROOT = Path(weft.__file__).resolve().parent.parent
HEADS = 2
# Sizes at which a short sequence has cells enough for rules to choose.
SMALL: dict[str, dict[str, Any]] = {
    "deepseek_indexer": {"budget": 20, "index_heads": 2},
    "minference": {"columns": 20, "slashes": 20, "probes": 8, "sink": 3, "near": 5},
    "minference_blocks": {"block": 16, "blocks": 2},
    "moba": {"block": 16, "blocks": 2},
    "nsa_selected": {"window": 8, "stride": 4, "block": 16, "blocks": 4},
    "pbs_attention": {"block": 16, "segment": 32},
    "quest": {"page": 8, "budget": 40},
    "seer_attention": {"block": 16},
    "sparge_attention": {"block_q": 16, "block_k": 8},
    "xattention": {"block": 16, "stride": 4},
    "spark": {"dims": 8, "budget": 20},
    "dhsa": {"block_q": 16, "block_k": 8},
}
BLOCKS = (
    "causal axis I = q // 16 axis J = k // 8 let mq[I] = mean(t in I) Q[t] let s[I, J] = mq[I] . (mean(t in J) K[t]) "
)
RULES = [
    "keep J in top 2 by s[I, J] counting (J == 2 * I)",
    "keep J in top 1 by s[I, J] counting (J < 3)",
    "keep J in top 3 by s[I, J] counting (J < 2) among (J % 2 == 0)",
    "keep J in top 25% by s[I, J] keep q - k < 3",
    "keep J in top 25% of triangle by s[I, J] drop k == 0",
    "keep J in top n / 32 by s[I, J] require q - k < 40",
    "keep s[I, J] > 0 keep k < 2",
    "axis A = k // 16 let c[I, A] = mq[I] . (mean(t in A) K[t]) "
    "keep J in top 6 by s[I, J] among (A in top 1 by c[I, A])",
    "axis d = q - k let f[d] = sum(t in last 4 of q) Q[t] . K[t - d] keep d in top 5 by f[d] counting (d < 2)",
    "keep (I, J) in top 7 by s[I, J] counting (J == 2 * I)",
    "keep J in top 3 by s[I, J] counting (J == 0) when s[I, 0] > 0",
]


def of(pattern: Pattern, n: int) -> Bounds:
    return bounds(pattern.program(HEADS), Shape(True, HEADS, HEADS), n, n, {})


def count(pattern: Pattern, tensors: Tensors) -> int:
    q, k, v = tensors.q, tensors.k, tensors.v
    return int(selected(pattern.program(HEADS), q, k, v, tensors.scale, tensors.inputs).sum())


def unknown(x: torch.Tensor) -> torch.Tensor:
    return torch.full_like(x, math.nan) if x.is_floating_point() else x


@pytest.mark.parametrize("n", [1, 50, 133])
@pytest.mark.parametrize("which", [*SMALL, *RULES])
def test_bounds_hold_for_tensors_of_all_kinds(which: str, n: int) -> None:
    """With nothing but NaN only what is forced is kept, and then the guarantee is the whole answer."""
    pattern = weft.load(which, **SMALL[which]) if which in SMALL else weft.load(f"pattern p {{ {BLOCKS} {which} }}")
    found = of(pattern, n)
    some = made_up(pattern, n, HEADS, head_dim=8)
    inputs = {name: unknown(x) for name, x in some.inputs.items()}
    nothing = Tensors(unknown(some.q), unknown(some.k), unknown(some.v), inputs, "NaN")
    for seed in range(3):
        kept = count(pattern, made_up(pattern, n, HEADS, head_dim=8, seed=seed))
        assert found.guaranteed.value <= kept <= found.possible.value <= found.admissible.value
    least = count(pattern, nothing)
    assert found.guaranteed.value <= least
    assert found.guaranteed.value == least or which == "pbs_attention"


def test_amounts_are_tight_where_they_are_constants() -> None:
    """A choice of constant size without what is forced reaches its bound."""
    pattern = weft.load(f"pattern p {{ {BLOCKS} keep J in top 2 by s[I, J] among (J % 2 == 1 and J < 2 * I) }}")
    (choice,) = of(pattern, 160).choices
    assert (choice.cells, choice.keys, choice.query_size, choice.key_size) == (2, 16, 16, 8)
    kept = count(pattern, made_up(pattern, 160, HEADS, head_dim=8))
    # Rows of the first cell of queries have none to choose from, those of the second one.
    assert of(pattern, 160).possible.value == HEADS * (sum(range(1, 17)) + 144 * 16)
    assert kept == HEADS * 16 * (8 + 8 * 16)
    dhsa = of(weft.load("dhsa", block_q=16, block_k=8, density="0.25"), 160).choices[0]
    assert dhsa.cells == 5
    (outer,) = of(weft.load(f"pattern p {{ {BLOCKS} {RULES[7]} }}"), 160).choices
    assert outer.cells == 6 and outer.keys == 16


def test_work_counts_products_over_cells() -> None:
    """Antidiagonals: (n / 4)^2 cells of 4 products; a mean's products: cells by cells; a gate's: by its own axes."""
    programs = {name: weft.load(name, **SMALL[name]).program(1) for name in ("xattention", "moba", "seer_attention")}
    assert scoring_flops(programs["xattention"], 64, 10) == 2 * 10 * 16 * 16 * 4
    assert scoring_flops(programs["moba"], 64, 10) == 2 * 10 * 64 * 4
    assert scoring_flops(programs["seer_attention"], 64, 10) == 2 * 10 * 4 * 4


def test_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["explain", "moba", "-p", "block=16", "-p", "blocks=2", "--n", "64", "--heads", "4", "--kv-heads", "2"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "64 queries x 64 keys, 4 heads on 2 key/value heads, head dim 128" in out
    assert "runs as  look-ups in tiles: tiles hold several cells of `q`" in out
    assert "score    score[q, J]: 64 x 4 numbers" in out
    assert "for each query at most 2 cells, each of 16 keys, so 32 keys a row\n" in out
    assert f"always   {4 * 64 * 17 // 2:,} pairs, whatever the tensors are" in out
    assert main([*words, "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == "weft.explain-selection/1" and "measured" not in data
    assert data["bounds"]["admissible"] == {"value": 4 * 64 * 65 // 2, "claim": "exact"}
    assert data["density"]["least"] == pytest.approx(17 / 65)
    assert data["attending_flops"]["least"]["value"] == 4 * 128 * 4 * 64 * 17 // 2


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("xattention", "runs as  tiles\n"),
        ("deepseek_indexer", "runs as  gathered keys: cells of `k` are smaller than tiles"),
    ],
)
def test_how_it_runs(name: str, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", name]) == 0 and way in capsys.readouterr().out


def test_what_only_the_definition_can_score_says_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "p.sparse"
    path.write_text(
        f"pattern p {{ {BLOCKS} let x[I, J] = sum(t in I, u in I) Q[t] . Q[u] * s[I, J] keep J in top 2 by x[I, J] }}"
    )
    assert main(["explain", str(path)]) == 0
    assert (
        "runs as  definition: a reduction that runs through the same cell twice; it holds all pairs"
        in capsys.readouterr().out
    )


def test_inputs_of_static_clauses_bound_or_count(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "p.sparse"
    path.write_text(
        f"pattern p {{ input doc[token]: int {BLOCKS} keep J in top 2 by s[I, J] require doc[q] == doc[k] }}"
    )
    assert main(["explain", str(path), "--n", "64"]) == 0 and "can be   at most 2,080 pairs" in capsys.readouterr().out
    assert main(["explain", str(path), "--n", "64", "--docs", "2"]) == 0
    assert "can be   1,056 pairs" in capsys.readouterr().out


def test_explain_needs_no_torch() -> None:
    code = "import sys; from weft.cli import main; sys.exit(main(['explain', 'moba']) or 'torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment, timeout=60)
