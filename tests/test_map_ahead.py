"""Generated kernels of maps as machine code: matrix units, wide asynchronous copies, and nothing spilled."""

from tests.machine_code import Code, answers

COMPILE = """
import json, sys
import torch, weft
from tests.brute import PATTERNS
from tests.machine_code import usage
from weft.codegen import map_call
from weft.codegen.ahead import _pretend, parse_target
from weft.codegen.scores import call_of, evaluate

real = map_call._compiled


class Compiler:
    # In place of a kernel's function: compiles where it would launch.
    def __init__(self, function, target, codes):
        self.function, self.target, self.codes = function, target, codes

    def __getitem__(self, grid):
        return self.run

    def run(self, *given, **options):
        with _pretend(parse_target(self.target)):
            self.function.device_caches.pop(-1, None)
            made = self.function.run(*given, grid=(1,), warmup=True, **options)
            self.function.device_caches.pop(-1, None)
        taken = usage(made.asm["cubin"]) if "cubin" in made.asm else ""
        self.codes.append((made.asm.get("ptx", ""), taken, made.metadata.shared))


def case(target, name, title, dtype, n, d):
    codes = []

    def compiled(kernel):
        function, parameters = real(kernel)
        return Compiler(function, target, codes), parameters

    map_call._compiled, map_call.suits = compiled, lambda *_: True
    map_call.architecture = lambda _: int(target[2:]) if target.startswith("sm") else 0
    program = weft.load(PATTERNS / "selection" / f"{name}.sparse").program(4, 2)
    q, k, v = (torch.zeros(1, heads, n, d, dtype=getattr(torch, dtype)) for heads in (4, 2, 2))
    counts = {axis.name: axis.count or n for axis in program.axes} | {"q": n, "k": n}
    given = {x.name: torch.zeros(1, 1, *(counts[a] for a in x.axes), *[d] * x.vector).to(q) for x in program.givens}
    call = call_of(program, q, k, v, 0.1, given)
    score = next(score for score in program.scores if score.name == title)
    evaluate(score.value, call, {axis: call.domain(axis) for axis in score.axes})
    return codes


print(json.dumps([case(*each) for each in json.loads(sys.argv[1])]))
"""


def compiled(*cases: tuple[str, str, str, str, int, int]) -> list[list[Code]]:
    """The kernels of a target, rule, score, type, length and head dim, made in a process without the interpreter."""
    return [[Code(*code) for code in codes] for codes in answers(COMPILE, cases)]


def test_hopper() -> None:
    """Row reductions, several products, weights of several heads, loops over things."""
    cases = [
        ("anchor_attention", "largest"),
        ("nsa_selected", "score"),
        ("quest", "bound"),
        ("deepseek_indexer", "index"),
    ]
    found = compiled(*(("sm90", name, title, "bfloat16", 2048, 128) for name, title in cases))
    for (name, _), codes in zip(cases, found, strict=True):
        assert len(codes) == (2 if name == "nsa_selected" else 1)
        for code in codes:
            assert code.usage and not code.spills and code.shared <= 227 * 1024
            assert "wgmma.mma_async" in code.text and "cp.async.ca" not in code.text
            # A single tile is loaded at once, and what comes in a loop ahead.
            assert ("cp.async.cg.shared.global" in code.text) == (name != "quest")


def test_other_cases() -> None:
    """Ragged lengths and fp32, which has no product of its own kind; older and other devices."""
    ragged, exact, old, amd = compiled(
        ("sm90", "flash_prefill", "sums", "float16", 1003, 80),
        ("sm90", "anchor_attention", "largest", "float32", 1003, 128),
        ("sm80", "nsa_selected", "score", "bfloat16", 1003, 128),
        ("gfx942", "quest", "bound", "bfloat16", 1003, 128),
    )
    assert all("wgmma.mma_async" in code.text and "tf32" not in code.text for code in (*ragged, *exact))
    assert all("mma.sync" in code.text and code.shared <= 99 * 1024 for code in old)
    assert not any(code.spills for code in (*ragged, *exact, *old))
    assert amd[0].shared <= 64 * 1024
