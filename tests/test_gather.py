"""Attention over keys that no tile holds: single ones, chosen distances, places of an order; against all pairs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import weft
from tests.gather_case import CAUSAL, FIRST, Case, pairs, shuffled, some
from tests.test_selection import PATTERNS
from weft import selection_bands, selection_setting
from weft.codegen import columns as columns_module
from weft.codegen.list_tiles import combine
from weft.codegen.select_plan import by_places, listed_keeps, loops_of, place_of
from weft.codegen.select_tiles import Band, Cells, aligned, packed, tiles_plainly
from weft.compiler.ir import Binary, Compare, Const, Not, Read, Var
from weft.compiler.plan import Shape, Tiling
from weft.selection_setting import agree
from weft.selection_tiles import work_of

NEAR = Compare("<", Binary("-", Var("q"), Var("k")), Const(30))
SIZES = [(1, 4, 2, 17), (2, 2, 1, 257)]


@pytest.fixture(params=["gathered", "in tiles"])
def choice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Keys gathered always, or never."""
    monkeypatch.setattr(columns_module, "GATHER_COST", 0.0 if request.param == "gathered" else 1e9)
    return request.param


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("size", SIZES)
def test_columns(size: tuple[int, int, int, int], backend: str, choice: str) -> None:
    """One list for all queries, for coarse ones, for single ones and for small cells; each pair counts once."""
    batch, heads, groups, n = size
    shape = (batch, heads, n)
    singles = [some(shape, n, 1, 0.1), some(shape, 128, 1, 0.05), some(shape, 1, 1, 0.03), some(shape, 64, 8, 0.1)]
    tiles = some(shape, 64, 32, 0.3)
    empty = Cells(torch.zeros(batch, heads, 1, n, dtype=torch.bool), n, 1)
    for cells in ([one] for one in singles):
        Case(n, heads, groups, batch, tuple(cells)).check(backend, 1e-5)
    for cells in ((singles[0], tiles), (singles[0], singles[1]), (singles[2], tiles, singles[3]), (empty,)):
        case = Case(n, heads, groups, batch, cells, keeps=(FIRST, NEAR))
        for gather in (False, True):
            assert (work_of(case.query(), Tiling(64, 64), gather).columns is not None) == gather
        case.check(backend, 1e-5)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_columns_in_half_precision(backend: str, choice: str) -> None:
    cells = (some((1, 4, 257), 257, 1, 0.1), some((1, 4, 257), 32, 32, 0.2))
    # Triton's interpreter has no bf16.
    dtype = torch.bfloat16 if backend == "cpu" else torch.float16
    Case(257, 4, 2, 1, cells, keeps=(NEAR,), dtype=dtype).check(backend, 2e-2)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("size", SIZES)
def test_distances(size: tuple[int, int, int, int], backend: str) -> None:
    batch, heads, groups, n = size
    shape = (batch, heads, n)
    for query, key, share in ((n, 1, 0.02), (64, 1, 0.02), (32, 16, 0.3), (1, 5, 0.1), (n, 64, 0.5)):
        case = Case(n, heads, groups, batch, (some(shape, query, key, share, "d"),))
        case.check(backend, 1e-5)
        replace(case, limits=(), keeps=(FIRST,)).check(backend, 1e-5)
    both = (some(shape, n, 1, 0.03, "d"), some(shape, n, 1, 0.1), some(shape, 16, 32, 0.1))
    Case(n, heads, groups, batch, both, keeps=(FIRST,)).check(backend, 1e-5)


@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 24), st.sampled_from([8, 16, 32]), st.integers(0, 99))
@settings(max_examples=60)
def test_distances_to_tiles(n: int, query: int, size: int, block: int, seed: int) -> None:
    """Tiles with a pair are touched, full ones have all; where tiles are inside cells, both exactly."""
    cells, tiling = some((1, 1, n), query, size, 0.4, "d", seed), Tiling(16, block)
    kept, found = pairs(cells, None, n)[0, 0], tiles_plainly(cells, tiling, Band(0, n), n)
    exact = aligned([packed(cells)], tiling, n) or cells.kept.shape[2] == 1
    for i in range(-(-n // 16)):
        for j in range(-(-n // block)):
            tile = kept[i * 16 : (i + 1) * 16, j * block : (j + 1) * block]
            touched, full = bool(found.touched[0, 0, i, j]), bool(found.full[0, 0, i, j])
            assert touched >= bool(tile.any()) and full <= bool(tile.all())
            if exact:
                assert touched == bool(tile.any()) and full == bool(tile.all())


OWN = Compare("==", Binary("//", Var("q"), Const(32)), Binary("//", Var("k"), Const(32)))


def cell_of(token: int, size: int) -> Compare:
    """The pair's key lies in the same cell of places as a token."""
    base = Binary("*", Var("h"), Binary("+", Var("n"), Const(1)))
    other = Read("p", Binary("+", base, Const(token)))
    return Compare("==", Binary("//", place_of("p"), Const(size)), Binary("//", other, Const(size)))


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("within", [32, 64, 100, 24])
@pytest.mark.parametrize("size", SIZES)
def test_orders(size: tuple[int, int, int, int], within: int, backend: str) -> None:
    """Cells of places beside static clauses that read places, other cells, single keys and distances."""
    batch, heads, groups, n = size
    shape, places = (batch, heads, n), shuffled(batch, heads, n, within)
    blocks = some(shape, 64, 32, 0.3, "p")
    case = Case(n, heads, groups, batch, (blocks,), places=places, within=within)
    case.check(backend, 1e-5)
    replace(case, keeps=(OWN, cell_of(0, 32))).check(backend, 1e-5)
    replace(case, limits=(CAUSAL, Not(cell_of(5, 16))), keeps=(FIRST,)).check(backend, 1e-5)
    mixed = (some(shape, 5, 7, 0.2, "p"), some(shape, 32, 16, 0.1), some(shape, n, 1, 0.05, "d"))
    replace(case, cells=mixed).check(backend, 1e-5)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_orders_with_single_keys(backend: str, choice: str) -> None:
    places = shuffled(2, 4, 257, 64)
    cells = (some((2, 4, 257), 64, 32, 0.3, "p"), some((2, 4, 257), 257, 1, 0.1))
    Case(257, 4, 2, 2, cells, keeps=(NEAR, cell_of(0, 16)), places=places, within=64).check(backend, 1e-5)


def test_places_far_from_what_is_chosen_are_not_visited() -> None:
    """Classified by the place of a token where a clause reads it; what loops visit whole is in no list."""
    n, places = 512, shuffled(1, 1, 512, 64)
    none = Cells(torch.zeros(1, 1, 8, 16, dtype=torch.bool), 64, 32, "p")
    first = int(places.place_of[0, 0, 0]) // 32
    for size in (32, 64):
        own = Compare("==", Binary("//", Var("q"), Const(size)), Binary("//", Var("k"), Const(size)))
        case = Case(n, 1, 1, 1, (none,), limits=(), keeps=(own, cell_of(0, 32)), places=places, within=64)
        work = work_of(case.query(), Tiling(32, 32), False)
        assert any(region.runs for region in work.plan.regions)
        found = combine(work.tiles).touched[0, 0]
        for i in range(16):
            # Of segments of 64 the loops visit all, of cells of 32 a half, which may be where token 0 went.
            listed = set() if size == 64 and i < 2 else {first}
            assert set(found[i].nonzero()[:, 0].tolist()) == listed


@pytest.mark.parametrize("tiling", [Tiling(128, 128), Tiling(128, 64)])
@pytest.mark.parametrize("file", sorted((PATTERNS / "selection").glob("*.sparse")), ids=lambda file: file.stem)
def test_static_keeps_of_shipped_rules_are_loops(file: Path, tiling: Tiling) -> None:
    """All but those that ask where a key went, for the tiles that kernels have."""
    pattern = weft.load(file)
    program = pattern.program(8, 2)
    keeps, of_places = by_places(program.keeps, program)
    loops = loops_of(program, Shape(True, 8, 2), tiling)
    assert listed_keeps(program, loops) == of_places
    assert bool(keeps) == any(region.runs for region in (loops.regions if loops else ()))


@pytest.mark.parametrize("fewest", [1, 1 << 30])
@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (4, 1), (2, 2), (6, 2)])
def test_queries_that_choose_alone(heads: int, groups: int, fewest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads of a group share a tile where they agree and are a power of two; tiles of 16 rows, or large ones."""
    monkeypatch.setattr(selection_setting, "FEWEST_ROWS", fewest)
    n, group = 67, heads // groups
    shape = (2, groups, n)
    for cells in ((some(shape, 1, 16, 0.1), some(shape, 16, 1, 0.02)), (some(shape, 3, 5, 0.1),)):
        case = Case(n, heads, groups, 2, cells, keeps=(FIRST,))
        assert agree(case.job(), case.query().cells) == (group in (2, 4))
        case.check("triton", 1e-5)
    odd = Case(n, heads, groups, 2, (some((2, heads, n), 1, 8, 0.1),))
    assert not agree(odd.job(), odd.query().cells)
    odd.check("triton", 1e-5)


OWN_WINDOW = Compare("<", Binary("-", Var("q"), Var("k")), Binary("+", Var("h"), Const(3)))


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("lanes", [1, 2])
def test_heads_that_choose_together(lanes: int, backend: str, choice: str) -> None:
    """One choice for all heads or for each group, looked up, listed and gathered, beside keeps of single heads."""
    shape, n = (2, lanes, 140), 140
    tiles, odd, single = some(shape, 64, 32, 0.3), some(shape, 24, 20, 0.2), some(shape, 140, 1, 0.1)
    own, slashes = some((2, 4, 140), 32, 16, 0.1), some(shape, 16, 8, 0.2, "d")
    for cells in ((tiles,), (odd,), (tiles, single), (odd, slashes), (single, own), (odd, single, own)):
        case = Case(n, 4, 2, 2, cells)
        assert case.query().lanes == (1 if lanes == 1 and cells[-1] is not own else 4)
        case.check(backend, 1e-5)
        replace(case, keeps=(OWN_WINDOW,)).check(backend, 1e-5)
    places = shuffled(2, 4, n, 64)
    Case(n, 4, 2, 2, (some(shape, 64, 32, 0.3, "p"), odd), places=places, within=64).check(backend, 1e-5)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists for as few queries at once as may be."""
    for name in ("LIST_BYTES", "FEWEST_BYTES"):
        monkeypatch.setattr(selection_bands, name, 1)
    monkeypatch.setattr(selection_bands, "LIST_SHARE", 1 << 60)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.usefixtures("narrow")
def test_bands_of_queries(backend: str, choice: str) -> None:
    """Every kind of cells, lists and places, a hundred queries and more at once."""
    shape, places = (2, 4, 300), shuffled(2, 4, 300, 64)
    single, shared, own = some(shape, 64, 1, 0.05), some(shape, 300, 1, 0.05), some((2, 2, 300), 1, 8, 0.1)
    tiles, slashes, odd = some(shape, 64, 32, 0.3), some(shape, 32, 16, 0.3, "d"), some(shape, 16, 24, 0.2)
    for cells in ((tiles,), (single, shared, tiles), (own,), (own, some((2, 2, 300), 16, 1, 0.02)), (slashes, odd)):
        Case(300, 4, 2, 2, cells, keeps=(NEAR,)).check(backend, 1e-5)
        Case(300, 4, 2, 2, cells).check(backend, 1e-5)
    cells = (some(shape, 64, 32, 0.3, "p"), shared)
    Case(300, 4, 2, 2, cells, keeps=(OWN, cell_of(0, 32)), places=places, within=64).check(backend, 1e-5)


@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 33), st.integers(0, 99))
def test_packed_cells(rows: int, columns: int, size: int, seed: int) -> None:
    """Bits are the cells again, for any band."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(2, 3, rows, columns, generator=generator) < 0.5
    cells = Cells(kept, size, 1, first=size)
    for first in range(rows):
        found = packed(cells).part(Band(size * (1 + first), size * (1 + rows))).cells()
        assert torch.equal(found.kept, kept[:, :, first if rows > 1 else 0 :])
        assert found.key_size == 1 and found.query_size == size
