"""A `keep` that selects by content, as choices of cells: rules and thresholds."""

from math import isfinite
from typing import assert_never

from ..dsl import syntax as s
from ..dsl.printer import format_expression
from ..dsl.source import Span
from . import selection as ir
from .ir import Formula, conjunction
from .lower_term import ALWAYS, Names, condition_over, free, term
from .scope import fail
from .walk import variables


def choice(keep: s.Keep, names: Names) -> ir.Choice:
    """The rule or threshold of a `keep` that has one."""
    condition, when = keep.condition, keep.when
    text = f"keep {format_expression(condition)}" + ("" if when is None else f" when {format_expression(when)}")
    match condition:
        case s.Membership(axis, s.Chosen() as rule, False):
            return chosen(axis, rule, text, names, when)
        case s.Comparison():
            return _threshold(condition, text, names, when)
        case _:
            hint = "a rule takes conditions in `among (..)`, and several `keep`s unite"
            fail("E003", condition.span, "a selection stands alone in its `keep`", hint)


def _threshold(expr: s.Expr, text: str, names: Names, when: s.Expr | None = None) -> ir.Threshold:
    match expr:
        case s.Comparison((left, right), ("<" | "<=" | ">" | ">=" as op,)):
            sides = term(left, names.axes, names), term(right, names.axes, names)
            met = _when(when, names)
            key, query = _cells(free(sides[0]) | free(sides[1]) | _queries(met), expr.span, names)
            return ir.Threshold(op, *sides, key, query, text, met)
        case _:
            fail("E003", expr.span, "a threshold is one comparison, with `<`, `<=`, `>` or `>=`")


def _when(when: s.Expr | None, names: Names) -> tuple[ir.Threshold, ...]:
    """The comparisons after `when`, which mention queries alone."""
    found = tuple(_threshold(part, format_expression(part), names) for part in _parts(when))
    if found and (keyed := next((each for each in found if each.key is not None), None)):
        assert when is not None
        fail("E006", when.span, f"`{keyed.key}` counts keys, and `when` speaks of queries")
    return found


def _queries(met: tuple[ir.Threshold, ...]) -> frozenset[str]:
    return frozenset(each.query for each in met if each.query is not None)


def _parts(expr: s.Expr | None) -> tuple[s.Expr, ...]:
    match expr:
        case None:
            return ()
        case s.Logical("and", operands):
            return operands
        case _:
            return (expr,)


def chosen(axis: s.Expr, rule: s.Chosen, text: str, names: Names, when: s.Expr | None = None) -> ir.Chosen:
    """A rule; what it chooses among may be a rule again."""
    name = axis.name if isinstance(axis, s.Name) else ""
    by, amount = (term(each, names.axes, names) for each in (rule.by, rule.amount))
    counting = None if rule.counting is None else condition_over(rule.counting, names.axes, names)
    inside, among = _among(rule.among, names)
    met = _when(when, names)
    mentioned = free(by) | free(amount) | _queries(met) | {name, *(() if rule.joint is None else (rule.joint,))}
    mentioned |= frozenset[str]().union(*(variables(x) for x in (counting, among) if x is not None)) - ALWAYS
    key, query = _cells(mentioned, rule.span, names)
    if key is None or key != name:
        fail("E006", rule.span, f"`{name}` counts no keys, and a rule chooses keys")
    _check_amount(rule, amount)
    if inside is not None:
        _check_nesting(key, query, inside, rule.span, names)
    return ir.Chosen(
        rule.rule,
        amount,
        rule.percent,
        rule.of or "visible",
        key,
        query,
        by,
        counting,
        among,
        text,
        inside,
        rule.joint is not None,
        met,
    )


def _among(expr: s.Expr | None, names: Names) -> tuple[ir.Chosen | None, Formula | None]:
    """The rule that chooses first, and the condition on cells."""
    inside: list[ir.Chosen] = []
    conditions: list[Formula] = []
    for part in _parts(expr):
        match part:
            case s.Membership(axis, s.Chosen() as rule, False) if not inside:
                inside.append(chosen(axis, rule, format_expression(part), names))
            case _:
                conditions.append(condition_over(part, names.axes, names))
    return next(iter(inside), None), conjunction(tuple(conditions)) if conditions else None


def _check_nesting(key: str, query: str | None, inside: ir.Chosen, span: Span | None, names: Names) -> None:
    """Cells that are chosen first are made of those chosen then."""
    pairs = [(names.axes[key], names.axes[inside.key])]
    if inside.query is not None:
        if query is None:
            fail(
                "E006",
                span,
                f"what this chooses among differs by `{inside.query}`, and this rule is the same for all queries",
            )
        pairs.append((names.axes[query], names.axes[inside.query]))
    for fine, coarse in pairs:
        if (fine.side, fine.order) != (coarse.side, coarse.order):
            fail("E006", span, f"cells of `{coarse.name}` are not made of cells of `{fine.name}`")
        if coarse.size % fine.size or (fine.side == "d" and coarse.size != fine.size):
            hint = "the finer size divides the coarser one"
            fail("E005", span, f"cells of {coarse.size} tokens are not made of cells of {fine.size}", hint)


def _check_amount(rule: s.Chosen, amount: ir.Term) -> None:
    """What is known of an amount lies where the rule can use it."""
    match amount:
        case ir.Number(value):
            values = (value,)
        case ir.ByHead(values):
            pass
        case _:
            return
    high, what = float("inf"), "a mass of 0 or more"
    hint = f"the sum of scores to stay {rule.rule}" if rule.rule == "under" else "the sum of scores to reach"
    match rule.rule:
        case "top" if rule.percent:
            high, what, hint = 100.0, "0% to 100%", "`top 100%` keeps all that may be chosen"
        case "top":
            what, hint = "a whole number of cells", "`top 5% by` takes a share of them"
        case "cover":
            high, what = 1.0, "a share from 0 to 1"
            hint = "`cover 0.9` takes nine tenths of the sum of all scores; `reach` and `under` take a sum itself"
        case "reach" | "under":
            pass
        case _:
            assert_never(rule.rule)
    for value in values:
        whole = rule.rule != "top" or rule.percent or (isfinite(value) and value == int(value))
        if not (isfinite(value) and 0.0 <= value <= high and whole):
            fail("E005", rule.amount.span, f"`{rule.rule}` takes {what}, not {value:g}", hint)


def _cells(mentioned: frozenset[str], span: Span | None, names: Names) -> tuple[str | None, str | None]:
    """The key-sided and the query-sided axis among names."""
    if strange := sorted(x for x in mentioned if x not in names.axes):
        fail("E006", span, f"`{strange[0]}` is not an axis")
    sides = [sorted(x for x in mentioned if names.axes[x].side in side) for side in (("k", "d"), ("q",))]
    for found in sides:
        if len(found) > 1:
            hint = "a selection has one axis a side"
            fail("E006", span, f"`{found[0]}` and `{found[1]}` count the same side", hint)
    key, query = (found[0] if found else None for found in sides)
    return key, query
