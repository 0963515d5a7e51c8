"""A lowered stack to its coverage report."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .claims import judge_claim
from .cost import cost
from .coverage import Cost, Coverage, DepthFacts, Flow, Form, HeadFacts, LayerFacts, Pair, Picture, Route, Verdict
from .distances import distances
from .ground import DEPTHS, HEADS, MASKS, Bounds, Ground, LayerNodes, layer_nodes
from .layer_facts import layer_facts, tile_pairs
from .quadtree import EMPTY, OverBudget
from .reach import Reach, depth_facts, hole, limit, reach, route
from .stack import LoweredClaim, LoweredStack
from .tables import Ints

# Pictures have at most 2^6 squares a side, and graphs of blocks 2^8.
PICTURE, GRAPH = 6, 8
# Masks and depths that are drawn: each up to 8, then powers of two and the last.
MOST_MASKS, FIRST_DEPTHS = 6, 8
# Lengths and depths other than the report's own that claims may be about.
MOST_LENGTHS = 4
CAUSAL_OPEN = "whether the stack is causal is left open"
# What repeating a stack without end may spend.
ENDLESS = 500_000


@dataclass(frozen=True, slots=True)
class Request:
    """What a report is about, besides the stack: sizes, a route from one token to another, and more claims.

    `deeper` gives a stack of more layers for a claim about more than there are, where the stack is a pattern repeated.
    """

    n: int
    heads: int
    kv_heads: int
    head_dim: int = 128
    element: int = 2
    path: Pair | None = None
    claims: tuple[LoweredClaim, ...] = ()
    deeper: Callable[[int], LoweredStack] | None = None
    progress: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class _Analysis:
    """One stack at one length."""

    ground: Ground
    layers: tuple[LayerNodes, ...]
    admissible: int
    # None where it depends on what is left open.
    causal: bool | None
    found: Reach

    @property
    def unions(self) -> tuple[Bounds, ...]:
        return tuple(layer.union for layer in self.layers)


def cover(stack: LoweredStack, request: Request, inputs: Mapping[str, Ints]) -> Coverage:
    """The report of a stack; what cannot be decided within the budget is reported as undecided."""
    start = time.perf_counter()
    say = request.progress
    say("relations")
    done = _analyse(stack, request.n, request, inputs)
    ground, found = done.ground, done.found
    say("layers")
    layers = _layer_facts(done)
    say("depths")
    depths = _depth_facts(done)
    say("heads")
    heads, all_heads = _head_facts(done, request)
    say("claims")
    verdicts = tuple(_verdicts(stack, request, inputs, done, layers))
    say("limit")
    end = _limit(done)
    say("graph")
    return Coverage(
        name=stack.name,
        doc=stack.doc,
        n=request.n,
        layers=len(stack.layers),
        heads=request.heads,
        kv_heads=request.kv_heads,
        causal=bool(done.causal),
        admissible=ground.count(done.admissible),
        layer_facts=layers,
        depths=depths,
        complete_at=found.complete_at,
        hole=None if found.stopped else _hole(done),
        limit=end[0],
        limit_depth=end[1],
        head_facts=heads,
        forms=_forms(done),
        flow=_flow(done),
        cost=_cost(done, layers, request),
        route=_route(done, request.path),
        verdicts=verdicts,
        pictures=tuple(_pictures(done)),
        undecided=_undecided(done, layers, all_heads),
        seconds=time.perf_counter() - start,
    )


def _analyse(stack: LoweredStack, n: int, request: Request, inputs: Mapping[str, Ints]) -> _Analysis:
    ground = Ground(n)
    with ground.forest.allowance(MASKS):
        layers = layer_nodes(ground, stack, request.heads, request.kv_heads, inputs)
    causal = _is_causal(ground, layers)
    admissible = ground.causal if causal else ground.everything
    unions = tuple(layer.union for layer in layers)
    with ground.forest.allowance(DEPTHS):
        return _Analysis(ground, layers, admissible, causal, reach(ground, unions, admissible))


def _is_causal(ground: Ground, layers: Sequence[LayerNodes]) -> bool | None:
    """Whether no query sees a later key; None where that depends on what is left open."""
    if all(ground.forest.minus(layer.union.may, ground.causal) == EMPTY for layer in layers):
        return True
    certain = any(ground.forest.minus(layer.union.must, ground.causal) != EMPTY for layer in layers)
    return False if certain else None


def _hole(done: _Analysis) -> Pair | None:
    """A pair that is not reached and admissible, also if the stack turns out to be causal."""
    judged = done.found if done.causal is not None else replace(done.found, admissible=done.ground.causal)
    return hole(done.ground, judged)


def _layer_facts(done: _Analysis) -> tuple[LayerFacts, ...]:
    """One entry for each kind of layer, in order of its first."""
    members: dict[int, list[int]] = {}
    kinds = {id(layer): layer for layer in done.layers}
    for place, layer in enumerate(done.layers):
        members.setdefault(id(layer), []).append(place)
    return tuple(layer_facts(done.ground, kinds[key], tuple(places)) for key, places in members.items())


def _depth_facts(done: _Analysis) -> tuple[DepthFacts, ...]:
    """One entry a depth; where a layer adds nothing, the one before."""
    rows = done.ground.forest.row_counts(done.admissible, done.ground.level)[: done.ground.n]
    out: list[DepthFacts] = []
    # Where not even one layer could be followed, at least staying in place.
    for depth in range(1 if len(done.found.depths) > 1 else 0, len(done.found.depths)):
        same = out and done.found.depths[depth] == done.found.depths[depth - 1]
        out.append(replace(out[-1], depth=depth) if same else depth_facts(done.ground, done.found, depth, rows))
    return tuple(out)


def _head_facts(done: _Analysis, request: Request) -> tuple[tuple[HeadFacts, ...], bool]:
    """Heads by themselves, then groups that share keys and values, equal ones together; and whether these are all."""
    out: list[HeadFacts] = []
    kinds: list[tuple[Literal["head", "group"], list[tuple[Bounds, ...]]]] = [
        ("head", [tuple(layer.heads[h] for layer in done.layers) for h in range(request.heads)])
    ]
    if 1 < request.kv_heads < request.heads:
        kinds.append(("group", [tuple(layer.groups[g] for layer in done.layers) for g in range(request.kv_heads)]))
    with done.ground.forest.allowance(HEADS):
        for kind, chains in kinds:
            alike: dict[tuple[Bounds, ...], list[int]] = {}
            for place, chain in enumerate(chains):
                alike.setdefault(chain, []).append(place)
            if list(alike) == [done.unions]:
                continue
            for chain, places in alike.items():
                found = reach(done.ground, chain, done.admissible)
                if found.stopped:
                    return tuple(out), False
                pairs = done.ground.count(done.ground.forest.meet(found.depths[-1].must, done.admissible))
                out.append(HeadFacts(kind, tuple(places), pairs, found.complete_at))
    return tuple(out), True


def _verdicts(
    stack: LoweredStack,
    request: Request,
    inputs: Mapping[str, Ints],
    done: _Analysis,
    layers: tuple[LayerFacts, ...],
) -> Iterator[Verdict]:
    """Every claim, each at the length it names; inputs are known at the report's own length only."""
    claims = (*stack.claims, *request.claims)
    places: dict[tuple[int, int], list[int]] = {}
    for place, claim in enumerate(claims):
        n, depth = claim.n or request.n, len(stack.layers)
        if request.deeper and claim.within and claim.within > depth and not (n == request.n and done.found.complete_at):
            depth = claim.within
        places.setdefault((n, depth), []).append(place)
    out: dict[int, Verdict] = {}
    others = 0
    for (n, depth), members in places.items():
        there, facts = done, layers
        if (n, depth) != (request.n, len(stack.layers)):
            others += 1
            if others > MOST_LENGTHS:
                why = f"claims about more than {MOST_LENGTHS} other lengths or depths"
                out |= {place: Verdict(claims[place].text, "undecided", why) for place in members}
                continue
            deeper = request.deeper(depth) if request.deeper and depth != len(stack.layers) else stack
            there = _analyse(deeper, n, request, inputs if n == request.n else {})
            facts = _layer_facts(there)
        for place in members:
            out[place] = _verdict(claims[place], there, facts)
    yield from (out[place] for place in range(len(claims)))


def _verdict(claim: LoweredClaim, done: _Analysis, layers: Sequence[LayerFacts]) -> Verdict:
    """A claim; where it is open whether the stack is causal, what holds either way."""
    verdict = judge_claim(claim, done.ground, done.found, layers)
    if done.causal is None:
        with done.ground.forest.allowance(DEPTHS):
            narrow = reach(done.ground, done.unions, done.ground.causal)
        if judge_claim(claim, done.ground, narrow, layers).status != verdict.status:
            return replace(verdict, status="undecided", detail=f"{CAUSAL_OPEN}: {verdict.detail} if it is not")
    return verdict


def _limit(done: _Analysis) -> tuple[int, int | None]:
    """What the stack reaches when repeated; what it reaches once where that costs too much."""
    once = done.ground.count(done.ground.forest.meet(done.found.depths[-1].must, done.admissible))
    if done.found.stopped:
        return once, None
    try:
        with done.ground.forest.allowance(ENDLESS):
            return limit(done.ground, done.unions, done.found)
    except OverBudget:
        return once, None


def _forms(done: _Analysis) -> tuple[Form, ...]:
    """Closed forms of a stack of equal causal layers that is about distances."""
    first = done.unions[0]
    if not done.causal or first.must != first.may or any(union != first for union in done.unions):
        return ()
    # sympy takes a fifth of a second to import.
    from .closed_forms import forms

    try:
        found = distances(done.ground, first.must)
    except OverBudget:
        return ()
    return () if found is None else forms(found, len(done.layers))


def _flow(done: _Analysis) -> Flow | None:
    """The model of paths and influence on blocks; None for a single block."""
    if done.ground.n < 2:
        return None
    from .flow import flow

    level = done.ground.level
    halvings = min(level, GRAPH)
    block = 1 << (level - halvings)
    count = -(-done.ground.n // block)
    graphs: dict[int, NDArray[np.bool_]] = {}
    for union in done.unions:
        if union.must not in graphs:
            touched = done.ground.forest.touched(union.must, halvings)
            graphs[union.must] = done.ground.forest.densities(touched, halvings, halvings)[:count, :count] > 0
    return flow([graphs[union.must] for union in done.unions], block)


def _cost(done: _Analysis, layers: Sequence[LayerFacts], request: Request) -> Cost:
    dense = tile_pairs(done.ground, done.admissible)
    sizes = (done.ground.n, request.heads, request.kv_heads, request.head_dim, request.element)
    return cost(layers, *sizes, done.ground.count(done.admissible), dense)


def _route(done: _Analysis, path: Pair | None) -> Route | None:
    """The way from one token, a key, to another, a query."""
    if path is None:
        return None
    key, query = path
    return route(done.ground, done.unions, done.found, query, key)


def _pictures(done: _Analysis) -> Iterator[Picture]:
    """The masks of the first kinds of layers, then what is reached by depth."""
    drawn = dict.fromkeys((layer.text, layer.union.must) for layer in done.layers)
    for text, node in list(drawn)[:MOST_MASKS]:
        yield _picture(done.ground, node, text, 0)
    last = len(done.found.depths) - 1
    for depth in range(1, last + 1):
        if depth <= FIRST_DEPTHS or depth == last or depth & (depth - 1) == 0:
            node = done.ground.forest.meet(done.found.depths[depth].must, done.admissible)
            yield _picture(done.ground, node, f"reached after {depth}", depth)


def _picture(ground: Ground, node: int, title: str, depth: int) -> Picture:
    cells = min(PICTURE, ground.level)
    cell = 1 << (ground.level - cells)
    count = -(-ground.n // cell)
    shares = ground.forest.densities(node, ground.level, cells)[:count, :count] * cell * cell
    sides = np.minimum(cell, ground.n - cell * np.arange(count))
    exact = shares / np.outer(sides, sides)
    # No pair vanishes in rounding, and no hole fills.
    rounded = np.where((exact > 0) & (exact < 1), np.clip(np.round(exact, 4), 0.0001, 0.9999), exact).tolist()
    return Picture(title, depth, cell, tuple(tuple(row) for row in rounded))


def _undecided(done: _Analysis, layers: Sequence[LayerFacts], all_heads: bool) -> str:
    """Why numbers are bounds: masks that are, and an analysis that stopped."""
    reasons = dict.fromkeys(layer.undecided for layer in done.layers if layer.undecided)
    if not reasons and not all(facts.exact for facts in layers):
        reasons |= {"what a cache has to hold is too irregular to follow": None}
    if done.causal is None:
        reasons |= {CAUSAL_OPEN: None}
    if not all_heads:
        reasons |= {"some heads by themselves are too irregular to follow": None}
    if done.found.stopped:
        known = len(done.found.depths) - 1
        reasons |= {f"what is reached grows too irregular to follow past depth {known}": None}
    return "; ".join(reasons)
