"""Whether a `keep` selects by content, and whether its rule or threshold makes sense."""

from .check_scores import ROWS, Here, plain
from .infer import condition
from .scope import Scope
from .syntax import (
    Chosen,
    Comparison,
    Dot,
    Expr,
    Index,
    Logical,
    Membership,
    Name,
    Reduce,
    Softmax,
)
from .walk import walk

_WORDS = {"q": "queries", "k": "keys"}


def check_keep(clause: Expr, scope: Scope) -> None:
    """A condition on pairs, a rule or a threshold; `or` unites them."""
    match clause:
        case Logical("or", operands) if _selects(clause, scope):
            for operand in operands:
                check_keep(operand, scope)
        case Membership(value, Chosen() as rule, negated):
            if negated:
                scope.report("E003", clause.span, "what a rule does not choose is no selection", "write `in`")
            _check_rule(value, rule, scope)
        case Comparison() if _is_real(clause, scope):
            _check_threshold(clause, scope)
        case _ if _selects(clause, scope):
            scope.touch(clause)
            hint = "write `among (..)` in it, or several `keep`s, which unite"
            scope.report("E003", clause.span, "a selection stands alone in its `keep`", hint)
        case _:
            condition(clause, scope)


def _selects(clause: Expr, scope: Scope) -> bool:
    """Whether a condition depends on scores somewhere."""
    match clause:
        case Membership(_, Chosen()):
            return True
        case Comparison():
            return _is_real(clause, scope)
        case _:
            return any(
                isinstance(node, Chosen) or (isinstance(node, Comparison) and _is_real(node, scope))
                for node, _ in walk(clause)
            )


def _is_real(clause: Expr, scope: Scope) -> bool:
    """Whether scores, or numbers such as they are made of, are compared."""
    for node, _ in walk(clause):
        match node:
            case Dot() | Reduce() | Softmax() | Chosen():
                return True
            case Index(name) | Name(name):
                known = scope.names.get(name)
                if known.kind in ("score", "rows") if known else isinstance(node, Index) and name in ROWS:
                    return True
            case _:
                pass
    return False


def _check_rule(value: Expr, rule: Chosen, scope: Scope) -> None:
    axis = value.name if isinstance(value, Name) and value.name in scope.cells else ""
    here = Here(scope, scope.cells)
    if axis and scope.cells[axis].side != "k":
        scope.report("E006", value.span, f"`{axis}` counts queries, and a rule chooses keys")
    elif not axis:
        scope.report("E006", value.span, "a rule chooses cells of an axis", "such as `J` after `axis J = k // 64`")
    else:
        scope.used.add(axis)
    plain(rule.amount, Here(scope, {}), "a number known before the kernel runs")
    if rule.percent and rule.rule != "top":
        hint = f"`{rule.rule}` takes a share, as in `{rule.rule} 0.9`"
        scope.report("E007", rule.amount.span, "only `top` takes a percentage", hint)
    plain(rule.by, here)
    if not isinstance(rule.by, Index):
        hint = "give it a name: `let score[I, J] = ..`"
        scope.report("E003", rule.by.span, "cells are ranked by a score", hint)
    elif axis and here.seen and axis not in here.seen:
        known = ", ".join(f"`{name}`" for name in sorted(here.seen))
        scope.report("E006", rule.by.span, f"this score has no value for each `{axis}`", f"its axes: {known}")
    within = Here(scope, {name: scope.cells[name] for name in scope.cells if name in here.seen | {axis}})
    for part in (rule.counting, rule.among):
        if part is not None:
            within.integers(part, "condition")


def _check_threshold(clause: Comparison, scope: Scope) -> None:
    if len(clause.ops) > 1 or "==" in clause.ops or "!=" in clause.ops:
        message = "a threshold is one comparison, with `<`, `<=`, `>` or `>=`"
        scope.report("E003", clause.span, message, "several `keep`s unite")
    here = Here(scope, scope.cells)
    for operand in clause.operands:
        plain(operand, here)
    for side, word in _WORDS.items():
        names = sorted(name for name in here.seen if scope.cells[name].side == side)
        if len(names) > 1:
            message = f"`{names[0]}` and `{names[1]}` both count {word}"
            scope.report("E006", clause.span, message, "a threshold has one axis of each side at most")
