"""What one layer keeps: its density, its rows, and what a decoder's cache must hold for it."""

from .coverage import Again, LayerFacts
from .ground import LAYERS, Bounds, Ground, LayerNodes
from .quadtree import EMPTY, OverBudget

# Halvings of a kernel's tile: 128 tokens.
TILE = 7


def layer_facts(ground: Ground, layer: LayerNodes, members: tuple[int, ...]) -> LayerFacts:
    """The facts of the layers `members`, which are all like `layer`."""
    union = layer.union
    rows = ground.forest.row_counts(union.must, ground.level)[: ground.n]
    possible = rows if union.must == union.may else ground.forest.row_counts(union.may, ground.level)[: ground.n]
    empty = int((possible == 0).sum())
    try:
        with ground.forest.allowance(LAYERS):
            held = {group: live(ground, group.may) for group in {union, *layer.groups}}
            skipped, followed = again(ground, union), True
    except OverBudget:
        held, skipped, followed = dict.fromkeys({union, *layer.groups}, ground.n), None, False
    return LayerFacts(
        layers=members,
        text=layer.text,
        pairs=ground.count(union.must),
        head_pairs=sum(ground.count(head.must) for head in layer.heads),
        tile_pairs=sum(tile_pairs(ground, head.may) for head in layer.heads),
        least=int(rows.min()),
        most=int(possible.max()),
        empty=empty,
        first_empty=int((possible == 0).argmax()) if empty else None,
        live=held[union],
        cached=sum(held[group] for group in layer.groups),
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


def again(ground: Ground, union: Bounds) -> Again | None:
    """A key that is certainly skipped by a query at or after it and needed by the next one."""
    forest = ground.forest
    # (q, k) such that q + 1 attends to k.
    later = forest.compose(ground.next, union.must)
    broken = forest.meet(forest.minus(later, union.may), ground.causal)
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
