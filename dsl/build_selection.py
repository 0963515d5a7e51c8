"""The rules of axes, scores and selections: as in builder.py, one function a rule."""

from dataclasses import dataclass, replace
from typing import Literal, cast

from .builder import Option, cover, names
from .scanner import Word
from .source import Node
from .syntax import Axis, Binder, Chosen, Count, Dot, Expr, Membership, Name, Order, Reduce, Score, Slice, Softmax


@dataclass(frozen=True, slots=True)
class Percentage(Node):
    """`5% of visible`, on its way into a rule."""

    value: Expr
    of: Literal["total", "visible", "triangle"] | None


def score(keyword: Word, name: Word, cells: tuple[str, ...], _equal: Word, value: Expr) -> Score:
    return Score(name.text, cells, value, span=cover(keyword, value))


def cells(*words: Word) -> tuple[str, ...]:
    return names(words)


def axis(keyword: Word, name: Word, _equal: Word, *value: Word | Expr) -> Axis:
    last = value[-1]
    expr = next(v for v in value if not isinstance(v, Word))
    side = cast(Literal["q", "k"], last.text) if isinstance(last, Word) else None
    return Axis(name.text, expr, side, span=cover(keyword, last))


def order(keyword: Word, name: Word, _equal: Word, _k: Word, _by: Word, by: Expr, _within: Word, size: Expr) -> Order:
    return Order(name.text, by, size, span=cover(keyword, size))


def reduction(op: Word, *parts: Word | Binder | Expr) -> Expr:
    binders = tuple(p for p in parts if isinstance(p, Binder))
    *where, body = (p for p in parts if not isinstance(p, Word | Binder))
    name = cast(Literal["sum", "mean", "max", "min", "descend"], op.text)
    return Reduce(name, binders, body, where[0] if where else None, span=cover(op, body))


def whole(name: Word) -> Binder:
    return Binder(name.text, None, None, span=name.span)


def below(name: Word, _less: Word, bound: Expr) -> Binder:
    return Binder(name.text, bound, None, span=cover(name, bound))


def inside(name: Word, _in: Word, outer: Word) -> Binder:
    return Binder(name.text, None, outer.text, span=cover(name, outer))


def last_of(name: Word, _in: Word, _last: Word, count: Expr, _of: Word, side: Word) -> Binder:
    return Binder(name.text, count, side.text, span=cover(name, side))


def dot(left: Expr, _dot: Word, right: Expr) -> Expr:
    return Dot(left, right, span=cover(left, right))


def softmax(keyword: Word, _left: Word, value: Expr, _over: Word, axis: Word, *rest: Word | Expr) -> Expr:
    where = cast(Expr, rest[1]) if len(rest) == 3 else None
    return Softmax(value, axis.text, where, span=cover(keyword, rest[-1]))


def slice(row: Expr, _left: Word, first: Expr, _dots: Word, last: Expr, right: Word) -> Expr:
    return Slice(row, first, last, span=cover(row, right))


def count(keyword: Word, _left: Word, axis: Word, _in: Word, rule: Chosen, right: Word) -> Expr:
    return Count(Name(axis.text, span=axis.span), rule, span=cover(keyword, right))


def joint(left: Word, query: Word, _comma: Word, key: Word, _right: Word, _in: Word, rule: Chosen) -> Expr:
    return Membership(Name(key.text, span=key.span), replace(rule, joint=query.text), span=cover(left, rule))


def chosen(rule: Word, amount: Expr | Percentage, _by: Word, by: Expr, *options: Option) -> Expr:
    percentage = amount if isinstance(amount, Percentage) else None
    return Chosen(
        cast(Literal["top", "cover", "reach", "under"], rule.text),
        amount.value if isinstance(amount, Percentage) else amount,
        percentage is not None,
        percentage.of if percentage else None,
        by,
        next((o.value for o in options if o.keyword == "counting"), None),
        next((o.value for o in options if o.keyword == "among"), None),
        span=cover(rule, options[-1] if options else by),
    )


def percentage(value: Expr, sign: Word, *part: Word) -> Percentage:
    of = cast(Literal["total", "visible", "triangle"], part[1].text) if part else None
    return Percentage(value, of, span=cover(value, part[-1] if part else sign))


def counting(keyword: Word, _left: Word, value: Expr, right: Word) -> Option:
    return Option("counting", value, span=cover(keyword, right))


def among(keyword: Word, _left: Word, value: Expr, right: Word) -> Option:
    return Option("among", value, span=cover(keyword, right))
