"""Pass: give a symbol to what is one number for a whole head, so that isl may treat it as a constant."""

from dataclasses import replace

from .ir import Binary, Const, Expr, Formula, Mask, Read, Var
from .plan import Plan
from .walk import parts, rewrite, substitute, variables

UNIFORM = {"h", "g", "n", "m"}


def name_uniforms(plan: Plan) -> Plan:
    """`alpha[h] + beta[h] * n // 8` becomes `u0`: a table entry or a product of symbols is not affine, a symbol is."""
    named: dict[Expr, str] = {}
    formula = symbolic(plan.mask.formula, plan.mask, named)
    if {"h", "g"} <= variables(formula):
        # One symbol for the head is enough; two would make isl reason about their relation.
        group = Const(plan.shape.heads // plan.shape.kv_heads)
        formula = rewrite(formula, lambda e: substitute(e, "g", Binary("//", Var("h"), group)))
    per_head = bool({"h", "g"} & variables(plan.mask.formula))
    return replace(
        plan, formula=formula, uniforms=tuple((name, expr) for expr, name in named.items()), per_head=per_head
    )


def symbolic(formula: Formula, mask: Mask, named: dict[Expr, str]) -> Formula:
    """A formula of a mask with its non-affine uniform parts named; `named` collects them."""
    heads = {t.name for t in mask.tables if t.kind == "head"}

    def change(expr: Expr) -> Expr:
        if is_uniform(expr, heads) and not is_affine(expr):
            return Var(named.setdefault(expr, f"u{len(named)}"))
        if isinstance(expr, Binary):
            return Binary(expr.op, change(expr.left), change(expr.right))
        return expr

    return rewrite(formula, change)


def is_uniform(expr: Expr, head_tables: set[str]) -> bool:
    """Whether every part is the same for all queries and keys of a head."""
    for part in parts(expr):
        if isinstance(part, Var) and part.name not in UNIFORM:
            return False
        if isinstance(part, Read) and part.table not in head_tables:
            return False
    return True


def is_affine(expr: Expr) -> bool:
    """Whether isl can hold a uniform expression as it stands."""
    for part in parts(expr):
        match part:
            case Read():
                return False
            case Binary("*", left, right) if not isinstance(left, Const) and not isinstance(right, Const):
                return False
            case Binary("&" | "|" | "^" | ">>", _, _):
                return False
            case _:
                pass
    return True
