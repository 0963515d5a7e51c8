"""Coverage reports made by brute force, for what renders them."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from weft.compiler.coverage import (
    Again,
    Cost,
    Coverage,
    DepthFacts,
    Flow,
    Form,
    HeadFacts,
    Hop,
    LayerFacts,
    Picture,
    Route,
    RowFacts,
    Verdict,
)

Bits = NDArray[np.bool_]
HOSTILE = """</script><img src=x onerror="document.title='owned'">'"&<!--$body-->\u202e\x1b[31m"""


def sample(name: str = "power", n: int = 96, window: int = 4, layers: int = 6, far: bool = True) -> Coverage:
    """A causal window, with the first key and powers of two where `far`, in all layers."""
    q, k = np.arange(n)[:, None], np.arange(n)[None, :]
    causal, distance = k <= q, q - k
    mask = causal & (distance < window)
    if far:
        mask |= causal & ((distance & (distance - 1) == 0) | (k == 0))
    depths = [np.eye(n, dtype=bool)]
    for _ in range(layers):
        depths.append((mask | depths[0]).astype(np.int64) @ depths[-1].astype(np.int64) > 0)
    complete = next((depth for depth, found in enumerate(depths) if found.sum() == causal.sum()), None)
    facts = tuple(depth_facts(depth, found) for depth, found in enumerate(depths) if depth)
    missing = np.argwhere(causal & ~depths[-1])
    pairs, admissible = int(mask.sum()), n * (n + 1) // 2
    layer = LayerFacts(
        layers=tuple(range(layers)),
        text=f"causal; keep q - k < {window}" + ("; keep q - k in powers(2) or k == 0" if far else ""),
        pairs=pairs,
        head_pairs=4 * pairs,
        tile_pairs=6 * pairs,
        least=1,
        most=int(mask.sum(1).max()),
        empty=0,
        first_empty=None,
        live=n if far else window,
        again=Again(1, 8, 9) if far else None,
        cached=4 * (n if far else window),
        exact=True,
        heads=4,
        possible_head_pairs=4 * pairs,
    )
    return Coverage(
        name=name,
        doc="A window, and keys at powers of two." if far else "A window and nothing else.",
        n=n,
        layers=layers,
        heads=8,
        kv_heads=2,
        causal=True,
        admissible=admissible,
        layer_facts=(layer,),
        depths=facts,
        complete_at=complete,
        hole=None if complete is not None else (int(missing[-1, 0]), int(missing[0, 1])),
        limit=admissible,
        limit_depth=-(-(n - 1) // (window - 1)) if complete is None else complete,
        head_facts=(
            *(HeadFacts("head", (head,), facts[-1].pairs, complete) for head in (0, 1, 2, 3, 7)),
            *(HeadFacts("head", (head,), pairs, None) for head in (4, 5, 6)),
            *(HeadFacts("group", (4 * group, 4 * group + 1), pairs, None) for group in (0, 1)),
        ),
        forms=(Form("last row at depth d", "min(n, 1 + d*(w - 1))", f"{facts[-1].last.reached}", "by brute force"),),
        flow=Flow(8, (0.0, 3.25, 11.5), (0.125, 0.5, 0.03), (3, 4, 5, 9), 2 if far else None),
        cost=Cost(128, 4_000_000 * pairs, 4_000_000 * admissible, 1 << 20, 3 << 20, 1 << 14, 1 << 16, 0.125, 1234.5),
        route=Route(n - 1, 2, 3, (Hop(2, n - 1, n - 33), Hop(1, n - 33, n - 65), Hop(0, n - 65, 2))) if far else None,
        verdicts=(
            Verdict(f"complete by {layers}", "fails" if complete is None else "holds", ""),
            Verdict("cache <= 8", "fails" if far else "holds", "layer 0 keeps key 1 for query 9"),
        ),
        pictures=(
            picture(mask, 0, f"layers 0..{layers - 1}"),
            *(picture(found, depth, f"depth {depth}") for depth, found in enumerate(depths) if depth),
        ),
        undecided="",
        seconds=0.25,
    )


def undecided_sample() -> Coverage:
    """Bounds that leave open whether a stack is complete."""
    found = sample("documents", far=False)
    depths = tuple(replace(d, possible=min(found.admissible, 2 * d.pairs)) for d in found.depths)
    layer = replace(found.layer_facts[0], exact=False, empty=3, first_empty=17)
    return replace(
        found,
        depths=depths,
        hole=None,
        limit=depths[-1].pairs,
        limit_depth=None,
        layer_facts=(layer,),
        route=Route(found.n - 1, 2, None, ()),
        verdicts=(Verdict("complete by 6", "undecided", "between 32.1 % and 64.1 %"),),
        undecided="the input `doc` is not given",
    )


def hostile_sample() -> Coverage:
    """Every text that a file can choose is an attack."""
    found = sample(HOSTILE)
    return replace(
        found,
        doc=HOSTILE,
        layer_facts=(replace(found.layer_facts[0], text=HOSTILE),),
        forms=(Form(HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        verdicts=(Verdict(HOSTILE, "holds", HOSTILE),),
        pictures=tuple(replace(shown, title=HOSTILE) for shown in found.pictures),
        undecided=HOSTILE,
    )


def depth_facts(depth: int, found: Bits) -> DepthFacts:
    """The numbers of one depth, counted."""
    rows = [row_facts(found, row) for row in range(len(found))]
    worst = min(reversed(rows), key=lambda facts: facts.reached / facts.admissible)
    return DepthFacts(depth, int(found.sum()), int(found.sum()), rows[-1], worst)


def row_facts(found: Bits, row: int) -> RowFacts:
    """One row, counted."""
    back = found[row, : row + 1][::-1]
    return RowFacts(row, int(back.sum()), row + 1, len(back) if back.all() else int(back.argmin()))


def picture(found: Bits, depth: int, title: str, cell: int = 2) -> Picture:
    """A relation in squares; of the last ones, what lies within the sequence counts."""
    side = -(-len(found) // cell)
    padded = np.zeros((side * cell, side * cell))
    padded[: len(found), : len(found)] = found
    sides = np.minimum(cell, len(found) - cell * np.arange(side))
    shares = padded.reshape(side, cell, side, cell).sum((1, 3)) / np.outer(sides, sides)
    return Picture(title, depth, cell, tuple(tuple(map(float, row)) for row in shares))
