"""What can be said against a selection before there are tensors: amounts, impossible conditions, rows without keys."""

from collections.abc import Iterator
from dataclasses import replace

from ..dsl import syntax as s
from ..dsl.diagnostics import Diagnostic
from ..dsl.source import Span
from .ir import Clause, Formula, Mask, conjunction
from .judge import judge_clauses, judge_rows
from .lower_selection import selections
from .plan import Shape
from .selection import ByHead, Chosen, Number, Program, Read, Softmax, Term
from .sure_pairs import condition_on_pairs, sure_pairs


def judge_program(program: Program, definition: s.PatternDef, shape: Shape) -> list[Diagnostic]:
    """Findings about a pattern that selects by content, whatever the tensors are."""
    clauses = (*program.limits.clauses, *program.keeps)
    found = judge_clauses(replace(program.limits, clauses=clauses), shape)
    statements = selections(definition)
    for choice, keep in zip(program.choices, statements, strict=True):
        match keep.condition:
            case s.Membership(_, s.Chosen() as rule) if isinstance(choice, Chosen):
                found += _judge_rule(choice, rule, program, shape)
            case _:
                pass
    found.sort(key=lambda d: d.span.start if d.span else 0)
    if not program.choices or any(d.code in ("E014", "W103", "W105") for d in found):
        return found  # which may be why rows are empty
    sure = (*program.keeps, Clause("keep", sure_pairs(program), "what is chosen whatever the scores are"))
    rows = replace(program.limits, clauses=(*program.limits.clauses, *sure))
    return found + judge_rows(rows, shape, definition.span)


def _judge_rule(choice: Chosen, rule: s.Chosen, program: Program, shape: Shape) -> Iterator[Diagnostic]:
    """What is odd about a rule, and about the one inside it."""
    if choice.counting is None and (odd := _amount(choice, program)):
        yield Diagnostic("W105", rule.amount.span, odd[0], odd[1], "warning")
    required = tuple(c for c in program.limits.clauses if c.kind == "require")
    conditions = ((choice.counting, rule.counting), (choice.among, _plain(rule.among)))
    for condition, written in conditions:
        formula = None if condition is None else condition_on_pairs(condition, choice.key, program)
        if formula is not None and written is not None:
            yield from _never(formula, written.span, required, program.limits, shape)
    inner = _inner(rule.among)
    if choice.inside is not None and inner is not None:
        yield from _judge_rule(choice.inside, inner, program, shape)


def _never(
    formula: Formula, span: Span | None, required: tuple[Clause, ...], limits: Mask, shape: Shape
) -> Iterator[Diagnostic]:
    """W103 for a condition on cells that no pair satisfies which the pattern admits."""
    text = span.source.text[span.start : span.end] if span else ""
    condition = Clause("require", conjunction((formula, *(c.formula for c in required))), text, span)
    for found in judge_clauses(replace(limits, clauses=(condition,)), shape):
        if found.code == "W103":
            hint = "no cells that the pattern admits satisfy it" if required else "no cells satisfy it"
            yield replace(found, hint=hint)


def _plain(among: s.Expr | None) -> s.Expr | None:
    """The conditions of `among` that are no rules: one of them alone, or with all that stands beside them."""
    match among:
        case s.Membership(_, s.Chosen()):
            return None
        case s.Logical("and", operands):
            plain = [x for x in operands if _plain(x) is not None]
            return plain[0] if len(plain) == 1 else among
        case _:
            return among


def _inner(among: s.Expr | None) -> s.Chosen | None:
    """The rule of `among`."""
    match among:
        case s.Membership(_, s.Chosen() as rule):
            return rule
        case s.Logical("and", operands):
            return next((rule for x in operands if (rule := _inner(x)) is not None), None)
        case _:
            return None


def _amount(choice: Chosen, program: Program) -> tuple[str, str] | None:
    """What is wrong with an amount that takes nothing, or everything, whatever the scores are, and a hint."""
    rule, unit = choice.rule, "%" if choice.percent else ""
    match choice.amount:
        case Number(value):
            values: tuple[float, ...] = (value,)
        case ByHead(values):
            pass
        case _:
            return None
    text = f"`{rule} {values[0]:g}{unit}`"
    if rule in ("top", "cover") and not any(values) and choice.of != "triangle":
        return f"{text} chooses nothing", "`top` takes 1 or more, `cover` a share above 0"
    if rule in ("reach", "under") and min(values) > 1 and not choice.joint and _adds_up(choice.by, choice.key, program):
        what = "nothing" if rule == "reach" else "everything"
        hint = f"such as `{rule} 0.9`: what `softmax` gives along `{choice.key}` adds up to 1"
        return f"{text} chooses {what}", hint
    return None


def _adds_up(by: Term, key: str, program: Program) -> bool:
    """Whether what ranks cells is a softmax along them."""
    match by:
        case Read(name):
            values = {score.name: score.value for score in program.scores}
            return isinstance(found := values.get(name), Softmax) and found.along == key
        case _:
            return False
