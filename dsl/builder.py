"""One function a grammar rule: its words and nodes in, its node out. Called bottom up, so never recursive."""

import inspect
from dataclasses import dataclass, replace
from typing import Literal, cast

from .scanner import Word
from .source import Span
from .syntax import (
    Absolute,
    Argument,
    Binary,
    BinaryOp,
    Boolean,
    Call,
    Causal,
    Claim,
    CompareOp,
    Comparison,
    Coordinate,
    Coverage,
    Decimal,
    Divide,
    Drop,
    Else,
    Every,
    Expr,
    Given,
    Grid,
    HeadLine,
    Import,
    Index,
    Input,
    Keep,
    LayerLine,
    Let,
    ListLiteral,
    Logical,
    Membership,
    Name,
    Negate,
    Node,
    Not,
    Number,
    Parameter,
    PatternDef,
    Precompile,
    Range,
    Require,
    Selection,
    SetLiteral,
    StackDef,
    Statement,
    Type,
)

Item = Import | Precompile | PatternDef | StackDef


@dataclass(frozen=True, slots=True)
class Option(Node):
    """`within 12 layers` or `counting (J == 0)`, on its way into a claim or a rule."""

    keyword: str
    value: Expr


def cover(first: Word | Node, last: Word | Node) -> Span:
    """From one word or node to another."""
    start, end = first.span, last.span
    assert start is not None and end is not None, "every node the parser makes has a span"
    return Span(start.source, start.start, end.end)


def names(words: tuple[Word, ...]) -> tuple[str, ...]:
    """The names among words and symbols."""
    return tuple(w.text for w in words if w.type == "NAME")


def _expressions(children: tuple[Word | Expr, ...]) -> tuple[Expr, ...]:
    return tuple(c for c in children if not isinstance(c, Word))


def _number(word: Word) -> int:
    # The scanner has already reported what is not a number or too large.
    return int(word.text) if word.text.isdigit() and len(word.text) < 80 else 0


def clean_docstring(text: str) -> str:
    """A docstring without its indentation, outer blank lines and trailing spaces."""
    lines = [line.rstrip() for line in inspect.cleandoc(text.replace("\r\n", "\n")).split("\n")]
    return "\n".join(lines).strip("\n")


def file(*items: Item) -> tuple[Item, ...]:
    return items


def expression(expr: Expr) -> Expr:
    return expr


def claim_line(claim: Claim) -> Claim:
    return claim


def path(*words: Word) -> tuple[Word, ...]:
    return words


def import_line(keyword: Word, path: tuple[Word, ...], *alias: Word) -> Import:
    last = (*path, *alias)[-1]
    return Import(names(path), last.text, span=cover(keyword, last))


def precompile_line(keyword: Word, dtype: Word, _head_dim: Word, number: Word) -> Precompile:
    return Precompile(dtype.text, _number(number), span=cover(keyword, number))


def pattern(keyword: Word, name: Word, *rest: "tuple[Parameter, ...] | Word | Statement | Coverage") -> PatternDef:
    statements = tuple(p for p in rest if not isinstance(p, tuple | Word | Coverage))
    claims = tuple(p for p in rest if isinstance(p, Coverage))
    span = cover(keyword, cast(Word, rest[-1]))
    return PatternDef(name.text, _listed(rest), _docstring(rest), statements, claims, span=span)


def _listed(parts: "tuple[tuple[Parameter, ...] | object, ...]") -> tuple[Parameter, ...]:
    return next((cast(tuple[Parameter, ...], p) for p in parts if isinstance(p, tuple)), ())


def _docstring(parts: tuple[object, ...]) -> str:
    texts = (p.text for p in parts if isinstance(p, Word) and p.type == "DOCSTRING")
    return next((clean_docstring(text[3:-3]) for text in texts), "")


def stack(keyword: Word, name: Word, *rest: "tuple[Parameter, ...] | Word | Expr | LayerLine | Coverage") -> StackDef:
    lines = tuple(p for p in rest if isinstance(p, LayerLine))
    claims = tuple(p for p in rest if isinstance(p, Coverage))
    depth = next(p for p in rest if not isinstance(p, tuple | Word | LayerLine | Coverage))
    span = cover(keyword, cast(Word, rest[-1]))
    return StackDef(name.text, _listed(rest), _docstring(rest), depth, lines, claims, span=span)


def layer_line(keyword: Word, layers: Selection, _opener: Word, *uses: Word | HeadLine | Call) -> LayerLine:
    heads = tuple(HeadLine(None, u, span=u.span) if isinstance(u, Call) else u for u in uses if not isinstance(u, Word))
    return LayerLine(layers, heads, span=cover(keyword, uses[-1]))


def head_line(keyword: Word, heads: Selection, _colon: Word, use: Call) -> HeadLine:
    return HeadLine(heads, use, span=cover(keyword, use))


def every(*parts: Word | Expr) -> Every:
    *bounds, step = _expressions(parts)
    limits = Range(bounds[0], bounds[1], span=cover(bounds[0], bounds[1])) if bounds else None
    return Every(limits, step, span=cover(parts[0], step))


def otherwise(keyword: Word) -> Else:
    return Else(span=keyword.span)


def coverage(keyword: Word, _brace: Word, *claims: Claim | Word) -> Coverage:
    return Coverage(tuple(c for c in claims if not isinstance(c, Word)), span=cover(keyword, claims[-1]))


def claim(keyword: Word, *parts: Word | Expr | Option) -> Claim:
    options = {p.keyword: p.value for p in parts if isinstance(p, Option)}
    percent = next((p for p in parts if not isinstance(p, Word | Option)), None)
    strict = any(isinstance(p, Word) and p.text == "<" for p in parts)
    kind = cast(Literal["complete", "density", "reaches"], keyword.text)
    span = cover(keyword, parts[-1] if parts else keyword)
    return Claim(kind, percent, strict, options.get("within"), options.get("at"), span=span)


def within(keyword: Word, value: Expr, layers: Word) -> Option:
    return Option("within", value, span=cover(keyword, layers))


def length(keyword: Word, _n: Word, _equal: Word, value: Expr) -> Option:
    return Option("at", value, span=cover(keyword, value))


def parameters(*parts: Word | Parameter) -> tuple[Parameter, ...]:
    return tuple(p for p in parts if not isinstance(p, Word))


def parameter(name: Word, _colon: Word, type: Type, *default: Word | Expr) -> Parameter:
    values = _expressions(default)
    last = values[-1] if values else type
    return Parameter(name.text, type, values[0] if values else None, span=cover(name, last))


def type_of(*words: Word) -> Type:
    return Type(words[0].text, names(words[1:]), span=cover(words[0], words[-1]))


def keep(keyword: Word, condition: Expr, *rest: Word | Expr) -> Keep:
    when = _expressions(rest)
    return Keep(condition, when[0] if when else None, span=cover(keyword, when[0] if when else condition))


def require(keyword: Word, condition: Expr) -> Require:
    return Require(condition, span=cover(keyword, condition))


def drop(keyword: Word, condition: Expr) -> Drop:
    return Drop(condition, span=cover(keyword, condition))


def causal(keyword: Word) -> Causal:
    return Causal(span=keyword.span)


def let(keyword: Word, name: Word, _equal: Word, value: Expr) -> Let:
    return Let(name.text, value, span=cover(keyword, value))


def input_line(keyword: Word, name: Word, cells: tuple[str, ...], _colon: Word, type: Type) -> Input | Given:
    span = cover(keyword, type)
    if len(cells) == 1 and type.name not in ("float", "vector"):
        return Input(name.text, cells[0], type, span=span)
    return Given(name.text, cells, type, span=span)


def grid(
    keyword: Word, axes: tuple[Word, ...], _over: Word, extents: tuple[Word | Expr, ...], *cell: Word | Expr
) -> Grid:
    last = (*extents, *cell)[-1]
    sizes = _expressions(cell)
    span = cover(keyword, last)
    return Grid(names(axes), _expressions(extents), sizes[0] if sizes else None, span=span)


def axes(*words: Word) -> tuple[Word, ...]:
    return words


def extents(*parts: Word | Expr) -> tuple[Word | Expr, ...]:
    return parts


def logical(*parts: Word | Expr) -> Expr:
    op = "or" if cast(Word, parts[1]).text == "or" else "and"
    operands: list[Expr] = []
    for operand in _expressions(parts):
        match operand:
            case Logical(inner, items) if inner == op:
                operands.extend(items)
            case _:
                operands.append(operand)
    return Logical(op, tuple(operands), span=cover(parts[0], parts[-1]))


def not_(keyword: Word, operand: Expr) -> Expr:
    return Not(operand, span=cover(keyword, operand))


def compare(*parts: Word | Expr) -> Expr:
    ops: tuple[CompareOp, ...] = tuple(cast(CompareOp, p.text) for p in parts if isinstance(p, Word))
    return Comparison(_expressions(parts), ops, span=cover(parts[0], parts[-1]))


def member(value: Expr, _in: Word, members: Expr) -> Expr:
    return Membership(value, members, span=cover(value, members))


def not_member(value: Expr, _not: Word, _in: Word, members: Expr) -> Expr:
    return Membership(value, members, True, span=cover(value, members))


def between(low: Expr, _dots: Word, high: Expr) -> Expr:
    return Range(low, high, span=cover(low, high))


def binary(first: Expr, *rest: Word | Expr) -> Expr:
    left = first
    for op, right in zip(rest[::2], rest[1::2], strict=True):
        operand = cast(Expr, right)
        symbol, span = cast(Word, op).text, cover(first, operand)
        left = (
            Divide(left, operand, span=span)
            if symbol == "/"
            else Binary(cast(BinaryOp, symbol), left, operand, span=span)
        )
    return left


def negate(minus: Word, operand: Expr) -> Expr:
    return Negate(operand, span=cover(minus, operand))


def number(word: Word) -> Expr:
    return Number(_number(word), span=word.span)


def decimal(word: Word) -> Expr:
    return Decimal(word.text, span=word.span)


def boolean(word: Word) -> Expr:
    return Boolean(word.text == "true", span=word.span)


def name(word: Word) -> Expr:
    return Name(word.text, span=word.span)


def coordinate(base: Word, _dot: Word, axis: Word) -> Expr:
    return Coordinate(base.text, axis.text, span=cover(base, axis))


def index(name: Word, *parts: Word | Expr) -> Expr:
    return Index(name.text, _expressions(parts), span=cover(name, parts[-1]))


def call(name: Word, arguments: tuple[Word | Argument, ...]) -> Expr:
    values = tuple(a for a in arguments if not isinstance(a, Word))
    return Call(None, name.text, values, span=cover(name, arguments[-1]))


def module_call(module: Word, _dot: Word, name: Word, arguments: tuple[Word | Argument, ...]) -> Expr:
    values = tuple(a for a in arguments if not isinstance(a, Word))
    return Call(module.text, name.text, values, span=cover(module, arguments[-1]))


def arguments(*parts: Word | Argument) -> tuple[Word | Argument, ...]:
    return parts


def argument(*parts: Word | Expr) -> Argument:
    value = cast(Expr, parts[-1])
    keyword = cast(Word, parts[0]).text if len(parts) == 3 else None
    return Argument(keyword, value, span=cover(parts[0], value))


def absolute(left: Word, operand: Expr, right: Word) -> Expr:
    return Absolute(operand, span=cover(left, right))


def group(left: Word, expr: Expr, right: Word) -> Expr:
    # The parentheses count as the expression's own text, so carets cover them.
    return replace(expr, span=cover(left, right))


def list_literal(*parts: Word | Expr) -> Expr:
    return ListLiteral(_expressions(parts), span=cover(parts[0], parts[-1]))


def set_literal(*parts: Word | Expr) -> Expr:
    return SetLiteral(_expressions(parts), span=cover(parts[0], parts[-1]))
