"""Tiles, loops and the masks left in them, against the dense mask: nothing visited twice, nothing missed or added."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import weft
from tests.brute import PATTERNS, Bools
from tests.brute import load as load_shipped
from tests.oracle import SMALL, definition, small_inputs
from tests.strategies import HEADS, LAYERS, files, load
from weft.codegen.search import TORCH
from weft.codegen.tables import gather, tile_lists
from weft.compiler import relation
from weft.compiler.compare_loops import require_visits
from weft.compiler.dense import dense_mask
from weft.compiler.evaluate import INTEGERS, number, truth
from weft.compiler.expand import NUMPY, expand, expand_run, query_tiles, row_values
from weft.compiler.intervals import Interval, interval, read_key, verdict
from weft.compiler.ir import Const
from weft.compiler.pipeline import make_plan
from weft.compiler.plan import Plan, Shape, Tiling
from weft.compiler.walk import expressions, parts, reads
from weft.dsl.syntax import File

TILINGS = (Tiling(16, 16), Tiling(32, 64), Tiling(48, 32), Tiling(128, 128))
SHIPPED = sorted(path.stem for path in PATTERNS.glob("*.sparse"))


def shipped(name: str) -> weft.Pattern:
    return load_shipped(name, **SMALL.get(name, {}))


def tiles_of(mask: Bools, tiling: Tiling) -> tuple[Bools, Bools]:
    """[heads, i, j]: tiles with a pair, and tiles whose rows, where they exist, keep every key, all of which exist."""
    heads, m, n = mask.shape
    rows, columns = -(-m // tiling.block_m), -(-n // tiling.block_n)
    room = np.zeros((heads, rows * tiling.block_m, columns * tiling.block_n), dtype=bool)
    room[:, :m, :n] = mask
    touched = room.reshape(heads, rows, tiling.block_m, columns, tiling.block_n).any(axis=(2, 4))
    room[:, m:] = True
    filled = room.reshape(heads, rows, tiling.block_m, columns, tiling.block_n).all(axis=(2, 4))
    return np.asarray(touched), np.asarray(filled & touched)


def listed(plan: Plan, lists: Any, mask: Bools) -> tuple[Bools, Bools]:
    """[heads, i, j]: tiles on the lists, and those listed as full; every tile once."""
    touched, _ = tiles_of(mask, plan.tiling)
    found, full = np.zeros_like(touched), np.zeros_like(touched)
    heads, rows, columns = touched.shape
    assert len(lists.start) == (heads if plan.per_head else 1) * rows + 1
    for h in range(heads):
        for i in range(rows):
            row = i + (h * rows if plan.per_head else 0)
            begin, middle, end = int(lists.start[row]), int(lists.split[row]), int(lists.start[row + 1])
            assert begin <= middle <= end
            tiles = lists.tiles[begin:end].tolist()
            assert len(set(tiles)) == len(tiles), f"head {h}, query tile {i} visits a tile twice: {tiles}"
            assert all(0 <= j < columns for j in tiles), f"head {h}, query tile {i} leaves the keys: {tiles}"
            found[h, i, tiles] = True
            full[h, i, tiles[: middle - begin]] = True
    return found, full


def check_lists(pattern: weft.Pattern, plan: Plan, n: int, m: int, heads: int, kv_heads: int, **rest: Any) -> None:
    """The lists of a plan for one pair of lengths: touched tiles exactly; full tiles are full."""
    mask = definition(pattern, n, m, heads, kv_heads, **rest)
    inputs = {name: np.asarray(x) for name, x in rest.items() if name not in ("layer", "layers")}
    tables = gather(plan, inputs, n, m).of(0)
    touched, filled = tiles_of(mask, plan.tiling)
    found, full = listed(plan, tile_lists(plan, tables, n, m, torch.device("cpu")), mask)
    assert np.array_equal(found, touched), f"tiles {np.argwhere(found != touched)[:3].tolist()} of [head, i, j]"
    assert not (full & ~filled).any(), f"not full: {np.argwhere(full & ~filled)[:3].tolist()}"
    if plan.strategy != "table":
        check_regions(plan, mask, tables, n, m)


def check_regions(plan: Plan, mask: Bools, tables: dict[str, np.ndarray], n: int, m: int) -> None:
    """On every tile of a region, its mask says what the dense mask says."""
    block_m, block_n = plan.tiling.block_m, plan.tiling.block_n
    count, heads = query_tiles(plan, m), len(mask) if plan.per_head else 1
    values = row_values(plan, n, m, tables, np.arange(heads), 0, count)
    room = np.zeros((len(mask), m, -(-n // block_n) * block_n), dtype=bool)
    room[:, :, :n] = mask
    for region in plan.regions:
        for run in region.runs:
            for row, j in zip(*expand_run(run, values), strict=True):
                h, i = divmod(int(row), count)
                q = np.arange(i * block_m, min(m, (i + 1) * block_m))[:, None] + (n - m)
                k = np.arange(int(j) * block_n, int(j + 1) * block_n)[None, :]
                here: dict[str, Any] = {name: x if np.ndim(x) == 0 else x[row] for name, x in values.items()}
                here |= {"q": q, "k": k}
                got = np.broadcast_to(truth(region.mask, here, tables, NUMPY), (len(q), k.shape[1]))
                want = room[h, i * block_m : i * block_m + len(q), j * block_n : (j + 1) * block_n]
                assert np.array_equal(got, want), f"head {h}, tile ({i}, {j}), mask {region.mask}"


def plan_of(pattern: weft.Pattern, n: int, m: int, heads: int, kv_heads: int, tiling: Tiling, **rest: int) -> Plan:
    layer, layers = rest.get("layer", 0), rest.get("layers", 1)
    shape = pattern.shape(n, m, heads, kv_heads, layer, layers)
    return make_plan(pattern.bind(heads, kv_heads, layer, layers), shape, tiling)


lengths = st.tuples(st.integers(1, 90), st.integers(1, 90))


@given(files(), lengths, st.sampled_from(TILINGS), st.integers(0, LAYERS - 1), st.integers(0, 9))
def test_random_patterns(file: File, size: tuple[int, int], tiling: Tiling, layer: int, seed: int) -> None:
    pattern, (n, m) = load(file), size
    rest: dict[str, Any] = {"layer": layer, "layers": LAYERS}
    plan = plan_of(pattern, n, m, HEADS, HEADS, tiling, **rest)
    check_lists(pattern, plan, n, m, HEADS, HEADS, **rest, **small_inputs(pattern, n, m, seed, HEADS))


@given(files(inputs=False), st.lists(st.integers(1, 150), min_size=2, max_size=4), st.sampled_from(TILINGS))
def test_one_plan_serves_all_lengths(file: File, sizes: list[int], tiling: Tiling) -> None:
    pattern = load(file)
    plan = plan_of(pattern, sizes[0], sizes[0], HEADS, 1, tiling)
    for n in sizes:
        check_lists(pattern, plan, n, n, HEADS, 1)


@pytest.mark.parametrize("tiling", TILINGS, ids=lambda t: f"{t.block_m}x{t.block_n}")
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_patterns(name: str, tiling: Tiling) -> None:
    pattern = shipped(name)
    for n, m in ((1, 1), (99, 99), (200, 200), (131, 40), (17, 60), (150, 1)):
        plan = plan_of(pattern, n, m, 4, 2, tiling)
        check_lists(pattern, plan, n, m, 4, 2, **small_inputs(pattern, n, m))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_patterns_at_length(name: str) -> None:
    """Thousands of tokens, where the parameters of the papers begin to matter; head 0 and the last one."""
    given_ = {k: v for k, v in SMALL.get(name, {}).items() if name in ("moa", "neighborhood_2d", "neighborhood_3d")}
    needed: dict[str, Any] = {"prefix_lm": {"prefix": 700}, "shared_prefix": {"prefix": 700}, "radial": {"frame": 300}}
    pattern = load_shipped(name, **(needed.get(name) or given_))
    longest = 1500 if name in ("bigbird", "radial") else 5000  # tiles of theirs are found pair by pair
    for n, m in ((longest, longest), (longest * 4 // 5 + 97, 1000)):
        plan = plan_of(pattern, n, m, 4, 2, Tiling(128, 128))
        inputs = {key: np.asarray(x) for key, x in small_inputs(pattern, n, m).items()}
        tables = gather(plan, inputs, n, m).of(0)
        lists = tile_lists(plan, tables, n, m, torch.device("cpu"))
        rows = -(-m // 128)
        shape = Shape(n == m, 4, 2)
        for i in (0, 1, rows // 2, rows - 1):
            part = dense_mask(pattern.bind(4, 2), n, m, shape, inputs, slice(i * 128, (i + 1) * 128))
            part = part if part.ndim == 3 else part[None]
            for h in {0, len(part) - 1}:
                touched, filled = tiles_of(part[h : h + 1], plan.tiling)
                row = i + (h * rows if plan.per_head else 0)
                tiles = lists.tiles[lists.start[row] : lists.start[row + 1]]
                assert sorted(tiles.tolist()) == np.nonzero(touched[0, 0])[0].tolist()
                assert filled[0, 0, lists.tiles[lists.start[row] : lists.split[row]]].all()


@pytest.mark.parametrize("name", SHIPPED)
def test_loops_visit_what_the_lists_hold(name: str) -> None:
    """A plan's loops at up to 5000 tokens give sorted, disjoint lists inside the keys."""
    pattern = shipped(name)
    plan = plan_of(pattern, 5000, 5000, 4, 2, Tiling(128, 64))
    if plan.strategy == "table":
        pytest.skip("no loops: the tiles depend on data")
    for n in (64, 1000, 2500, 4999, 5000):
        lists = expand(plan, n, n, {t.name: np.asarray(t.values) for t in plan.mask.tables})
        for begin, middle, end in zip(lists.start[:-1], lists.split, lists.start[1:], strict=True):
            tiles = lists.tiles[begin:end]
            assert (np.diff(tiles[: middle - begin]) > 0).all() and (np.diff(tiles[middle - begin :]) > 0).all()
            assert len(np.unique(tiles)) == len(tiles)
            assert not len(tiles) or (tiles.min() >= 0 and tiles.max() < -(-n // 64))


@pytest.mark.parametrize(("size", "block"), [(160, 128), (40, 32)])
@pytest.mark.parametrize("heads", [3, 4])
def test_loops_that_isl_gets_wrong_are_not_used(size: int, block: int, heads: int) -> None:
    """isl 2026.2.2 loses the tiles of all heads but one where a stride's first tile depends on the head."""
    pattern, tiling = weft.load(f"pattern p {{ causal\n keep (k // {size} + h) % 2 == 0 }}"), Tiling(block, block)
    plan = plan_of(pattern, 1000, 1000, heads, heads, tiling)
    assert plan.strategy == "table" and plan.reason == "isl made loops that visit other tiles"
    check_lists(pattern, plan, 1000, 1000, heads, heads)


def test_loops_are_compared_with_their_tiles() -> None:
    """One loop too few, one twice, and one of other tiles."""
    mask, tiling = weft.load("sliding_window", window=300).bind(), Tiling(64, 64)
    plan = make_plan(mask, Shape(True), tiling)
    space = relation.space_of(plan.shape, plan.formula)
    must = relation.pairs(plan.formula, space, padded=True)
    touched = relation.tiles(must.intersect(space.domain()), must, space, 64, 64).touched
    loops = [run for region in plan.regions for run in region.runs]
    require_visits(loops, touched, space, 64)
    for wrong in (loops[1:], [*loops, loops[0]], [*loops[1:], replace(loops[0], low=Const(0))]):
        with pytest.raises(relation.UndecidedError, match="isl made loops that visit"):
            require_visits(wrong, touched, space, 64)


def test_full_tiles_are_found() -> None:
    """Nothing above would fail if no tile were ever called full."""
    for name, least, params in (
        ("causal_attention", 0.8, {}),
        ("sliding_window", 0.4, {"window": 512}),
        ("longformer", 0.5, {"window": 512}),
        ("prefix_lm", 0.8, {"prefix": 700}),
    ):
        plan = load_shipped(name, **params).plan(4096)
        lists = expand(plan, 4096, 4096, {})
        assert (lists.split - lists.start[:-1]).sum() / len(lists.tiles) > least, name


@given(files(), lengths, st.data())
def test_intervals_hold_every_value(file: File, size: tuple[int, int], data: st.DataObject) -> None:
    """`must` is never said of a box with an exception, `may` never denied to one with an example."""
    pattern, (n, m) = load(file), size
    mask = pattern.bind(HEADS, 1)
    given_ = {name: np.asarray(x) for name, x in small_inputs(pattern, n, m, heads=HEADS).items()}
    shape = Shape(n == m, HEADS, 1)
    tables = gather(Plan(mask, shape, TILINGS[0]), given_, n, m).of(0)
    q0, q1 = sorted(data.draw(st.integers(n - m, n - 1)) for _ in range(2))
    k0, k1 = sorted(data.draw(st.integers(0, n - 1)) for _ in range(2))
    h = data.draw(st.integers(0, HEADS - 1))
    boxes = {"q": Interval(q0, q1), "k": Interval(k0, k1)}
    boxes |= {name: Interval(v, v) for name, v in {"h": h, "g": 0, "n": n, "m": m}.items()}
    values: dict[str, Any] = {"q": np.arange(q0, q1 + 1)[:, None], "k": np.arange(k0, k1 + 1)[None, :]}
    values |= {"h": h, "g": 0, "n": n, "m": m}
    ranges: dict[str, Interval] = {}
    for read in reads(mask.formula):
        seen = number(read, values, tables, NUMPY)
        ranges[read_key(read)] = Interval(int(np.min(seen)), int(np.max(seen)))
    for expr in expressions(mask.formula):
        for part in parts(expr):
            seen = number(part, values, tables, NUMPY)
            bounds = interval(part, boxes, ranges)
            assert bounds.low <= np.min(seen) and np.max(seen) <= bounds.high, part
    kept = np.broadcast_to(truth(mask.formula, values, tables, NUMPY), (q1 - q0 + 1, k1 - k0 + 1))
    found = verdict(mask.formula, boxes, ranges, INTEGERS)
    assert kept.all() or not found.must
    assert not kept.any() or found.may
    many = {name: Interval(torch.tensor([b.low]), torch.tensor([b.high])) for name, b in boxes.items()}
    wide = {key: Interval(torch.tensor([b.low]), torch.tensor([b.high])) for key, b in ranges.items()}
    both = verdict(mask.formula, many, wide, TORCH)
    assert (bool(both.must), bool(both.may)) == (bool(found.must), bool(found.may))


def test_reads_have_names_of_their_own() -> None:
    pattern = weft.load("pattern p { input doc[token]: int\n keep doc[q] == doc[k] }")
    assert len({read_key(read) for read in reads(pattern.bind().formula)}) == 2
