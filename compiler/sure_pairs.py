"""Which pairs a selection keeps whatever the scores are, as far as that shows that no row is empty."""

from functools import reduce

from .ir import Binary, Compare, Const, Expr, Formula, Truth, Var, conjunction, disjunction
from .judge import CAUSAL
from .selection import Arithmetic, Axis, ByHead, Choice, Chosen, Integer, Number, Program, Term, Threshold
from .walk import rewrite, substitute, variables

NOWHERE = Truth(False)


def sure_pairs(program: Program) -> Formula:
    """A formula that holds for a pair of a row only where some choice keeps a key of that row.

    A threshold may fail for all keys, and so may `when`; NaN scores, which nothing shows before, are left out.
    """
    return disjunction(tuple(_sure(choice, program) for choice in program.choices))


def of_pairs(formula: Formula, program: Program) -> Formula | None:
    """A condition on cells as one on the pairs in them; None where it mentions places, which scores decide."""
    axes = {axis.name: axis for axis in program.axes}
    mentioned = [axes[name] for name in variables(formula) if name in axes]
    if any(axis.order for axis in mentioned):
        return None

    def change(expr: Expr) -> Expr:
        return reduce(lambda e, axis: substitute(e, axis.name, _cell(axis)), mentioned, expr)

    return rewrite(formula, change)


def _cell(axis: Axis) -> Expr:
    """The cell of an axis that a pair lies in."""
    if axis.side == "d":
        return Binary("-", _divided("q", axis.size), _divided("k", axis.size))
    return _divided(axis.side, axis.size)


def _divided(name: str, size: int) -> Expr:
    return Binary("//", Var(name), Const(size)) if size > 1 else Var(name)


def _sure(choice: Choice, program: Program) -> Formula:
    match choice:
        case Threshold():
            return NOWHERE
        case Chosen() if choice.when or choice.joint:
            return NOWHERE
        case Chosen():
            chosen = _chosen(choice, program)
            forced = Truth(True) if choice.among is None and choice.inside is None else NOWHERE
            counting = None if choice.counting is None else of_pairs(choice.counting, program)
            return disjunction((chosen, NOWHERE if counting is None else conjunction((forced, counting))))


def _chosen(choice: Chosen, program: Program) -> Formula:
    """Pairs of rows for which a rule chooses a cell in which the row has a key."""
    if not _takes_one(choice) or choice.when or choice.joint:
        return NOWHERE
    seen = _seen(choice, program)
    if choice.inside is not None:
        return conjunction((seen, _chosen(choice.inside, program))) if choice.among is None else NOWHERE
    among = Truth(True) if choice.among is None else of_pairs(choice.among, program)
    return NOWHERE if among is None else conjunction((seen, among))


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
    axes = {axis.name: axis for axis in program.axes}
    key, query = axes[choice.key], axes[choice.query] if choice.query else None
    clauses = program.limits.clauses
    if any(clause.kind == "drop" for clause in clauses):
        return NOWHERE
    if not clauses or (query is not None and query.size == 1):
        return Truth(True)
    if key.order or key.side == "d" or any(clause.formula != CAUSAL for clause in clauses):
        return NOWHERE
    # The last cell of keys that a cell of queries sees begins no later than this query is.
    newest: Expr = Binary("-", Var("n"), Const(1))
    if query is not None:
        own = Binary("*", _divided("q", query.size), Const(query.size))
        newest = Binary("min", Binary("+", own, Const(query.size - 1)), newest)
    begins = Binary("*", Binary("//", newest, Const(key.size)), Const(key.size))
    return Compare("<=", begins, Var("q"))
