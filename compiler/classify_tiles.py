"""Pass: find the tiles a mask touches and those it fills, and the loops that visit them."""

from dataclasses import replace

from . import relation
from .compare_loops import require_visits
from .ir import Compare, Formula, Truth, Var, conjunction
from .loops import runs
from .plan import Plan, Region, Run
from .relation import Space, Tiles, UndecidedError

# Beyond this many partial pieces one mask serves them all.
MOST_PIECES = 4
# What the exact answer may cost, about 50 ms, what telling the pieces' masks apart may, and comparing loops with them.
BUDGET = 200_000
CHECK_BUDGET = 200_000
SIMPLIFY_BUDGET = 60_000


def classify_tiles(plan: Plan) -> Plan:
    """Full tiles need no mask; partial ones keep only what can fail there; the rest are never visited."""
    space = relation.space_of(plan.shape, plan.formula, tuple(name for name, _ in plan.uniforms))
    inside = conjunction((plan.formula, Compare("<", Var("k"), Var("n"))))
    try:
        with relation.budget(BUDGET):
            must = relation.pairs(plan.formula, space, padded=True)
            may = must.intersect(space.domain())
            found = relation.tiles(may, must, space, plan.tiling.block_m, plan.tiling.block_n)
            full = _loops(found.full, space, plan)
            pieces = [(piece, _loops(piece, space, plan)) for piece in _pieces(found)]
        with relation.budget(CHECK_BUDGET):
            for tile_set, loops in ((found.full, full), *pieces):
                require_visits(loops, tile_set, space, plan.tiling.block_m)
    except UndecidedError as error:
        return replace(plan, regions=(Region((), inside),), strategy="table", reason=str(error))
    masks: dict[Formula, tuple[Run, ...]] = {}
    for piece, loops in pieces:
        mask = _simplified(inside, piece, space, plan)
        masks[mask] = (*masks.get(mask, ()), *loops)
    partial = tuple(Region(loops, mask) for mask, loops in masks.items() if loops)
    return replace(plan, regions=(*((Region(full, Truth(True)),) if full else ()), *partial))


def _pieces(found: Tiles) -> list[relation.TileSet]:
    """Parts of the partial tiles that may have masks of their own."""
    pieces = relation.pieces(found.partial)
    return pieces if len(pieces) <= MOST_PIECES else [found.partial]


def _loops(tile_set: relation.TileSet, space: Space, plan: Plan) -> tuple[Run, ...]:
    return tuple(run for node in relation.schedules(tile_set, space, plan.tiling.block_m) for run in runs(node))


def _simplified(inside: Formula, piece: relation.TileSet, space: Space, plan: Plan) -> Formula:
    try:
        with relation.budget(SIMPLIFY_BUDGET):
            where = relation.tokens(piece, space, plan.tiling.block_m, plan.tiling.block_n)
            mask = relation.simplify(inside, where, space)
    except UndecidedError:
        return inside
    # A partial tile whose every existing pair is in still has rows past the end; any true mask serves.
    return inside if mask == Truth(True) else mask
