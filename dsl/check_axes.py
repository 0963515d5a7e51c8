"""Whether axes, orders of keys and inputs over cells make sense."""

from collections.abc import Iterable

from .axes import counted
from .diagnostics import did_you_mean
from .here import Here, hand, words
from .infer import constant
from .parameters import index_span, name_span
from .scope import ARGUMENTS, HEADS, POSITIONS, UNKNOWN, VARIABLES, Cell, Scope, Value
from .syntax import Axis, Binary, Divide, Expr, Given, Index, Name, Node, Number, Order, Parameter, Reduce
from .walk import walk


def define_axis(axis: Axis, sizes: dict[str, int], scope: Scope) -> None:
    """Give an axis its meaning: in conditions on pairs it is the number of a token's cell."""
    found = counted(axis, (scope.order,) if scope.order else ())
    divided = [_size(size, sizes, scope) for size in found.sizes]
    if not divided and not _check_count(axis, scope):
        scope.touch(axis.value)
        scope.define(axis.name, UNKNOWN, name_span(axis, axis.name))
        return
    if not divided:
        pass
    elif found.side == "d" and None not in divided and divided[0] != divided[1]:
        message = f"cells of {divided[0]} tokens are no distance from cells of {divided[1]}"
        scope.report("E006", axis.value.span, message, "both sides have cells of one size")
    scope.used.update((found.order,) if found.order else ())
    plain = Value("cells")
    uses = {"d": POSITIONS, "": frozenset[str]()}.get(found.side, frozenset((found.side,)))
    free = axis.name not in scope.places and axis.name not in VARIABLES
    scope.define(axis.name, Value("number", uses) if divided else plain, name_span(axis, axis.name))
    if free:
        size = divided[0] if divided else 1 if found.side else None
        scope.cells[axis.name] = Cell(found.side, axis.name, size, found.order, axis.side is not None)


def _size(size: Expr | None, sizes: dict[str, int], scope: Scope) -> int | None:
    """How many tokens a cell has; None where only parameters say it."""
    if size is None:
        return 1
    constant(size, scope, "a cell's size")
    known = _known(size, sizes)
    if known is not None and known < 1:
        scope.report("E004", size.span, f"cells of {known} tokens", "the size is 1 or more")
    return known


def _check_count(axis: Axis, scope: Scope) -> bool:
    """Whether an axis counts last tokens, or things that are no tokens; anything else is reported."""
    before = len(scope.findings)
    if isinstance(axis.value, Divide):
        scope.report("E006", axis.value.span, "cells are whole numbers of tokens", "`//` divides them: `k // 64`")
    elif axis.side is None and any(isinstance(node, Name) and node.name in scope.cells for node, _ in walk(axis.value)):
        hint = "`q // E`, `k // E`, `q // E - k // E`, `last E of q`, a constant, or `p // E` after `order p = ..`"
        scope.report("E006", axis.value.span, "this is nothing that an axis counts", hint)
    else:
        constant(axis.value, scope, "how much an axis counts")
        if (known := _known(axis.value, {})) is not None and known < 1:
            scope.report("E005", axis.value.span, f"an axis of {known}", "the count is 1 or more")
    return len(scope.findings) == before


def known_sizes(parameters: Iterable[Parameter]) -> dict[str, int]:
    """The parameters whose default is a literal."""
    return {p.name: p.default.value for p in parameters if isinstance(p.default, Number)}


def _known(expr: Expr, sizes: dict[str, int]) -> int | None:
    match expr:
        case Number(value):
            return value
        case Name(name):
            return sizes.get(name)
        case Binary("*" | "//" as op, left, right):
            a, b = _known(left, sizes), _known(right, sizes)
            return None if a is None or b is None or (op, b) == ("//", 0) else a * b if op == "*" else a // b
        case _:
            return None


def define_order(order: Order, scope: Scope) -> None:
    """Give an order its meaning: its name is the place of a key, and an axis of places."""
    span = name_span(order, order.name)
    if scope.order:
        scope.report("E006", span, "a pattern has one order of keys, and this is a second one")
    constant(order.within, scope, "a segment's size")
    here = Here(scope, {"k": scope.cells["k"]})
    match order.by:
        case Index(name, (Name("k"),)) if name in scope.names and scope.names[name].kind == "score":
            here.at("k", order.by.span)
            scope.used.add(name)
            if scope.names[name].axes and scope.cells[scope.names[name].axes[0]] != scope.cells["k"]:
                scope.report("E006", order.by.span, f"`{name}` has no value for each `k`")
        case _:
            hint = "give it a name, `let hot[k] = ..`, and read it: `order p = k by hot[k] within 256`"
            scope.touch(order.by)
            scope.report("E003", order.by.span, "keys are ordered by a score of each key", hint)
            scope.used.add(order.name)
    free = order.name not in scope.places and order.name not in VARIABLES
    scope.define(order.name, Value("number", frozenset(("k",)), ("token",)), span)
    if free and not scope.order:
        scope.cells[order.name] = Cell("k", order.name, 1, order.name)
        scope.order = order.name


def define_given(given: Given, scope: Scope) -> None:
    """Give an input over cells its meaning."""
    found = axes_of(given, given.axes, scope)
    for name, cell in found.items():
        if cell.last:
            scope.report("E006", given.span, f"`{name}` has the last tokens only", "inputs have a value for each cell")
    place = name_span(given, given.name)
    if given.name in ARGUMENTS - VARIABLES:
        hint = "rename it: calls take inputs by name, beside their own arguments"
        scope.report("E008", place, f"`{given.name}` is an argument of every call", hint)
    kinds = {"float": Value("score", axes=given.axes), "vector": Value("rows", axes=given.axes)}
    if given.type.name not in kinds or given.type.axes:
        scope.report("E003", given.type.span, "the numbers of an input over cells are `float`, its rows `vector`")
    known = kinds.get(given.type.name, UNKNOWN) if found.keys() == set(given.axes) else UNKNOWN
    scope.define(given.name, known, place)


def axes_of(node: Node, names: tuple[str, ...], scope: Scope) -> dict[str, Cell]:
    """The axes of a score or an input; one of queries, one of keys in some way, one of other things at most."""
    found: dict[str, Cell] = {}
    for name in names:
        scope.used.add(name)
        cell = scope.cells.get(name)
        if cell is None and name in scope.names and scope.names[name].kind == "unknown":
            continue
        if cell is None:
            hint = did_you_mean(name, scope.cells) if len(scope.cells) > 2 else "such as `axis I = q // 64` before"
            what = "inputs over cells" if isinstance(node, Given) else "scores"
            hint = f"{what} are those of each head already: leave `{name}` out" if name in HEADS else hint
            scope.report("E006", index_span(node, name), f"there is no axis `{name}`", hint)
        elif other := next((f for f in found.values() if hand(f) == hand(cell)), None):
            what = words(cell) if words(cell) == words(other) else f"{words(other)} and {words(cell)}"
            message = f"`{other.axis}` and `{name}` both count {what}"
            scope.report("E006", node.span, message, "a score has one axis of each side at most")
        else:
            found[name] = cell
    return found


def varying(value: Expr, scope: Scope) -> tuple[str, ...]:
    """The axes that an expression would have as a score: those it mentions and no reduction binds."""
    nodes = [node for node, _ in walk(value)]
    bound = {binder.name for node in nodes if isinstance(node, Reduce) for binder in node.binders}
    names = [node.name for node in nodes if isinstance(node, Name) and node.name in scope.cells.keys() - bound]
    found = {hand(scope.cells[name]): name for name in reversed(names)}
    return tuple(found[side] for side in ("q", "k", "") if side in found)
