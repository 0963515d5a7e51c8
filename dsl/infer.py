"""Whether an expression is a number, a condition or a set, and which variables it depends on."""

from collections.abc import Iterable
from typing import assert_never

from .diagnostics import did_you_mean
from .scope import (
    CURES,
    FUNCTIONS,
    HEADS,
    LENGTHS,
    NOTHING,
    PHRASES,
    POSITIONS,
    SCORES_STAND,
    TENSORS,
    UNKNOWN,
    Kind,
    Scope,
    Uses,
    Value,
    check_side,
)
from .syntax import (
    Absolute,
    Binary,
    Boolean,
    Call,
    Chosen,
    Comparison,
    Coordinate,
    Count,
    Decimal,
    Divide,
    Dot,
    Expr,
    Index,
    ListLiteral,
    Logical,
    Membership,
    Name,
    Negate,
    Not,
    Number,
    Range,
    Reduce,
    SetLiteral,
    Slice,
    Softmax,
)
from .uses import is_dynamic

_KNOWN_BEFORE = "use literals, parameters, `heads`, `layer` and `layers`"


def infer(expr: Expr, scope: Scope) -> Value:
    """What an expression is; everything wrong inside it is reported to the scope."""
    match expr:
        case Number():
            return Value("number")
        case Decimal(text):
            scope.report("E003", expr.span, f"`{text}` is not an integer", "scale it: `n * 3 // 10` for 0.3 n")
            return UNKNOWN
        case Boolean():
            return Value("condition")
        case Name(name):
            return scope.look_up(name, expr.span)
        case Coordinate():
            return _coordinate(expr, scope)
        case Index():
            return _index(expr, scope)
        case Negate(operand) | Absolute(operand):
            return Value("number", number(operand, scope))
        case Binary():
            return Value("number", _binary(expr, scope))
        case Comparison(operands):
            return Value("condition", _union(number(o, scope) for o in operands))
        case Membership(value, members):
            return Value("condition", number(value, scope) | _members(members, scope))
        case Not(operand):
            return Value("condition", condition(operand, scope))
        case Logical(_, operands):
            return Value("condition", _union(condition(o, scope) for o in operands))
        case Range(low, high):
            return Value("set", number(low, scope) | number(high, scope))
        case SetLiteral(items):
            return Value("set", _union(number(i, scope) for i in items))
        case ListLiteral(items):
            return Value("list", _union(infer(i, scope).uses for i in items))
        case Call():
            return _call(expr, scope)
        case Divide(left, right):
            for operand in (left, right):
                infer(operand, scope)
            scope.report(
                "E003", expr.span, "`/` makes a real number, and an integer is wanted here", "`//` rounds down"
            )
            return UNKNOWN
        case Reduce() | Dot() | Softmax() | Slice() | Count() | Chosen():
            return _by_content(expr, scope)
        case _:
            assert_never(expr)


def _by_content(expr: Expr, scope: Scope) -> Value:
    """Report a part of a score, or a rule, where numbers and conditions of pairs stand."""
    scope.touch(expr)
    if isinstance(expr, Chosen):
        hint = "rules stand after `keep J in`, after `in` within `among (..)`, and in `count(J in ..)`"
        scope.report("E003", expr.span, "a rule cannot stand here", hint)
    else:
        scope.report("E003", expr.span, TENSORS, SCORES_STAND)
    return UNKNOWN


def number(expr: Expr, scope: Scope) -> Uses:
    """What a number depends on; anything else is reported."""
    return _expect("number", expr, scope)


def condition(expr: Expr, scope: Scope) -> Uses:
    """What a condition depends on; anything else is reported."""
    return _expect("condition", expr, scope)


def constant(expr: Expr, scope: Scope, what: str) -> Uses:
    """What a number known before the kernel runs depends on, which is `layer` at most."""
    uses = number(expr, scope)
    dynamic = sorted(uses - {"layer"})
    if dynamic:
        message = f"{what} must be known before the kernel runs, but it depends on `{dynamic[0]}`"
        scope.report("E004", expr.span, message, _KNOWN_BEFORE)
    return uses


def _expect(wanted: Kind, expr: Expr, scope: Scope) -> Uses:
    value = infer(expr, scope)
    if value.kind not in (wanted, "unknown"):
        message = f"{PHRASES[wanted]} is wanted here, and this is {PHRASES[value.kind]}"
        scope.report("E003", expr.span, message, CURES.get((wanted, value.kind), ""))
    return value.uses


def _union(parts: Iterable[Uses]) -> Uses:
    return NOTHING.union(*parts)


def _members(members: Expr, scope: Scope) -> Uses:
    value = infer(members, scope)
    if value.kind not in ("set", "unknown"):
        message = f"a set is wanted after `in`, and this is {PHRASES[value.kind]}"
        scope.report("E003", members.span, message, "such as `0 .. 8`, `{1, 4}` or `powers(2)`")
    return value.uses


def _coordinate(expr: Coordinate, scope: Scope) -> Value:
    if expr.base not in POSITIONS:
        if scope.look_up(expr.base, expr.span).kind != "unknown":
            scope.report("E006", expr.span, f"`{expr.base}` has no coordinates: only `q` and `k` have")
        return UNKNOWN
    if not scope.axes:
        hint = "declare one before: grid (y, x) over (height, width)"
        scope.report("E006", expr.span, f"`{expr.base}.{expr.axis}` is a coordinate, and there is no grid", hint)
    elif expr.axis not in scope.axes:
        scope.report("E006", expr.span, f"the grid has no axis `{expr.axis}`", did_you_mean(expr.axis, scope.axes))
    return Value("number", frozenset((expr.base,)))


def _index(expr: Index, scope: Scope) -> Value:
    value = UNKNOWN if expr.name in scope.reported else scope.look_up(expr.name, expr.span)
    uses = [number(i, scope) for i in expr.indices]
    match value.kind:
        case "table" | "input":
            if len(expr.indices) != len(value.axes):
                shape = f"{expr.name}[{', '.join(value.axes)}]"
                count = "1 index" if len(value.axes) == 1 else f"{len(value.axes)} indices"
                scope.report("E007", expr.span, f"`{shape}` takes {count}, not {len(expr.indices)}")
                return UNKNOWN
            for axis, used, index in zip(value.axes, uses, expr.indices, strict=True):
                check_side(expr.name, value.kind, axis, used, index.span, scope)
            name = frozenset((expr.name,)) if value.kind == "input" else NOTHING
            return Value("number", _union(uses) | name)
        case "number" if value.axes:  # an order: the place of a token is read, no axis of places mentioned
            if len(uses) != 1:
                scope.report("E007", expr.span, f"`{expr.name}[token]` takes 1 index, not {len(uses)}")
            return Value("number", _union(uses) | {f"{expr.name}[..]"})
        case "score" | "rows":
            scope.report("E003", expr.span, f"`{expr.name}` is {PHRASES[value.kind]}", SCORES_STAND)
            return UNKNOWN
        case "unknown":
            return UNKNOWN
        case _:
            scope.report("E003", expr.span, f"`{expr.name}` is {PHRASES[value.kind]} and cannot be indexed")
            return UNKNOWN


def _binary(expr: Binary, scope: Scope) -> Uses:
    left = number(expr.left, scope)
    if expr.op not in ("//", "%", "<<", ">>"):
        return left | number(expr.right, scope)
    if expr.op in ("//", "%") and (literal := _literal(expr.right)) is not None and literal <= 0:
        word = "division" if expr.op == "//" else "modulus"
        scope.report("E004", expr.right.span, f"{word} by {literal}", "the right side is 1 or more")
    return left | constant(expr.right, scope, f"the right side of `{expr.op}`")


def _literal(expr: Expr) -> int | None:
    match expr:
        case Number(value):
            return value
        case Negate(Number(value)):
            return -value
        case _:
            return None


def _call(expr: Call, scope: Scope) -> Value:
    if expr.module is None and expr.name in FUNCTIONS:
        return _function(expr, scope)
    found = scope.find_pattern(expr)
    if found is None:
        for argument in expr.arguments:
            infer(argument.value, scope)
        return UNKNOWN
    if is_dynamic(found[1]):
        hint = "patterns, stacks and conditions use fixed masks"
        scope.report("E015", expr.span, f"`{found[1].name}` selects by content: it has no fixed mask", hint)
        return UNKNOWN
    from .arguments import bind  # which imports this module

    uses = bind(expr, found[1], scope)
    return Value("condition", uses | POSITIONS)


def _function(expr: Call, scope: Scope) -> Value:
    name, values = expr.name, [a.value for a in expr.arguments]
    for argument in expr.arguments:
        if argument.keyword is not None:
            scope.report("E007", argument.span, f"`{name}` takes no named arguments")
    least, most = FUNCTIONS[name]
    if not least <= len(values) <= most:
        count = "1 argument" if most == 1 else f"{least} or {'more' if most > least + 1 else most} arguments"
        scope.report("E007", expr.span, f"`{name}` takes {count}, not {len(values)}")
        kind = "number" if name in ("abs", "min", "max") else "condition" if name in ("near", "ancestor") else "set"
        return Value(kind, POSITIONS)
    match name:
        case "powers":
            return Value("set", constant(values[0], scope, "the base of `powers`"))
        case "multiples":
            if (step := _literal(values[0])) is not None and step <= 0:
                scope.report("E004", values[0].span, f"multiples of {step}", "the step is 1 or more")
            return Value("set", constant(values[0], scope, "the step of `multiples`"))
        case "sample":
            return Value("set", _sample(values, scope))
        case "near":
            return Value("condition", _near(values, scope) | POSITIONS)
        case "ancestor":
            return Value("condition", _ancestor(values[0], scope) | POSITIONS)
        case _:
            return Value("number", _union(number(v, scope) for v in values))


def _sample(values: list[Expr], scope: Scope) -> Uses:
    count, size, seed, *keys = values
    constant(count, scope, "the count of `sample`")
    uses = number(size, scope)
    if beyond := sorted(uses - LENGTHS - {"layer"}):
        message = f"the size of `sample` is known before the kernel runs, or made of `n` and `m`; not `{beyond[0]}`"
        scope.report("E004", size.span, message)
    constant(seed, scope, "the seed of `sample`")
    for key in keys:
        used = number(key, scope)
        if len(used) > 1 or used - POSITIONS - HEADS - {"layer"}:
            message = "a key of `sample` is `h`, `g`, `layer`, or a position divided by a constant"
            scope.report("E003", key.span, message, "such as `q // 64`")
        uses |= used
    return uses


def _near(values: list[Expr], scope: Scope) -> Uses:
    match values[0]:
        case Name(axis) if axis in scope.axes:
            pass
        case Name(axis) if scope.axes:
            scope.report("E006", values[0].span, f"the grid has no axis `{axis}`", did_you_mean(axis, scope.axes))
        case _:
            hint = "declare a grid before: grid (y, x) over (height, width)"
            scope.report("E006", values[0].span, "`near` starts with an axis of the grid", "" if scope.axes else hint)
    if len(values) == 3:
        match values[2]:
            case Name("clamp" | "wrap"):
                pass
            case _:
                scope.report("E003", values[2].span, "the third argument of `near` is `clamp` or `wrap`")
    return number(values[1], scope)


def _ancestor(expr: Expr, scope: Scope) -> Uses:
    match expr:
        case Name(name):
            value = scope.look_up(name, expr.span)
            if value.kind == "input" and value.axes != ("token",):
                message = f"`ancestor` takes an input over the token axis, and `{name}` is over {value.axes[0]}"
                scope.report("E006", expr.span, message)
            elif value.kind not in ("input", "unknown"):
                scope.report("E003", expr.span, f"`ancestor` takes an input, and `{name}` is {PHRASES[value.kind]}")
            return frozenset((name,))
        case _:
            scope.report("E003", expr.span, "`ancestor` takes the name of an input that holds each token's parent")
            return NOTHING
