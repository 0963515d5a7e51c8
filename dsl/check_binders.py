"""Whether what a reduction runs over makes sense, and what its names count."""

from dataclasses import replace

from .here import Here, words
from .infer import constant
from .scope import POSITIONS, VARIABLES, Cell
from .syntax import Binder, Reduce


def bind(expr: Reduce, here: Here) -> Here | None:
    """Where a reduction's body stands; None once something is reported without which the body makes no sense."""
    scope = here.scope
    inner = replace(here, cells=dict(here.cells))
    if expr.op == "descend" and (len(expr.binders) != 1 or expr.binders[0].inside is None or expr.where is not None):
        hint = "`descend(t in C) ..`"
        scope.report("E007", expr.span, "`descend` runs through the tokens of one cell, and has no `where`", hint)
    for binder in expr.binders:
        if binder.name == "h" and binder.bound is None and binder.inside in (None, "g"):
            continue
        if (cell := _bind(binder, inner)) is None:
            return None
        inner.cells[binder.name] = cell
        inner.bound |= {binder.name}
    if expr.where is not None:
        inner.integers(expr.where, "condition")
    return inner


def _bind(binder: Binder, here: Here) -> Cell | None:
    """What the name of a binder counts; None once reported."""
    scope, name = here.scope, binder.name
    if binder.bound is not None:
        constant(binder.bound, scope, "how far a reduction runs")
    taken = name in (VARIABLES - POSITIONS) or (name in scope.names and name not in scope.cells)
    if name in here.cells or taken:
        apart = f", or give what runs over all `{name}` a score of its own" if name in scope.cells else ""
        scope.report("E008", binder.span, f"`{name}` has a meaning already", f"bind another name{apart}")
        return None
    if binder.inside is None and binder.bound is not None:
        return Cell("", "", None)
    if binder.inside is None:
        return _whole(binder, here)
    if binder.bound is not None:
        return Cell(scope.cells[binder.inside].side, binder.inside, 1)
    return _inside(binder, binder.inside, here)


def _whole(binder: Binder, here: Here) -> Cell | None:
    """A name alone is that of an axis."""
    scope = here.scope
    if binder.name in scope.cells:
        inner = replace(here, cells=scope.cells, bound=here.bound | {binder.name})
        return inner.at(binder.name, binder.span)
    if scope.look_up(binder.name, binder.span).kind != "unknown":
        scope.report("E006", binder.span, f"`{binder.name}` is not an axis", "such as `axis I = q // 64`")
    return None


def _inside(binder: Binder, around: str, here: Here) -> Cell | None:
    scope, name = here.scope, binder.name
    outer, own = here.at(around, binder.span), scope.cells.get(name)
    if outer is None:
        return None
    if not outer.side:
        what = f"counts {words(outer)}" if outer.axis else "is a number"
        scope.report("E006", binder.span, f"`{around}` {what}, and nothing lies inside it")
        return None
    if own is not None and (own.side, own.order) != (outer.side, outer.order):
        scope.report("E006", binder.span, f"`{name}` counts {words(own)}, and does not lie inside `{around}`")
        return None
    if own is None:
        return Cell(outer.side, outer.order or outer.side, 1, outer.order)
    scope.used.add(name)
    if own.last:
        scope.report("E006", binder.span, f"`{name}` has the last tokens only, and does not lie inside `{around}`")
    elif own.size and outer.size and outer.size % own.size:
        message = f"cells of {outer.size} tokens are not made of cells of {own.size}"
        scope.report("E005", binder.span, message, "the finer size divides the coarser one")
    return own
