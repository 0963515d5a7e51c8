"""Maps and folds by kernels, in Triton's interpreter, against the evaluator in torch and the dense definition."""

from typing import Any

import numpy as np
import pytest
import torch

import weft
from tests.brute import PATTERNS
from tests.test_map_match import SCORE, call_for, program
from weft.codegen import map_call
from weft.codegen.map_call import Plan, mapped
from weft.codegen.map_kernel import emit
from weft.codegen.map_parts import Kernel, Product
from weft.codegen.map_tiles import Lanes, configuration, lanes, may_hold, runs, steps
from weft.codegen.named import Value
from weft.codegen.scores import call_of, evaluate
from weft.codegen.select_reference import score_of
from weft.codegen.views import Domain
from weft.compiler import ir
from weft.compiler.intervals import Interval
from weft.compiler.selection import Program

# The scores of published rules that kernels compute, with arguments for small lengths.
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "anchor_attention": ("largest best", {"block": 8, "step": 3, "theta": 1.0}),
    "deepseek_indexer": ("index", {"budget": 9, "index_heads": 3}),
    "flash_prefill": ("largest sums", {"block": 8, "alpha": 0.4, "sink": 8, "window": 16, "dense": 1}),
    "hip": (
        "one three",
        {"block": 8, "stride": 4, "sink": 8, "window": 16, "coarse": 16, "middle": 8, "fine": 4}
        | {"first": 48, "second": 32, "third": 16},
    ),
    "nsa_selected": ("score", {"window": 8, "stride": 4, "block": 16, "blocks": 4}),
    "quest": ("bound", {"page": 8, "budget": 32}),
    "spark": ("centre spread", {"dims": 12, "budget": 20}),
}
ODD = [
    # Cells that no power of two divides, larger than a tile, and inside one another.
    "axis A = q // 24  axis B = k // 100  let x[A, B] = max(u in A, v in B where v <= u) Q[u] . K[v] * scale",
    "axis A = q // 12  axis B = k // 3  let x[A, B] = min(u in A, v in B where u % 5 != v % 3) -(Q[u] . K[v])",
    "let x[I, J] = sum(i in I, j in J) (abs(Q[i * 4 + 1] . K[j * 4 + 3]) + i * 0.5 - J)",
    "axis A = q // 150  let x[A, J] = max(u in A, w in J where w <= u) Q[u] . K[w]",
    # Conditions that leave rows nothing, that loops take part in, and that heads do.
    "let x[q] = max(k where k < q - 9 and k % 2 == 0) sqrt(abs(Q[q] . K[k]) / 3)",
    "input f[q, e]: vector input c[k]: vector let x[q, J] = max(e, k in J where k <= q + e) e * (f[q, e] . c[k])",
    "let x[q, J] = sum(h in g) max(Q[q] . K[J * 8], h - 2)",
    "let x[q, J] = max(h) (Q[q] . K[J * 8] + g * 3)",
    "let x[q] = mean(k where k <= q and h < 2) Q[q] . K[k]",
    "let x[k] = max(q where k <= q) log(max(Q[q] . K[k], 0.5)) / 2",
    # Weights under other conditions, and read at other places, some of which do not exist.
    "let p[q, k] = softmax(Q[q] . K[k] over k where k <= q - 3 or k == 0)  let x[q, J] = sum(u in J) p[q, u]",
    "let p[q, j] = softmax(Q[q] . K[j * 4] over j where j % 3 != 1)"
    "  let x[q, J] = sum(r < 3, o < 2) p[q, J * 2 + 2 * r - 3]",
    "let p[q, k] = softmax(Q[q] . K[k] over k where k != q)  let x[I, J] = sum(u in I, w in J) p[u, w]",
    # The last tokens alone, as an axis and as a binder.
    "let x[J] = max(u in last 9 of q where J * 8 <= u) (Q[u] . K[J * 8] - u)",
    "let s[t, k] = Q[t] . K[k]  let x[t] = max(k where k <= t) s[t, k] * s[t, k]",
]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[Kernel]:
    """The interpreter runs the kernels on CPU tensors: those that it ran."""
    seen: list[Kernel] = []
    real = map_call.launched

    def launched(plan: Plan, *rest: Any) -> Value:
        seen.append(plan.kernel)
        return real(plan, *rest)

    monkeypatch.setattr(map_call, "suits", lambda *_: True)
    monkeypatch.setattr(map_call, "launched", launched)
    return seen


def tensors(n: int, m: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    # Heads between tokens, and a batch.
    q, k, v = (torch.randn(2, c, h, 16, generator=generator).transpose(1, 2) for h, c in ((4, m), (2, n), (2, n)))
    return q.to(dtype), k.to(dtype), v.to(dtype)


def inputs(built: Program, n: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    counts = {axis.name: axis.count or -(-n // axis.size) for axis in built.axes} | {"q": n, "k": n}
    shapes = {x.name: (1, 1, *(counts[axis] for axis in x.axes), *[8] * x.vector) for x in built.givens}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def value_of(built: Program, title: str, n: int, m: int, dtype: torch.dtype, half: bool = False) -> torch.Tensor:
    """A score by kernels, [B, H, cells ..]; for the later half of its first axis' cells alone, if asked."""
    q, k, v = tensors(n, m, dtype)
    call = call_of(built, q, k, v, 0.25, inputs(built, n))
    score = next(score for score in built.scores if score.name == title)
    names = {axis: call.domain(axis) for axis in score.axes}
    first = names[score.axes[0]]
    if half:
        names[score.axes[0]] = first.part(first.start + first.count // 2, first.count - first.count // 2)
    found = evaluate(score.value, call, names).over(score.axes)
    return found.expand(*call.q.shape[:3], *found.shape[3:]).flatten(1, 2)


def assert_same(
    built: Program, title: str, n: int, m: int, dtype: torch.dtype = torch.float32, rtol: float = 2e-4
) -> None:
    """A kernel's values are the definition's, for all cells and for some."""
    q, k, v = (x.double() for x in tensors(n, m, dtype))
    right = score_of(built, title, q, k, v, 0.25, {name: x.double() for name, x in inputs(built, n).items()})
    for half in (False, True):
        found = value_of(built, title, n, m, dtype, half)
        # Cells before the first query have no value.
        wanted = right[:, :, right.shape[2] - found.shape[2] :]
        torch.testing.assert_close(found.double(), wanted, rtol=rtol, atol=rtol / 10)


@pytest.mark.parametrize(("n", "m"), [(61, 61), (50, 23)])
@pytest.mark.parametrize("name", sorted(RULES))
def test_published_rules(name: str, n: int, m: int, launches: list[Kernel]) -> None:
    titles, arguments = RULES[name]
    built = weft.load(PATTERNS / "selection" / f"{name}.sparse", **arguments).program(4, 2)
    for title in titles.split():
        assert_same(built, title, n, m)
        assert launches
        launches.clear()


@pytest.mark.parametrize("scores", ODD)
def test_every_part(scores: str, launches: list[Kernel]) -> None:
    built = program(scores)
    assert_same(built, built.scores[-1].name, 67, 40)
    assert launches


@pytest.mark.parametrize(("name", "title"), [("flash_prefill", "sums"), ("nsa_selected", "score"), ("moba", "score")])
def test_rows_of_16_bits_by_means(name: str, title: str, launches: list[Kernel]) -> None:
    """Means are three parts of 16 bits each, which lose nothing."""
    _, arguments = RULES.get(name, ("", {}))
    built = weft.load(PATTERNS / "selection" / f"{name}.sparse", **arguments).program(4, 2)
    assert_same(built, title, 61, 61, torch.float16, 1e-5)
    assert {(x.left, x.right, x.mixed) for kernel in launches for x in kernel.products} == {(1, 3, False)}


@pytest.mark.filterwarnings("ignore:All-NaN")
@pytest.mark.parametrize("op", ["max", "min", "sum", "mean"])
def test_no_number_is_lost(op: str, launches: list[Kernel]) -> None:
    """A NaN among what is folded is the answer, as in torch."""
    built = program(f"let x[I, J] = {op}(u in I, w in J) Q[u] . K[w]")
    call = call_for(built, 40, 40)
    call.k[:, 0, 0, 9] = float("nan")
    found = evaluate(built.scores[-1].value, call, {axis: call.domain(axis) for axis in ("I", "J")}).tensor
    assert launches and found.isnan().nonzero()[:, 1].unique().tolist() == [0]
    assert found.isnan().nonzero()[:, 4].unique().tolist() == [1]


@pytest.mark.filterwarnings("ignore:All-NaN")
@pytest.mark.parametrize("op", ["max", "min"])
def test_no_number_is_lost_in_a_later_tile(op: str, launches: list[Kernel]) -> None:
    built = program(f"let x[I] = {op}(u in I, k) Q[u] . K[k]")
    call = call_for(built, 130, 8)
    call.k[:, 0, 0, 9] = float("nan")
    found = evaluate(built.scores[-1].value, call, {"I": call.domain("I")}).tensor
    assert launches and found[:, 0].isnan().all() and not found[:, 1].isnan().any()


def test_what_is_the_same_for_all_heads_is_made_once(launches: list[Kernel]) -> None:
    titles, arguments = RULES["deepseek_indexer"]
    built = weft.load(PATTERNS / "selection" / "deepseek_indexer.sparse", **arguments).program(4, 2)
    q, k, v = tensors(20, 20, torch.float32)
    call = call_of(built, q, k, v, 0.25, inputs(built, 20))
    found = evaluate(built.scores[-1].value, call, {axis: call.domain(axis) for axis in ("q", "k")})
    assert launches and titles == "index" and found.tensor.shape == (1, 1, 1, 20, 20)


def test_a_kernel_says_where_it_came_from_and_serves_all_lengths(launches: list[Kernel]) -> None:
    built = program(SCORE + "let weighty[I] = max(u in I, J where J * 8 <= u) s[u, J]")
    for n in (130, 200):
        value_of(built, "weighty", n, n, torch.float16)
    first, second = launches
    text = emit(first)
    assert "# weighty[I]\n# where J * 8 <= u\n" in text and text == emit(second)
    assert "weighty" not in text.partition("import triton")[2]


def test_nothing_is_fused_on_a_cpu() -> None:
    built = program(SCORE)
    call = call_for(built, 18, 18)
    assert mapped(built.scores[-1].value, call, {x: call.domain(x) for x in ("q", "J")}, evaluate) is None


@pytest.mark.parametrize(("begin", "end", "ratio"), [(0, 70, 8), (5, 70, 8), (0, 70, 12), (7, 100, 40), (0, 9, 1)])
@pytest.mark.parametrize("block", [16, 32])
def test_each_cell_has_one_lane(begin: int, end: int, ratio: int, block: int) -> None:
    """Lanes as the kernel counts them, and the bounds that each tile of them keeps."""
    first = begin // ratio
    outer = Domain(first, -(-end // ratio) - first, ratio, "q")
    one = lanes(Domain(begin, end - begin, 1, "q", within=ratio), outer if ratio > 1 else None, block)
    seen: list[int] = []
    low, high = one.reach(one.tiles, 1)
    for tile in range(one.tiles):
        cells = cells_of(one, tile)
        seen += cells
        assert all(low[tile] <= cell <= high[tile] for cell in cells)
    assert sorted(seen) == list(range(begin, end))


def cells_of(one: Lanes, tile: int) -> list[int]:
    lane = np.arange(one.block)
    piece = tile * (one.block // one.piece) + lane // one.piece
    within = piece % one.parts * one.width + lane % one.piece
    cell = one.first + piece // one.parts * one.ratio + within
    there = (lane % one.piece < one.width) & (within < one.ratio) & (cell >= one.begin) & (cell < one.end)
    return [int(x) for x in cell[there]]


def test_runs_of_columns() -> None:
    found = np.array([[1, 1, 0, 0, 1], [0, 0, 0, 0, 0], [0, 1, 1, 1, 0]], dtype=bool)
    begin, listed = runs(found, 2, 9)
    assert begin.tolist() == [0, 2, 2, 3] and listed.tolist() == [[0, 4], [8, 9], [2, 8]]


def test_tiles_that_a_condition_leaves() -> None:
    where = ir.Compare("<=", ir.Var("k"), ir.Var("q"))
    ends = np.array([0, 16, 32]), np.array([15, 31, 40])
    found = may_hold(where, {"q": ends, "k": ends}, {"n": Interval(41, 41)})
    assert found.tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert steps(1 << 13, 1 << 14) == (8, 16) and steps(100, 100) == (1, 1)


@pytest.mark.parametrize("arch", [80, 89, 90, 100, 120])
def test_configurations_fit(arch: int) -> None:
    """No more shared memory than the smallest device of the kind has: rows once, columns twice."""
    for width in (16, 64, 80, 128, 144, 256):
        for left, right in ((1, 1), (1, 3), (3, 1), (3, 3)):
            product = Product(width, left, right)
            one = configuration(arch, (9999, 9999), product.sizes, 1)
            held = product.sizes[0] * one.block_m + 2 * product.sizes[1] * one.block_n
            assert held <= {80: 160, 89: 99, 90: 227, 100: 227, 120: 99}[arch] * 1024 or one.block_n == 16
