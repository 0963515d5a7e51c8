"""Whether what a score reads, other scores, inputs, tables and rows of tokens, is read where it has values."""

from typing import Literal

from .here import WORDS, Here, words
from .infer import constant
from .scope import Cell, Scope
from .source import Span
from .syntax import Expr, Index, Name

# What a pattern that selects by content can read of a call.
ROWS = {"Q": "q", "K": "k", "V": "k"}

Kind = Literal["real", "vector", "unknown"]


def check_index(expr: Index, here: Here) -> Kind:
    """What reading a name gives; everything wrong with it is reported."""
    scope, name = here.scope, expr.name
    before, value = len(scope.findings), scope.names.get(name)
    if value is None and name in ROWS:
        return _row(expr, ROWS[name], here)
    if value is None or value.kind == "unknown":
        scope.look_up(name, expr.span)
        return "unknown"
    scope.used.add(name)
    if value.kind not in ("score", "rows", "reals"):
        here.integers(expr, "number")
    elif len(expr.indices) != len(value.axes):
        count = "1 index" if len(value.axes) == 1 else f"{len(value.axes)} indices"
        shape = f"{name}[{', '.join(value.axes)}]"
        message = f"`{shape}` takes {count}, not {len(expr.indices)}"
        scope.report("E007", expr.span, message, _meaning(value.axes, scope))
    elif value.kind == "reals":
        _check_table(expr, value.axes, here)
    elif not _swapped(expr, value.axes, here):
        for axis, index in zip(value.axes, expr.indices, strict=True):
            _check_cell(name, axis, index, here)
    return "unknown" if len(scope.findings) > before else "vector" if value.kind == "rows" else "real"


def _meaning(axes: tuple[str, ...], scope: Scope) -> str:
    """What each index of a score counts."""
    return ", ".join(f"`{axis}` counts {words(scope.cells[axis])}" for axis in axes if axis in scope.cells)


def _swapped(expr: Index, axes: tuple[str, ...], here: Here) -> bool:
    """Report the right names in a wrong order, once."""
    names = [index.name for index in expr.indices if isinstance(index, Name)]
    cells = [here.cells[name] for name in names if name in here.cells]
    wanted = [here.scope.cells[axis] for axis in axes if axis in here.scope.cells]
    if not len(cells) == len(wanted) == len(expr.indices):
        return False
    given, right = ([(c.side, c.order) for c in some] for some in (cells, wanted))
    if given == right or sorted(given) != sorted(right):
        return False
    for name in names:
        here.at(name, expr.span)
    ordered = ", ".join(names[given.index(place)] for place in right)
    message = f"`{expr.name}[{', '.join(axes)}]` takes its indices in this order"
    here.scope.report("E006", expr.span, message, f"write `{expr.name}[{ordered}]`")
    return True


def _check_table(expr: Index, axes: tuple[str, ...], here: Here) -> None:
    """A table of real numbers is read by its layer, and at each head."""
    for axis, index in zip(axes, expr.indices, strict=True):
        if axis == "layer" or index != Name("h"):
            constant(index, here.scope, f"where `{expr.name}` is read, unless it is `h`,")


def _check_cell(name: str, axis: str, index: Expr, here: Here) -> None:
    """What is read at a name counts the very cells there are; anything else is read at any integer."""
    wanted = here.scope.cells.get(axis)
    if not isinstance(index, Name) or (here.known(index.name) and index.name not in (*here.cells, *here.scope.cells)):
        here.integers(index, "number")
    elif (found := here.at(index.name, index.span)) is not None and wanted is not None and found.axis:
        _check_match(name, wanted, found, index, here)


def _check_match(name: str, wanted: Cell, found: Cell, index: Name, here: Here) -> None:
    scope, has = here.scope, f"`{name}` has a value for each `{wanted.axis}`"
    if (found.side, found.order) != (wanted.side, wanted.order):
        counts = f"counts {words(found)}"
        scope.report("E006", index.span, f"{has} of the {words(wanted)}, and `{index.name}` {counts}")
    elif found.axis != wanted.axis and (found.size is None or found.size != wanted.size):
        hint = f"read it at its own cells, or at an integer such as `{name}[{index.name} // 2]`"
        scope.report("E006", index.span, f"{has}, and `{index.name}` counts other cells", hint)


def _row(expr: Index, side: str, here: Here) -> Kind:
    if len(expr.indices) != 1:
        here.scope.report("E007", expr.span, f"`{expr.name}` takes 1 index, a token, not {len(expr.indices)}")
    for index in expr.indices:
        if isinstance(index, Name) and index.name in here.cells and here.cells[index.name].order:
            _check_place(expr.name, index.name, index.span, here)
            continue
        mentioned = [(name, here.cells[name]) for name in sorted(here.integers(index, "number")) if name in here.cells]
        if any(cell.side == "d" for _, cell in mentioned):
            continue  # a distance takes one side to the other
        for name, cell in mentioned:
            if cell.order:
                hint = f"write `{expr.name}[t]` with `t in {cell.axis}`"
                here.scope.report(
                    "E006", index.span, f"a row is read at one place, and `{name}` is a part of this", hint
                )
            elif cell.side not in ("", side):
                counts = f"`{expr.name}` has a row for each of the {WORDS[side]}, and `{name}` counts"
                here.scope.report("E006", index.span, f"{counts} {words(cell)}")
    return "vector"


def _check_place(rows: str, name: str, span: Span | None, here: Here) -> None:
    """The row of the key at a place."""
    cell = here.at(name, span)
    if cell is not None and rows == "Q":
        here.scope.report("E006", span, f"`Q` has a row for each of the queries, and `{name}` counts places")
    elif cell is not None and cell.size not in (1, None):
        here.scope.report("E006", span, f"`{name}` counts cells of places, and a row is read at one place")
