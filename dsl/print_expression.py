"""Expressions to text: the one spelling of each, with no more parentheses than needed."""

import re
from typing import assert_never

from .scanner import OPENERS, REDUCTIONS, RULES, SOFT
from .syntax import (
    Absolute,
    Argument,
    Binary,
    Binder,
    Boolean,
    Call,
    Chosen,
    Comparison,
    Coordinate,
    Count,
    Decimal,
    Divide,
    Dot,
    Expr,
    Index,
    ListLiteral,
    Logical,
    Membership,
    Name,
    Negate,
    Not,
    Number,
    Range,
    Reduce,
    SetLiteral,
    Slice,
    Softmax,
)

# How tightly each kind of expression holds together, loosest first; see "Expressions" in docs/language.md.
OR, AND, NOT, COMPARE, BIT_OR, BIT_XOR, BIT_AND, SHIFT = range(8)
SUM, REDUCTION, PRODUCT, UNARY, DOT, ATOM = range(8, 14)
_BINARY = {
    "|": BIT_OR,
    "^": BIT_XOR,
    "&": BIT_AND,
    "<<": SHIFT,
    ">>": SHIFT,
    "+": SUM,
    "-": SUM,
    "*": PRODUCT,
    "//": PRODUCT,
    "%": PRODUCT,
}


def format_expression(expr: Expr) -> str:
    """One line of ASCII with no more parentheses than needed; parsing it gives `expr` back."""
    return expression(expr, OR)


def expression(expr: Expr, context: int) -> str:
    """An expression where one at least as tight as `context` is wanted."""
    text, level = _render(expr)
    return text if level >= context else f"({text})"


def _list(items: tuple[Expr, ...]) -> str:
    return ", ".join(expression(i, OR) for i in items)


def _render(expr: Expr) -> tuple[str, int]:
    match expr:
        case Number(value):
            return str(value), ATOM
        case Decimal(text) | Name(text):
            return text, ATOM
        case Boolean(value):
            return "true" if value else "false", ATOM
        case Coordinate(base, axis):
            return f"{base}.{axis}", ATOM
        case Index(name, indices):
            return f"{name}[{_list(indices)}]", ATOM
        case Call(module, name, arguments):
            prefix = f"{module}." if module else ""
            listed = ", ".join(_argument(a) for a in arguments)
            if not module and name in REDUCTIONS and _BINDS.match(listed):
                listed = f"({_argument(arguments[0])}){listed[len(_argument(arguments[0])) :]}"
            return f"{prefix}{name}({listed})", ATOM
        case Negate(operand):
            return f"-{expression(operand, UNARY)}", UNARY
        case Not(operand):
            return f"not {expression(operand, NOT)}", NOT
        case Absolute(operand):
            return f"|{expression(operand, BIT_XOR)}|", ATOM
        case Binary(op, left, right):
            level = _BINARY[op]
            return f"{expression(left, level)} {op} {expression(right, level + 1)}", level
        case Comparison(operands, ops):
            texts = [expression(o, BIT_OR) for o in operands]
            return texts[0] + "".join(f" {op} {t}" for op, t in zip(ops, texts[1:], strict=True)), COMPARE
        case Membership(value, members, negated):
            word = "not in" if negated else "in"
            text = expression(value, BIT_OR)
            if isinstance(members, Chosen) and members.joint is not None:
                text = f"({members.joint}, {text})"
            return f"{text} {word} {_members(members)}", COMPARE
        case Range(low, high):
            return f"{expression(low, BIT_OR)} .. {expression(high, BIT_OR)}", COMPARE
        case SetLiteral(items):
            return "{" + _list(items) + "}", ATOM
        case ListLiteral(items):
            return f"[{_list(items)}]", ATOM
        case Logical(op, operands):
            level = OR if op == "or" else AND
            return f" {op} ".join(expression(o, level + 1) for o in operands), level
        case Divide() | Reduce() | Dot() | Softmax() | Slice() | Count() | Chosen():
            return _render_real(expr)
        case _:
            assert_never(expr)


def _render_real(expr: Divide | Reduce | Dot | Softmax | Slice | Count | Chosen) -> tuple[str, int]:
    match expr:
        case Divide(left, right):
            return f"{expression(left, PRODUCT)} / {expression(right, UNARY)}", PRODUCT
        case Reduce(op, binders, body, where):
            only = "" if where is None else f" where {format_expression(where)}"
            text = expression(body, REDUCTION)
            if binders[0].bound is None and binders[0].inside is None and not _opens(text):
                text = f"({text})"
            return f"{op}({', '.join(map(_binder, binders))}{only}) {text}", REDUCTION
        case Dot(left, right):
            return f"{_row(left)} . {_row(right)}", DOT
        case Softmax(value, axis, where):
            only = "" if where is None else f" where {format_expression(where)}"
            return f"softmax({format_expression(value)} over {axis}{only})", ATOM
        case Slice(row, first, last):
            return f"{_row(row)}[{expression(first, BIT_OR)} .. {expression(last, BIT_OR)}]", ATOM
        case Count(axis, rule):
            return f"count({format_expression(axis)} in {_chosen(rule)})", ATOM
        case Chosen():
            return _chosen(expr), COMPARE
        case _:
            assert_never(expr)


def _opens(text: str) -> bool:
    """Whether a text after `sum(J)` goes on with what it sums, rather than with what may follow a call."""
    word = re.match(r"\w*", text)
    first = word.group() if word else ""
    return text[0] == "(" or (first != "" and (first in OPENERS or first not in SOFT | {"true", "false"}))


def _members(members: Expr) -> str:
    match members:
        case Range(low, high):
            return f"{_unruled(expression(low, BIT_OR))} .. {expression(high, BIT_OR)}"
        case Chosen():
            return _chosen(members)
        case _:
            return _unruled(expression(members, BIT_OR))


# At the start of an argument and of what follows `in`, these would be a binder and a rule.
_BINDS = re.compile(r"\w+ (<|in) ")
_RULED = re.compile(rf"({'|'.join(RULES)})\b")


def _unruled(text: str) -> str:
    return f"({text})" if _RULED.match(text) else text


def _binder(binder: Binder) -> str:
    if binder.inside is None:
        return binder.name if binder.bound is None else f"{binder.name} < {expression(binder.bound, SUM)}"
    if binder.bound is None:
        return f"{binder.name} in {binder.inside}"
    count = expression(binder.bound, SUM)
    # After an axis that is called `last` this would be a condition.
    count = f"({count})" if re.match(r"where\b", count) else count
    return f"{binder.name} in last {count} of {binder.inside}"


def _row(expr: Expr) -> str:
    plain = isinstance(expr, Index | Slice) or (isinstance(expr, Call) and expr.module is None)
    return format_expression(expr) if plain else f"({format_expression(expr)})"


def _chosen(rule: Chosen) -> str:
    amount = expression(rule.amount, ATOM if rule.percent else SUM)
    if "% by" in amount or not (amount[0].isalnum() or amount[0] in "(_"):
        # A remainder by what is called `by` is no percentage, and a rule is known by what follows it.
        amount = f"({amount})"
    if rule.percent:
        amount += f"% of {rule.of}" if rule.of else "%"
    text = f"{rule.rule} {amount} by {expression(rule.by, SUM)}"
    for word, condition in (("counting", rule.counting), ("among", rule.among)):
        if condition is not None:
            text += f" {word} ({format_expression(condition)})"
    return text


def _argument(argument: Argument) -> str:
    value = expression(argument.value, OR)
    return f"{argument.keyword}={value}" if argument.keyword else value
