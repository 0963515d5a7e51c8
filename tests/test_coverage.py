"""Coverage reports against brute force: random patterns in random stacks, every number of the report."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests import coverage_brute as brute
from tests.brute import Bools
from tests.strategies import HEADS, files, load
from weft.compiler.cover import Request, cover
from weft.compiler.coverage import Coverage, LayerFacts
from weft.compiler.dense import dense_mask
from weft.compiler.ir import Clause, Compare, Const, Mask, Var
from weft.compiler.plan import Shape
from weft.compiler.stack import Assignment, LoweredStack
from weft.dsl.syntax import File

SHAPE = Shape(True, HEADS, 1)
Layers = list[list[tuple[tuple[int, ...], Mask]]]


@st.composite
def piles(draw: st.DrawFn) -> Layers:
    """One to five layers over one or two random patterns; in some of them heads differ."""
    masks = [load(draw(files(inputs=False))).bind(HEADS, 1) for _ in range(draw(st.integers(1, 2)))]
    everyone = tuple(range(HEADS))
    out: Layers = []
    for _ in range(draw(st.integers(1, 5))):
        first, second = draw(st.sampled_from(masks)), draw(st.sampled_from(masks))
        cut = draw(st.sampled_from([HEADS, 1]))
        out.append([(everyone[:cut], first), *([(everyone[cut:], second)] if cut < HEADS else [])])
    return out


def stack_of(layers: Layers) -> LoweredStack:
    return LoweredStack("pile", "", tuple(tuple(Assignment(h, m, m.name) for h, m in one) for one in layers), ())


def dense(layers: Layers, n: int) -> list[Bools]:
    """[heads, n, n] of every layer, by the definition of a mask."""
    out: list[Bools] = []
    for layer in layers:
        kept = np.zeros((HEADS, n, n), dtype=bool)
        for heads, mask in layer:
            found = dense_mask(mask, n, n, SHAPE, {})
            for h in heads:
                kept[h] = found[h] if found.ndim == 3 else found
        out.append(kept)
    return out


@settings(deadline=None)
@given(piles(), st.integers(1, 70) | st.sampled_from([128, 129, 200, 256]), st.data())
def test_every_number(layers: Layers, n: int, data: st.DataObject) -> None:
    key, query = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
    report = cover(stack_of(layers), Request(n, HEADS, 1, path=(key, query)), {})
    assume("drawn at random" not in report.undecided)  # more draws than are followed pair by pair
    kept = dense(layers, n)
    right = brute.facts(kept)
    assert report.undecided == "" and report.admissible == right.admissible.sum()
    assert report.causal == (not right.admissible.all() or n == 1)
    check_layers(report, kept)
    check_depths(report, right)
    check_heads(report, kept, right)
    check_route(report, right)


def check_layers(report: Coverage, kept: Sequence[Bools]) -> None:
    assert sorted(place for facts in report.layer_facts for place in facts.layers) == list(range(len(kept)))
    for facts in report.layer_facts:
        for place in facts.layers:
            check_layer(facts, kept[place])


def check_layer(facts: LayerFacts, kept: Bools) -> None:
    union, n = np.asarray(kept.any(axis=0)), kept.shape[1]
    rows = union.sum(axis=1)
    assert facts.exact and facts.heads == HEADS
    assert (facts.pairs, facts.head_pairs) == (union.sum(), kept.sum()) and facts.possible_head_pairs == kept.sum()
    assert (facts.least, facts.most, facts.empty) == (rows.min(), rows.max(), (rows == 0).sum())
    assert facts.first_empty == (int(rows.argmin()) if facts.empty else None)
    edges = range(0, n, 128)
    tiles = [kept[:, i : i + 128, j : j + 128] for i in edges for j in edges]
    areas = [tile.shape[1] * tile.shape[2] for tile in tiles]
    touched = sum(area * int(tile.any(axis=(1, 2)).sum()) for area, tile in zip(areas, tiles, strict=True))
    assert touched <= facts.tile_pairs <= 128 * 128 * len(tiles) * HEADS and (n > 128 or facts.tile_pairs == touched)
    assert facts.live == facts.cached == brute.live(union)
    assert (facts.again is not None) == brute.dropped_too_early(union)
    if facts.again:
        key, skipped, needed = facts.again.key, facts.again.skipped_by, facts.again.needed_by
        assert key <= skipped < needed and not union[skipped, key] and union[needed, key]


def check_depths(report: Coverage, right: brute.Facts) -> None:
    assert report.complete_at == right.complete_at
    last = right.complete_at or len(right.unions)
    assert [facts.depth for facts in report.depths] == list(range(1, last + 1))
    for facts in report.depths:
        reached = right.reached[facts.depth] & right.admissible
        assert facts.pairs == facts.possible == reached.sum()
        shares = reached.sum(axis=1) / right.admissible.sum(axis=1)
        assert facts.last.row == len(shares) - 1 and facts.worst.reached / facts.worst.admissible == shares.min()
        for row in (facts.last, facts.worst):
            assert (row.reached, row.admissible) == (reached[row.row].sum(), right.admissible[row.row].sum())
            assert row.contiguous == brute.contiguous(right.reached[facts.depth][row.row], row.row)
    assert (report.limit, report.limit_depth) == (right.limit, right.complete_at or right.limit_depth)
    if report.hole is None:
        assert right.complete_at is not None
    else:
        assert right.admissible[report.hole] and not right.reached[-1][report.hole]
    for picture in report.pictures:
        if picture.depth:
            cell, reached = picture.cell, right.reached[picture.depth] & right.admissible
            for i, row in enumerate(picture.shares):
                for j, share in enumerate(row):
                    square = reached[i * cell : (i + 1) * cell, j * cell : (j + 1) * cell]
                    assert abs(share - square.mean()) < 1e-4


def check_heads(report: Coverage, kept: Sequence[Bools], right: brute.Facts) -> None:
    told = {h: facts for facts in report.head_facts for h in facts.members}
    for h in range(HEADS):
        alone = brute.facts([layer[h : h + 1] for layer in kept])
        reached = [r & right.admissible for r in alone.reached]
        if h in told:
            whole = [d for d, r in enumerate(reached) if d and (r | ~right.admissible).all()]
            assert told[h].complete_at == min(whole, default=None) and told[h].pairs == reached[-1].sum()
        else:
            assert all(np.array_equal(layer[h], layer.any(axis=0)) for layer in kept)


def check_route(report: Coverage, right: brute.Facts) -> None:
    route = report.route
    assert route is not None
    depths = [d for d, r in enumerate(right.reached[: len(report.depths) + 1]) if r[route.query, route.key]]
    assert route.depth == min(depths, default=None)
    at, layer = route.query, route.depth or 0
    for hop in route.hops:
        assert hop.query == at and hop.layer < layer and right.unions[hop.layer][hop.query, hop.key]
        at, layer = hop.key, hop.layer
    assert at == route.key or route.depth is None


@settings(deadline=None)
@given(files(inputs=False), st.integers(1, 60), st.integers(1, 4))
def test_deeper_never_reaches_less(file: File, n: int, layers: int) -> None:
    mask = load(file).bind(HEADS, 1)
    report = cover(stack_of([[(tuple(range(HEADS)), mask)]] * layers), Request(n, HEADS, 1), {})
    pairs = [facts.pairs for facts in report.depths]
    assert pairs == sorted(pairs) and all(pairs[-1] <= count for count in (report.limit, report.admissible))


@settings(deadline=None)
@given(files(inputs=False), st.integers(1, 60), st.integers(1, 3))
def test_another_clause_never_reaches_less(file: File, n: int, layers: int) -> None:
    """One more `keep` unites with the mask, unless there was none, which keeps everything."""
    mask = load(file).bind(HEADS, 1)
    if not any(clause.kind == "keep" for clause in mask.clauses):
        return
    wider = replace(mask, clauses=(*mask.clauses, Clause("keep", Compare("<", Var("k"), Const(3)), "keep k < 3")))
    before, after = (
        cover(stack_of([[(tuple(range(HEADS)), one)]] * layers), Request(n, HEADS, 1), {}) for one in (mask, wider)
    )
    assume(not before.undecided and not after.undecided)
    last = len(after.depths) - 1
    for place, facts in enumerate(before.depths):
        assert facts.pairs <= after.depths[min(place, last)].pairs
