"""Machine code of kernels that gather keys, without a GPU: they compile, and registers suffice."""

from pathlib import Path

from tests.machine_code import answers, spilled

COMPILE = """
import json
from tests.gather_case import Case, FIRST, shuffled, some
from tests.machine_code import usage
from weft.codegen.ahead import compile_kernel, parse_target
from weft.codegen.configure import portable
from weft.codegen.forward import Kernel
from weft.compiler.plan import Tiling
from weft.selection_tiles import work_of

shape, places = (1, 2, 512), shuffled(1, 2, 512, 256)
single, blocks = some(shape, 512, 1, 0.05), some(shape, 128, 128, 0.5, "p")
cases = {
    "columns": Case(512, 2, 1, 1, (single,)),
    "columns and distances": Case(512, 2, 1, 1, (single, some(shape, 512, 1, 0.002, "d")), keeps=(FIRST,)),
    "columns by query": Case(512, 2, 1, 1, (some(shape, 1, 1, 0.05),)),
    "places": Case(512, 2, 1, 1, (blocks,), places=places, within=256),
    "places and columns": Case(512, 2, 1, 1, (blocks, single), keeps=(FIRST,), places=places, within=256),
}
out = {}
for name, case in cases.items():
    config = portable(90, "bf16", 128, 512, False)
    work = work_of(case.query(), Tiling(config.block_m, config.block_n), "columns" in name)
    kernel = Kernel(work.plan, config, "bf16", 128, tuple(work.batched))
    code = compile_kernel(kernel, parse_target("sm90"), 2, 1).asm["cubin"]
    out[name] = (work.columns is not None, work.key_of is not None, usage(code))
print(json.dumps(out))
"""


def test_kernels_that_gather_compile_for_hopper(tmp_path: Path) -> None:
    for name, (single, placed, usage) in answers(COMPILE, caches=tmp_path).items():
        assert single == ("columns" in name) and placed == ("places" in name)
        sizes = spilled(usage)
        # Pairs looked up by query need 64-bit places; which bit of a byte a distance is outlives the load of the byte.
        most = 512 if "query" in name else 256 if "distances" in name else 32
        assert sizes and max(sizes) <= most, f"{name}: {usage}"
