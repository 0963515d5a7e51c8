"""Pass: find the tiles a mask touches and those it fills, and the loops that visit them."""

from dataclasses import replace

from . import relation
from .ir import Compare, Const, Formula, Truth, Var, conjunction
from .loops import runs
from .plan import ZERO, Plan, Region, Run
from .relation import Space, Tiles, UndecidedError
from .walk import variables

# Beyond this many partial pieces one mask serves them all.
MOST_PIECES = 4
# What telling the pieces' masks apart may cost.
SIMPLIFY_BUDGET = 300_000


def classify_tiles(plan: Plan) -> Plan:
    """Full tiles need no mask; partial ones keep only what can fail there; the rest are never visited."""
    space = Space(plan.shape, tuple(name for name, _ in plan.uniforms))
    block_m, block_n = plan.tiling.block_m, plan.tiling.block_n
    inside = conjunction((plan.formula, Compare("<", Var("k"), Var("n"))))
    try:
        with relation.budget():
            must = relation.pairs(plan.formula, space, padded=True)
            found = relation.tiles(must.intersect(space.domain()), must, space, block_m, block_n)
            regions = (*_full(found, space, plan), *_partial(found, inside, space, plan))
        return replace(plan, regions=regions)
    except UndecidedError as error:
        return replace(plan, regions=_bounds(plan, inside, space), strategy="table", reason=str(error))


def _full(found: Tiles, space: Space, plan: Plan) -> tuple[Region, ...]:
    loops = _loops(found.full, space, plan)
    return (Region(loops, Truth(True)),) if loops else ()


def _loops(tile_set: relation.TileSet, space: Space, plan: Plan) -> tuple[Run, ...]:
    return tuple(run for node in relation.schedules(tile_set, space, plan.tiling.block_m) for run in runs(node))


def _partial(found: Tiles, inside: Formula, space: Space, plan: Plan) -> tuple[Region, ...]:
    """Regions by what can fail in them; pieces with the same mask are one region."""
    pieces = relation.pieces(found.partial)
    if len(pieces) > MOST_PIECES:
        pieces = [found.partial]
    masks: dict[Formula, tuple[Run, ...]] = {}
    for piece in pieces:
        mask = _simplified(inside, piece, space, plan)
        masks[mask] = (*masks.get(mask, ()), *_loops(piece, space, plan))
    return tuple(Region(loops, mask) for mask, loops in masks.items() if loops)


def _simplified(inside: Formula, piece: relation.TileSet, space: Space, plan: Plan) -> Formula:
    try:
        with relation.budget(SIMPLIFY_BUDGET):
            where = relation.tokens(piece, space, plan.tiling.block_m, plan.tiling.block_n)
            mask = relation.simplify(inside, where, space)
    except UndecidedError:
        return inside
    # A partial tile whose every existing pair is in still has rows past the end; any true mask serves.
    return inside if mask == Truth(True) else mask


def _bounds(plan: Plan, inside: Formula, space: Space) -> tuple[Region, ...]:
    """What the part isl can hold says: tiles that surely are full, and tiles that may be anything."""
    try:
        with relation.budget():
            may = relation.pairs(plan.formula, space, unknown=True)
            must = relation.pairs(plan.formula, space, unknown=False, padded=True)
            found = relation.tiles(may, must, space, plan.tiling.block_m, plan.tiling.block_n)
            partial = _loops(found.partial, space, plan)
            return (*_full(found, space, plan), *((Region(partial, inside),) if partial else ()))
    except UndecidedError:
        last = Var("n")
        everywhere = Run(ZERO, _ceiling(last, plan.tiling.block_n))
        return (Region((everywhere,), inside),)


def _ceiling(length: Var, block: int) -> "relation.Expr":
    from .ir import Binary

    return Binary("//", Binary("+", length, Const(block - 1)), Const(block))


__all__ = ["classify_tiles", "variables"]
