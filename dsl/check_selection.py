"""Whether a `keep` selects by content, and whether its rule or threshold makes sense."""

from .check_reads import ROWS
from .check_rule import check_rule, check_when, of_pairs
from .check_scores import plain
from .here import Here, hand
from .infer import condition
from .scope import Scope
from .syntax import (
    Chosen,
    Comparison,
    Count,
    Decimal,
    Divide,
    Dot,
    Expr,
    Index,
    Keep,
    Logical,
    Membership,
    Name,
    Reduce,
    Slice,
    Softmax,
)
from .walk import walk

# Over nothing, `max` is minus and `min` plus infinity, which no threshold meets.
_WITHIN = "put the condition into the score: `max(r < 1 where J < I) s[I, J] > 0`, or `min(..) .. < 0`"
_WORDS = {"q": "queries", "k": "keys, places or distances"}


def check_keep(keep: Keep, scope: Scope) -> None:
    """A condition on pairs, a rule or a threshold, each perhaps only for some queries; `or` unites them."""
    _check_clause(keep.condition, keep.when, scope)


def check_limit(clause: Expr, scope: Scope) -> None:
    """A condition on pairs, which scores have no part in."""
    if _selects(clause, scope):
        scope.touch(clause)
        hint = "a rule chooses among the cells for which its `among (..)` holds"
        scope.report("E003", clause.span, "scores select in a `keep` alone", hint)
    else:
        condition(clause, scope)


def _check_clause(clause: Expr, when: Expr | None, scope: Scope) -> None:
    match clause:
        case Logical("or", operands) if _selects(clause, scope):
            for operand in operands:
                _check_clause(operand, when, scope)
        case Membership(value, Chosen() as rule, negated):
            if negated:
                scope.report("E003", clause.span, "what a rule does not choose is no selection", "write `in`")
            queries = check_rule(value, rule, scope, of_pairs(scope)).queries
            if when is not None:
                check_when(when, queries, scope)
        case Comparison() if is_real(clause, scope):
            queries = _check_threshold(clause, scope)
            if when is not None:
                check_when(when, queries, scope)
        case Comparison() if _is_mistaken(clause, scope):
            for part in (clause, *(() if when is None else (when,))):
                scope.touch(part)  # what is wrong with it is said where it is defined
        case _ if _selects(clause, scope):
            scope.touch(clause)
            ruled = any(isinstance(node, Chosen) for node, _ in walk(clause))
            hint = "write `among (..)` in it, or several `keep`s, which unite" if ruled else _WITHIN
            scope.report("E003", clause.span, "a selection stands alone in its `keep`", hint)
        case _:
            condition(clause, scope)
            if when is not None:
                scope.touch(when)
                hint = "this depends on no numbers: write it into the condition"
                scope.report("E003", when.span, "`when` stands after a rule or a threshold", hint)


def _selects(clause: Expr, scope: Scope) -> bool:
    """Whether a condition depends on scores somewhere."""
    match clause:
        case Membership(_, Chosen()):
            return True
        case Comparison():
            return is_real(clause, scope)
        case _:
            return any(
                isinstance(node, Chosen) or (isinstance(node, Comparison) and is_real(node, scope))
                for node, _ in walk(clause)
            )


def _is_mistaken(clause: Expr, scope: Scope) -> bool:
    """Whether real numbers are compared with a name that was defined wrongly."""
    nodes = [node for node, _ in walk(clause)]
    named = (scope.names[node.name] for node in nodes if isinstance(node, Name | Index) and node.name in scope.names)
    return any(isinstance(node, Decimal | Divide) for node in nodes) and any(value.kind == "unknown" for value in named)


def is_real(clause: Expr, scope: Scope) -> bool:
    """Whether scores, or numbers such as they are made of, are compared."""
    for node, _ in walk(clause):
        match node:
            case Dot() | Reduce() | Softmax() | Slice() | Count() | Chosen():
                return True
            case Index(name) | Name(name):
                known = scope.names.get(name)
                if known.kind in ("score", "rows") if known else isinstance(node, Index) and name in ROWS:
                    return True
            case _:
                pass
    return False


def _check_threshold(clause: Comparison, scope: Scope) -> frozenset[str]:
    """The axes of queries that a threshold is about."""
    if len(clause.ops) > 1 or "==" in clause.ops or "!=" in clause.ops:
        message = "a threshold is one comparison, with `<`, `<=`, `>` or `>=`"
        scope.report("E003", clause.span, message, "several `keep`s unite")
    here = Here(scope, of_pairs(scope))
    for operand in clause.operands:
        plain(operand, here)
    for side, word in _WORDS.items():
        names = sorted(name for name in here.seen if name in here.cells and hand(here.cells[name]) == side)
        if len(names) > 1:
            message = f"`{names[0]}` and `{names[1]}` both count {word}"
            scope.report("E006", clause.span, message, "a threshold has one axis of each side at most")
    return frozenset(name for name in here.seen & here.cells.keys() if here.cells[name].side == "q")
