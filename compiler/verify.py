"""What must hold between passes: every name a plan mentions is known where it is used."""

from .ir import Binary, Const, Expr, Formula, Var
from .plan import Plan
from .walk import expressions, parts, reads, variables

LOOP_NAMES = {"i", "j", "n", "off", "h", "g"}
MASK_NAMES = {"q", "k", "n", "m", "h", "g"}


class InternalError(Exception):
    """A fault of weft itself, not of the pattern."""


def verify(plan: Plan, after: str) -> None:
    """Raise InternalError when a pass left a plan that cannot be emitted."""
    uniforms = {name for name, _ in plan.uniforms}
    tables = {table.name for table in plan.mask.tables}

    def check(formula: Formula, names: set[str]) -> None:
        unknown = variables(formula) - names - uniforms
        if unknown:
            raise InternalError(f"after {after}: unknown names {sorted(unknown)} in {plan.mask.name}")
        if any(read.table not in tables for read in reads(formula)):
            raise InternalError(f"after {after}: unknown table in {plan.mask.name}")
        for expr in expressions(formula):
            _check_divisors(expr, after)

    check(plan.formula, MASK_NAMES)
    for region in plan.regions:
        check(region.mask, MASK_NAMES)
        for run in region.runs:
            check(run.guard, LOOP_NAMES)
            for bound in (run.low, run.high):
                _check_divisors(bound, after)
                unknown = {p.name for p in parts(bound) if isinstance(p, Var)} - LOOP_NAMES - uniforms
                if unknown:
                    raise InternalError(f"after {after}: unknown names {sorted(unknown)} in a loop bound")


def _check_divisors(expr: Expr, after: str) -> None:
    for part in parts(expr):
        match part:
            case Binary("//" | "%", _, right) if not isinstance(right, Const) or right.value <= 0:
                raise InternalError(f"after {after}: division by something else than a positive constant")
            case _:
                pass
