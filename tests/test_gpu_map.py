"""Generated kernels of maps on a real GPU, against the dense definition in fp64 and the evaluator in torch."""

from typing import Any

import pytest
import torch

import weft
from tests.brute import PATTERNS
from weft.codegen import map_call
from weft.codegen.cache import store
from weft.codegen.map_call import Plan
from weft.codegen.map_kernel import emit
from weft.codegen.map_parts import Kernel
from weft.codegen.named import Value
from weft.codegen.score_call import Call
from weft.codegen.scores import call_of, evaluate
from weft.codegen.select_reference import score_of
from weft.codegen.weigh_fused import suits
from weft.compiler.selection import Program

pytestmark = pytest.mark.gpu

HEADS, GROUPS, WIDTH = 8, 2, 64
# Scores of published rules that kernels compute; cells that tiles hold, that hold tiles, and that no tile fits.
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "anchor_attention": ("largest best", {"block": 64, "step": 3}),
    "deepseek_indexer": ("index", {"index_heads": 5}),
    "flash_prefill": ("largest sums", {"block": 48}),
    "hip": ("one three", {}),
    "moba": ("score", {"block": 128}),
    "nsa_selected": ("score", {}),
    "quest": ("bound", {}),
    "spark": ("centre spread", {"dims": 40}),
}
CASES = [(name, torch.bfloat16) for name in sorted(RULES)] + [
    ("nsa_selected", torch.float16),
    ("flash_prefill", torch.float32),
    ("quest", torch.float32),
]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[Kernel]:
    """The kernels that ran."""
    seen: list[Kernel] = []
    real = map_call.launched

    def launched(plan: Plan, *rest: Any) -> Value:
        seen.append(plan.kernel)
        return real(plan, *rest)

    monkeypatch.setattr(map_call, "launched", launched)
    return seen


def program(name: str) -> Program:
    return weft.load(PATTERNS / "selection" / f"{name}.sparse", **RULES[name][1]).program(HEADS, GROUPS)


def call_for(built: Program, n: int, m: int, dtype: torch.dtype) -> Call:
    """Heads between tokens; inputs that all heads share, of the same type."""
    generator = torch.Generator("cuda").manual_seed(n)

    def made(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device="cuda").to(dtype)

    q, k, v = (
        made(1, tokens, heads, WIDTH).transpose(1, 2) for tokens, heads in ((m, HEADS), (n, GROUPS), (n, GROUPS))
    )
    counts = {axis.name: axis.count or -(-n // axis.size) for axis in built.axes} | {"q": n, "k": n}
    given = {x.name: made(1, 1, *(counts[axis] for axis in x.axes), *[80] * x.vector) for x in built.givens}
    return call_of(built, q, k, v, 0.125, given)


def value_of(call: Call, title: str) -> torch.Tensor:
    """[B, H, cells ..]."""
    score = next(score for score in call.program.scores if score.name == title)
    found = evaluate(score.value, call, {axis: call.domain(axis) for axis in score.axes}).over(score.axes)
    return found.expand(*call.q.shape[:3], *found.shape[3:]).flatten(1, 2)


def defined(call: Call, title: str) -> torch.Tensor:
    q, k, v = (x.flatten(1, 2).double() for x in (call.q, call.k, call.v))
    given = {name: x.flatten(1, 2).double() for name, x in call.givens.items()}
    return score_of(call.program, title, q, k, v, call.scale, given)


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=str)
def test_published_rules(name: str, dtype: torch.dtype, launches: list[Kernel]) -> None:
    """Ragged ends and grouped heads; sums of products are right to 32 bits whatever their rows are."""
    built = program(name)
    for m in (1003, 301):
        call = call_for(built, 1003, m, dtype)
        assert suits(call.q, call.k, call.v)
        for title in RULES[name][0].split():
            found, right = value_of(call, title), defined(call, title)
            assert launches
            launches.clear()
            torch.testing.assert_close(
                found.double(), right[:, :, right.shape[2] - found.shape[2] :], rtol=1e-4, atol=1e-4
            )


@pytest.mark.parametrize("name", ["anchor_attention", "nsa_selected"])
def test_the_evaluators_values(name: str, launches: list[Kernel], monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than what the definition computes."""
    built = program(name)
    title = RULES[name][0].split()[0]
    found = value_of(call_for(built, 5000, 5000, torch.bfloat16), title)
    assert launches
    monkeypatch.setattr(map_call, "suits", lambda *_: False)
    right = value_of(call_for(built, 5000, 5000, torch.bfloat16), title)
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)


def test_lengths_and_parts_of_queries_compile_once(launches: list[Kernel]) -> None:
    built = program("nsa_selected")
    score, held = built.scores[-1], list[int]()
    for n, first, count in ((4096, 0, 4096), (4096, 512, 512), (3000, 700, 2300)):
        call = call_for(built, n, n, torch.bfloat16)
        evaluate(score.value, call, {"q": call.domain("q").part(first, count), "b": call.domain("b")})
        modules: list[Any] = [store(emit(kernel), "fold") for kernel in dict.fromkeys(launches)]
        held.append(sum(len(x.fold.device_caches[torch.cuda.current_device()][0]) for x in modules))
    assert len(launches) == 6 and len(set(launches)) == 2 and len(set(held)) == 1


def test_memory() -> None:
    """No map of queries by keys: 32K by 32K numbers would take 4 GiB a head."""
    built = program("anchor_attention")
    call = call_for(built, 1 << 15, 1 << 15, torch.bfloat16)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    assert value_of(call, "largest").isfinite().all()
    assert torch.cuda.max_memory_allocated() - before < 64 << 20
