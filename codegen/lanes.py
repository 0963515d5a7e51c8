"""How many batch elements and heads a term differs by: what no head takes part in is made once for all of them."""

from collections.abc import Callable
from typing import assert_never

from ..compiler import ir
from ..compiler.selection import (
    ByHead,
    Choice,
    Chosen,
    Count,
    Heads,
    Integer,
    Number,
    Read,
    Reduce,
    Row,
    Scale,
    Softmax,
    Term,
    Threshold,
)
from ..compiler.terms import children
from ..compiler.walk import reads, variables
from .score_call import Call

# All heads alike, the heads of a group alike, each head for itself.
ALL, GROUP, HEAD = 0, 1, 2


def lanes(choice: Choice, call: Call) -> int:
    """Rows of scores, for each cell of queries, that are ranked for a choice."""
    return call.q.shape[0] * (1, call.q.shape[1], call.heads)[_of_choice(choice, call)]


def widest(term: Term, call: Call) -> int:
    """The most rows that any part of a term is made in."""
    return call.q.shape[0] * (1, call.q.shape[1], call.heads)[_within(term, call)]


def _within(term: Term, call: Call) -> int:
    inside = _of_read(term.name, call, _within) if isinstance(term, Read) else ALL
    return max(_of_term(term, call), inside, *(_within(child, call) for child in children(term)))


def _of_read(name: str, call: Call, level: Callable[[Term, Call], int]) -> int:
    """A level of a score's value, found once where many others read it; of an input, its own."""
    score = next((score for score in call.program.scores if score.name == name), None)
    if score is None:
        return ALL if call.givens[name].shape[1:3].numel() == 1 else HEAD
    # Inputs may be of all heads in one call and of each in the next.
    key = (level, name, tuple(x.shape[1:3] for x in call.givens.values()))
    if key not in call.memory:
        call.memory[key] = level(score.value, call)
    found: int = call.memory[key]
    return found


def _of_choice(choice: Choice, call: Call) -> int:
    limits = max((of_formula(clause.formula) for clause in call.program.limits.clauses), default=ALL)
    when = [_of_choice(one, call) for one in choice.when]
    # An order is each head's own.
    own = HEAD if choice.key and (axis := call.axis(choice.key)) and axis.order else ALL
    match choice:
        case Threshold(left=left, right=right):
            return max(limits, _of_term(left, call), _of_term(right, call), own, *when)
        case Chosen(by=by, amount=amount, counting=counting, among=among, inside=inside):
            formulas = [of_formula(formula) for formula in (counting, among) if formula is not None]
            inner = [_of_choice(inside, call)] if inside else []
            return max(limits, _of_term(by, call), _of_term(amount, call), own, *formulas, *inner, *when)
        case _:
            assert_never(choice)


def _of_term(term: Term, call: Call) -> int:
    match term:
        case Number() | Scale():
            return ALL
        case ByHead():
            return HEAD
        case Integer(value):
            return of_formula(ir.Compare("==", value, ir.Const(0)))
        case Row(source, index):
            own = HEAD if source == "Q" or call.program.orders else GROUP
            return max(own, of_formula(ir.Compare("==", index, ir.Const(0))))
        case Read(name):
            return _of_read(name, call, _of_term)
        case Reduce(_, binders, body, where):
            inner = max(_of_term(body, call), ALL if where is None else of_formula(where))
            for binder in binders:
                if isinstance(binder, Heads):
                    inner = min(inner, GROUP) if binder.group else ALL
            return inner
        case Softmax(body, _, where):
            return max(_of_term(body, call), ALL if where is None else of_formula(where))
        case Count(chosen):
            return _of_choice(chosen, call)
        case _:
            return max((_of_term(child, call) for child in children(term)), default=ALL)


def of_formula(formula: ir.Formula) -> int:
    """Which heads a condition may tell apart; tables may be each head's own."""
    names = variables(formula)
    return HEAD if "h" in names or reads(formula) else GROUP if "g" in names else ALL
