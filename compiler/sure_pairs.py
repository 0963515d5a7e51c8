"""Which pairs a selection keeps whatever the scores are, as far as that shows that no row is empty."""

from .cells_of_pairs import axes_of, cell_of, forced, on_pairs
from .ir import Binary, Compare, Const, Expr, Formula, Truth, Var, conjunction, disjunction
from .judge import CAUSAL
from .selection import Arithmetic, ByHead, Choice, Chosen, Integer, Number, Program, Term, Threshold
from .walk import variables

NOWHERE = Truth(False)


def sure_pairs(program: Program) -> Formula:
    """A formula that holds for a pair of a row only where some choice keeps a key of that row.

    A threshold may fail for all keys, and so may `when`; NaN scores, which nothing shows before, are left out.
    """
    return disjunction(tuple(part(choice, program) for choice in program.choices for part in (_chosen, forced)))


def condition_on_pairs(formula: Formula | None, key: str, program: Program) -> Formula | None:
    """A condition on the cells of a rule as one on the pairs in them; None where it mentions places."""
    axes, condition = axes_of(program), formula or Truth(True)
    if any(axes[name].order for name in variables(condition) & axes.keys()):
        return None
    there = Compare(">=", cell_of(axes[key]), Const(0)) if axes[key].side == "d" else Truth(True)
    return conjunction((on_pairs(condition, axes), there))


def _chosen(choice: Choice, program: Program) -> Formula:
    """Pairs of rows for which a rule chooses a cell in which the row has a key."""
    if isinstance(choice, Threshold) or not _takes_one(choice) or choice.when or choice.joint:
        return NOWHERE
    seen = disjunction((_seen(choice, program), _all(choice, program)))
    if choice.inside is not None:
        return conjunction((seen, _chosen(choice.inside, program))) if choice.among is None else NOWHERE
    among = condition_on_pairs(choice.among, choice.key, program)
    return NOWHERE if among is None else conjunction((seen, among))


def _all(choice: Chosen, program: Program) -> Formula:
    """Where a rule takes all cells, because there are no more than it takes at least."""
    bare = choice.rule == "top" and not choice.percent and choice.counting is choice.among is choice.inside is None
    if not bare:
        return NOWHERE
    key = axes_of(program)[choice.key]
    few = Compare("<=", Var("n"), Const(int(_least(choice.amount)) * key.size))
    return conjunction((few, Compare(">=", cell_of(key), Const(0)))) if key.side == "d" else few


def _takes_one(choice: Chosen) -> bool:
    """Whether a rule chooses a cell where it has a candidate."""
    match choice.rule:
        case "under":
            return True
        case "reach":
            return False
        case "cover":
            return _least(choice.amount) > 0
        case "top":
            return _least(choice.amount) > 0 if choice.percent else _least(choice.amount) >= 1


def _least(amount: Term) -> float:
    """What an amount is at least."""
    match amount:
        case Number(value):
            return value
        case ByHead(values):
            return min(values)
        case Arithmetic("max", left, right):
            return max(_least(left), _least(right))
        case Integer(Const(value)):
            return value
        case Integer(Binary("max", first, second)):
            return max(_least(Integer(first)), _least(Integer(second)))
        case _:
            return -float("inf")


def _seen(choice: Chosen, program: Program) -> Formula:
    """Where a query has a key in each cell that some query of its own cell has a key in."""
    axes, clauses = axes_of(program), program.limits.clauses
    key, query = axes[choice.key], axes[choice.query] if choice.query else None
    if any(clause.kind == "drop" for clause in clauses):
        return NOWHERE
    if (query is not None and query.size == 1) or (not clauses and key.side == "k"):
        return Truth(True)
    if key.order or key.side == "d" or any(clause.formula != CAUSAL for clause in clauses):
        return NOWHERE
    # The last cell of keys that a cell of queries sees begins no later than this query is.
    newest: Expr = Binary("-", Var("n"), Const(1))
    if query is not None:
        own = Binary("*", cell_of(query), Const(query.size))
        newest = Binary("min", Binary("+", own, Const(query.size - 1)), newest)
    begins = Binary("*", Binary("//", newest, Const(key.size)), Const(key.size))
    return Compare("<=", begins, Var("q"))
