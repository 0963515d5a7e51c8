"""Whether a relation is one of distances: the same below every query, but for first keys that everyone sees."""

from .closed_forms import Distances
from .ground import Ground
from .ir import Compare, Const, Var
from .quadtree import EMPTY, Forest

# Blocks of these many halvings are tried: single tokens, then 16 to 1024 tokens.
UNITS = (0, 4, 5, 6, 7, 8, 9, 10)


def distances(ground: Ground, node: int) -> Distances | None:
    """The distances of a causal relation, in tokens or else in the smallest blocks that it is made of."""
    for unit in UNITS:
        size = 1 << unit
        if ground.n % size or ground.n <= 2 * size:
            continue
        if unit == 0:
            blocks, small = node, ground
        else:
            blocks = ground.forest.touched(node, ground.level - unit)
            # A relation between blocks is the same node as the one between their tokens.
            if ground.forest.meet(blocks, ground.causal) != node:
                continue
            small = ground.shrunk(unit)
        if found := _shifts(small, ground.forest, blocks, size):
            return found
    return None


def _shifts(small: Ground, forest: Forest, node: int, size: int) -> Distances | None:
    """The distances of a relation between units, where moving one unit along changes nothing."""
    n, level = small.n, small.level
    spans = forest.row(node, level, n - 1)
    sinks = spans[0][1] if spans and spans[0][0] == 0 and spans[0][1] < n else 0
    for first in dict.fromkeys((0, sinks)):
        columns = small.plain(Compare("<", Var("k"), Const(first)))
        if forest.minus(forest.meet(columns, small.causal), node) != EMPTY:
            continue
        rest = forest.minus(node, columns)
        # (q, k) such that (q + 1, k + 1) is in, against (q, k) itself where there is a next query.
        moved = forest.minus(forest.compose(small.next, forest.compose(rest, small.previous)), columns)
        here = forest.compose(small.early, rest)
        if moved == here:
            kept = forest.row(rest, level, n - 1)
            return Distances(n, size, tuple((n - high, n - low) for low, high in reversed(kept)), first)
    return None
