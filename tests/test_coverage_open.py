"""What is left open: bounds that say too little, never too much; causality by inputs; analyses that stop."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import coverage_brute as brute
from tests.brute import Bools
from tests.oracle import small_inputs
from tests.strategies import HEADS, files, load
from weft import load as load_text
from weft import load_stack
from weft.compiler import cover as cover_module
from weft.compiler import ground as ground_module
from weft.compiler.cover import Request, cover
from weft.compiler.coverage import Coverage
from weft.compiler.dense import dense_mask
from weft.compiler.ir import Mask
from weft.compiler.plan import Shape
from weft.compiler.stack import Assignment, LoweredStack
from weft.dsl.syntax import File

FULL = "pattern full { causal }"


def stack_of(mask: Mask, layers: int) -> LoweredStack:
    return LoweredStack("open", "", ((Assignment(tuple(range(HEADS)), mask, "open"),),) * layers, ())


def truth(mask: Mask, n: int, layers: int, inputs: Mapping[str, np.ndarray]) -> brute.Facts:
    dense = dense_mask(mask, n, n, Shape(True, HEADS, HEADS), inputs)
    kept: Bools = dense if dense.ndim == 3 else np.stack([dense] * HEADS)
    return brute.facts([kept] * layers)


def check_bounds(found: Coverage, right: brute.Facts) -> None:
    """Nothing that is said to be certain is wrong for these inputs."""
    if found.complete_at is not None:
        assert right.complete_at is not None and right.complete_at <= found.complete_at
    if found.hole is not None:
        assert not right.reached[-1][found.hole]
    for facts in found.depths:
        reached = right.reached[min(facts.depth, len(right.reached) - 1)]
        assert facts.pairs <= reached.sum()
        assert facts.possible >= (reached & right.admissible).sum() or facts.depth > len(right.reached) - 1
        assert facts.last.reached <= reached[facts.last.row].sum()
    layer = found.layer_facts[0]
    rows = right.unions[0].sum(axis=1)
    assert layer.pairs <= right.unions[0].sum() and layer.least <= rows.min() and layer.most >= rows.max()
    assert layer.empty <= (rows == 0).sum() and layer.live >= brute.live(right.unions[0])
    if layer.again:
        union = right.unions[0]
        assert not union[layer.again.skipped_by, layer.again.key] and union[layer.again.needed_by, layer.again.key]


@settings(deadline=None)
@given(files(samples=False), st.integers(1, 40), st.integers(1, 4))
def test_without_inputs(file: File, n: int, layers: int) -> None:
    pattern = load(file)
    mask = pattern.bind(HEADS, HEADS)
    inputs = {key: value.numpy() for key, value in small_inputs(pattern, n, n, heads=HEADS).items()}
    found = cover(stack_of(mask, layers), Request(n, HEADS, HEADS), {})
    right = truth(mask, n, layers, inputs)
    check_bounds(found, right)
    if any(table.source for table in mask.tables):
        known = cover(stack_of(mask, layers), Request(n, HEADS, HEADS), inputs)
        assert not known.undecided and known.complete_at == right.complete_at


@settings(deadline=None)
@given(files(inputs=False, samples=False), st.integers(20, 60), st.integers(1, 3))
def test_masks_that_are_too_irregular(file: File, n: int, layers: int) -> None:
    mask = load(file).bind(HEADS, HEADS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("weft.compiler.grow.MOST_OF_ONE", 250)
        found = cover(stack_of(mask, layers), Request(n, HEADS, HEADS), {})
    right = truth(mask, n, layers, {})
    check_bounds(found, right)
    if any(clause.text == "causal" for clause in mask.clauses):
        assert found.causal, "causality is a limit that can always be held"


def test_causality_that_depends_on_an_input() -> None:
    text = "pattern mostly { input flag[token]: int  keep k <= q  keep k == q + 1 and flag[q] == 1 }"
    pattern, n = load_text(text), 16
    claims = ("complete", "reaches 20%")
    flags: list[dict[str, Any]] = [{}, {"flag": np.zeros(n, int)}, {"flag": np.ones(n, int)}]
    open_, causal, not_causal = (pattern.coverage(n, layers=1, claims=claims, **inputs) for inputs in flags)
    assert [v.status for v in open_.verdicts] == ["undecided", "holds"] and "causal" in open_.undecided
    assert [v.status for v in causal.verdicts] == ["holds", "holds"] and causal.causal
    assert [v.status for v in not_causal.verdicts] == ["fails", "holds"] and not not_causal.causal
    assert open_.hole is None


def test_a_density_over_what_may_be_causal() -> None:
    text = f"""pattern order {{ input rank[token]: int  keep rank[k] <= rank[q] }} {FULL}
    stack two() over 2 layers {{ layers 0 .. 1: order() layers else: full() coverage {{ density < 80% }} }}"""
    stack = load_stack(text, "two")
    assert stack.coverage(16).verdicts[0].status == "undecided"
    assert stack.coverage(16, rank=np.arange(16)).verdicts[0].status == "fails"


def test_an_analysis_that_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said of depths that were not reached; what holds already, holds."""
    monkeypatch.setattr(cover_module, "DEPTHS", 6000)
    pattern = load_text("pattern p { causal keep q - k < 20 and (q * 5 + k * 3) % 7 < 3 keep q - k < 2 }")
    claims = ("complete", "complete within 200 layers", "reaches 90%", "reaches 0.5%")
    found = pattern.coverage(2000, layers=200, claims=claims)
    assert found.hole is None and 0 < len(found.depths) < 200 and "past depth" in found.undecided
    assert [v.status for v in found.verdicts] == ["undecided", "undecided", "undecided", "holds"]
    text = str(found)
    assert f"known up to depth {len(found.depths)}" in text and "not known" in text and "not reached" not in text


def test_heads_that_are_too_irregular_are_said_to_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cover_module, "HEADS", 10)
    found = load_text("pattern p { causal keep q - k < 5 + 7 * h }").coverage(500, layers=4, heads=3)
    assert not found.head_facts and "some heads by themselves" in found.undecided


def test_keys_by_group() -> None:
    """Each key/value head holds its own keys: three hold one, the fourth all."""
    pattern = load_text("pattern p(w: table[head] = [1, 1, 1, 4096]) { causal keep q - k < w[h] }")
    found = pattern.coverage(4096, layers=1)
    assert found.layer_facts[0].cached == 4096 + 3 and found.cost.cache_bytes / found.cost.dense_cache_bytes < 0.26
    assert pattern.coverage(4096, layers=1, kv_heads=1).layer_facts[0].cached == 4096


def test_forms_at_lengths_that_are_no_powers_of_two() -> None:
    found = load_text("logsparse").coverage(1000, layers=64)
    assert found.complete_at == 9 and any("9 layers" in form.value for form in found.forms)


def test_shares_are_of_tokens() -> None:
    text = "pattern p { causal keep (q // 16 - k // 16) % 4 == 0 and q // 16 - k // 16 < 12 }"
    assert not any("share" in form.quantity for form in load_text(text).coverage(96, layers=3).forms)


def test_pictures_lose_no_pair_and_fill_no_hole() -> None:
    found = load_text("pattern p { causal keep q == k }").coverage(1 << 20, layers=1)
    shares = np.array(found.pictures[0].shares)
    assert (np.diag(shares) > 0).all() and (np.diag(shares) < 1).all()


def test_layers_in_a_modulus() -> None:
    assert (
        load_text("pattern p { causal keep q % (layers - 1) == 0 keep q - k < 3 }").coverage(64, layers=4).layers == 4
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n is an integer, 1 to 2097152, not 0"),
        ({"n": 1 << 22}, "n is an integer"),
        ({"n": 64, "layers": 0}, "layers is an integer"),
        ({"n": 64, "head_dim": -5}, "head_dim is an integer"),
        ({"n": 64, "heads": 100_000}, "heads is an integer, 1 to 65536"),
    ],
)
def test_wrong_numbers(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_text("causal_attention").coverage(**arguments)


def test_numbers_of_numpy_and_one_claim() -> None:
    found = load_text("causal_attention").coverage(np.int64(50), path=(np.int64(3), np.int64(9)), claims="complete")  # pyright: ignore[reportArgumentType]
    assert found.n == 50 and found.verdicts[0].status == "holds" and type(found.n) is int


def test_many_lengths_are_not_all_followed() -> None:
    claims = tuple(f"complete at n = {n}" for n in range(40, 50))
    statuses = [v.status for v in load_text("causal_attention").coverage(64, claims=claims).verdicts]
    assert statuses == ["holds"] * cover_module.MOST_LENGTHS + ["undecided"] * (10 - cover_module.MOST_LENGTHS)


def test_limits_hold_where_the_rest_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground_module, "FLOORS", (30,))
    monkeypatch.setattr("weft.compiler.grow.MOST_OF_ONE", 100)
    found = load_text("pattern p { causal keep (q * 7 + k * 13 + (q ^ k)) % 1009 < 500 }").coverage(4096, layers=2)
    assert found.causal and found.undecided and found.depths[-1].possible <= found.admissible
