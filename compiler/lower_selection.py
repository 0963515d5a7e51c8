"""A pattern that selects by content, with its parameters given, as a program of scores and choices over cells."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from math import isfinite
from typing import NoReturn, cast

from ..dsl import syntax as s
from ..dsl.axes import counted
from ..dsl.diagnostics import CompileError, Diagnostic
from ..dsl.loader import Module
from ..dsl.parser import parse_expression
from ..dsl.printer import format_expression
from ..dsl.source import Source
from . import lower as static
from . import selection as ir
from .judge_term import judge_axis, width
from .lower_expression import constant
from .lower_rule import choice
from .lower_term import Names, Reals, is_vector, real, term
from .plan import Shape
from .scope import fail

TOKENS = (ir.Axis("q", "q", 1), ir.Axis("k", "k", 1))


def lower_selection(
    module: Module, definition: s.PatternDef, given: Mapping[str, static.Given], shape: Shape
) -> ir.Program:
    """The program of a pattern with axes; raises CompileError with every statement's finding."""
    names = bind(module, definition, given, shape)
    numbers = _real_names(definition)
    statements = tuple(chain.from_iterable(_split(x, numbers) for x in definition.statements))
    plain = (
        _static(x, names.scope.order)
        for x in statements
        if not (isinstance(x, s.Keep) and selects(x.condition, numbers))
    )
    mask = static.finish(replace(definition, statements=tuple(x for x in plain if x is not None)), names.scope)
    names.axes.update({axis.name: axis for axis in TOKENS})
    givens: list[ir.Given] = []
    scores: list[ir.Score] = []
    choices: list[ir.Choice] = []
    orders: list[ir.Order] = []
    found: list[Diagnostic] = []
    for statement in statements:
        try:
            match statement:
                case s.Axis(name, value):
                    names.axes[name] = _axis(statement, names)
                    judge_axis(names.axes[name], value.span)
                    names.sizes[name] = _size(statement, names)
                case s.Order(name, by, size):
                    orders.append(_order(name, by, size, names))
                    names.axes[name] = ir.Axis(name, "k", 1, order=name)
                case s.Given(name, axes, kind):
                    givens.append(ir.Given(name, axes, kind.name == "vector"))
                    names.reads[name], names.owners[name] = givens[-1].vector, tuple(names.axes[x] for x in axes)
                case s.Score(name, axes, value):
                    lowered = term(value, {axis: names.axes[axis] for axis in axes}, names)
                    scores.append(ir.Score(name, axes, lowered, is_vector(lowered, names.reads)))
                    names.reads[name], names.owners[name] = scores[-1].vector, tuple(names.axes[x] for x in axes)
                    names.widths[name] = width(lowered, names.widths)
                case s.Keep(condition) if selects(condition, numbers):
                    choices.append(choice(statement, names))
                case _:
                    pass
        except CompileError as error:
            found.extend(error.diagnostics)
            if isinstance(statement, s.Score | s.Axis | s.Order) or any(d.code == "E011" for d in error.diagnostics):
                break
    if found:
        raise CompileError(found)
    # Scores and choices may have asked for tables that the mask did not.
    inputs = tuple(x for x in statements if isinstance(x, s.Input))
    later = static.finish(replace(definition, statements=inputs), names.scope).tables
    tables = tuple(dict.fromkeys((*mask.tables, *later)))
    limits = replace(mask, clauses=tuple(c for c in mask.clauses if c.kind != "keep"), tables=tables)
    keeps = tuple(c for c in mask.clauses if c.kind == "keep")
    axes = tuple(names.axes.values())
    built = ir.Program(definition.name, axes, tuple(givens), tuple(scores), limits, keeps, tuple(choices))
    return replace(built, orders=tuple(orders))


def selections(definition: s.PatternDef) -> tuple[s.Keep, ...]:
    """The `keep`s that select by content, one for each choice of the program; those that `or` unites stand alone."""
    numbers = _real_names(definition)
    statements = chain.from_iterable(_split(x, numbers) for x in definition.statements)
    return tuple(x for x in statements if isinstance(x, s.Keep) and selects(x.condition, numbers))


def _real_names(definition: s.PatternDef) -> frozenset[str]:
    """Names of what is no integer: scores, inputs over cells, parameters `float`."""
    own = (x.name for x in definition.statements if isinstance(x, s.Score | s.Given))
    return frozenset(("scale", *own, *(p.name for p in definition.parameters if p.type.name == "float")))


def bind(module: Module, definition: s.PatternDef, given: Mapping[str, static.Given], shape: Shape) -> Names:
    """The parameters' values; `float` ones may be computed from the others."""
    order = next((x.name for x in definition.statements if isinstance(x, s.Order)), "")
    exact = tuple(p for p in definition.parameters if p.type.name != "float")
    floats = tuple(p for p in definition.parameters if p.type.name == "float")
    if not given.keys() <= {p.name for p in definition.parameters}:
        static.bind(module, definition, dict.fromkeys(given, 0), shape)  # which says what parameters there are
    others = {p.name: given[p.name] for p in exact if p.name in given}
    names = Names(replace(static.bind(module, replace(definition, parameters=exact), others, shape), order=order))
    for parameter in floats:
        name, value = parameter.name, given.get(parameter.name)
        if parameter.type.axes:
            names.tables[name] = _table(parameter, value, names)
        else:
            names.floats[name] = _float(parameter, value, names)
    return names


def _table(parameter: s.Parameter, value: static.Given | None, names: Names) -> Reals:
    """A `float[layer, head]`, from nested lists or arrays, or from the text of nested lists."""
    axes: tuple[str, ...] = parameter.type.axes
    plain: object = getattr(value, "tolist", lambda: value)()
    match plain:
        case None if parameter.default is None:
            _missing(parameter)
        case None:
            assert parameter.default is not None
            expr = parameter.default
        case str(text):
            expr = parse_expression(Source(f"<{parameter.name}>", text))
        case _:
            expr = None
    if isinstance(expr, s.Name) and expr.name in names.tables:
        return names.tables[expr.name]
    found: object = plain if expr is None else _nested(expr, names)
    rows = _rows(found if len(axes) == 2 else [found])
    if rows is None:
        wanted = "rows of finite numbers of one length are" if len(axes) == 2 else "finite numbers are"
        message = f"`{parameter.name}` is indexed by {', '.join(axes)}: {wanted} wanted"
        fail("E007", parameter.span, message, _odd_rows(found if len(axes) == 2 else [found]))
    return Reals(axes, tuple((x,) for x in rows[0]) if axes == ("layer",) else rows)


def _nested(expr: s.Expr, names: Names) -> object:
    """Written lists as lists of numbers."""
    match expr:
        case s.ListLiteral(items):
            return [_nested(item, names) for item in items]
        case _:
            return real(expr, names, "a table's element")


def _rows(found: object) -> tuple[tuple[float, ...], ...] | None:
    """Lists of finite numbers, as many in each; None for anything else."""
    out: list[tuple[float, ...]] = []
    for row in cast("Sequence[object]", found) if isinstance(found, list | tuple) else ():
        items = cast("Sequence[object]", row) if isinstance(row, list | tuple) else ()
        numbers = tuple(float(x) for x in items if isinstance(x, int | float) and isfinite(x))
        if not numbers or len(numbers) != len(items):
            return None
        out.append(numbers)
    return tuple(out) if len({len(row) for row in out}) == 1 else None


def _odd_rows(found: object) -> str:
    """What is wrong with rows of numbers."""
    if not isinstance(found, list | tuple):
        return f"such as [[0.9, 0.5], [0.8, 0.4]], not {found!r}"
    rows = cast("Sequence[object]", found)
    for at, row in enumerate(rows):
        if _rows([row]) is None:
            return f"row {at} is {row!r}" if len(rows) > 1 else f"this is {row!r}"
    lengths = ", ".join(str(len(cast("Sequence[object]", row))) for row in rows)
    return f"these have {lengths} numbers" if rows else "this is an empty list"


def _missing(parameter: s.Parameter) -> NoReturn:
    hint = f"give it: {parameter.name}=.."
    fail("E007", parameter.span, f"parameter `{parameter.name}` has no default", hint)


def _float(parameter: s.Parameter, value: static.Given | None, names: Names) -> float:
    try:
        plain: object = getattr(value, "item", lambda: value)()
        plain = float(plain) if isinstance(plain, int) and not isinstance(plain, bool) else plain
    except (OverflowError, RuntimeError, ValueError):  # of many numbers, or of too large a one
        fail("E003", parameter.span, f"`{parameter.name}` is one finite number")
    match plain:
        case None if parameter.default is None:
            _missing(parameter)
        case None:
            assert parameter.default is not None
            return real(parameter.default, names, f"`{parameter.name}`")
        case str(text):
            return real(parse_expression(Source(f"<{parameter.name}>", text)), names, f"`{parameter.name}`")
        case int() | float() if not isinstance(plain, bool) and isfinite(plain):
            return float(plain)
        case _:
            fail("E003", parameter.span, f"`{parameter.name}` is a finite number, not {plain!r}")


def _split(statement: s.Statement, real_names: frozenset[str]) -> tuple[s.Statement, ...]:
    """`keep A or B` is `keep A` and `keep B`, which matters where one of them is a choice."""
    match statement:
        case s.Keep(s.Logical("or", operands) as condition) if selects(condition, real_names):
            keeps = (_split(s.Keep(each, statement.when, span=each.span), real_names) for each in operands)
            return tuple(chain.from_iterable(keeps))
        case _:
            return (statement,)


def _static(statement: s.Statement, order: str) -> s.Statement | None:
    """What a mask can say of a statement: an axis is a name for the number of a token's cell."""
    match statement:
        case s.Axis(name, value):
            cells = counted(statement, (order,)).sizes
            return s.Let(name, value, span=statement.span) if cells else None
        case s.Order(name):
            place = s.Index(name, (s.Name("k", span=statement.span),), span=statement.span)
            return s.Let(name, place, span=statement.span)
        case s.Score() | s.Given():
            return None
        case _:
            return statement


def _axis(axis: s.Axis, names: Names) -> ir.Axis:
    """What an axis counts, with its numbers."""
    found, span = counted(axis, (names.scope.order,)), axis.value.span
    if not found.sizes:
        count = constant(axis.value, names.scope, "how much an axis counts")
        if count < 1:
            fail("E005", span, f"`{axis.name}` counts {count} things", "use 1 or more")
        plain = ir.Axis(axis.name, found.side, 1)
        return replace(plain, count=count) if axis.side is None else replace(plain, last=count)
    sizes = [1 if size is None else constant(size, names.scope, "a cell's size") for size in found.sizes]
    if len(set(sizes)) > 1:
        message = f"cells of {sizes[0]} tokens are no distance from cells of {sizes[1]}"
        fail("E006", span, message, "both sides have cells of one size")
    return ir.Axis(axis.name, found.side, sizes[0], order=found.order)


def _size(axis: s.Axis, names: Names) -> str:
    """What a cell's number is multiplied by to be its first token, as text."""
    size = next(iter(counted(axis, (names.scope.order,)).sizes), None)
    text = "1" if size is None else format_expression(size)
    return text if isinstance(size, s.Name | s.Number) else f"({text})"


def _order(name: str, by: s.Expr, size: s.Expr, names: Names) -> ir.Order:
    within = constant(size, names.scope, "a segment's size")
    if within < 1:
        fail("E005", size.span, f"segments of {within} keys", "use 1 or more")
    return ir.Order(name, term(by, {"k": names.axes["k"]}, names), within)


def selects(expr: s.Expr, real_names: frozenset[str]) -> bool:
    """Whether a condition depends on numbers that only the call's tensors give."""
    match expr:
        case s.Membership(_, s.Chosen()):
            return True
        case s.Comparison(operands):
            return any(_is_real(operand, real_names) for operand in operands)
        case s.Logical(_, operands):
            return any(selects(operand, real_names) for operand in operands)
        case s.Not(operand):
            return selects(operand, real_names)
        case _:
            return False


def _is_real(expr: s.Expr, real_names: frozenset[str]) -> bool:
    match expr:
        case s.Decimal() | s.Divide() | s.Dot() | s.Reduce() | s.Softmax() | s.Slice() | s.Count():
            return True
        case s.Name(name) | s.Index(name):
            return name in real_names
        case s.Call(None, name, arguments):
            return name in ("exp", "log", "sqrt", "probit") or any(_is_real(a.value, real_names) for a in arguments)
        case s.Negate(operand) | s.Absolute(operand):
            return _is_real(operand, real_names)
        case s.Binary(_, left, right):
            return _is_real(left, real_names) or _is_real(right, real_names)
        case _:
            return False
