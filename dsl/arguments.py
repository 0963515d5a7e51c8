"""Whether the values of parameters, defaults and arguments of calls alike, fit them."""

from .diagnostics import did_you_mean
from .infer import condition, constant, infer, number
from .scope import LENGTHS, NOTHING, PHRASES, Scope, Uses
from .syntax import Argument, Call, Decimal, Divide, Expr, ListLiteral, Negate, Number, Parameter, PatternDef


def bind(expr: Call, pattern: PatternDef, scope: Scope) -> Uses:
    """Match the arguments of a used pattern with its parameters."""
    parameters = {p.name: p for p in pattern.parameters}
    free = list(parameters)
    uses: Uses = NOTHING
    given: set[str] = set()
    named = False
    for position, argument in enumerate(expr.arguments):
        named = named or argument.keyword is not None
        name = _parameter_of(argument, position, named, free, pattern.name, scope)
        if name is None:
            infer(argument.value, scope)
        elif name in given:
            scope.report("E007", argument.span, f"`{name}` is given twice")
        else:
            given.add(name)
            uses |= check_value(parameters[name], argument.value, scope)
    missing = [p.name for p in parameters.values() if p.default is None and p.name not in given]
    if missing:
        names = ", ".join(f"`{m}`" for m in missing)
        scope.report("E007", expr.span, f"`{pattern.name}` needs a value for {names}")
    return uses


def _parameter_of(
    argument: Argument, position: int, named: bool, free: list[str], pattern: str, scope: Scope
) -> str | None:
    """The parameter that an argument is for; None once reported."""
    if argument.keyword is not None:
        if argument.keyword in free:
            return argument.keyword
        hint = did_you_mean(argument.keyword, free) if free else "it takes no arguments"
        scope.report("E007", argument.span, f"`{pattern}` has no parameter `{argument.keyword}`", hint)
    elif named:
        scope.report("E007", argument.span, "positional arguments come before named ones")
    elif position >= len(free):
        # One finding for the whole tail.
        if position == len(free):
            count = f"{len(free)} arguments" if len(free) != 1 else "1 argument"
            scope.report("E007", argument.span, f"`{pattern}` takes {count} at most")
    else:
        return free[position]
    return None


def check_value(parameter: Parameter, expr: Expr, scope: Scope) -> Uses:
    """What a parameter's default or argument depends on; it has the parameter's type and one value a call."""
    match parameter.type.name:
        case "int" | "tokens":
            uses = number(expr, scope)
        case "bool":
            uses = condition(expr, scope)
        case "float" if not parameter.type.axes:
            uses = _real(expr, scope)
        case "table" | "float":
            uses = _check_table(parameter, expr, scope)
        case _:
            uses = infer(expr, scope).uses
    if changing := sorted(uses - LENGTHS - {"layer"}):
        message = f"`{parameter.name}` has one value for the whole call, but this depends on `{changing[0]}`"
        scope.report("E007", expr.span, message, "use `n`, `m`, `layer`, `layers`, `heads` and parameters")
    return uses


def _real(expr: Expr, scope: Scope) -> Uses:
    """What a real number that is known before the kernel runs depends on."""
    match expr:
        case Decimal() | Negate(Decimal()):
            return NOTHING
        case Divide():
            scope.touch(expr)
            value = _quotient(expr)
            hint = (
                "divide where it is used"
                if value is None
                else f"write the number out: {value:.12f}".rstrip("0").rstrip(".")
            )
            scope.report("E003", expr.span, "`/` stands in scores alone", hint)
            return NOTHING
        case _:
            return number(expr, scope)


def _quotient(expr: Divide) -> float | None:
    """What a division of two literals gives."""
    match expr:
        case Divide(Number(a), Number(b)) if b:
            return a / b
        case _:
            return None


def _check_table(parameter: Parameter, expr: Expr, scope: Scope) -> Uses:
    axes, real = parameter.type.axes, parameter.type.name == "float"
    shape = f"`{parameter.name}` is a {parameter.type.name}[{', '.join(axes)}]"
    sample = "[[1, 2], [3, 4]]" if len(axes) == 2 else "[1, 2]"
    match expr:
        case ListLiteral(items):
            rows = items if len(axes) == 2 else (expr,)
            lengths: set[int] = set()
            uses: Uses = NOTHING
            for row in rows:
                match row:
                    case ListLiteral(cells) if not any(isinstance(c, ListLiteral) for c in cells):
                        lengths.add(len(cells))
                        uses = uses.union(*((_real if real else _element)(c, scope) for c in cells))
                    case _:
                        # One finding: the other rows are most likely wrong in the same way.
                        scope.report("E007", row.span, f"{shape}, and this is no row of it", f"such as `{sample}`")
                        return uses
            if len(lengths) > 1:
                scope.report("E007", expr.span, f"the rows of `{parameter.name}` have different lengths")
            return uses
        case _:
            value = infer(expr, scope)
            if value.kind != "unknown" and (value.kind != ("reals" if real else "table") or value.axes != axes):
                kind = f"a table[{', '.join(value.axes)}]" if value.kind == "table" else PHRASES[value.kind]
                scope.report("E007", expr.span, f"{shape}, and this is {kind}", f"such as `{sample}`")
            return value.uses


def _element(expr: Expr, scope: Scope) -> Uses:
    return constant(expr, scope, "a table's element")
