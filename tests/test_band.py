"""Attention of bands of queries, by loops in closed form and by listed tiles, is attention under the exact mask."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.band_case import Case, band_from
from tests.oracle import NAN
from weft.codegen.configure import Config
from weft.codegen.forward import Kernel, argument_names, steady_arguments
from weft.codegen.launch import kernel_source, launcher
from weft.compiler.ir import Compare, Var
from weft.compiler.plan import Plan, Region, Tiling
from weft.compiler.verify import InternalError, verify

CONFIG = Config(0, 0, 4, 1, False)
# Multiples of tiles and others, a band of one query, one larger than several tiles.
CUTS = (40, 64, 65, 200)

CAUSAL = " { causal }"
WINDOW = " { causal\n keep q - k < 37 }"
SINKS = " { causal\n keep q - k < 50\n keep k < 3 }"
BOTH_WAYS = " { keep |q - k| <= 45 }"
BY_HEAD = " { causal\n keep q - k <= 10 + 20 * h }"
BY_TABLE = "(w: table[head] = [3, 90]) { causal\n keep q - k < w[h] }"
NOTHING = " { keep k < 0 }"
LOOPED = {
    "nothing": NOTHING,
    "causal": CAUSAL,
    "window": WINDOW,
    "sinks": SINKS,
    "both ways": BOTH_WAYS,
    "by head": BY_HEAD,
    "by table": BY_TABLE,
}
# Whole tiles, tiles that keys past the end cut off, and pairs here and there; some are among what loops visit.
COLUMNS = " { causal\n keep k // 32 % 3 == 1 }"
SPOTS = " { keep (q // 7 + k) % 11 == 0\n keep k >= n - 40 }"
HEADS = " { keep (k // 16 + h) % 4 == 0 }"
LISTED = {"columns": COLUMNS, "spots": SPOTS, "heads": HEADS}


def run(case: Case, backend: str, change: Callable[[Plan], Plan] = lambda plan: plan, shift: int = 0) -> None:
    if backend == "cpu":
        case.check_cpu(change(case.plan()), CUTS, shift)
    else:
        case.check_kernel(change(case.plan()), CUTS, CONFIG, shift=shift)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("n", [1, 63, 257, 300])
@pytest.mark.parametrize("looped", LOOPED)
def test_bands(looped: str, n: int, backend: str) -> None:
    run(Case(LOOPED[looped], n=n), backend)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("listed", LISTED)
@pytest.mark.parametrize("looped", LOOPED)
def test_loops_and_lists(looped: str, listed: str, backend: str) -> None:
    """Rows have one or the other, both, or none of them; full tiles and others."""
    run(Case(LOOPED[looped], LISTED[listed]), backend)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("n", [1, 63, 300])
def test_loops_and_lists_at_other_lengths(n: int, backend: str) -> None:
    run(Case(SINKS, COLUMNS, n=n, batch=2), backend)
    run(Case(BY_TABLE, HEADS, n=n), backend)


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("listed", ["", COLUMNS])
def test_types_and_sizes(listed: str, backend: str) -> None:
    """Half precision, head dimensions that tiles pad, tiles that are not square, a single head, heads in groups."""
    # Triton's interpreter has no bf16.
    half = torch.bfloat16 if backend == "cpu" else torch.float16
    run(Case(SINKS, listed, dtype=half, head_dim=80, tiling=Tiling(64, 32)), backend)
    run(Case(WINDOW, listed, head_dim=80, tiling=Tiling(16, 64), heads=1, batch=2), backend)
    run(Case(BY_HEAD, listed, n=200, heads=6, groups=2, dtype=half), backend)


@pytest.mark.parametrize("listed", ["", COLUMNS])
def test_heads_in_one_tile(listed: str) -> None:
    run(Case(WINDOW, listed, tiling=Tiling(16, 32), pack=2, batch=2), "triton")
    run(Case(CAUSAL, listed and SPOTS, heads=8, groups=2, tiling=Tiling(8, 32), pack=4, dtype=torch.float16), "triton")


CHECKS = "above what is allowed|is 0 and|log-sum-exp"


def without_run(place: int) -> Callable[[Plan], Plan]:
    """Leaves out a run: counted over all regions."""

    def change(plan: Plan) -> Plan:
        gone = [run for region in plan.regions for run in region.runs][place]
        kept = [(region, tuple(run for run in region.runs if run is not gone)) for region in plan.regions]
        left = (replace(region, runs=runs) for region, runs in kept if runs or not region.runs)
        return replace(plan, regions=tuple(left))

    return change


def lists_all(plan: Plan) -> Plan:
    """Listed tiles count what loops have counted."""
    there = Compare("<", Var("k"), Var("n"))
    return replace(plan, regions=(*plan.regions[:-1], replace(plan.regions[-1], mask=there)))


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("listed", ["", SPOTS])
@pytest.mark.parametrize("looped", [CAUSAL, SINKS, BY_HEAD])
def test_mistakes_are_noticed(looped: str, listed: str, backend: str) -> None:
    """The checks above see queries that are one token off, runs left out, and pairs counted twice."""
    case = Case(looped, listed, n=150)
    refused = partial(pytest.raises, AssertionError, match=CHECKS)
    with refused():
        run(case, backend, shift=-1)
    for place in range(sum(len(region.runs) for region in case.plan().regions)):
        with refused():
            run(case, backend, without_run(place))
    if listed:
        with refused():
            run(case, backend, lists_all)


def test_plans_that_are_none() -> None:
    """Bands are of plans for any number of queries; listed tiles come last; loops cannot count a band's queries."""
    plan = Case(WINDOW, COLUMNS).plan()
    loops, listed = plan.regions[:-1], plan.regions[-1]
    counted = Compare("<", Var("k"), Var("m"))
    for wrong in (
        replace(plan, shape=replace(plan.shape, square=True)),
        replace(plan, regions=(listed, *loops)),
        replace(plan, regions=loops),
        replace(plan, strategy="run"),
        replace(plan, regions=(replace(loops[0], mask=counted), *plan.regions[1:])),
    ):
        with pytest.raises(InternalError):
            verify(wrong, "test")
    verify(replace(plan, regions=(*loops, Region((), counted))), "test")


@pytest.mark.parametrize("listed", ["", COLUMNS])
def test_loops_say_where_their_tiles_come_from(listed: str) -> None:
    text = kernel_source(Kernel(Case(CAUSAL, listed).plan(), replace(CONFIG, block_m=32, block_n=32), "fp32", 64))
    said = [line.strip() for line in text.splitlines() if "tiles:" in line]
    kinds = [" ".join(line.split()[1:3]) for line in said]
    if listed:
        assert kinds[-2:] == ["listed full", "listed partial"]
        assert set(kinds[:-2]) == {"closed-form full", "closed-form partial"}
    else:
        assert set(kinds) == {"full tiles:", "partial tiles:"}


def test_where_a_band_begins_is_no_other_kernel() -> None:
    """Machine code is kept by launchers: an integer that it depended on would be that of the first band."""
    kernel = Kernel(Case(SINKS, COLUMNS).plan(), replace(CONFIG, block_m=32, block_n=32), "fp32", 64)
    numbers = {"list_batch", "n", "m", "off", "heads", "group", "total_heads"}
    assert numbers <= set(argument_names(kernel)) and numbers == set(steady_arguments(kernel))


def test_results_where_rows_are_not_dense() -> None:
    """Where kernels cannot write, results are copied; a call that gives no place gets tensors of its own."""
    case = Case(WINDOW)
    q, k, v = case.tensors("cpu")
    config = replace(CONFIG, block_m=32, block_n=32)
    run = launcher(Kernel(case.plan(), config, "fp32", 64)).run
    out, lse = run(q[:, :, 40:90], k, v, 0.125, band_from(40), {})
    spread = torch.full((*out.shape[:3], 128), NAN)
    found, sums = run(q[:, :, 40:90], k, v, 0.125, band_from(40), {}, spread[..., ::2])
    assert torch.equal(found, out) and torch.equal(sums, lse)
    assert torch.equal(spread[..., ::2], out) and spread[..., 1::2].isnan().all()
