"""What random programs broke in bands of selections: lists, bounds of how much they hold, and what heads share."""

import pytest
import torch

import weft
from weft.codegen.columns import rows_within
from weft.codegen.lanes import lanes
from weft.codegen.list_tiles import Visited, lists_by_kernel, lists_plainly
from weft.codegen.select_tiles import Band, Cells, Tiles, packed
from weft.compiler.plan import Tiling
from weft.selection import job_of, most_kept
from weft.selection_choose import choosing
from weft.selection_tiles import Query, row_tiles, work_of


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_lists_of_one_row_each(batch: int) -> None:
    """One head and one row of query tiles for each batch element."""
    generator = torch.Generator().manual_seed(batch)
    touched, full = (torch.rand(batch, 1, 1, 9, generator=generator) < share for share in (0.8, 0.5))
    found = Visited(Tiles(*2 * (torch.ones(1, 1, 9, dtype=torch.bool),)), (Tiles(touched, touched & full),), batch, 1)
    right, lists = lists_plainly(found), lists_by_kernel(found, 9 * batch)
    assert torch.equal(lists.start, right.start) and torch.equal(lists.split, right.split)
    assert torch.equal(lists.tiles[: len(right.tiles) - 1], right.tiles[:-1])


@pytest.mark.parametrize("sides", ["axis I = q // 5  axis J = k // 16", "axis I = q // 16  axis J = q // 16 - k // 16"])
@pytest.mark.parametrize(("required", "alike"), [("(g + k // 16) % 2 == 0", 2), ("(h + k // 16) % 2 == 0", 1)])
def test_heads_that_a_condition_cannot_tell_apart_are_ranked_once(required: str, alike: int, sides: str) -> None:
    pattern = weft.load(
        f"pattern f {{ require {required} {sides} let w[J] = sum(h) Q[n - 1] . K[J + 0]  keep J in top 2 by w[J] }}"
    )
    q, k, v = (torch.randn(2, heads, 40, 8, dtype=torch.float64) for heads in (4, 2, 2))
    found = choosing(job_of(pattern, pattern.program(4, 2), q, k, {}), q, k, v, 0.3, {})
    (cells,) = found.cells(Band(0, 40))
    assert cells.bits.shape[1] == 4 // alike
    assert lanes(found.job.program.choices[0], found.call) == 2 * cells.bits.shape[1]
    right = pattern.attention(q, k, v, backend="reference")
    torch.testing.assert_close(pattern.attention(q, k, v, backend="cpu"), right, rtol=1e-9, atol=1e-9)


GRADED = "axis J = k // 2 axis C = k // 4 let w[J] = sum(j in J) K[j] . K[j] let u[C] = sum(j in C) K[j] . K[j]"
BOUNDED = {
    # As in fp32, where this is 29.
    "(29 of 100)": "let w[k] = K[k] . K[k] keep k in top 0.29 * n by w[k]",
    "by head": f"{GRADED} keep J in top c[h] / 1 by w[J]",
    "percent by head": "let w[k] = K[k] . K[k] keep k in top (c[h] * 4.7)% by w[k]",
    # What is forced may be more than the budget of the rule around.
    "around": f"{GRADED} keep J in cover 0.99 by w[J] among (C in top 1 by u[C] counting (C < 6))",
    "around and in it": f"{GRADED} keep J in top 20 by w[J] among (C in top 1 by u[C] counting (C < 6))",
}


@pytest.mark.parametrize("n", [100, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", BOUNDED)
def test_nothing_keeps_more_than_there_is_room_for(name: str, dtype: torch.dtype, n: int) -> None:
    body = BOUNDED[name]
    table = "(c: float[head] = [2.99999999999, 3])" if "c[h]" in body else ""
    pattern = weft.load(f"pattern f{table} {{ {body} }}")
    q, k, v = (torch.randn(1, heads, n, 8, dtype=dtype) for heads in (2, 1, 1))
    job = job_of(pattern, pattern.program(2, 1), q, k, {})
    (cells,), (most,) = choosing(job, q, k, v, 0.3, {}).cells(Band(0, n)), most_kept(job)
    kept = int(cells.cells().kept.sum(-1).max()) * cells.key_size
    assert kept > 0 and kept <= (n if most is None else most)
    if "around" not in name:
        assert most is not None and most <= kept + cells.key_size


@pytest.mark.parametrize("size", [16, 64, 128])
@pytest.mark.parametrize("query", [1, 3, 5, 7, 24, 48, 100, 128, 200])
def test_cells_that_lie_in_a_tile(query: int, size: int) -> None:
    """Cells and tiles that begin together at token 0 only: some tiles cut off a cell at both ends."""
    tiles = [range(first, first + size) for first in range(0, size * query, size)]
    cells = packed(Cells(torch.ones(1, 1, 2, 1, dtype=torch.bool), query, 16))
    assert rows_within(cells, size) == max(len({token // query for token in tile}) for tile in tiles)


def test_lists_of_tiles_that_cut_cells_off() -> None:
    """Every cell chooses keys of its own, and each tile of queries has those of four."""
    text = "axis I = q // 48  axis J = k // 16  input w[I, J]: float  keep J in top 1 by w[I, J]"
    q, k, v = (torch.randn(1, 1, 640, 8) for _ in range(3))
    chosen = torch.nn.functional.one_hot(torch.arange(14) * 2 + 1, 40).float()[None, None]
    pattern = weft.load(f"pattern f {{ {text} }}")
    job, tiling = job_of(pattern, pattern.program(1, 1), q, k, {"w": chosen}), Tiling(128, 16)
    cells = choosing(job, q, k, v, 0.3, {"w": chosen}).cells(Band(0, 640))
    work = work_of(Query(job, Band(0, 640), tuple(cells), most_kept(job), None), tiling, False)
    rows = lists_plainly(work.tiles).start.diff()
    assert rows.max() == 4 and rows.sum() <= work.most
    assert row_tiles(Query(job, Band(0, 640), tuple(cells), most_kept(job), None), tiling, [0]) >= 4
