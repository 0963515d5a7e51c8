"""Machine code without a GPU: every pattern compiles, registers suffice, full tiles pay nothing, caches are hit."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.brute import PATTERNS
from tests.brute import load as load_shipped
from tests.machine_code import answers, spilled, spills

SHIPPED = sorted(path.stem for path in PATTERNS.glob("*.sparse"))
# What patterns need that have no defaults.
NEEDED: dict[str, dict[str, Any]] = {
    "moa": {"alpha": [[0, 512, 1024, 64]], "beta_eighths": [[1, 2, 4, 8]]},
    "neighborhood_2d": {"height": 64, "width": 64},
    "neighborhood_3d": {"frames": 8, "height": 32, "width": 32},
    "prefix_lm": {"prefix": 700},
    "radial": {"frame": 1024},
    "shared_prefix": {"prefix": 700},
}
# Each target takes every fourth pattern; the order turns so that no strategy is left out of a target.
TARGETS = ("sm80", "sm90", "sm100", "gfx942")
SETTINGS = {"sm80": ("fp16", 64), "sm90": ("bf16", 80), "sm100": ("bf16", 128), "gfx942": ("fp16", 128)}
# Kernels for Hopper take seconds each: one pattern of every strategy.
HOPPER = ("causal_attention", "longformer", "packed_documents")

COMPILE = """
import json, sys
import triton, weft
from tests.machine_code import usage
from weft.ahead import case_of
from weft.check import natural_heads
from weft.codegen.ahead import compile_kernel, parse_target
from weft.codegen.choose import kernels_for

hits = []
triton.knobs.compilation.listener = lambda **seen: hits.append(seen["cache_hit"])
target, dtype, head_dim, hopper, patterns = json.loads(sys.argv[1])
out = []
for name, params in patterns:
    pattern = weft.load(name, **params)
    heads = natural_heads(pattern)
    shape = pattern.shape(8192, 8192, heads)
    kernels = kernels_for(pattern.bind(heads), shape, case_of(target, dtype, head_dim), 8192)
    for kernel in [k for k in kernels if k.config.hopper] if hopper else kernels[-1:]:
        compiled = compile_kernel(kernel, parse_target(target), heads, heads)
        taken = usage(compiled.asm["cubin"]) if "cubin" in compiled.asm else ""
        code = "cubin" if target.startswith("sm") else "hsaco"
        out.append((name, kernel.plan.strategy, kernel.config.hopper, len(compiled.asm[code]), taken))
print(json.dumps([out, hits]))
"""


def compile_for(
    target: str, names: tuple[str, ...], folder: Path, hopper: bool = False
) -> tuple[list[Any], list[bool]]:
    """Compile in a process without the interpreter: name, strategy, hopper, size, resources; and cache hits."""
    dtype, head_dim = ("bf16", 128) if hopper else SETTINGS[target]
    wanted = (target, dtype, head_dim, hopper, [(name, NEEDED.get(name, {})) for name in names])
    kernels, hits = answers(COMPILE, wanted, folder)
    return kernels, hits


@pytest.mark.parametrize("place", range(len(TARGETS)), ids=TARGETS)
def test_shipped_patterns_compile(place: int, tmp_path: Path) -> None:
    names = tuple(name for index, name in enumerate(SHIPPED) if index % len(TARGETS) == place)
    kernels, _ = compile_for(TARGETS[place], names, tmp_path)
    assert [kernel[0] for kernel in kernels] == list(names)
    assert all(size > 1000 for *_, size, _ in kernels)


def test_hopper_kernels_compile_and_do_not_spill(tmp_path: Path) -> None:
    kernels, _ = compile_for("sm90", HOPPER, tmp_path, hopper=True)
    assert {kernel[1] for kernel in kernels} == {"run", "list", "table"}
    for name, _, hopper, _, usage in kernels:
        assert hopper
        assert len(spilled(usage)) == 2 and not spills(usage), f"{name} spills: {usage}"


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    """Triton's cache is hit for the very same text and arguments, and neither cache grows."""
    names = ("causal_attention", "packed_documents", "s2_attention")
    found = list[tuple[list[bool], set[Path]]]()
    for _ in range(2):
        _, hits = compile_for("sm80", names, tmp_path)
        found.append((hits, {path for path in tmp_path.rglob("*") if path.is_file()}))
    (first, made), (second, again) = found
    assert first == [False] * 3 and second == [True] * 3
    assert made == again


# --- what the text says -----------------------------------------------------------------------------------------------


def loops(text: str) -> Iterator[tuple[bool, ast.For]]:
    """Loops over key tiles of a plain kernel, and whether the comment above says that their tiles are full."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.For):
            yield "full tiles" in lines[node.lineno - 2], node


def calls(node: ast.AST, name: str) -> list[str]:
    return [ast.unparse(n) for n in ast.walk(node) if isinstance(n, ast.Call) and ast.unparse(n.func) == name]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["causal_attention", "sliding_window", "prefix_lm", "longformer", "packed_documents"])
def test_full_tiles_carry_no_mask_code(name: str, target: str) -> None:
    """No comparison, no bounds check, no guard against rows without keys: a load, two products, a softmax."""
    dtype = "fp32" if target == "sm90" else "bf16"  # fp32 has no specialised kernel
    text = load_shipped(name, **NEEDED.get(name, {})).source(target=target, head_dim=128, dtype=dtype)
    found = list(loops(text))
    assert {full for full, _ in found} == {True, False}
    for full, loop in found:
        body = ast.unparse(loop)
        assert bool(calls(loop, "tl.where")) != full
        assert ("mask=" in body or any(isinstance(n, ast.Compare) for n in ast.walk(loop))) != full
        assert all(call.endswith(f"{not full}, 'ieee')") for call in calls(loop, "absorb"))


@pytest.mark.parametrize("name", ["causal_attention", "prefix_lm", "longformer", "packed_documents"])
def test_full_tiles_carry_no_mask_code_on_hopper(name: str) -> None:
    """One stream of tiles, full ones first: keys are compared only under `if t >= full_tiles`."""
    tree = ast.parse(hopper_text(name))
    consume = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "consume")
    guarded = [n for n in ast.walk(consume) if isinstance(n, ast.If)]
    inside = {id(n) for block in guarded for n in ast.walk(block)}
    uses = [n for n in ast.walk(consume) if isinstance(n, ast.Name) and n.id in ("k", "columns", "q")]
    loose = [n for n in uses if id(n) not in inside and isinstance(n.ctx, ast.Load)]
    assert not loose, [ast.unparse(n) for n in loose]
    assert any(ast.unparse(block.test) == "t >= full_tiles" for block in guarded)


def hopper_text(name: str) -> str:
    """The specialised kernel's text, whether or not it is the fastest."""
    from weft.ahead import case_of
    from weft.codegen.choose import kernels_for
    from weft.codegen.launch import kernel_source

    pattern = load_shipped(name, **NEEDED.get(name, {}))
    kernels = kernels_for(pattern.bind(), pattern.shape(8192, 8192), case_of("sm90", "bf16", 128), 8192)
    return kernel_source(next(kernel for kernel in kernels if kernel.config.hopper))
