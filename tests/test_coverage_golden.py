"""The tables of receptive fields that PowerAttention's paper and our own calculations give, number for number."""

import pytest

from weft import Stack, load, load_stack
from weft.compiler.catalogue import stack_names
from weft.compiler.coverage import Coverage

# In units of one token, so that a token stands for a block of the paper.
BLOCKS = {
    "swa": "keep d < 9  keep k == 0",
    "stride 32": "keep d < 6  keep d % 32 == 0  keep k == 0",
    "stride 24": "keep d < 6  keep d % 24 == 0  keep k == 0",
    "stride 26": "keep d < 6  keep d % 26 == 0  keep k == 0",
    "dilated": "keep d < 20 and d % 2 == 0",
    "longnet": """let x = q ^ k  let a = q | k
        keep x < 8  keep x < 16 and a & 1 == 0  keep x < 32 and a & 3 == 0  keep x < 64 and a & 7 == 0
        keep x < 128 and a & 15 == 0""",
    "power sink": "keep d < 5  keep d in powers(2)  keep k == 0",
    "power": "keep d < 5  keep d in powers(2)",
    "pure power": "keep d == 0  keep d in powers(2)",
}
# name: most keys of a row, density, |B_k| and contiguous keys of the last row by depth, diameter, unreachable share
GOLDEN = [
    ("swa", 10, 0.1496, "10 18 26 34 42 50 58 66", "9 17 25 33 41 49 57 65", 16, 0),
    ("stride 32", 10, 0.1289, "10 30 50 70 90 110 126 128", "6 11 16 21 26 31 63 128", 8, 0),
    ("stride 24", 12, 0.1393, "12 42 68 93 116 128", "6 11 16 21 45 128", 6, 0),
    ("stride 26", 11, 0.1360, "11 36 61 86 111 128", "6 11 16 21 47 128", 6, 0),
    ("dilated", 10, 0.1441, "10 19 28 37 46 55 64 64", "1 1 1 1 1 1 1 1", None, 0.4961),
    ("longnet", 13, 0.0988, "8 20 41 58 75 80 80 80", "8 8 8 8 8 8 8 8", None, 0.3721),
    ("power sink", 10, 0.1382, "10 35 75 110 126 128", "5 13 29 61 125 128", 6, 0),
    ("power", 9, 0.1238, "9 34 74 109 125 128", "5 13 29 61 125 128", 6, 0),
    ("pure power", 8, 0.1086, "8 29 64 99 120 127 128", "3 7 15 31 63 127 128", 7, 0),
]


def report(body: str, n: int, layers: int = 20, heads: int = 1) -> Coverage:
    return load(f"pattern p {{ causal let d = q - k {body} }}").coverage(n, layers=layers, heads=heads)


def last_row(found: Coverage, depths: int) -> str:
    """The keys that the last query reaches after 1, 2, .. layers."""
    return " ".join(str(facts.last.reached) for facts in found.depths[:depths])


@pytest.mark.parametrize(("name", "most", "density", "sizes", "spans", "diameter", "missing"), GOLDEN)
def test_128_blocks(
    name: str, most: int, density: float, sizes: str, spans: str, diameter: int | None, missing: float
) -> None:
    found = report(BLOCKS[name], 128)
    facts = found.layer_facts[0]
    assert facts.most == most and round(facts.pairs / found.admissible, 4) == density
    count = len(sizes.split())
    assert last_row(found, count) == sizes
    assert " ".join(str(facts.last.contiguous) for facts in found.depths[:count]) == spans
    assert found.complete_at == diameter and round(1 - found.limit / found.admissible, 4) == missing


def test_the_same_in_tokens() -> None:
    """32K tokens in blocks of 256: every number of blocks is one of tokens, 256 times as large."""
    found = load("power_attention").coverage(32768)
    assert [facts.last.reached // 256 for facts in found.depths] == [10, 35, 75, 110, 126, 128]
    assert all(facts.last.reached % 256 == 0 for facts in found.depths) and found.complete_at == 6


TOKENS = [
    ("keep d < 8", 0.0614, "8 15 22 29", 37),
    ("keep d < 16", 0.1209, "16 31 46 61", 17),
    ("keep d < 32", 0.2339, "32 63 94 125", 9),
    ("keep d < 16 keep k < 4", 0.1499, "20 35 50 65 80 95", 17),
    ("keep d < 64 and d % 4 == 0", 0.1099, "16 31 46 61 64 64", None),
    ("keep d <= 16 keep d % 16 == 0", 0.1792, "31 256", 2),
    ("keep q // 16 == k // 16 keep k % 16 >= 12", 0.2996, "76 256", 2),
    ("keep q // 16 == k // 16 keep k % 16 >= 15", 0.1245, "31 256", 2),
    ("keep d == 0 keep d in powers(2)", 0.0623, "9 37 93 163 219 247 255 256", 8),
    ("keep d < 16 keep d in powers(2)", 0.1447, "20 86 180 241 256", 5),
    ("keep d < 4 keep k % 8 == 0", 0.155, "36 132 225 256", 4),
]


@pytest.mark.parametrize(("body", "density", "sizes", "diameter"), TOKENS)
def test_256_tokens(body: str, density: float, sizes: str, diameter: int | None) -> None:
    found = report(body, 256, layers=40)
    assert abs(found.layer_facts[0].pairs / found.admissible - density) < 0.00051
    assert last_row(found, len(sizes.split())) == sizes and found.complete_at == diameter


@pytest.mark.parametrize(("heads", "density", "sizes", "diameter"), [(4, 0.517, "130 256", 2), (8, 1.0, "256", 1)])
def test_shards_united(heads: int, density: float, sizes: str, diameter: int) -> None:
    found = load("s2_attention", block=1, local=4).coverage(256, heads=heads)
    assert round(found.layer_facts[0].pairs / found.admissible, 3) == density
    assert last_row(found, 2) == sizes and found.complete_at == diameter
    alone = [facts.complete_at for facts in found.head_facts if facts.kind == "head"]
    assert alone and set(alone) == {4}


def test_butterfly() -> None:
    both = load("pattern b { keep q == k  keep (q ^ k) in powers(2) }").coverage(256)
    assert round(both.layer_facts[0].pairs / 256**2, 4) == 0.0352 and both.complete_at == 8
    assert last_row(both, 8) == "9 37 93 163 219 247 255 256"
    causal = load("pattern b { causal keep q == k  keep (q ^ k) in powers(2) }").coverage(256)
    assert round(causal.layer_facts[0].pairs / causal.admissible, 4) == 0.0389
    assert causal.complete_at is None and round(1 - causal.limit / causal.admissible, 4) == 0.8006
    assert causal.depths[-1].last.reached == 256, "the last row alone would hide the holes"


@pytest.mark.parametrize(
    ("heads", "density", "sizes", "last", "missing"),
    [
        (1, 0.0953, "16 48 144 207", 49, 0.191),
        (4, 0.1518, "32 128 232 236", 20, 0.079),
        (16, 0.1907, "48 256", 0, 0.0064),
    ],
)
def test_longnet(heads: int, density: float, sizes: str, last: int, missing: float) -> None:
    """The paper's phases, h % rate, on five branches."""
    branches = " ".join(
        f"keep q // {w} == k // {w} and q % {r} == h % {r} and k % {r} == h % {r}"
        for w, r in ((16, 1), (32, 2), (64, 4), (128, 8), (256, 16))
    )
    found = report(branches, 256, heads=heads)
    assert round(found.layer_facts[0].pairs / found.admissible, 4) == density
    assert last_row(found, len(sizes.split())) == sizes and 256 - found.depths[-1].last.reached == last
    assert round(1 - found.limit / found.admissible, 3 if heads < 16 else 4) == missing


def test_grids() -> None:
    found = load("neighborhood_2d", height=16, width=16, radius=2).coverage(256)
    assert found.complete_at == 7 and found.layer_facts[0].most == 25
    assert round(found.layer_facts[0].pairs / 256**2, 4) == 0.0977
    tiles = load("neighborhood_3d", frames=5, height=6, width=10, radius_t=1, radius_y=1, radius_x=1).coverage(300)
    assert tiles.layer_facts[0].most == 27 and round(tiles.layer_facts[0].pairs / 300**2, 4) == 0.09
    assert tiles.complete_at == 8


def test_two_kinds_of_layers_in_either_order() -> None:
    text = """
    pattern close { causal keep q - k <= 16 }
    pattern far { causal keep (q - k) % 16 == 0 }
    stack one over 2 layers { layers 0 .. 1: close() layers else: far() }
    stack two over 2 layers { layers 0 .. 1: far() layers else: close() }
    """
    assert [load_stack(text, name).coverage(256).complete_at for name in ("one", "two")] == [2, 2]


# Complete with the first full layer; MoA's widest heads see 6/8 and 7/8 of the sequence, so two layers see all of it.
# Longformer's windows grow to 256 tokens a side. LongNet's segments end, and what crosses their ends is lost.
MIXTURES = [
    ("masformer", 1),
    ("power_hybrid", 6),
    ("gemma", 6),
    ("s2_hybrid", 1),
    ("delta", 1),
    ("tidal_decode", 1),
    ("moa_layers", 2),
    ("longformer_growing", None),
    ("longnet_layers", None),
]


@pytest.mark.parametrize(("name", "complete"), MIXTURES)
def test_published_mixtures(name: str, complete: int | None) -> None:
    stack = load_stack(name)
    assert isinstance(stack, Stack) and "arXiv:" in stack.doc
    found = stack.coverage(32768)
    assert found.complete_at == complete and not found.undecided
    assert all(verdict.status == "holds" for verdict in found.verdicts)


def test_every_shipped_mixture_is_tested() -> None:
    assert sorted(name for name, _ in MIXTURES) == list(stack_names())
