"""In which cell does a pair lie, and which pairs lie in cells that a choice must keep."""

from collections.abc import Mapping
from typing import assert_never

from .ir import Binary, Compare, Const, Expr, Formula, Truth, Var, conjunction
from .selection import Axis, Choice, Chosen, Program, Threshold
from .walk import rewrite, substitute, variables


def axes_of(program: Program) -> dict[str, Axis]:
    """All axes by name, single tokens too."""
    return {axis.name: axis for axis in (Axis("q", "q", 1), Axis("k", "k", 1), *program.axes)}


def cell_of(axis: Axis) -> Expr:
    """The number of a pair's cell."""
    query, key = (Binary("//", Var(side), Const(axis.size)) if axis.size > 1 else Var(side) for side in "qk")
    return Binary("-", query, key) if axis.side == "d" else query if axis.side == "q" else key


def on_pairs(formula: Formula, axes: Mapping[str, Axis]) -> Formula:
    """A condition on cells as one on pairs."""
    for name in variables(formula) & (axes.keys() - {"q", "k"}):
        cell = cell_of(axes[name])
        formula = rewrite(formula, lambda e, name=name, cell=cell: substitute(e, name, cell))
    return formula


def forced(choice: Choice, program: Program) -> Formula:
    """The pairs that a choice keeps whatever the scores are."""
    axes = axes_of(program)
    match choice:
        case Threshold():
            return Truth(False)
        case Chosen(counting=counting, among=among):
            key = axes[choice.key]
            if counting is None or choice.inside or choice.when or key.order:
                return Truth(False)
            there = Compare(">=", cell_of(key), Const(0)) if key.side == "d" else Truth(True)
            return conjunction((on_pairs(counting, axes), on_pairs(among or Truth(True), axes), there))
        case _:
            assert_never(choice)
