"""Whether a rule that chooses cells makes sense: what it ranks, how many it takes, and among which."""

from dataclasses import dataclass

from .check_scores import plain
from .diagnostics import did_you_mean
from .here import Here, words
from .scope import VARIABLES, Cell, Scope
from .syntax import Chosen, Comparison, Expr, Index, Logical, Membership, Name


@dataclass(frozen=True, slots=True)
class Ruled:
    """The cells that a rule is about; a key of "" where that is reported."""

    key: str = ""
    queries: frozenset[str] = frozenset()


def of_pairs(scope: Scope) -> dict[str, Cell]:
    """The axes whose cells pairs are in."""
    return {name: cell for name, cell in scope.cells.items() if cell.side and not cell.last}


def check_rule(value: Expr, rule: Chosen, scope: Scope, cells: dict[str, Cell]) -> Ruled:
    """A rule over the names of `cells`."""
    key = _key(value, rule, scope, cells)
    if not key:  # then what ranks it would be wrong too
        scope.touch(Membership(value, rule))
        return Ruled()
    here = Here(scope, cells)
    if rule.percent and rule.rule != "top":
        hint = f"`{rule.rule}` takes a share, as in `{rule.rule} 0.9`"
        scope.report("E007", rule.amount.span, "only `top` takes a percentage", hint)
    if not plain(rule.by, here):
        pass
    elif not isinstance(rule.by, Index):
        hint = "give it a name: `let score[I, J] = ..`"
        scope.report("E003", rule.by.span, "cells are ranked by a score", hint)
    elif here.seen and key not in here.seen:
        known = ", ".join(f"`{name}`" for name in sorted(here.seen))
        scope.report("E006", rule.by.span, f"this score has no value for each `{key}`", f"its axes: {known}")
    joint = _joint(rule, here)
    _check_amount(rule, joint, here)
    within = Here(scope, {name: cells[name] for name in cells if name in here.seen | {key, joint}})
    if rule.counting is not None:
        within.integers(rule.counting, "condition")
    inner = [_check_among(part, within, cells) for part in _parts(rule.among)]
    if sum(bool(other.key) for other in inner) > 1:
        hint = "let one of them be among the other: `among (J in .. among (..))`"
        scope.report("E003", rule.span, "`among` has one rule, which chooses", hint)
    queries = frozenset(name for name in here.seen | {joint} if name in cells and cells[name].side == "q")
    if len(queries) > 1:
        first, second = sorted(queries)[:2]
        message = f"`{first}` and `{second}` both count queries"
        scope.report("E006", rule.span, message, "a rule has one axis of each side at most")
    found = Ruled(key, queries)
    for other in inner:
        _check_nesting(found, other, rule, scope)
    return found


def _key(value: Expr, rule: Chosen, scope: Scope, cells: dict[str, Cell]) -> str:
    """The axis whose cells are chosen; empty once something else is reported."""
    match value:
        case Name(name) if name in scope.cells:
            cell = scope.cells[name]
            scope.used.add(name)
            if name not in cells:
                hint = "a rule chooses cells of keys, of places or of distances"
                scope.report("E006", value.span, f"`{name}` stands in scores alone", hint)
            elif cell.side == "q" and rule.joint is not None:
                hint = f"write `({name}, {rule.joint}) in ..`"
                scope.report("E006", value.span, "the cells of queries come first", hint)
            elif cell.side == "q":
                keys = [f"`{x}`" for x, other in cells.items() if other.side != "q" and x != "k"]
                hint = f"cells of keys here: {', '.join(keys)}" if keys else "such as `J` after `axis J = k // 64`"
                scope.report("E006", value.span, f"`{name}` counts queries, and a rule chooses keys", hint)
            else:
                return name
        case Name(name) if name in scope.names and scope.names[name].kind == "unknown":
            pass
        case Name(name) if name not in scope.names and name not in VARIABLES:
            hint = did_you_mean(name, (x for x in cells if cells[x].side != "q"))
            scope.report("E006", value.span, f"there is no axis `{name}`", hint)
        case _:
            scope.report("E006", value.span, "a rule chooses cells of an axis", "such as `J` after `axis J = k // 64`")
    return ""


def _joint(rule: Chosen, here: Here) -> str:
    """The axis of queries whose cells are ranked together; empty where there is none."""
    name = rule.joint
    if name is None:
        return ""
    cell = here.at(name, rule.span)
    if cell is not None and cell.side != "q":
        here.scope.report("E006", rule.span, f"`{name}` counts {words(cell)}", "`(I, J) in ..` names queries first")
    return name if cell is not None and cell.side == "q" else ""


def _check_amount(rule: Chosen, joint: str, here: Here) -> None:
    """An amount may differ from query cell to query cell."""
    queries = {name: cell for name, cell in here.cells.items() if cell.side == "q"}
    known = queries.keys() & here.seen
    allowed = {} if joint else {name: queries[name] for name in known or queries}
    inner = Here(here.scope, allowed, here.seen)
    plain(rule.amount, inner)


def _parts(among: Expr | None) -> tuple[Expr, ...]:
    match among:
        case None:
            return ()
        case Logical("and", operands):
            return operands
        case _:
            return (among,)


def _check_among(part: Expr, here: Here, cells: dict[str, Cell]) -> Ruled:
    """A condition on cells, or a rule that chooses coarser ones first."""
    match part:
        case Membership(value, Chosen() as rule, False):
            return check_rule(value, rule, here.scope, cells)
        case _:
            here.integers(part, "condition")
            return Ruled()


def _check_nesting(outer: Ruled, inner: Ruled, rule: Chosen, scope: Scope) -> None:
    """What is chosen first are cells of the same kind, as large or larger, of queries as large or larger."""
    if not outer.key or not inner.key:
        return
    pairs = [(scope.cells[outer.key], scope.cells[inner.key])]
    pairs += [(scope.cells[a], scope.cells[b]) for a in outer.queries for b in inner.queries]
    if inner.queries and not outer.queries:
        message = (
            f"what this chooses among differs by `{min(inner.queries)}`, and this rule is the same for all queries"
        )
        scope.report("E006", rule.span, message)
    for fine, coarse in pairs:
        if (fine.side, fine.order) != (coarse.side, coarse.order):
            message = f"`{fine.axis}` counts {words(fine)}, and `{coarse.axis}` {words(coarse)}"
            scope.report("E006", rule.span, message, "choose first among cells of the same kind")
        elif fine.size and coarse.size and (coarse.size % fine.size or (fine.side == "d" and fine.size != coarse.size)):
            message = f"cells of {coarse.size} tokens are not made of cells of {fine.size}"
            scope.report("E005", rule.span, message, "the finer size divides the coarser one")


def check_count(axis: Expr, rule: Chosen, here: Here) -> None:
    """How many cells a rule chooses: a number for each of its query cells."""
    scope = here.scope
    own = {name: cell for name, cell in of_pairs(scope).items() if cell.side != "q"}
    cells = {name: cell for name, cell in here.cells.items() if cell.side == "q" and scope.cells.get(name) == cell}
    found = check_rule(axis, rule, scope, {**own, **cells})
    for name in found.queries & here.cells.keys():
        here.at(name, axis.span)
    if found.key in here.cells:
        scope.report("E008", axis.span, f"`{found.key}` has a meaning already", "a count runs through its cells")


def check_when(when: Expr, queries: frozenset[str], scope: Scope) -> None:
    """Comparisons of scores over at most the rule's axis of queries."""
    sides = {name: cell for name, cell in of_pairs(scope).items() if cell.side == "q"}
    here = Here(scope, {name: sides[name] for name in queries or sides})
    for part in _parts(when):
        match part:
            case Comparison((left, right), ("<" | "<=" | ">" | ">=",)):
                plain(left, here)
                plain(right, here)
            case _:
                scope.touch(part)
                message = "`when` compares scores, with `<`, `<=`, `>` or `>=`"
                scope.report("E003", part.span, message, "several comparisons are joined with `and`")
