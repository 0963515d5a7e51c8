"""What one layer keeps: its density, its rows, and what a decoder's cache must hold for it."""

from .coverage import Again, LayerFacts
from .ground import LAYERS, Ground, LayerNodes
from .quadtree import EMPTY, OverBudget

# Halvings of a kernel's tile: 128 tokens.
TILE = 7


def layer_facts(ground: Ground, layer: LayerNodes, members: tuple[int, ...]) -> LayerFacts:
    """The facts of the layers `members`, which are all like `layer`."""
    union = layer.union.must
    rows = ground.forest.row_counts(union, ground.level)[: ground.n]
    empty = int((rows == 0).sum())
    try:
        with ground.forest.allowance(LAYERS):
            needed, skipped, followed = live(ground, layer.union.may), again(ground, union), True
    except OverBudget:
        needed, skipped, followed = ground.n, None, False
    return LayerFacts(
        layers=members,
        text=layer.text,
        pairs=ground.count(union),
        head_pairs=sum(ground.count(head.must) for head in layer.heads),
        tile_pairs=sum(tile_pairs(ground, head.may) for head in layer.heads),
        least=int(rows.min()),
        most=int(rows.max()),
        empty=empty,
        first_empty=int((rows == 0).argmax()) if empty else None,
        live=needed,
        again=skipped,
        exact=followed and all(head.must == head.may for head in layer.heads),
        heads=len(layer.heads),
        possible_head_pairs=sum(ground.count(head.may) for head in layer.heads),
    )


def tile_pairs(ground: Ground, node: int) -> int:
    """Pairs in the tiles of 128 by 128 that have one: what a kernel computes."""
    if ground.level <= TILE:
        return ground.n**2 if node != EMPTY else 0
    return ground.count(ground.forest.touched(node, ground.level - TILE))


def again(ground: Ground, node: int) -> Again | None:
    """A key that is skipped by a query at or after it and needed by the next one."""
    forest = ground.forest
    # (q, k) such that q + 1 attends to k.
    later = forest.compose(ground.next, node)
    broken = forest.meet(forest.minus(later, node), ground.causal)
    if broken == EMPTY:
        return None
    q, k = forest.first(broken, ground.level)
    return Again(k, q, q + 1)


def live(ground: Ground, node: int) -> int:
    """The most keys up to a query, its own included, that it or a later one attends to."""
    forest = ground.forest
    # (t, q) with q >= t, then (q, k): k is needed at t or later.
    needed = forest.compose(ground.anticausal, node)
    return int(forest.row_counts(forest.meet(needed, ground.causal), ground.level).max())
