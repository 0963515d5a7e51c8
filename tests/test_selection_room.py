"""What is known before anything is chosen is enough: room for lists, keys that a choice keeps, rows that are ranked."""

from unittest import mock

import pytest
import torch

import weft
from tests.gather_case import Case, some
from weft.codegen import columns, list_tiles
from weft.codegen.lanes import lanes
from weft.codegen.launch import DeviceLists
from weft.codegen.list_tiles import Visited, combine, lists_plainly
from weft.codegen.select import keep
from weft.codegen.views import Domain
from weft.compiler.ir import Binary, Compare, Const, Var
from weft.compiler.plan import Tiling
from weft.selection import job_of
from weft.selection_choose import Choosing, choosing
from weft.selection_tiles import work_of

PRELUDE = """axis I = q // 64  axis i = q // 24  axis J = k // 32  axis j = k // 24
    let c[k] = max(t in last 4 of q) Q[t] . K[k]  let a[I, k] = Q[I * 64] . K[k]
    let b[I, J] = Q[I * 64] . K[J * 32]  let d[i, j] = Q[i * 24] . K[j * 24]
"""


def tensors(n: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(n)
    q, k, v = (torch.randn(2, heads, n, 16, generator=generator) for heads in (4, 2, 2))
    return q, k, v


def listed(body: str) -> list[tuple[int, int]]:
    """How long the lists of a call are, of keys or of tiles, and how much room there was for them."""
    out: list[tuple[int, int]] = []

    def device_lists(found: Visited, most: int) -> DeviceLists:
        lists = lists_plainly(found)
        out.append((int(lists.start[-1]), most))
        return lists

    pattern = weft.load(f"pattern p {{ {PRELUDE} {body} }}")
    gathered = mock.patch.object(columns, "GATHER_COST", 1e-9)
    modules = (mock.patch.object(module, "device_lists", device_lists) for module in (columns, list_tiles))
    with gathered, next(modules), next(modules):
        pattern.attention(*tensors(256), backend="triton")
    return out


# Cells of queries of which a tile has more than its size says, and cells of keys that lie in two tiles.
NARROW = "let e[i, k] = Q[i * 24] . K[k]  keep k in top 3 by e[i, k]"
ASTRIDE = "let f[I, j] = Q[I * 64] . K[j * 24]  keep j in top 1 by f[I, j] among (j == 1)"
FILLED = ["keep k in top 9 by c[k]", "keep k in top 9 by a[I, k]", "keep J in top 3 by b[I, J]"]


@pytest.mark.parametrize("body", FILLED)
def test_lists_that_are_full(body: str) -> None:
    """As many keys, or as many tiles, as a rule takes."""
    used, most = listed(body)[0]
    assert used == most


@pytest.mark.parametrize(
    "body",
    [
        *FILLED,
        "keep j in top 2 by d[i, j]",
        NARROW,
        ASTRIDE,
        "causal keep j in top 2 by d[i, j] counting (j == 0)",
        "causal keep k in top 9 by c[k] keep J in top 1 by b[I, J] keep q - k < 40",
    ],
)
def test_lists_have_room(body: str) -> None:
    assert all(used <= most for used, most in listed(body))


def test_no_tile_is_listed_that_loops_visit_whole() -> None:
    near = Compare("<", Binary("-", Var("q"), Var("k")), Const(100))
    case = Case(300, 2, 1, 1, (some((1, 2, 300), 64, 32, 0.9),), keeps=(near,))
    both = case.static((near,), 0)[0] & case.static(case.limits, 0)[0]
    found = combine(work_of(case.query(), Tiling(64, 32), False).tiles)
    assert found.touched.any()
    for i in range(5):
        for j in range(10):
            tile = both[i * 64 : (i + 1) * 64, j * 32 : (j + 1) * 32]
            assert not (tile.all() and found.touched[..., i, j].any())
            assert not (tile.any() and found.full[..., i, j].any())


RANKED = [
    ("keep J in top 2 by b[I, J]", 4),
    ("let x[J] = K[J * 32] . K[0]  keep J in top 2 by x[J]", 2),
    ("let x[I, J] = sum(h in g) Q[I * 64] . K[J * 32]  keep J in top 2 by x[I, J]", 2),
    ("let x[I, J] = sum(h) Q[I * 64] . K[J * 32]  keep J in top 2 by x[I, J]", 1),
    ("input x[J]: float  keep J in top 2 by x[J]", 1),
    ("input x[J]: float  keep J in top 2 by x[J] counting (J == h)", 4),
    ("let x[J] = K[J * 32] . K[0]  keep x[J] > b[0, J]", 4),
]


def ready(body: str, n: int) -> Choosing:
    pattern, (q, k, v) = weft.load(f"pattern p {{ {PRELUDE} {body} }}"), tensors(n)
    inputs = {"x": torch.randn(1, 1, -(-n // 32))} if "input" in body else {}
    return choosing(job_of(pattern, pattern.program(4, 2), q, k, inputs), q, k, v, 0.3, inputs)


@pytest.mark.parametrize(("body", "heads"), RANKED)
def test_rows_that_are_ranked(body: str, heads: int) -> None:
    """As many as there are of what heads keep, which is what memory is shared out by."""
    found = ready(body, 128)
    (choice,), call = found.job.program.choices, found.call
    kept = keep(choice, call, call.domain(choice.query) if choice.query else Domain(0, 1, call.n))
    assert lanes(choice, call) == 2 * heads
    assert kept.shape[1] * kept.shape[2] == heads
