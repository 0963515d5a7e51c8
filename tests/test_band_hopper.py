"""The specialised kernel of bands and of loops beside listed tiles: its text, run here, and its machine code."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.band_case import Case
from tests.gluon_on_cpu import launcher_on_cpu
from tests.machine_code import answers, spilled, spills
from tests.test_band import (
    BY_HEAD,
    BY_TABLE,
    CAUSAL,
    CHECKS,
    COLUMNS,
    HEADS,
    NOTHING,
    SINKS,
    SPOTS,
    lists_all,
    without_run,
)
from weft.codegen.configure import Config
from weft.compiler.ir import Truth
from weft.compiler.plan import Plan, Region, Tiling

CONFIG = Config(128, 64, 4, 3, True, True)
CUTS = (70, 128, 333)
HALF = partial(Case, n=450, dtype=torch.bfloat16, tiling=Tiling(128, 64))


def run(case: Case, change: Callable[[Plan], Plan] = lambda plan: plan, shift: int = 0) -> None:
    case.check_kernel(change(case.plan()), CUTS, CONFIG, shift=shift, launch=launcher_on_cpu)


@pytest.mark.parametrize("listed", ["", COLUMNS, SPOTS, HEADS])
@pytest.mark.parametrize("looped", [NOTHING, CAUSAL, SINKS, BY_HEAD, BY_TABLE])
def test_one_stream(looped: str, listed: str) -> None:
    """Full runs, listed full tiles, listed partial ones and partial runs, or some of these, or none."""
    run(HALF(looped, listed))


@pytest.mark.parametrize("n", [1, 63, 257, 300])
def test_lengths_and_sizes(n: int) -> None:
    run(HALF(SINKS, COLUMNS, n=n, heads=4, groups=2, batch=2))
    run(HALF(CAUSAL, "", n=n, head_dim=80))


def test_listed_tiles_that_are_all_full() -> None:
    """A mask that cannot fail costs nothing."""
    case = HALF(" { keep q - k > 150 and q - k < 200 }", " { keep k < 128 and q >= 128 }", n=384)

    def certain(plan: Plan) -> Plan:
        return replace(plan, regions=(*plan.regions[:-1], Region((), Truth(True))))

    with pytest.raises(AssertionError, match=CHECKS):
        run(case, certain)
    apart = HALF(" { keep k >= 128 and q - k < 70 and q >= k }", " { keep k < 128 and q >= 128 }", n=384)
    apart.check_kernel(certain(apart.plan()), (128, 256), CONFIG, launch=launcher_on_cpu)


@pytest.mark.parametrize("listed", ["", SPOTS])
@pytest.mark.parametrize("looped", [CAUSAL, SINKS, BY_HEAD])
def test_mistakes_are_noticed(looped: str, listed: str) -> None:
    case = HALF(looped, listed, n=300)
    refused = partial(pytest.raises, AssertionError, match=CHECKS)
    with refused():
        run(case, shift=-1)
    for place in range(sum(len(region.runs) for region in case.plan().regions)):
        with refused():
            run(case, without_run(place))
    if listed:
        with refused():
            run(case, lists_all)


COMPILE = """
import json
from tests.band_case import Case
from tests.machine_code import usage
from tests.test_band import BY_TABLE, CAUSAL, COLUMNS, SINKS, SPOTS
from weft.codegen.ahead import compile_kernel, parse_target
from weft.codegen.configure import Config
from weft.codegen.forward import Kernel
from weft.compiler.plan import Tiling

wide, narrow = Config(128, 128, 4, 2, True, True), Config(128, 64, 4, 3, True, True)
plain, pointers = Config(64, 64, 4, 3, True), Config(64, 64, 4, 3, False)
cases = {
    "band, hopper": (CAUSAL, "", wide),
    "mixed, hopper": (SINKS, COLUMNS, wide),
    "mixed by head, hopper": (BY_TABLE, SPOTS, narrow),
    "band": (SINKS, "", plain),
    "mixed": (SINKS, SPOTS, plain),
    "mixed by head, pointers": (BY_TABLE, COLUMNS, pointers),
}
out = {}
for name, (looped, listed, config) in cases.items():
    plan = Case(looped, listed, tiling=Tiling(config.block_m, config.block_n)).plan()
    code = compile_kernel(Kernel(plan, config, "bf16", 128), parse_target("sm90"), 2, 1).asm["cubin"]
    out[name] = usage(code)
print(json.dumps(out))
"""


def test_machine_code_needs_no_more_than_registers(tmp_path: Path) -> None:
    found = answers(COMPILE, caches=tmp_path)
    assert len(found) == 6
    for name, usage in found.items():
        assert spilled(usage) and not spills(usage), f"{name}: {usage}"
