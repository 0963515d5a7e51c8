"""Dynamic patterns on a real GPU: the cells chosen, and exactly their pairs attended, in 16-bit kernels."""

from typing import Any

import numpy as np
import pytest
import torch

import weft
from tests.brute import Bools
from tests.oracle import assert_close
from tests.test_selection import NAMES, PATTERNS, inputs_of
from tests.test_selection_fast import SMALL
from tests.test_selection_fast import inputs_of as shipped_inputs
from weft import selection_bands
from weft.codegen.rank import rank_rows
from weft.codegen.rules import choose
from weft.codegen.select_reference import selected
from weft.codegen.select_tiles import Cells
from weft.compiler.dense import dense_mask
from weft.compiler.ir import Mask
from weft.compiler.plan import Shape
from weft.compiler.selection import Chosen, Number
from weft.selection import Job, job_of, select

pytestmark = pytest.mark.gpu

HEADS, GROUPS = 4, 2
# Cells that are tiles, cells of several tiles, and cells that no tile fits.
SIZES: dict[str, list[dict[str, Any]]] = {
    "xattention": [{"mass": 0.6}, {"block": 64, "stride": 8, "mass": 0.5}, {"block": 48, "stride": 12}],
    "minference_blocks": [{"blocks": 5}, {"block": 128, "blocks": 3}, {"block": 40, "blocks": 7}],
    "sparge_attention": [{"mass": 0.5}, {"block_q": 64, "block_k": 128, "mass": 0.3}],
    "seer_attention": [{"threshold": 0.05}],
    "moba": [{"block": 256, "blocks": 2}, {"block": 64, "blocks": 4}],
}
CASES = [(name, place) for name in NAMES for place in range(len(SIZES[name]))]


def tensors(n: int, dtype: torch.dtype, whole: bool = False) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator("cuda").manual_seed(n)
    made = [torch.randn(2, h, n, 64, generator=generator, device="cuda") for h in (HEADS, GROUPS, GROUPS)]
    return tuple((x * 2).round().to(dtype) if whole else x.to(dtype) for x in made)


def job(pattern: weft.Pattern, q: torch.Tensor, k: torch.Tensor, inputs: dict[str, Any]) -> Job:
    return job_of(pattern, pattern.program(HEADS, GROUPS), q, k, inputs)


def load(name: str, place: int) -> weft.Pattern:
    return weft.load(PATTERNS / "selection" / f"{name}.sparse", **SIZES[name][place])


def gates(name: str, n: int) -> dict[str, Any]:
    cells = -(-n // 64)
    made = {key: x[..., :1, :].expand(-1, -1, cells, -1) for key, x in inputs_of(name, n, HEADS, 2).items()}
    generator = torch.Generator().manual_seed(1)
    return {key: torch.randn(x.shape, generator=generator) for key, x in made.items()}


def pairs(pattern: weft.Pattern, cells: list[Cells], n: int, b: int) -> Bools:
    """[H, n, n]: what the chosen cells, the static clauses and the limits mean."""
    program, shape = pattern.program(HEADS, GROUPS), Shape(True, HEADS, GROUPS)
    kept = np.zeros((HEADS, n, n), dtype=bool)
    for one in cells:
        chosen = one.kept[b].cpu().numpy()
        kept |= chosen.repeat(one.query_size, 1)[:, :n].repeat(one.key_size, 2)[:, :, :n]
    for clause in program.keeps:
        kept |= dense_mask(Mask("keep", (clause,)), n, n, shape, {})
    return kept & dense_mask(program.limits, n, n, shape, {})


@pytest.mark.parametrize("backend", ["auto", "triton"])
@pytest.mark.parametrize("n", [100, 1024, 2000])
@pytest.mark.parametrize(("name", "place"), CASES)
def test_exactly_the_chosen_pairs(name: str, place: int, n: int, backend: str) -> None:
    pattern, inputs = load(name, place), gates(name, n)
    q, k, v = tensors(n, torch.bfloat16)
    cells = select(job(pattern, q, k, inputs), q, k, v, 0.125, inputs)
    out, lse = pattern.attention(q, k, v, return_lse=True, backend=backend, **inputs)
    for b in range(2):
        part = (out[b : b + 1], lse[b : b + 1])
        assert_close(part, q[b : b + 1], k[b : b + 1], v[b : b + 1], pairs(pattern, cells, n, b))


@pytest.mark.parametrize("name", ["minference_blocks", "moba"])
def test_scores_are_exact_where_numbers_are_whole(name: str) -> None:
    """Scores of whole numbers have no rounding, ties included: the same pairs as by definition."""
    pattern, n = load(name, 1), 1024
    q, k, v = tensors(n, torch.bfloat16, whole=True)
    a, b, c = (x.cpu().double() for x in (q, k, v))
    right = selected(pattern.program(HEADS, GROUPS), a, b, c, 0.125, {})
    cells = select(job(pattern, q, k, {}), q, k, v, 0.125, {})
    for element in range(2):
        assert np.array_equal(pairs(pattern, cells, n, element), right[element].numpy())


@pytest.mark.parametrize("name", ["xattention", "sparge_attention"])
def test_weights_differ_by_rounding_only(name: str) -> None:
    pattern, n = load(name, 0), 2048
    q, k, v = tensors(n, torch.bfloat16)
    a, b, c = (x.cpu().double() for x in (q, k, v))
    right = selected(pattern.program(HEADS, GROUPS), a, b, c, 0.125, {})
    cells = select(job(pattern, q, k, {}), q, k, v, 0.125, {})
    found = np.stack([pairs(pattern, cells, n, element) for element in range(2)])
    assert (found != right.numpy()).mean() < 0.005


def test_long_sequences_in_chunks() -> None:
    """64K tokens, in bf16, with what the definition says for some rows of blocks."""
    pattern, n = weft.load(PATTERNS / "selection" / "xattention.sparse"), 1 << 16
    q, k, v = (torch.randn(1, h, n, 128, device="cuda", dtype=torch.bfloat16) for h in (4, 1, 1))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = pattern.attention(q, k, v)
    assert out.isfinite().all()
    assert torch.cuda.max_memory_allocated() - before < 2 << 30


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_shipped_selection(name: str, dtype: torch.dtype) -> None:
    """Rows attend to what the definition keeps, but for the few whose scores lie where rounding decides."""
    pattern, n = weft.load(PATTERNS / "selection" / f"{name}.sparse", **SMALL[name]), 500
    q, k, v = tensors(n, dtype)
    inputs = shipped_inputs(pattern, n)
    found = pattern.attention(q, k, v, **{key: x.cuda() for key, x in inputs.items()})
    exact = (x.cpu().double() for x in (q, k, v))
    right = pattern.attention(*exact, backend="reference", **inputs)
    apart = (found.cpu().double() - right).abs().amax(-1) > (1e-3 if dtype == torch.float32 else 5e-2)
    assert apart.double().mean() < 0.02


@pytest.mark.parametrize("rule", ["top", "cover", "reach", "under"])
def test_rules_without_sorting(rule: Any) -> None:
    """Eighths have exact sums in any order."""
    score = torch.randint(-8, 30, (3, 2, 40, 1500), device="cuda") / 8
    score[torch.rand(score.shape, device="cuda") < 0.01] = float("nan")
    candidates, forced = (torch.rand(score.shape, device="cuda") < share for share in (0.9, 0.01))
    for amount in {"top": (0, 1, 100, 5000), "cover": (0.0, 0.25, 0.5, 1.0)}.get(rule, (0.0, 10.0, 200.0, 1e6)):
        one = Chosen(rule, Number(amount), False, "visible", "J", "I", Number(0), None, None, "")
        wanted = choose(one, score, candidates, forced & candidates)
        assert torch.equal(rank_rows(one, score, candidates, forced & candidates), wanted)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_nobody_waits_for_the_device(name: str) -> None:
    """A call like an earlier one never asks the device how many of anything there are."""
    pattern, n = weft.load(PATTERNS / "selection" / f"{name}.sparse", **SMALL[name]), 500
    q, k, v = tensors(n, torch.bfloat16)
    inputs = {key: x.cuda() for key, x in shipped_inputs(pattern, n).items()}
    first = pattern.attention(q, k, v, **inputs)
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = pattern.attention(q, k, v, **inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    "name", ["xattention", "minference_blocks", "moba", "nsa_selected", "seer_attention", "minference"]
)
def test_bands_of_queries(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists for few queries at once, and choices for few, give what one band gives."""
    pattern, n = weft.load(PATTERNS / "selection" / f"{name}.sparse", **SMALL[name]), 1000
    q, k, v = tensors(n, torch.bfloat16)
    inputs = {key: x.cuda() for key, x in shipped_inputs(pattern, n).items()}
    whole = pattern.attention(q, k, v, return_lse=True, **inputs)
    for name in ("LIST", "CHOSEN"):
        monkeypatch.setattr(selection_bands, f"{name}_BYTES", 1)
        monkeypatch.setattr(selection_bands, f"{name}_SHARE", 1 << 60)
        monkeypatch.setattr(selection_bands, "FEWEST_BYTES", 1)
        pattern._memory.clear()  # pyright: ignore[reportPrivateUsage]
        found = pattern.attention(q, k, v, return_lse=True, **inputs)
        torch.testing.assert_close(found[0], whole[0], rtol=2e-2, atol=2e-2)
        torch.testing.assert_close(found[1], whole[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n", [4000, 4096])
def test_the_last_queries_only(n: int) -> None:
    """A few queries cost no others' work, and get what they get among all."""
    pattern = weft.load(PATTERNS / "selection" / "quest.sparse", budget=256)
    q, k, v = tensors(n, torch.bfloat16)
    whole = pattern.attention(q, k, v)
    for m in (1, 77, 300):
        torch.testing.assert_close(pattern.attention(q[:, :, -m:], k, v), whole[:, :, -m:], rtol=2e-2, atol=2e-2)
