"""What must hold between passes: every name a plan mentions is known where it is used."""

from .ir import Binary, Const, Expr, Formula, Var
from .plan import Plan, Region
from .walk import expressions, parts, reads, variables

LOOP_NAMES = {"i", "j", "n", "off", "h", "g"}
MASK_NAMES = {"q", "k", "n", "m", "h", "g"}


class InternalError(Exception):
    """A fault of weft itself, not of the pattern."""


def verify(plan: Plan, after: str) -> None:
    """Raise InternalError when a pass left a plan that cannot be emitted."""
    _check_regions(plan.regions, plan.strategy == "table", after)
    uniforms = {name for name, _ in plan.uniforms}
    mask_names = MASK_NAMES | {"off"} if plan.band else MASK_NAMES
    if plan.band and plan.shape.square:
        raise InternalError(f"after {after}: {plan.mask.name} has a band of queries and as many queries as keys")
    # Loops were found for a call's queries: in what belongs to them m would count others than the band's.
    closed = [name for region in plan.regions if region.runs for name in variables(region.mask)]
    if plan.band and "m" in {*closed, *(name for _, expr in plan.uniforms for name in named(expr))}:
        raise InternalError(f"after {after}: loops of {plan.mask.name} count the queries of a band")
    tables = {table.name for table in plan.mask.tables}

    def check(formula: Formula, names: set[str]) -> None:
        unknown = variables(formula) - names - uniforms
        if unknown:
            raise InternalError(f"after {after}: unknown names {sorted(unknown)} in {plan.mask.name}")
        if any(read.table not in tables for read in reads(formula)):
            raise InternalError(f"after {after}: unknown table in {plan.mask.name}")
        for expr in expressions(formula):
            _check_divisors(expr, after)

    check(plan.formula, mask_names)
    if plan.columns is not None:
        check(plan.columns, mask_names)
    for region in plan.regions:
        check(region.mask, mask_names)
        for run in region.runs:
            check(run.guard, LOOP_NAMES)
            for bound in (run.low, run.high):
                _check_divisors(bound, after)
                unknown = named(bound) - LOOP_NAMES - uniforms
                if unknown:
                    raise InternalError(f"after {after}: unknown names {sorted(unknown)} in a loop bound")


def named(expr: Expr) -> set[str]:
    """The variables of an expression."""
    return {part.name for part in parts(expr) if isinstance(part, Var)}


def _check_regions(regions: tuple[Region, ...], listed: bool, after: str) -> None:
    """The region of listed tiles is the last one; each other one has runs."""
    for position, region in enumerate(regions):
        if bool(region.runs) == (listed and position == len(regions) - 1):
            raise InternalError(f"after {after}: region {position} has {len(region.runs)} runs")


def _check_divisors(expr: Expr, after: str) -> None:
    for part in parts(expr):
        match part:
            case Binary("//" | "%", _, right) if not isinstance(right, Const) or right.value <= 0:
                raise InternalError(f"after {after}: division by something else than a positive constant")
            case _:
                pass
