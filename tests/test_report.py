"""Reports: one in full, and their counts against brute force."""

import json
import time
import tracemalloc
from dataclasses import replace
from textwrap import dedent
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import weft
from weft.check import natural_heads
from weft.compiler import measure
from weft.compiler.catalogue import names
from weft.compiler.measure import Amount, census, effort, only_distance
from weft.compiler.readable import show_number, show_run, show_truth
from weft.compiler.report import Call, Report, as_dict, as_text, binary, explain, percent, si

GIVEN: dict[str, dict[str, Any]] = {
    "moa": {"alpha": [[64, 100]], "beta_eighths": [[1, 2]]},
    "neighborhood_2d": {"height": 10, "width": 13},
    "neighborhood_3d": {"frames": 3, "height": 5, "width": 9, "radius_t": 1},
    "prefix_lm": {"prefix": 70},
    "radial": {"frame": 32},
    "shared_prefix": {"prefix": 40},
    "power_attention": {"block": 32},
    "sliding_window": {"window": 60},
}


def report(name: str, n: int, m: int | None = None, inputs: dict[str, Any] | None = None, block: int = 128) -> Report:
    pattern = weft.load(name, **GIVEN.get(name, {}))
    heads = natural_heads(pattern)
    plan = pattern.plan(n, m, heads=heads, block_m=block, block_n=block)
    return explain(plan, Call(n, m or n, heads, heads, 64), inputs=inputs)


def made_up(name: str, n: int) -> dict[str, Any]:
    """Inputs for the patterns that need one."""
    start = np.arange(n) // 40 * 40
    parent = np.maximum(np.arange(n) - 3, -1)
    return {source: parent if source == "parent" else start for source in weft.load(name, **GIVEN.get(name, {})).inputs}


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(("n", "m"), [(130, 130), (129, 40), (1, 1)])
def test_counts_by_brute_force(name: str, n: int, m: int) -> None:
    inputs = made_up(name, n)
    found = report(name, n, m, inputs, block=16)
    pattern = weft.load(name, **GIVEN.get(name, {}))
    heads = found.census.heads
    kept = np.broadcast_to(pattern.mask(n, m, heads=found.call.heads, **inputs), (found.call.heads, m, n))[:heads]
    assert found.census.pairs == Amount(int(kept.sum()))
    padded = np.zeros((heads, -(-m // 16) * 16, -(-n // 16) * 16), dtype=bool)
    padded[:, :m, :n] = kept
    tiles = padded.reshape(heads, -(-m // 16), 16, -(-n // 16), 16)
    touched = int(tiles.any((2, 4)).sum())
    assert found.census.tiles == tiles.any((2, 4)).size
    assert found.census.full.value + found.census.partial.value == touched
    assert found.census.full.claim == found.census.partial.claim == "exact"
    # A last row tile may be called full or partial; keys past the end never are in a full tile.
    whole = padded.copy()
    whole[:, m:, :] = True
    filled: npt.NDArray[np.bool_] = np.logical_and(whole.reshape(tiles.shape).all((2, 4)), tiles.any((2, 4)))
    assert found.census.full.value <= int(filled.sum())
    assert found.census.full.value >= int(filled[:, : m // 16].sum())


def test_golden() -> None:
    pattern = weft.load("sliding_window")
    n = 1 << 20
    text = as_text(
        explain(pattern.plan(n), Call(n, n, 1, 1, 128), where="w.sparse:1:1", parameters=(("window", "4096"),))
    )
    assert text + "\n" == dedent(
        """\
        pattern sliding_window (w.sparse:1:1)
            causal
            keep q - k < window
            with window = 4096

        1,048,576 queries x 1,048,576 keys, 1 head, head dim 128
        tiles of 128 x 128, strategy run: loops in the kernel

        key tiles j of query tile i (`a .. b` leaves out b)
          full: all pairs are kept
            for j in max(0, i - 31) .. i
          partial: pairs are kept where q - k < 4096
            j = i - 32 where i >= 32
          partial: pairs are kept where k <= q
            j = i

        tiles   253,456 full, 16,352 partial, 66,839,056 skipped (exact)
        pairs   4,286,580,736 (exact)
                0.39 % of all, 0.78 % of causal
        waste   1.03 pairs computed for each one kept
        work    2.19 TFLOP on kept pairs, 2.26 TFLOP computed
        memory  512 MiB of keys and values; tiles read 16.5 GiB, before caches
        """
    )


STATIC = """
attention_sinks block_diffusion causal_attention dilated_window logsparse longformer
power_attention s2_attention sliding_window sparse_transformer_fixed
""".split()


@pytest.mark.parametrize("name", STATIC)
def test_a_million_tokens_are_counted_exactly_and_soon(name: str) -> None:
    n = 1 << 20
    pattern = weft.load(name)
    heads = natural_heads(pattern)
    tracemalloc.start()
    start = time.process_time()
    found = explain(pattern.plan(n, heads=heads), Call(n, n, heads, heads, 128))
    seconds = time.process_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.census.pairs.claim == "exact" and found.waste is not None and found.waste >= 1
    assert seconds < 10 and peak < 200e6  # a second without tracing and without other work beside it


def test_what_depends_on_inputs_is_only_bounded() -> None:
    found = report("packed_documents", 300)
    assert (found.census.full.claim, found.census.partial.claim) == ("at least", "at most")
    assert found.census.pairs.claim == "at most" and found.waste is None
    text = as_text(found)
    assert "a bound: the inputs are not given" in text and "waste   unknown" in text and "at most" in text


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("causal keep d[q] == d[k]", 1.0),
        ("keep k <= q and d[q] == d[k]", 1.0),
        ("keep d[q] == d[k]", 2 * 300 / 301),
    ],
)
def test_bounds_stay_below_what_there_is(text: str, share: float) -> None:
    plan = weft.load(f"pattern p() {{ input d[token]: int {text} }}").plan(300)
    found = explain(plan, Call(300, 300, 1, 1, 64))
    assert found.census.pairs.claim == "at most" and found.of_causal == pytest.approx(share)


def test_long_tables_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "MOST_PAIRS", 1000)
    doc = np.arange(600) // 50
    plan = weft.load("packed_documents").plan(600)
    found = census(plan, 600, 600, {"doc": doc})
    exact = 12 * 50 * 51 // 2
    assert found.pairs.claim == "estimated" and abs(found.pairs.value - exact) < 0.2 * exact
    assert "estimated from a sample of rows" in as_text(explain(plan, Call(600, 600, 1, 1, 64), inputs={"doc": doc}))


def test_every_way_of_counting_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops of single pairs, isl, and tiles with a few pairs looked at."""
    plan = weft.load("power_attention", block=32).plan(1000)
    call = measure.Call(1000, 1000, {})
    wanted = int(weft.load("power_attention", block=32).mask(1000).sum())
    assert census(plan, 1000, 1000, {}).pairs == Amount(wanted)
    assert measure.pairs_by_isl(plan, call) == wanted

    def no(formula: object) -> bool:
        return False

    monkeypatch.setattr(measure, "only_distance", no)
    assert census(plan, 1000, 1000, {}).pairs == Amount(wanted)
    monkeypatch.setattr(measure, "SIDES", (1,))
    monkeypatch.setattr(measure, "MOST_WORK", 0)
    assert census(plan, 1000, 1000, {}).pairs == Amount(wanted)


def test_json() -> None:
    data = json.loads(json.dumps(as_dict(report("s2_attention", 1000))))
    assert data["schema"] == "weft.explain/1" and data["strategy"] in ("run", "list")
    assert data["census"]["heads"] == 8 and data["census"]["pairs"]["claim"] == "exact"
    assert data["regions"][0]["kind"] == "full" and data["regions"][0]["loops"]
    assert {"density", "flops", "kv_bytes", "waste", "skipped"} <= set(data["derived"])


def test_heads_are_summed_or_stand_for_others() -> None:
    same = report("sliding_window", 200)
    many = replace(same, call=replace(same.call, heads=4, kv_heads=2))
    assert many.flops.value == 4 * same.flops.value and many.kv_bytes == 2 * same.kv_bytes
    assert "4 heads on 2 key/value heads" in as_text(many)
    differing = report("s2_attention", 1000)
    assert "summed over 8 heads" in as_text(differing)
    assert differing.flops.value == 4 * 64 * differing.census.pairs.value


def test_causal_share() -> None:
    assert report("causal_attention", 100).of_causal == 1
    assert report("causal_attention", 100, 30).of_causal == 1
    assert report("causal_attention", 100).density == pytest.approx(0.505)


def test_formulas_as_text() -> None:
    for name, wanted in {
        "longformer": "|q - k| <= 256 or k < 1 or q < 1",
        "logsparse": "k <= q and (q - k < 1 or q - k in powers(2))",
    }.items():
        formula = weft.load(name).bind().formula
        assert show_truth(formula).replace(" and (q - k) % 1 == 0", "") == wanted
    low = weft.load("sliding_window").plan(1024).regions[0].runs[0]
    assert show_run(low) == "for j in max(0, i - 31) .. i" and show_number(low.low) == "max(0, i - 31)"


def test_units() -> None:
    assert (si(2.19e12), si(999), si(0), si(999_999)) == ("2.19 T", "999 ", "0 ", "1 M")
    assert (binary(512 << 20), binary(1023), binary(0)) == ("512 MiB", "0.999 KiB", "0 B")
    assert percent(0.0039) == "0.39 %"


def test_what_tiles_share() -> None:
    formula = weft.load("dilated_window").bind().formula
    assert only_distance(formula) and effort(formula) > 3
    assert not only_distance(weft.load("power_attention").bind().formula)
    assert not only_distance(weft.load("attention_sinks").bind().formula)
