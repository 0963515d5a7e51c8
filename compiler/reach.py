"""What tokens see through several layers: relations composed, layer by layer and without end."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .coverage import DepthFacts, Hop, Pair, Route, RowFacts
from .ground import Bounds, Ground
from .quadtree import EMPTY, Interval, OverBudget


@dataclass(frozen=True, slots=True)
class Reach:
    """Relations by depth: the first is staying in place, the next goes through layer 0, and so on."""

    depths: tuple[Bounds, ...]
    # The pairs that count; reaching all of them is being complete.
    admissible: int
    complete_at: int | None
    # Whether the relations grew too irregular before all layers were through.
    stopped: bool = False


def reach(ground: Ground, layers: Sequence[Bounds], admissible: int) -> Reach:
    """Compose layers from the input up, until all admissible pairs are reached or the layers end."""
    compose, union = ground.forest.compose, ground.forest.union
    here = Bounds(ground.identity, ground.identity)
    depths = [here]
    for depth, layer in enumerate(layers, 1):
        try:
            must = compose(union(layer.must, ground.identity), here.must)
            exact = layer.must == layer.may and here.must == here.may
            may = must if exact else compose(union(layer.may, ground.identity), here.may)
            for node in {must, may}:  # what is asked of every depth below; afterwards it costs nothing
                ground.forest.meet(node, admissible)
                ground.forest.minus(admissible, node)
        except OverBudget:
            return Reach(tuple(depths), admissible, None, True)
        here = Bounds(must, may)
        depths.append(here)
        if ground.forest.minus(admissible, must) == EMPTY:
            return Reach(tuple(depths), admissible, depth)
    return Reach(tuple(depths), admissible, None)


def depth_facts(ground: Ground, found: Reach, depth: int, admissible_rows: NDArray[np.int32]) -> DepthFacts:
    """The numbers of one depth; rows are judged by what is guaranteed."""
    here = found.depths[depth]
    inside = ground.forest.meet(here.must, found.admissible)
    possible = inside if here.may == here.must else ground.forest.meet(here.may, found.admissible)
    rows = ground.forest.row_counts(inside, ground.level)[: ground.n]
    # Of several rows the latest.
    worst = ground.n - 1 - int(np.argmin((rows / admissible_rows)[::-1]))
    last, least = (
        RowFacts(
            row, int(rows[row]), int(admissible_rows[row]), ground.forest.unbroken(here.must, ground.level, row, row)
        )
        for row in (ground.n - 1, worst)
    )
    return DepthFacts(depth, ground.count(inside), ground.count(possible), last, least)


def hole(ground: Ground, found: Reach) -> Pair | None:
    """An admissible pair that is certainly never reached, the latest query's where halves allow."""
    missing = ground.forest.minus(found.admissible, found.depths[-1].may)
    return None if missing == EMPTY else ground.forest.first(missing, ground.level)


def limit(ground: Ground, layers: Sequence[Bounds], found: Reach) -> tuple[int, int]:
    """What the stack reaches when repeated without end, and the first depth of that; guaranteed pairs only."""
    compose, union = ground.forest.compose, ground.forest.union
    if found.complete_at is not None:
        return ground.count(found.admissible), found.complete_at
    # Powers of the whole stack by squaring, then the fewest repeats by halving the steps again.
    powers = [found.depths[-1].must]
    while (square := compose(powers[-1], powers[-1])) != powers[-1]:
        powers.append(square)
    end, here, repeats = powers[-1], ground.identity, 0
    for place in range(len(powers) - 1, -1, -1):
        further = compose(powers[place], here)
        if further != end:
            here, repeats = further, repeats + (1 << place)
    depth = repeats * len(layers)
    for layer in layers:
        if here == end:
            break
        here, depth = compose(union(layer.must, ground.identity), here), depth + 1
    return ground.count(ground.forest.meet(end, found.admissible)), depth


def route(ground: Ground, layers: Sequence[Bounds], found: Reach, query: int, key: int) -> Route:
    """The fewest layers from the input through which a query sees a key, and one way there, last hop first."""
    forest, level = ground.forest, ground.level
    seen = [d for d, here in enumerate(found.depths) if forest.contains(here.must, level, query, key)]
    if not seen:
        return Route(query, key, None, ())
    hops: list[Hop] = []
    at = query
    for depth in range(seen[0] - 1, -1, -1):
        if at == key:
            break
        if forest.contains(found.depths[depth].must, level, at, key):
            continue
        sees = forest.row(layers[depth].must, level, at)
        leads = forest.column(found.depths[depth].must, level, key)
        step = first_common(sees, leads)
        hops.append(Hop(depth, at, step))
        at = step
    return Route(query, key, seen[0], tuple(hops))


def first_common(a: Sequence[Interval], b: Sequence[Interval]) -> int:
    """The smallest number in two lists of intervals; there must be one."""
    i = j = 0
    while True:
        low = max(a[i][0], b[j][0])
        if low < min(a[i][1], b[j][1]):
            return low
        if a[i][1] <= b[j][1]:
            i += 1
        else:
            j += 1
