"""The fused kernels as machine code for Hopper: its matrix units, wide asynchronous copies, and nothing spilled."""

from tests.machine_code import Code, answers

COMPILE = """
import json, sys
import torch
from tests.machine_code import usage
from weft.codegen.ahead import _pretend, parse_target
from weft.codegen.weigh_fused import Affine, Fold, Ratios, Weighing, configuration, scoring
from weft.codegen.weigh_fused_kernel import cell_sums, piece_sums


def compiled(target, function, given, options):
    with _pretend(parse_target(target)):
        function.device_caches.pop(-1, None)
        made = function.run(*given, grid=(1,), warmup=True, **options)
        function.device_caches.pop(-1, None)
    taken = usage(made.asm["cubin"]) if "cubin" in made.asm else ""
    return made.asm.get("ptx", ""), taken, made.metadata.shared


def case(target, dtype, n, d):
    q, k = (torch.empty(1, 2, heads, n, d, dtype=getattr(torch, dtype)) for heads in (4, 1))
    cells = -(-n // 16)
    one = Weighing(Fold(q, 0, cells, 16, -1, 15), Fold(k, 0, cells, 16, 1, 0), 0.1, 16, Affine(1, 1, 0), Ratios(8, 8))
    config = configuration(int(target[2:]) if target.startswith("sm") else 0, 8 * q.itemsize, cells, cells, d)
    arguments, options = scoring(one, config, (0, cells, cells), (8, 1, 8), 0)
    x = torch.empty(16)
    first = compiled(target, piece_sums, (q, k, x, x, x, 4, 4, *arguments), options)
    second = compiled(target, cell_sums, (x, x, x, 64, 64, 64, *[4] * 7, 8, False, 1024), {})
    return first, second


print(json.dumps([case(*each) for each in json.loads(sys.argv[1])]))
"""


def compiled(*cases: tuple[str, str, int, int]) -> list[tuple[Code, Code]]:
    """Both kernels of each target, dtype, length and head dim, compiled in a process without the interpreter."""
    return [(Code(*first), Code(*second)) for first, second in answers(COMPILE, cases)]


def test_hopper() -> None:
    for first, second in compiled(("sm90", "bfloat16", 8192, 128), ("sm90", "float16", 8192, 80)):
        assert first.usage and not first.spills and not second.spills
        assert "wgmma.mma_async" in first.text and "cp.async.cg.shared.global" in first.text
        assert "cp.async.ca" not in first.text and first.shared <= 227 * 1024


def test_other_cases() -> None:
    """Ragged lengths, fp32 without shortcuts, older and other devices."""
    ragged, exact, old, amd = compiled(
        ("sm90", "bfloat16", 8191, 128),
        ("sm90", "float32", 8192, 128),
        ("sm80", "float16", 8191, 20),
        ("gfx942", "bfloat16", 8192, 128),
    )
    assert "wgmma.mma_async" in ragged[0].text and "tf32" not in exact[0].text
    assert "mma.sync" in old[0].text and not amd[0].text and amd[0].shared <= 64 * 1024
