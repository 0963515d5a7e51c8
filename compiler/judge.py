"""What a mask's relation says against its pattern: empty, impossible or superfluous clauses, rows without keys."""

from collections.abc import Callable
from dataclasses import replace

from ..dsl.diagnostics import Diagnostic
from ..dsl.source import Span
from . import relation
from .ir import Clause, Compare, Expr, Formula, Mask, Not, Truth, Var, conjunction, disjunction
from .name_uniforms import symbolic
from .plan import Shape
from .relation import Space, UndecidedError

BUDGET = 400_000
CAUSAL = Compare("<=", Var("k"), Var("q"))


def judge(mask: Mask, shape: Shape, span: Span | None) -> list[Diagnostic]:
    """Findings about a mask for all lengths up to 2 ** shape.bits; what isl cannot decide is not reported."""
    found = judge_clauses(mask, shape)
    if any(d.severity == "error" for d in found):
        return found
    return found + (_empty(mask, shape, span) or judge_rows(mask, shape, span))


def judge_clauses(mask: Mask, shape: Shape) -> list[Diagnostic]:
    """Clauses that no pair satisfies, or that add none."""
    named: dict[Expr, str] = {}
    clauses = tuple(replace(c, formula=symbolic(c.formula, mask, named)) for c in mask.clauses)
    space = relation.space_of(shape, conjunction(tuple(c.formula for c in clauses)), tuple(named.values()))
    found: list[Diagnostic] = []
    for clause in clauses:
        found += _decided(lambda c=clause: _impossible(c, clauses, space))
    return found + _decided(lambda: _subsumed(clauses, found, space))


def judge_rows(mask: Mask, shape: Shape, span: Span | None) -> list[Diagnostic]:
    """W101: whether a row may have no key."""
    whole, space = _whole(mask, shape)
    return [] if whole == Truth(True) else _decided(lambda: _unkept(whole, space, span))


def _empty(mask: Mask, shape: Shape, span: Span | None) -> list[Diagnostic]:
    """E013: no pair at all."""
    whole, space = _whole(mask, shape)
    text = f"`{mask.name}` keeps no pair at all"
    error = Diagnostic("E013", span, text, "check the `require` and `drop` clauses")
    return _decided(lambda: [] if relation.holds_somewhere(whole, space) else [error])


def _whole(mask: Mask, shape: Shape) -> tuple[Formula, Space]:
    named: dict[Expr, str] = {}
    whole = symbolic(mask.formula, mask, named)
    return whole, relation.space_of(shape, whole, tuple(named.values()))


def _decided(question: Callable[[], list[Diagnostic]]) -> list[Diagnostic]:
    try:
        with relation.budget(BUDGET):
            return question()
    except UndecidedError:
        return []


def _impossible(clause: Clause, clauses: tuple[Clause, ...], space: Space) -> list[Diagnostic]:
    """E014 and W103: a clause that no pair satisfies."""
    if clause.text == "causal":
        return []
    if not relation.holds_somewhere(clause.formula, space):
        message = f"`{clause.text}` never holds"
        return [Diagnostic("W103", clause.span, message, "no query and key satisfy it", "warning")]
    if clause.kind == "drop":
        return []
    others = tuple(c.formula for c in clauses if c.kind == "require" and c is not clause)
    if CAUSAL in others and not relation.holds_somewhere(conjunction((clause.formula, CAUSAL)), space):
        message = f"the pattern is causal, but `{clause.text}` holds only for keys after the query"
        return [Diagnostic("E014", clause.span, message, "the distance to the past is q - k")]
    if not relation.holds_somewhere(conjunction((clause.formula, *others)), space):
        message = f"`{clause.text}` never holds together with what the pattern requires"
        return [Diagnostic("W103", clause.span, message, "", "warning")]
    return []


def _subsumed(clauses: tuple[Clause, ...], known: list[Diagnostic], space: Space) -> list[Diagnostic]:
    """W102: a `keep` all of whose pairs another `keep` has; of two equal ones only the later is named."""
    silent = {d.span for d in known}
    required = tuple(c.formula for c in clauses if c.kind == "require")
    left = [c for c in clauses if c.kind == "keep" and c.span not in silent]
    found: list[Diagnostic] = []
    for clause in reversed(tuple(left)):
        others = [c for c in left if c is not clause]
        extra = conjunction((*required, clause.formula, Not(disjunction(tuple(c.formula for c in others)))))
        if others and not relation.holds_somewhere(extra, space):
            left = others
            alone = (c for c in others if not relation.holds_somewhere(_beyond(clause, c, required), space))
            covering = next(alone, None)
            by = f"`{covering.text}`" if covering else "the other clauses together"
            message = f"`{clause.text}` never adds a pair: {by} already has them all"
            found.append(Diagnostic("W102", clause.span, message, "remove it, or check its bounds", "warning"))
    return found[::-1]


def _beyond(clause: Clause, other: Clause, required: tuple[Formula, ...]) -> Formula:
    return conjunction((*required, clause.formula, Not(other.formula)))


def _unkept(whole: Formula, space: Space, span: Span | None) -> list[Diagnostic]:
    witness = relation.row_without_keys(whole, space)
    if witness is None:
        return []
    n, q = witness
    hint = "such rows give output 0 and log-sum-exp minus infinity; keep k == q to avoid them"
    return [Diagnostic("W101", span, f"rows can be empty: with n = {n}, query {q} may keep no key", hint, "warning")]
