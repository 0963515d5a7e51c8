"""The relations of a stack's heads and layers at one length, exact where they can be held, else between bounds."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from .grow import Grower
from .ir import Binary, Compare, Const, Formula, Mask, Not, Truth, Var, conjunction
from .plan import Shape
from .quadtree import EMPTY, Forest, OverBudget
from .stack import LoweredStack
from .tables import Ints, table_values
from .walk import depends_on_head

# Nodes and products one analysis may make, about 1 GB: those of masks, of layers, of depths, of heads; the rest is for
# what is asked of them.
BUDGET = 7_000_000
MASKS, LAYERS, DEPTHS, HEADS = 2_000_000, 400_000, 3_200_000, 500_000
# Where pairs are too irregular: bounds by squares of 32, 256 and 2048 tokens.
FLOORS = (5, 8, 11)
# Numbers drawn at random up to which a mask can be held pair by pair.
MOST_DRAWS = 2048
# What is left open, tables, and the size of undecided squares in halvings.
Attempt = tuple[str, Mapping[str, Ints], int]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Pairs that are in for certain, and pairs that cannot be excluded; the same node when the relation is exact."""

    must: int
    may: int


@dataclass(frozen=True, slots=True)
class LayerNodes:
    """One layer: what each head keeps, and what is known of their union."""

    heads: tuple[Bounds, ...]
    # Of the heads that share keys and values.
    groups: tuple[Bounds, ...]
    union: Bounds
    text: str
    # Why the bounds differ; empty where they are equal.
    undecided: str


class Ground:
    """The tokens of one length: their quadtrees, and the relations that everything is measured by."""

    def __init__(self, n: int, forest: Forest | None = None) -> None:
        self.n = n
        self.forest = forest or Forest(BUDGET)
        self.grower = Grower(self.forest, n)
        self.level = self.grower.level
        q, k = Var("q"), Var("k")
        self.everything = self.plain(Truth(True))
        self.causal = self.plain(Compare("<=", k, q))
        self.anticausal = self.plain(Compare(">=", k, q))
        self.identity = self.plain(Compare("==", k, q))
        # (q, q + 1): composed from the left it moves a relation one query up.
        self.next = self.plain(Compare("==", k, Binary("+", q, Const(1))))
        self.previous = self.plain(Compare("==", q, Binary("+", k, Const(1))))
        # Every query but the last, with itself.
        self.early = self.forest.compose(self.next, self.previous)

    def shrunk(self, halvings: int) -> "Ground":
        """The same sequence in blocks of 2^halvings tokens, which divide it, in the same forest."""
        return Ground(self.n >> halvings, self.forest)

    def plain(self, formula: Formula) -> int:
        """The node of a formula over q, k and n."""
        return self.grower.grow(formula, {}, {}, False)

    def count(self, node: int) -> int:
        """How many pairs a relation has."""
        return self.forest.count(node, self.level)

    def union(self, parts: tuple[Bounds, ...]) -> Bounds:
        """Bounds of a union."""
        must = may = EMPTY
        for part in parts:
            must, may = self.forest.union(must, part.must), self.forest.union(may, part.may)
        return Bounds(must, may)


def layer_nodes(
    ground: Ground, stack: LoweredStack, heads: int, kv_heads: int, inputs: Mapping[str, Ints]
) -> tuple[LayerNodes, ...]:
    """Every layer of a stack; layers with the same masks are the same object."""
    made: dict[object, LayerNodes] = {}
    out: list[LayerNodes] = []
    for assignments in stack.layers:
        key = tuple((one.heads, one.mask) for one in assignments)
        if key not in made:
            found: dict[int, Bounds] = {}
            reasons: dict[str, None] = {}
            for one in assignments:
                nodes, reason = _mask_nodes(ground, one.mask, one.heads, heads, kv_heads, inputs)
                found |= nodes
                reasons |= {reason: None} if reason else {}
            parts = tuple(found[h] for h in range(heads))
            text = "; ".join(dict.fromkeys(one.text for one in assignments))
            size = heads // kv_heads
            groups = tuple(ground.union(parts[first : first + size]) for first in range(0, heads, size))
            made[key] = LayerNodes(parts, groups, ground.union(parts), text, "; ".join(reasons))
        out.append(made[key])
    return tuple(out)


def _mask_nodes(
    ground: Ground, mask: Mask, members: tuple[int, ...], heads: int, kv_heads: int, inputs: Mapping[str, Ints]
) -> tuple[dict[int, Bounds], str]:
    """What each of some heads keeps under one mask, and why some of it is bounds."""
    differ = depends_on_head(mask)
    shape = Shape(True, heads, kv_heads)
    missing = dict.fromkeys(t.source for t in mask.tables if t.source and t.source not in inputs)
    kept = (t for t in mask.tables if t.source not in missing)
    tables = {t.name: table_values(t, inputs, ground.n, ground.n, shape) for t in kept}
    drawn = {t.name for t in mask.tables if t.kind == "sample"}
    fewer = {name: table for name, table in tables.items() if name not in drawn}
    attempts = [("", tables, 0)] if sum(len(tables[name]) for name in drawn) <= MOST_DRAWS else []
    attempts += [("what is drawn at random is left open", fewer, 0)] if drawn else []
    attempts += [(f"known by squares of {1 << floor} tokens", fewer, floor) for floor in FLOORS]
    out: dict[int, Bounds] = {}
    reasons = {f"depends on the input `{name}`": None for name in missing}
    for h in members:
        if out and not differ:
            out[h] = out[members[0]]
        else:
            out[h], reason = _bounds(ground, mask, {"h": h, "g": h * kv_heads // heads}, attempts)
            reasons |= {reason: None} if reason else {}
    exact = all(one.must == one.may for one in out.values())
    return out, "" if exact else f"{mask.name}: {', '.join(reasons)}"


def _bounds(ground: Ground, mask: Mask, values: Mapping[str, int], attempts: Sequence[Attempt]) -> tuple[Bounds, str]:
    """A mask's pairs as a whole where it can be held so, else `keep` by `keep`, and what that leaves open."""
    whole = [attempt for attempt in attempts if not attempt[2]]
    if found := _first(ground, mask.formula, values, whole):
        return found
    allowed = _allowed(ground, mask, values, attempts[-1][1])
    keeps = [c.formula for c in mask.clauses if c.kind == "keep"]
    limits = replace(mask, clauses=tuple(c for c in mask.clauses if c.kind != "keep")).formula
    parts = [conjunction((limits, keep)) for keep in keeps or [Truth(True)]]
    found_parts = [
        _first(ground, part, values, attempts) or (Bounds(EMPTY, ground.everything), "too irregular") for part in parts
    ]
    reasons = dict.fromkeys(reason for _, reason in found_parts if reason)
    bounds = ground.union(tuple(bounds for bounds, _ in found_parts))
    return replace(bounds, may=ground.forest.meet(bounds.may, allowed)), ", ".join(reasons)


def _allowed(ground: Ground, mask: Mask, values: Mapping[str, int], tables: Mapping[str, Ints]) -> int:
    """What the limits of a mask leave, those of them that can be held by themselves: causality always can."""
    out = ground.everything
    for clause in mask.clauses:
        if clause.kind != "keep":
            limit = clause.formula if clause.kind == "require" else Not(clause.formula)
            with suppress(OverBudget), ground.forest.allowance(MASKS // 4):
                out = ground.forest.meet(out, ground.grower.grow(limit, values, tables, True))
    return out


def _first(
    ground: Ground, formula: Formula, values: Mapping[str, int], attempts: Sequence[Attempt]
) -> tuple[Bounds, str] | None:
    """A formula's pairs by the first attempt that can be held, and what that attempt leaves open."""
    for reason, known, floor in attempts:
        try:
            with ground.forest.allowance(MASKS // 4):
                must = ground.grower.grow(formula, values, known, False, floor)
                return Bounds(must, ground.grower.grow(formula, values, known, True, floor)), reason
        except OverBudget:
            continue
    return None
