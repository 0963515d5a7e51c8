"""The kernels that rank, as machine code for Hopper: nothing is spilled, and rows are read in wide loads."""

from tests.machine_code import answers, spills

COMPILE = """
import json, sys
import torch
from tests.machine_code import usage
from weft.codegen import rank_kernel
from weft.codegen.ahead import _pretend, parse_target
from weft.codegen.rank import rank_rows
from weft.compiler.selection import Chosen, Number

made = []


def only_compile(function):
    run = function.run

    def compile(*given, warmup, **options):
        function.device_caches.pop(-1, None)
        made.append(run(*given, warmup=True, **options))
        function.device_caches.pop(-1, None)

    function.run = compile


def case(rule, count, forced):
    score = torch.empty(1, 2, 1, 3, count)
    flags = score > 0
    one = Chosen(rule, Number(0.5), False, "visible", "J", "I", Number(0), None, None, "")
    with _pretend(parse_target("sm90")):
        rank_rows(one, score, flags[:, :1], flags if forced else None)
    return made[-1].name, made[-1].asm["ptx"], usage(made[-1].asm["cubin"])


only_compile(rank_kernel.rank_held)
only_compile(rank_kernel.rank_long)
print(json.dumps([case(*each) for each in json.loads(sys.argv[1])]))
"""


def compiled(*cases: tuple[str, int, bool]) -> list[tuple[str, str, str]]:
    """Name, text and use of the machine for each rule, count of cells and whether any are forced."""
    return [tuple(code) for code in answers(COMPILE, cases)]


def test_rows_held_in_registers() -> None:
    """Short rows, those of one warp, of two and of sixteen; counts that no lane holds side by side."""
    counts = (16, 64, 1024, 2048, 16384, 500, 8191)
    cases = [(rule, count, rule != "top") for rule in ("top", "cover") for count in counts]
    for case, (name, text, usage) in zip(cases, compiled(*cases), strict=True):
        assert name == "rank_held" and usage and not spills(usage), case
        assert ("ld.global.v4.b32" in text) == (case[1] % 16 == 0), case
        assert ("bar.sync" in text) == (case[1] > 1024), case


def test_every_rule_read_in_steps() -> None:
    """Steps are read while those before are looked at."""
    cases = [(rule, 1 << 17, rule == "under") for rule in ("top", "cover", "reach", "under")] + [("reach", 16385, True)]
    for case, (name, text, usage) in zip(cases, compiled(*cases), strict=True):
        assert name == "rank_long" and usage and not spills(usage), case
        assert ("cp.async.cg.shared.global" in text) == (case[1] % 16 == 0), case
