"""Syntax trees to text: the one spelling `weft fmt` keeps, and expressions for reports."""

import re
from collections.abc import Iterator, Sequence
from typing import TypedDict, assert_never

from .builder import clean_docstring
from .layout import INDENT, Row, arrange
from .syntax import (
    Absolute,
    Argument,
    Binary,
    Boolean,
    Call,
    Causal,
    Comment,
    Comparison,
    Coordinate,
    Decimal,
    Drop,
    Expr,
    File,
    Grid,
    Import,
    Index,
    Input,
    Keep,
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
    Range,
    Require,
    SetLiteral,
    Statement,
    Type,
)

WIDTH = 100

# How tightly each kind of expression holds together, loosest first; see "Expressions" in docs/language.md.
_OR, _AND, _NOT, _COMPARE, _BIT_OR, _BIT_XOR, _BIT_AND, _SHIFT, _SUM, _PRODUCT, _UNARY, _ATOM = range(12)
_BINARY = {
    "|": _BIT_OR,
    "^": _BIT_XOR,
    "&": _BIT_AND,
    "<<": _SHIFT,
    ">>": _SHIFT,
    "+": _SUM,
    "-": _SUM,
    "*": _PRODUCT,
    "//": _PRODUCT,
    "%": _PRODUCT,
}


def format_expression(expr: Expr) -> str:
    """One line of ASCII with no more parentheses than needed; parsing it gives `expr` back."""
    return _expression(expr, _OR)


def _expression(expr: Expr, context: int) -> str:
    text, level = _render(expr)
    return text if level >= context else f"({text})"


def _list(items: tuple[Expr, ...]) -> str:
    return ", ".join(_expression(i, _OR) for i in items)


def _render(expr: Expr) -> tuple[str, int]:
    match expr:
        case Number(value):
            return str(value), _ATOM
        case Decimal(text) | Name(text):
            return text, _ATOM
        case Boolean(value):
            return "true" if value else "false", _ATOM
        case Coordinate(base, axis):
            return f"{base}.{axis}", _ATOM
        case Index(name, indices):
            return f"{name}[{_list(indices)}]", _ATOM
        case Call(module, name, arguments):
            prefix = f"{module}." if module else ""
            return f"{prefix}{name}({', '.join(_argument(a) for a in arguments)})", _ATOM
        case Negate(operand):
            return f"-{_expression(operand, _UNARY)}", _UNARY
        case Not(operand):
            return f"not {_expression(operand, _NOT)}", _NOT
        case Absolute(operand):
            return f"|{_expression(operand, _BIT_XOR)}|", _ATOM
        case Binary(op, left, right):
            level = _BINARY[op]
            return f"{_expression(left, level)} {op} {_expression(right, level + 1)}", level
        case Comparison(operands, ops):
            texts = [_expression(o, _BIT_OR) for o in operands]
            return texts[0] + "".join(f" {op} {t}" for op, t in zip(ops, texts[1:], strict=True)), _COMPARE
        case Membership(value, members, negated):
            word = "not in" if negated else "in"
            return f"{_expression(value, _BIT_OR)} {word} {_members(members)}", _COMPARE
        case Range(low, high):
            return f"{_expression(low, _BIT_OR)} .. {_expression(high, _BIT_OR)}", _COMPARE
        case SetLiteral(items):
            return "{" + _list(items) + "}", _ATOM
        case ListLiteral(items):
            return f"[{_list(items)}]", _ATOM
        case Logical(op, operands):
            level = _OR if op == "or" else _AND
            return f" {op} ".join(_expression(o, level + 1) for o in operands), level
        case _:
            assert_never(expr)


def _members(members: Expr) -> str:
    match members:
        case Range():
            return _expression(members, _COMPARE)
        case _:
            return _expression(members, _BIT_OR)


def _argument(argument: Argument) -> str:
    value = _expression(argument.value, _OR)
    return f"{argument.keyword}={value}" if argument.keyword else value


def format_file(file: File) -> str:
    """The canonical text of a file: four spaces, one statement a line, comments kept."""
    rows = [Row(_import(i), **_extent(i)) for i in file.imports]
    for index, line in enumerate(file.precompiles):
        text = f"precompile {line.dtype} head_dim {line.head_dim}"
        rows.append(Row(text, **_extent(line), apart=index == 0))
    for pattern in file.patterns:
        rows.extend(_pattern(pattern, file.comments))
    return arrange(rows, file.comments, file.span.source.text if file.span else "")


class _Extent(TypedDict):
    start: int
    end: int


def _extent(node: Node) -> _Extent:
    return _Extent(start=node.span.start, end=node.span.end) if node.span else _Extent(start=-1, end=-1)


def _import(line: Import) -> str:
    path = ".".join(line.path)
    return f"import {path}" if line.alias == line.path[-1] else f"import {path} as {line.alias}"


def _pattern(pattern: PatternDef, comments: Sequence[Comment]) -> Iterator[Row]:
    start, brace, text, end = _landmarks(pattern)
    one_line = ", ".join(_parameter(p) for p in pattern.parameters)
    header = f"pattern {pattern.name}({one_line}) {{" if one_line else f"pattern {pattern.name} {{"
    remarked = any(c.span is not None and start <= c.span.start < brace for c in comments)
    if pattern.parameters and (len(header) > WIDTH or remarked):
        yield Row(f"pattern {pattern.name}(", start=start, end=start, opens=True, apart=True)
        for parameter in pattern.parameters:
            yield Row(f"{_parameter(parameter)},", 1, **_extent(parameter))
        yield Row(") {", start=brace, end=brace, opens=True, closes=True)
    else:
        yield Row(header, start=start, end=brace, opens=True, apart=True)
    if pattern.doc:
        yield Row(_docstring(pattern.doc), 1, start=text, end=text)
    for statement in pattern.statements:
        yield Row(_statement(statement), 1, **_extent(statement))
    yield Row("}", start=end, end=end, closes=True)


# Possessive, so that nothing is ever tried twice: the text up to `{`, and up to what is no comment.
_TO_BRACE = re.compile(r"(?:[^#{]++|#[^\n]*+)*+\{")
_TO_TEXT = re.compile(r"(?:\s++|#[^\n]*+)*+")


def _landmarks(pattern: PatternDef) -> tuple[int, int, int, int]:
    """Offsets of `pattern`, `{`, the docstring's end and `}`; -1 where there is none."""
    if pattern.span is None:
        return -1, -1, -1, -1
    source = pattern.span.source.text
    last = pattern.parameters[-1].span if pattern.parameters else pattern.span
    opened = _TO_BRACE.match(source, last.end if pattern.parameters and last else pattern.span.start)
    assert opened is not None, "a parsed pattern has a brace"
    after = _TO_TEXT.match(source, opened.end())
    assert after is not None, "the expression matches nothing too"
    text = source.find('"""', after.end() + 3) if pattern.doc else -1
    return pattern.span.start, opened.end() - 1, text, pattern.span.end - 1


def _docstring(doc: str) -> str:
    lines = [line and INDENT + line for line in doc.split("\n")]
    closing = f"\n{INDENT}" if len(lines) > 1 or doc.endswith('"') else ""
    text = f"{doc.split(chr(10))[0]}\n" + "\n".join(lines[1:]) if len(lines) > 1 else doc
    if clean_docstring(text) != doc:
        # All lines but the first are indented, so the first must not share theirs.
        text = "\n" + "\n".join(lines)
    return f'"""{text}{closing}"""'


def _parameter(parameter: Parameter) -> str:
    head = f"{parameter.name}: {_type(parameter.type)}"
    return head if parameter.default is None else f"{head} = {format_expression(parameter.default)}"


def _type(type: Type) -> str:
    return f"{type.name}[{', '.join(type.axes)}]" if type.axes else type.name


def _statement(statement: Statement) -> str:
    match statement:
        case Keep(condition):
            return f"keep {format_expression(condition)}"
        case Require(condition):
            return f"require {format_expression(condition)}"
        case Drop(condition):
            return f"drop {format_expression(condition)}"
        case Causal():
            return "causal"
        case Let(name, value):
            return f"let {name} = {format_expression(value)}"
        case Input(name, axis, type):
            return f"input {name}[{axis}]: {_type(type)}"
        case Grid(axes, extents, cell):
            over = ", ".join(format_expression(e) for e in extents)
            of = "" if cell is None else f" of {format_expression(cell)}"
            return f"grid ({', '.join(axes)}) over ({over}){of}"
        case _:
            assert_never(statement)
