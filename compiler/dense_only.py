"""Which dynamic patterns only the dense definition can score: the tiled back ends refuse them, or stay small."""

from .ir import Expr, Mask, Var
from .ir import Read as TableRead
from .selection import Count, Heads, Inside, Program, Read, Reduce, Softmax, Term
from .terms import every_term, within
from .walk import parts, reads, variables


def only_densely(program: Program) -> str:
    """Why the tiled back ends cannot score a program; empty where they can."""
    orders = {table.name for table in program.limits.tables if table.kind == "order"}
    required = Mask("", tuple(clause for clause in program.limits.clauses if clause.kind == "require")).formula
    if any(read.table in orders for read in reads(required)):
        return "a condition on all pairs that reads places of an order"
    return next((why for term in every_term(program) if (why := _alone(term))), "")


def _alone(term: Term) -> str:
    match term:
        case Read(_, indices) if any(_by_head(index) for index in indices):
            return "a score read at a cell that heads, inputs or tables choose"
        case Reduce(op, binders, body, where):
            around = [binder.outer for binder in binders if isinstance(binder, Inside)]
            if len(set(around)) < len(around):
                return "a reduction that runs through the same cell twice"
            if any(_held(inner, around) for inner in within(body)):
                return "a reduction inside cells that one in its body runs through too"
            heads = any(isinstance(binder, Heads) for binder in binders)
            if heads and op == "mean" and where is not None and variables(where) & {"h", "g"}:
                return "a mean over the heads where a condition holds"
        case _:
            pass
    return ""


def _held(term: Term, around: list[str]) -> bool:
    """Whether a term needs the very cells whose insides are run through, not only their numbers."""
    match term:
        case Reduce(_, binders):
            return any(isinstance(binder, Inside) and binder.outer in around for binder in binders)
        case Softmax(_, along):
            return along in around
        case Count(chosen):
            return chosen.query in around
        case _:
            return False


def _by_head(index: Expr) -> bool:
    return any(isinstance(part, TableRead) or part in (Var("h"), Var("g")) for part in parts(index))
