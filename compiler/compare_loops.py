"""Do loops visit the tiles that they were made for, each once?"""

from collections.abc import Sequence

from . import relation
from .ir import Binary, Compare, Const, Expr, Formula, Var, conjunction
from .plan import Run
from .walk import rewrite, substitute


def require_visits(loops: Sequence[Run], tile_set: relation.TileSet, space: relation.Space, block_m: int) -> None:
    """Raise UndecidedError unless loops visit each tile of a set once, and no other.

    isl has been seen to lose the loops of some heads where a stride's first tile depends on the head.
    """
    off = Const(0) if space.shape.square else Var("off")
    row = Binary("*", Var("q"), Const(block_m))
    exists = conjunction((Compare(">=", Var("q"), Const(0)), Compare("<", row, Binary("-", Var("n"), off))))
    there = relation.holding(exists, space).intersect_params(space.domain().params())
    found = there.subtract(there)
    for run in loops:
        tiles = relation.holding(_visited(run), space).intersect(there)
        if not found.is_disjoint(tiles):
            raise relation.UndecidedError("isl made loops that visit tiles twice")
        found = found.union(tiles)
    if not found.is_equal(tile_set.intersect(there)):
        raise relation.UndecidedError("isl made loops that visit other tiles")


def _visited(run: Run) -> Formula:
    """The tiles of a run, with the query tile for q and the key tile for k."""
    key = Var("k")
    low, high = (_by_token(bound) for bound in (run.low, run.high))
    step = Compare("==", Binary("%", Binary("-", key, low), Const(run.step)), Const(0))
    guard = rewrite(run.guard, _by_token)
    return conjunction((Compare(">=", key, low), Compare("<", key, high), *((step,) if run.step > 1 else ()), guard))


def _by_token(expr: Expr) -> Expr:
    return substitute(substitute(expr, "i", Var("q")), "j", Var("k"))
