"""Whether axes, scores and inputs over cells make sense, and what kind each part of a score is."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from .diagnostics import did_you_mean
from .infer import condition, constant, number
from .parameters import name_span
from .scanner import REDUCTIONS
from .scope import ARGUMENTS, POSITIONS, UNKNOWN, VARIABLES, Cell, Scope, Uses, Value
from .source import Span
from .syntax import (
    Absolute,
    Axis,
    Binary,
    Binder,
    Boolean,
    Call,
    Chosen,
    Comparison,
    Coordinate,
    Decimal,
    Divide,
    Dot,
    Expr,
    Given,
    Index,
    ListLiteral,
    Logical,
    Membership,
    Name,
    Negate,
    Node,
    Not,
    Number,
    Parameter,
    Range,
    Reduce,
    Score,
    SetLiteral,
    Softmax,
)

# What a pattern that selects by content can read of a call, and computes with.
ROWS = {"Q": "q", "K": "k", "V": "k"}
RESERVED = (*ROWS, "scale")
_WORDS = {"q": "queries", "k": "keys"}

Kind = Literal["real", "vector", "unknown"]
_PHRASES = {"real": "a number", "vector": "a vector"}


@dataclass(slots=True)
class Here:
    """The names that vary where an expression stands; `seen` are those it mentions."""

    scope: Scope
    cells: dict[str, Cell]
    seen: set[str] = field(default_factory=set[str])

    def at(self, name: str, span: Span | None) -> Cell | None:
        """What a name counts here; None once reported."""
        if name in self.cells:
            self.seen.add(name)
            self.scope.used.add(name)
            return self.cells[name]
        if name in self.scope.cells:
            known = ", ".join(f"`{c}`" for c in self.cells) or "none"
            hint = f"what varies here: {known}; a reduction takes more cells together"
            self.scope.report("E006", span, f"`{name}` has no value here", hint)
        elif self.scope.look_up(name, span).kind != "unknown":
            self.scope.report("E006", span, f"`{name}` is not an axis", "such as `axis I = q // 64`")
        return None

    def integers(self, expr: Expr, wanted: Literal["number", "condition"]) -> Uses:
        """The names that an integer, or a condition on integers, mentions; axes count their cells."""
        counted = dict.fromkeys((*self.scope.cells, *self.cells))
        names = {name: Value("number", frozenset((name,))) for name in counted}
        inner = replace(self.scope, names=self.scope.names | names)
        uses = number(expr, inner) if wanted == "number" else condition(expr, inner)
        mentioned = uses & (counted.keys() | POSITIONS)
        for name in sorted(mentioned):
            self.at(name, expr.span)
        return mentioned


def define_axis(axis: Axis, sizes: dict[str, int], scope: Scope) -> None:
    """Give an axis its meaning: in conditions on pairs it is the number of a token's cell."""
    known: int | None = 1
    if axis.size is not None:
        constant(axis.size, scope, "a cell's size")
        known = _known(axis.size, sizes)
        if known is not None and known < 1:
            scope.report("E004", axis.size.span, f"cells of {known} tokens", "the size is 1 or more")
    free = axis.name not in scope.places and axis.name not in VARIABLES
    scope.define(axis.name, Value("number", frozenset((axis.side,))), name_span(axis, axis.name))
    if free:
        scope.cells[axis.name] = Cell(axis.side, axis.name, known)


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


def define_given(given: Given, scope: Scope) -> None:
    """Give an input over cells its meaning."""
    _axes(given, given.axes, scope)
    place = name_span(given, given.name)
    if given.name in ARGUMENTS - VARIABLES:
        hint = "rename it: calls take inputs by name, beside their own arguments"
        scope.report("E008", place, f"`{given.name}` is an argument of every call", hint)
    kinds = {"float": Value("score", axes=given.axes), "vector": Value("rows", axes=given.axes)}
    if given.type.name not in kinds or given.type.axes:
        scope.report("E003", given.type.span, "the numbers of an input over cells are `float`, its rows `vector`")
    scope.define(given.name, kinds.get(given.type.name, UNKNOWN), place)


def define_score(score: Score, scope: Scope) -> None:
    """Give a score its meaning: a number, or a row, for each of its cells."""
    before = len(scope.findings)
    here = Here(scope, _axes(score, score.axes, scope))
    match real(score.value, here):
        case "unknown":
            value = UNKNOWN
        case kind:
            value = Value("rows" if kind == "vector" else "score", axes=score.axes)
    if len(scope.findings) == before:
        for name in (a for a in score.axes if a not in here.seen):
            shape = f"{score.name}[{', '.join(score.axes)}]"
            scope.report("E006", name_span(score, score.name), f"`{shape}` does not depend on `{name}`", "leave it out")
    scope.define(score.name, value, name_span(score, score.name))


def _axes(node: Node, names: tuple[str, ...], scope: Scope) -> dict[str, Cell]:
    """The axes of a score or an input; one of each side at most."""
    found: dict[str, Cell] = {}
    for name in names:
        scope.used.add(name)
        cell = scope.cells.get(name)
        if cell is None:
            hint = did_you_mean(name, scope.cells) if len(scope.cells) > 2 else "such as `axis I = q // 64` before"
            scope.report("E006", node.span, f"there is no axis `{name}`", hint)
        elif other := next((f for f in found.values() if f.side == cell.side), None):
            message = f"`{other.axis}` and `{name}` both count {_WORDS[cell.side]}"
            scope.report("E006", node.span, message, "a score has one axis of each side at most")
        else:
            found[name] = cell
    return found


def plain(expr: Expr, here: Here, what: str = "a number") -> None:
    """Report what is no number."""
    if real(expr, here) == "vector":
        scope = here.scope
        scope.report(
            "E003", expr.span, f"{what} is wanted here, and this is a vector", "such as `a . b` of two vectors"
        )


def real(expr: Expr, here: Here) -> Kind:
    """Whether an expression is a number or a vector; everything wrong inside it is reported."""
    match expr:
        case Number() | Decimal():
            return "real"
        case Name(name):
            return _name(name, expr, here)
        case Index():
            return _index(expr, here)
        case Negate(operand):
            return real(operand, here)
        case Absolute(operand):
            plain(operand, here)
            return "real"
        case Binary("+" | "-" | "*" as op, left, right):
            return _arithmetic(op, left, right, expr.span, here)
        case Divide(left, right):
            kind = real(left, here)
            plain(right, here)
            return kind
        case Dot(left, right):
            for operand in (left, right):
                if real(operand, here) == "real":
                    here.scope.report("E003", operand.span, "a vector is wanted here, and this is a number", "use `*`")
            return "real"
        case Reduce():
            return _reduce(expr, here)
        case Softmax(value, axis, where):
            plain(value, here)
            here.at(axis, expr.span)
            if where is not None:
                here.integers(where, "condition")
            return "real"
        case Call(None, "abs" | "exp" | "log" | "sqrt" | "min" | "max" | "sum" | "mean"):
            return _function(expr, here)
        case Call() | Binary() | Coordinate():
            return _integer(expr, here)
        case (
            Boolean()
            | Not()
            | Logical()
            | Comparison()
            | Membership()
            | Chosen()
            | Range()
            | SetLiteral()
            | ListLiteral()
        ):
            here.scope.report("E003", expr.span, "a number is wanted here, and this is a condition or a set")
            return "unknown"
        case _:
            assert_never(expr)


def _integer(expr: Expr, here: Here) -> Kind:
    constant(expr, here.scope, "an integer in a score")
    return "real"


def _name(name: str, expr: Expr, here: Here) -> Kind:
    scope = here.scope
    if name in here.cells or name in scope.cells:
        message = f"`{name}` counts cells, and a number is wanted here"
        scope.report("E003", expr.span, message, "axes stand in indices and in conditions")
        return "unknown"
    if name == "scale" and name not in scope.names:
        return "real"
    kind = scope.names[name].kind if name in scope.names else ""
    if kind in ("score", "rows"):
        scope.report("E003", expr.span, f"`{name}` has a value for each cell", f"read one: `{_shape(name, scope)}`")
    elif kind == "real":
        scope.look_up(name, expr.span)
        return "real"
    else:
        return _integer(expr, here) if scope.look_up(name, expr.span).kind != "unknown" else "unknown"
    return "unknown"


def _shape(name: str, scope: Scope) -> str:
    return f"{name}[{', '.join(scope.names[name].axes)}]"


def _index(expr: Index, here: Here) -> Kind:
    scope, name = here.scope, expr.name
    value = scope.names.get(name)
    if value is None and name in ROWS:
        return _row(expr, ROWS[name], here)
    if value is None or value.kind not in ("score", "rows"):
        return _integer(expr, here) if scope.look_up(name, expr.span).kind != "unknown" else "unknown"
    scope.used.add(name)
    if len(expr.indices) != len(value.axes):
        count = "1 index" if len(value.axes) == 1 else f"{len(value.axes)} indices"
        scope.report("E007", expr.span, f"`{_shape(name, scope)}` takes {count}, not {len(expr.indices)}")
    else:
        for axis, index in zip(value.axes, expr.indices, strict=True):
            _check_cell(expr.name, axis, index, here)
    return "vector" if value.kind == "rows" else "real"


def _check_cell(name: str, axis: str, index: Expr, here: Here) -> None:
    """A score is read at the very cells it has."""
    scope, wanted = here.scope, here.scope.cells.get(axis)
    if not isinstance(index, Name):
        scope.report("E003", index.span, "a score is read at an axis, or at a name bound inside one")
    elif (found := here.at(index.name, index.span)) is not None and wanted is not None:
        same = found.axis == axis or (found.size is not None and found.size == wanted.size)
        if found.side != wanted.side:
            counts = f"counts {_WORDS[found.side]}" if found.side else "counts neither queries nor keys"
            message = (
                f"`{name}` has a value for each `{axis}` of the {_WORDS[wanted.side]}, and `{index.name}` {counts}"
            )
            scope.report("E006", index.span, message)
        elif not same:
            message = f"`{name}` has a value for each `{axis}`, and `{index.name}` counts other cells"
            scope.report("E006", index.span, message)


def _row(expr: Index, side: str, here: Here) -> Kind:
    if len(expr.indices) != 1:
        here.scope.report("E007", expr.span, f"`{expr.name}` takes 1 index, a token, not {len(expr.indices)}")
    for index in expr.indices:
        for name in sorted(here.integers(index, "number")):
            cell = here.cells.get(name)
            if cell is not None and cell.side not in ("", side):
                message = f"`{expr.name}` has a row for each of the {_WORDS[side]}, and `{name}` counts"
                here.scope.report("E006", index.span, f"{message} {_WORDS[cell.side]}")
    return "vector"


def _arithmetic(op: Literal["+", "-", "*"], left: Expr, right: Expr, span: Span | None, here: Here) -> Kind:
    kinds = real(left, here), real(right, here)
    if "unknown" in kinds:
        return "unknown"
    if op == "*" and kinds == ("vector", "vector"):
        here.scope.report("E003", span, "two vectors are multiplied with `.`", "write `a . b`")
    elif op != "*" and kinds[0] != kinds[1]:
        message = f"`{op}` takes two numbers or two vectors, not {_PHRASES[kinds[0]]} and {_PHRASES[kinds[1]]}"
        here.scope.report("E003", span, message)
    return "vector" if "vector" in kinds else "real"


def _function(expr: Call, here: Here) -> Kind:
    scope, name, values = here.scope, expr.name, [a.value for a in expr.arguments]
    if name in REDUCTIONS - {"min", "max"}:
        hint = f"`{name}(i in I) ..`, `{name}(r < 16) ..` or `{name}(t in last 64 of q) ..`"
        scope.report("E007", expr.span, f"`{name}` says what it runs over", hint)
        return "unknown"
    if (name in ("min", "max") and len(values) < 2) or (name not in ("min", "max") and len(values) != 1):
        count = "2 arguments or more" if name in ("min", "max") else "1 argument"
        scope.report("E007", expr.span, f"`{name}` takes {count}, not {len(values)}")
    for argument in expr.arguments:
        if argument.keyword is not None:
            scope.report("E007", argument.span, f"`{name}` takes no named arguments")
        plain(argument.value, here)
    return "real"


def _reduce(expr: Reduce, here: Here) -> Kind:
    inner = Here(here.scope, dict(here.cells), here.seen)
    for binder in expr.binders:
        if (cell := _bind(binder, inner)) is None:
            here.scope.touch(expr.body)
            return "unknown"
        inner.cells[binder.name] = cell
    return real(expr.body, inner)


def _bind(binder: Binder, here: Here) -> Cell | None:
    """What the name of a binder counts; None once reported."""
    scope, name = here.scope, binder.name
    if binder.bound is not None:
        constant(binder.bound, scope, "how far a reduction runs")
    taken = name in (VARIABLES - POSITIONS) or (name in scope.names and name not in scope.cells)
    if name in here.cells or taken:
        scope.report("E008", binder.span, f"`{name}` has a meaning already", "bind another name")
        return None
    if binder.inside is None:
        return Cell("", name, None)
    if binder.bound is not None:
        return replace(scope.cells[binder.inside])
    outer, own = here.at(binder.inside, binder.span), scope.cells.get(name)
    if outer is None:
        return None
    if not outer.side or (own is not None and own.side != outer.side):
        other = _WORDS[own.side] if own is not None else "tokens"
        message = f"`{name}` counts {other}" if outer.side else f"`{binder.inside}` is a number"
        scope.report("E006", binder.span, f"{message}, and does not lie inside `{binder.inside}`")
        return None
    if own is None:
        return Cell(outer.side, outer.side, 1)
    scope.used.add(name)
    if own.size and outer.size and outer.size % own.size:
        message = f"cells of {outer.size} tokens are not made of cells of {own.size}"
        scope.report("E005", binder.span, message, "the finer size divides the coarser one")
    return own
