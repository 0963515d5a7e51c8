"""Pass: loops in the kernel where they are few, lists of tiles where they are many."""

from dataclasses import replace

from .ir import Compare, Truth, Var, conjunction
from .plan import Plan, Region
from .walk import variables

# Each run is one more copy of the inner loop in the kernel: beyond this, reading a list is faster.
MOST_RUNS = 5


def choose_strategy(plan: Plan) -> Plan:
    """Strategy "run" when every region is a few plain loops, else "list"; what isl could not hold stays "table"."""
    if plan.strategy == "table":
        return plan
    loops = [run for region in plan.regions for run in region.runs]
    if len(loops) <= MOST_RUNS and all("j" not in variables(run.guard) for run in loops):
        return replace(plan, strategy="run")
    return replace(plan, strategy="list", regions=merged(plan))


def merged(plan: Plan) -> tuple[Region, ...]:
    """At most two regions: all full tiles, and all partial ones under one mask that is right for each."""
    full = tuple(run for region in plan.regions if region.full for run in region.runs)
    partial = [region for region in plan.regions if not region.full]
    out = [Region(full, Truth(True))] if full else []
    if len(partial) == 1:
        out.append(partial[0])
    elif partial:
        inside = conjunction((plan.formula, Compare("<", Var("k"), Var("n"))))
        out.append(Region(tuple(run for region in partial for run in region.runs), inside))
    return tuple(out)
