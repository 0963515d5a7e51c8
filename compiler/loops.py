"""From isl's loops to ours: runs of key tiles with bounds in our own expressions."""

from collections.abc import Iterator
from typing import Any

from .ir import Binary, Compare, Const, Expr, Formula, Not, Op, Relation, Truth, Var, conjunction, disjunction
from .plan import ONE, Run

# isl's nodes and expressions; only `relation` knows their types.
IslNode = Any
IslExpr = Any

ARITHMETIC: dict[str, Op] = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "fdiv_q": "//",
    "pdiv_q": "//",
    "div": "//",
    "pdiv_r": "%",
    "zdiv_r": "%",
    "min": "min",
    "max": "max",
}
COMPARISONS: dict[str, Relation] = {"eq": "==", "le": "<=", "lt": "<", "ge": ">=", "gt": ">"}
ALWAYS = Truth(True)


def runs(node: IslNode, guard: Formula = ALWAYS) -> Iterator[Run]:
    """The runs of one loop nest over `j`; a guard may mention `j` where isl left a test inside."""
    match node.get_type().name:
        case "block":
            children = node.block_get_children()
            for position in range(children.n_ast_node()):
                yield from runs(children.get_ast_node(position), guard)
        case "if_":
            condition = truth(node.if_get_cond())
            yield from runs(node.if_get_then_node(), conjunction((guard, condition)))
            if node.if_has_else_node():
                raise AssertionError("isl never builds an else for one piece")
        case "for_":
            yield from _for(node, guard)
        case "user":
            for when, tile in number(node.user_get_expr().get_op_arg(1)):
                yield Run(tile, fold(Binary("+", tile, ONE)), 1, conjunction((guard, when)))
        case kind:
            raise AssertionError(kind)


def _for(node: IslNode, guard: Formula) -> Iterator[Run]:
    inner = conjunction((guard, inner_guard(node.for_get_body())))
    for when, low in number(node.for_get_init()):
        if node.for_is_degenerate():
            yield Run(low, fold(Binary("+", low, ONE)), 1, conjunction((inner, when)))
            continue
        condition = node.for_get_cond()
        open_end = condition.get_op_type().name == "lt"
        step = int(node.for_get_inc().get_val().to_python())
        for also, bound in number(condition.get_op_arg(1)):
            high = bound if open_end else fold(Binary("+", bound, ONE))
            yield Run(low, high, step, conjunction((inner, when, also)))


def inner_guard(body: IslNode) -> Formula:
    """What isl still tests inside a loop, with the iterator named `j`."""
    match body.get_type().name:
        case "user":
            return ALWAYS
        case "if_":
            return conjunction((truth(body.if_get_cond()), inner_guard(body.if_get_then_node())))
        case kind:
            raise AssertionError(kind)


Cases = list[tuple[Formula, Expr]]


def number(expr: IslExpr) -> Cases:
    """An isl integer expression as ours, in cases where isl chooses; its iterator is `j` here."""
    match expr.get_type().name:
        case "int":
            return [(ALWAYS, Const(int(expr.get_val().to_python())))]
        case "id":
            name = expr.get_id().get_name()
            return [(ALWAYS, Var("j" if name.startswith("c") and name[1:].isdigit() else name))]
        case "op":
            return _operation(expr)
        case kind:
            raise AssertionError(kind)


def _operation(expr: IslExpr) -> Cases:
    kind = expr.get_op_type().name
    arguments = [expr.get_op_arg(position) for position in range(expr.get_op_n_arg())]
    if kind in ("select", "cond"):
        condition = truth(arguments[0])
        yes = [(conjunction((condition, when)), value) for when, value in number(arguments[1])]
        return yes + [(conjunction((Not(condition), when)), value) for when, value in number(arguments[2])]
    if kind == "minus":
        return [(when, fold(Binary("-", Const(0), value))) for when, value in number(arguments[0])]
    out = number(arguments[0])
    for argument in arguments[1:]:
        out = [
            (conjunction((when, also)), fold(Binary(ARITHMETIC[kind], left, right)))
            for when, left in out
            for also, right in number(argument)
        ]
    return out


def truth(expr: IslExpr) -> Formula:
    """An isl condition as ours."""
    if expr.get_type().name == "int":
        return Truth(int(expr.get_val().to_python()) != 0)
    kind = expr.get_op_type().name
    parts = [expr.get_op_arg(position) for position in range(expr.get_op_n_arg())]
    if kind in ("and_", "and_then"):
        return conjunction(tuple(truth(part) for part in parts))
    if kind in ("or_", "or_else"):
        return disjunction(tuple(truth(part) for part in parts))
    cases = [
        conjunction((when, also, Compare(COMPARISONS[kind], left, right)))
        for when, left in number(parts[0])
        for also, right in number(parts[1])
    ]
    return disjunction(tuple(cases))


def fold(expr: Expr) -> Expr:
    """Constants folded, and the `+ 1` and `- 1` that inclusive bounds leave behind."""
    match expr:
        case Binary("+", Const(a), Const(b)):
            return Const(a + b)
        case Binary("-", Const(a), Const(b)):
            return Const(a - b)
        case Binary("*", Const(a), Const(b)):
            return Const(a * b)
        case Binary("+", Binary("-", inner, Const(a)), Const(b)):
            return fold(Binary("-", inner, Const(a - b))) if a >= b else fold(Binary("+", inner, Const(b - a)))
        case Binary("+", Binary("+", inner, Const(a)), Const(b)):
            return Binary("+", inner, Const(a + b))
        case Binary("+" | "-", inner, Const(0)):
            return inner
        case _:
            return expr
